"""Load by h2load on one core, a server on the other; limits by cgroup; what a process costs."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.running import RunningSidecar

SERVER_CORE, LOAD_CORE = "0", "1"
CONNECTIONS, STREAMS = 4, 16
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Loaded:
    """What a run saw: answers per second, and times to the answer in milliseconds."""

    rate: float
    p50: float
    p99: float
    p999: float


def closed(target: str, path: str, request: bytes, calls: int) -> Loaded:
    """As many calls as the server can take, always 64 in flight."""
    return _h2load(target, path, request, calls, ["-c", str(CONNECTIONS), "-m", str(STREAMS)])


def opened(target: str, path: str, request: bytes, rate: int, seconds: float) -> Loaded:
    """So many calls a second for so long, whether the server keeps up or not (at most 1,000 wait)."""
    clients = 10
    arguments = ["-D", f"{seconds:.0f}", "-c", str(clients), "-m", "100", f"--rps={rate / clients}"]
    return _h2load(target, path, request, None, arguments)


def _h2load(target: str, path: str, request: bytes, calls: int | None, arguments: list[str]) -> Loaded:
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder, "body"), Path(folder, "log")
        body.write_bytes(b"\0" + len(request).to_bytes(4, "big") + request)
        command = ["taskset", "-c", LOAD_CORE, "h2load", *arguments, "-d", str(body)]
        command += [] if calls is None else ["-n", str(calls)]
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers", f"--log-file={log}"]
        if target.startswith("unix:"):
            command += [f"--base-uri={target}", f"http://localhost{path}"]
        else:
            command += [f"http://{target}{path}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        rows = [line.split("\t") for line in log.read_text().splitlines()]
    if calls is None:  # whatever was still under way at the end counts as no answer
        rows = [row for row in rows if row[1] == "200"]
    if len(rows) != (calls or len(rows)) or not rows or any(row[1] != "200" for row in rows):
        raise RuntimeError(done.stdout)
    times = sorted(int(row[2]) / 1000 for row in rows)
    begun = min(int(row[0]) for row in rows)
    ended = max(int(row[0]) + int(row[2]) for row in rows)

    def part(share: float) -> float:
        return round(times[min(len(times) - 1, int(len(times) * share))], 2)

    return Loaded(len(rows) / ((ended - begun) / 1e6), part(0.5), part(0.99), part(0.999))


def answered(sidecar: RunningSidecar, method: str) -> float:
    """How many calls of the method were answered OK so far: h2load does not look at the status of gRPC."""
    label = f'tokensidecar_rpcs_total{{code="OK",method="tokensidecar.v1.TokenService/{method}",reason=""}}'
    _, text = sidecar.get("/metrics")
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(label))


def rss_mb(pid: int) -> float:
    """Resident memory in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def cpu_seconds(pid: int) -> float:
    """User and system time so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def limited(pid: int, milli: int | None) -> Iterator[None]:
    """The process under a CPU limit of so many thousandths of a core, as Kubernetes sets it; None: unconfined. Needs root."""
    if milli is None:
        yield
        return
    first = (_CGROUPS / "cgroup.controllers").exists()
    group = (_CGROUPS if first else _CGROUPS / "cpu") / f"tokensidecar-bench-{os.getpid()}"
    group.mkdir()
    try:
        if first:
            (group / "cpu.max").write_text(f"{milli * 100} 100000")
        else:
            (group / "cpu.cfs_quota_us").write_text(str(milli * 100))
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        (group.parent / "cgroup.procs").write_text(str(pid))
        time.sleep(0.2)  # the kernel lets go of the group a moment later
        group.rmdir()
