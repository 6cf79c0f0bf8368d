"""Images, pods and containers of one run of `prove`, all in one folder, by podman and buildah."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
LOAD = Path(__file__).with_name("load.py")
HOST = "10.0.2.2"  # the machine, as slirp4netns shows it to a pod
NETWORK = "slirp4netns:allow_host_loopback=true,port_handler=slirp4netns"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
BASE = "localhost/base"
IMAGES = {"tokensidecar:0.1.0": "deploy/Dockerfile", "billing-demo:0.1.0": "deploy/demo/billing/Dockerfile"}
CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=32768:32768"]
[engine]
runtime = "runc"
"""
READYZ = """
import http.client
connection = http.client.HTTPConnection("127.0.0.1", 8792, timeout=3)
connection.request("GET", "/readyz")
answer = connection.getresponse()
print(answer.status, answer.read().decode().strip())
"""

Done = subprocess.CompletedProcess[bytes]
_T = TypeVar("_T")


def run(*command: str, given: bytes | None = None, check: bool = True, seconds: float = 900) -> Done:
    """A program, to its end; RuntimeError with its last words if it fails."""
    done = subprocess.run(command, input=given, capture_output=True, timeout=seconds, check=False)  # noqa: S603
    if check and done.returncode:
        words = done.stderr.decode(errors="replace")[-2000:]
        raise RuntimeError(f"{' '.join(command)[:200]}: {done.returncode}\n{words}")
    return done


