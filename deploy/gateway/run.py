"""The worked example: a language model that clients reach only with an encrypted token, by Envoy and by nginx. `make run-gateway`.

Starts the model (llm.py), a sidecar (sidecar.toml), Envoy (../envoy/envoy.yaml) and, where there is one, nginx (../nginx/nginx.conf), all
on loopback; issues two tokens; prints what to try. Ctrl-C ends all of it. `--free-ports` takes ports that nobody uses.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BIN = ROOT / ".venv/bin"
PORTS = {"10000": "Envoy", "10001": "nginx", "9901": "Envoy's own", "8080": "the model", "8793": "forward auth", "8792": "the sidecar's own"}

LINES = """
  # everybody may ask what there is
  curl -s http://127.0.0.1:{port}/v1/models

  # without a token: 401, and what to bring
  curl -si http://127.0.0.1:{port}/v1/chat/completions -d '{{"messages": [{{"role": "user", "content": "hello"}}]}}'

  # with one: the answer, as it comes; the model is told who asks, and X-User of the client's is not believed
  curl -sN http://127.0.0.1:{port}/v1/chat/completions -H "Authorization: Bearer $(cat {folder}/token)" -H 'X-User: root' -d '{{"stream": true, "messages": [{{"role": "user", "content": "hello there"}}]}}'

  # a token without the scope: 403
  curl -si http://127.0.0.1:{port}/v1/chat/completions -H "Authorization: Bearer $(cat {folder}/token-without-scope)" -d '{{"messages": [{{"role": "user", "content": "hello"}}]}}'
"""
REVOKED = """
  # end the token, then use it again: 401
  echo "{{\\"token\\": \\"$(cat {folder}/token)\\"}}" | grpcurl -plaintext -d @ unix://{folder}/run/app/app.sock tokensidecar.v1.TokenService/Revoke
"""


def main() -> int:
    """Run it until it is told to end."""
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda *_: sys.exit(0))
    ports = {port: str(_free()) if "--free-ports" in sys.argv else port for port in PORTS}
    for port, whose in PORTS.items():
        if not _is_free(int(ports[port])):
            print(f"port {ports[port]} (for {whose}) is taken: stop what uses it, or add --free-ports", file=sys.stderr)
            return 1
    started: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(prefix="ts-", dir="/tmp") as folder:
        try:
            return _run(Path(folder), ports, started)
        except KeyboardInterrupt:
            return 0
        finally:
            for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(ending, signal.SIG_IGN)  # a second one would leave the rest running
            for process in reversed(started):
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGTERM)
                    try:
                        process.wait(10)
                    except subprocess.TimeoutExpired:
                        os.killpg(process.pid, signal.SIGKILL)


def _run(folder: Path, ports: dict[str, str], started: list[subprocess.Popen[bytes]]) -> int:
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "TOKENSIDECAR_RUNTIME_DIR": str(folder / "run"),
        "TOKENSIDECAR_STATE_DIR": str(folder / "state"),
        "TOKENSIDECAR_LISTEN_APP": f"unix:{folder}/run/app/app.sock",
        "TOKENSIDECAR_LISTEN_ADMIN": f"unix:{folder}/run/admin/admin.sock",
        "TOKENSIDECAR_LISTEN_HTTP": f"127.0.0.1:{ports['8792']}",
    }

    def start(name: str, *command: str | Path) -> None:
        with (folder / f"{name}.log").open("wb") as log:
            started.append(
                subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
            )

    def adapted(source: Path, **changes: str) -> Path:
        text = source.read_text()
        for old, new in changes.items():
            text = text.replace(old, new)
        for old, new in ports.items():
            text = text.replace(f"127.0.0.1:{old}", f"127.0.0.1:{new}").replace(f"port_value: {old}", f"port_value: {new}")
        target = folder / source.name
        target.write_text(text)
        return target

    socket_path = folder / "envoy.sock"
    start("model", sys.executable, HERE / "llm.py", ports["8080"])
    start("sidecar", BIN / "tokensidecar", "serve", "--config", adapted(HERE / "sidecar.toml", **{"<runtime>": str(folder)}))
    _await(int(ports["8792"]), started, folder)
    envoy = adapted(
        ROOT / "deploy/envoy/envoy.yaml", **{"/run/tokensidecar/envoy/envoy.sock": str(socket_path), "0.0.0.0": "127.0.0.1"}
    )
    start("envoy", BIN / "envoy", "-c", envoy, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning")
    gateways = {"Envoy": ports["10000"]}
    if nginx := shutil.which("nginx"):
        head = f"daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log {folder}/nginx.log;\n"
        places = "".join(f"  {n}_temp_path {folder}/{n};\n" for n in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        file = adapted(ROOT / "deploy/nginx/nginx.conf", **{"listen 10000": f"listen 127.0.0.1:{ports['10001']}", "http {\n": "http {\n" + places})
        file.write_text(head + file.read_text())
        start("nginx", nginx, "-c", file, "-p", folder, "-e", folder / "nginx.log")
        gateways["nginx"] = ports["10001"]
    for port in gateways.values():
        _await(int(port), started, folder)
        _await_answer(int(port))
    for name, scope in (("token", "chat"), ("token-without-scope", "other")):
        issued = subprocess.run(
            [BIN / "tokensidecar", "issue", "--subject", "user-42", "--audience", "llm", "--scope", scope, "--claims", "-",
             "--address", f"unix:{folder}/run/app/app.sock"],
            input=b'{"tenant": "acme"}', env=environment, capture_output=True, check=False,
        )  # fmt: skip
        if issued.returncode:
            print(issued.stderr.decode(), file=sys.stderr)
            return 1
        descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file_:
            file_.write(issued.stdout.strip())
    for name, port in gateways.items():
        print(f"\n{name}, at 127.0.0.1:{port}")
        print(LINES.format(port=port, folder=folder))
    print("And, with grpcurl 1.9.3:")
    print(REVOKED.format(folder=folder))
    print(f"Logs are in {folder}: envoy.log has the access log with each decision. Serving on; Ctrl-C ends it.", flush=True)
    while all(process.poll() is None for process in started):
        time.sleep(0.2)
    print(f"one of them ended by itself; its log is the last here:\n{_logs(folder)}", file=sys.stderr)
    return 1


def _await(port: int, started: list[subprocess.Popen[bytes]], folder: Path) -> None:
    until = time.monotonic() + 20
    while _is_free(port):
        if time.monotonic() > until or any(process.poll() is not None for process in started):
            raise SystemExit(f"nothing listens on port {port}\n{_logs(folder)}")
        time.sleep(0.05)


def _await_answer(port: int) -> None:
    """Until the gateway has seen that the sidecar is there."""
    for _ in range(100):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/v1/models")
            if connection.getresponse().status == http.client.OK:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    raise SystemExit(f"port {port} does not answer")


def _logs(folder: Path) -> str:
    return "\n".join(f"{file.name}: {file.read_text(errors='replace')[-1000:]}" for file in sorted(folder.glob("*.log")))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