def free_port() -> int:
    """Of 127.0.0.1, below the ephemeral range."""
    while True:
        port = random.randrange(20_000, 32_000)  # noqa: S311
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def until(wanted: Callable[[], _T], seconds: float, what: str) -> _T:
    """What it gives, once that is true; RuntimeError when the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if found := wanted():
                return found
        time.sleep(0.05)
    raise RuntimeError(f"not within {seconds} s: {what}")


class Machine:
    """`folder` holds images and podman's own files; `ports`: where a pod can be reached on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports: dict[str, int] = {}
        (folder / "containers.conf").write_text(CONTAINERS_CONF, encoding="utf-8")
        os.environ["CONTAINERS_CONF"] = str(folder / "containers.conf")
        self._store = ("--root", str(folder / "store"), "--runroot", str(folder / "run"))

    def podman(self, *arguments: str, given: bytes | None = None, check: bool = True) -> Done:
        """One command of podman."""
        return run("podman", *self._store, *arguments, given=given, check=check, seconds=300)

    # Images

    def make_base(self) -> None:
        """A Debian with Python and what this machine trusts (a proxy, say), for the Dockerfiles' first stages; if it is not there."""
        if self.podman("image", "exists", BASE, check=False).returncode == 0:
            return
        base, archive = self.folder / "base", self.folder / "base.tar"
        shutil.rmtree(base, ignore_errors=True)
        packages = "--include=python3,python3-venv,ca-certificates"
        run("debootstrap", "--variant=minbase", packages, "bookworm", str(base))
        if CERTIFICATES.exists():
            shutil.copy(CERTIFICATES, base / CERTIFICATES.relative_to("/"))
        paths = "/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        run("tar", "-C", str(base), "-cf", str(archive), ".")
        changes = ("--change", f"ENV=SSL_CERT_FILE={CERTIFICATES}", "--change", f"ENV=PATH={paths}")
        self.podman("import", *changes, str(archive), BASE)
        archive.unlink()
        shutil.rmtree(base)

    def build(self, image: str) -> int:
        """The image from its Dockerfile; its size in bytes. This machine's Go is mounted for the first stage."""
        go = run("go", "env", "GOROOT").stdout.decode().strip()
        options = ("--isolation", "chroot", "--network", "host", "-v", f"{go}:/usr/local/go:ro", "--layers")
        base = ("--build-arg", f"BUILD_IMAGE={BASE}")
        run("buildah", *self._store, "bud", *options, *base, "-f", str(ROOT / IMAGES[image]), "-t", image, str(ROOT))
        return int(self.podman("image", "inspect", "--format", "{{.Size}}", image).stdout)

    def has_shell(self, image: str) -> bool:
        """Whether /bin/sh can be run in it."""
        command = ("run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", image, "-c", "true")
        return self.podman(*command, check=False).returncode == 0

    # Pods

    def play(self, pod: str, containers: dict[str, list[str]], publish: int) -> None:
        """A pod of these containers, named POD-CONTAINER; `publish`: its port that can be reached at `ports[pod]`."""
        self.ports[pod] = free_port()
        port = f"127.0.0.1:{self.ports[pod]}:{publish}"
        self.podman("pod", "create", "--name", pod, "--network", NETWORK, "--publish", port)
        for name, arguments in containers.items():
            self.podman("run", "--detach", "--pod", pod, "--name", f"{pod}-{name}", *arguments)

    def exec(self, container: str, *command: str, given: bytes | None = None, check: bool = True) -> Done:
        """A program in a container, as its user."""
        return self.podman("exec", "-i", container, *command, given=given, check=check)

    def load(self, container: str, *arguments: str) -> dict[str, Any]:
        """`load.py` in a container that has Python."""
        done = self.exec(container, "python", "-", *arguments, given=LOAD.read_bytes())
        return dict(json.loads(done.stdout))

    def start_load(self, container: str, *arguments: str) -> subprocess.Popen[bytes]:
        """The same, without waiting; see `result`."""
        with LOAD.open("rb") as script:
            command = ("podman", *self._store, "exec", "-i", container, "python", "-", *arguments)
            return subprocess.Popen(command, stdin=script, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # noqa: S603

    def load_beside(self, container: str, *arguments: str) -> dict[str, Any]:
        """`load.py` in the place of a container that has no Python: its pod, its user, its groups, its volumes."""
        facts = self.facts(container)
        words = ["--pod", facts["Pod"], "--user", facts["Config"]["User"], "--cap-drop", "all"]
        words += ["--read-only", "--read-only-tmpfs=false", "--security-opt", "no-new-privileges"]
        for group in facts["HostConfig"].get("GroupAdd") or ():
            words += ["--group-add", str(group)]
        for mount in facts["Mounts"]:
            words += ["-v", f"{mount['Source']}:{mount['Destination']}:{'rw' if mount['RW'] else 'ro'}"]
        for variable in facts["Config"]["Env"]:
            if variable.startswith("TOKENSIDECAR_"):
                words += ["-e", variable]
        words += ["--entrypoint", "python", "tokensidecar:0.1.0", "-", *arguments]
        return dict(json.loads(self.podman("run", "-i", "--rm", *words, given=LOAD.read_bytes()).stdout))

    def facts(self, container: str) -> dict[str, Any]:
        """What podman knows of it."""
        return dict(json.loads(self.podman("inspect", container).stdout)[0])

    def _pid(self, container: str) -> int:
        return int(self.facts(container)["State"]["Pid"])

    def memory(self, container: str) -> tuple[int, int, int]:
        """MiB now, the most there were, and the limit, as the kernel counts them for the container."""
        lines = Path(f"/proc/{self._pid(container)}/cgroup").read_text(encoding="utf-8").splitlines()
        groups = {names: path for _, names, path in (line.split(":", 2) for line in lines)}
        if "memory" in groups:
            folder = Path("/sys/fs/cgroup/memory") / groups["memory"].lstrip("/")
            files = ("memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.limit_in_bytes")
        else:
            folder = Path("/sys/fs/cgroup") / groups[""].lstrip("/")
            files = ("memory.current", "memory.peak", "memory.max")
        now, most, limit = (int((folder / file).read_text(encoding="utf-8")) >> 20 for file in files)
        return now, most, limit

    def resident(self, container: str) -> int:
        """MB of its first process."""
        status = Path(f"/proc/{self._pid(container)}/status").read_text(encoding="utf-8")
        return int(status.partition("VmRSS:")[2].split()[0]) // 1024

    def readyz(self, pod: str) -> tuple[int, str]:
        """What the kubelet would get from the pod's sidecar, asked inside the pod's network. OSError: nothing."""
        container = f"{pod}-tokensidecar" if pod != "tokensidecar-keeper" else f"{pod}-keeper"
        done = run("nsenter", "-t", str(self._pid(container)), "-n", sys.executable, "-c", READYZ, check=False)
        if done.returncode:
            raise ConnectionError
        status, _, text = done.stdout.decode().partition(" ")
        return int(status), text.strip()

    def restarts(self, container: str) -> int:
        """How often podman has started it again."""
        return int(self.facts(container)["RestartCount"])

    def kill(self, container: str) -> None:
        """SIGKILL to its first process."""
        os.kill(self._pid(container), signal.SIGKILL)

    def stop(self, container: str) -> tuple[int, float]:
        """SIGTERM; exit code and seconds."""
        started = time.monotonic()
        self.podman("stop", "--time", "20", container)
        return int(self.facts(container)["State"]["ExitCode"]), time.monotonic() - started

    def tell(self) -> None:
        """The last words of each container, on standard error."""
        for name in self.podman("ps", "--all", "--format", "{{.Names}}").stdout.decode().split():
            done = self.podman("logs", "--tail", "8", name, check=False)
            print(f"-- {name}\n{(done.stdout + done.stderr).decode(errors='replace')}", file=sys.stderr)  # noqa: T201

    def end(self, *, images: bool) -> None:
        """Remove what was started, and with `images` everything."""
        self.podman("pod", "rm", "--all", "--force", "--time", "2", check=False)
        self.podman("rm", "--all", "--force", "--time", "2", check=False)
        if images:
            self.podman("rmi", "--all", "--force", check=False)
            shutil.rmtree(self.folder, ignore_errors=True)


def result(load: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What a started load prints at its end. RuntimeError: it failed."""
    out, err = load.communicate(timeout=90)
    if load.returncode:
        raise RuntimeError(f"the load ended with {load.returncode}\n{err.decode(errors='replace')[-2000:]}")
    return dict(json.loads(out))
