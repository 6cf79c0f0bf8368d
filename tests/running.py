"""A real sidecar process, as tests and benchmarks use it: started, waited for, ended by its process object."""

from __future__ import annotations

import http.client
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

ROOT = Path(__file__).resolve().parent.parent
SERVE = (str(ROOT / ".venv/bin/tokensidecar"), "serve")
READY_SECONDS = 20.0
STOP_SECONDS = 20.0
SOCKET_PATH_MAX = 107  # sun_path less its NUL


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on.

    Below the ephemeral range (Linux: from 32768), so that no outgoing connection takes it before the server does.
    """
    for _ in range(200):
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port between 20000 and 31999")


class RunningSidecar:
    """`tokensidecar serve` with directories and ports of its own, which stay the same from one start to the next.

    Addresses are gRPC targets: `app_socket` and `admin_socket` as "unix:/…/app.sock", `app_tcp` and `admin_tcp` as
    "127.0.0.1:PORT", and so is `http`. As a context manager: ready inside, then ended by SIGTERM with exit code 0.

    Args:
        config: text of a TOML file, given by --config; None: the embedded defaults.
        env: added to the process's environment; None as a value takes a variable away. Nothing else of the caller's
            environment but PATH gets through.
        command: what to run, before `--config`; for benchmarks that pin it to a core, and for faketime.
    """

    def __init__(
        self, config: str | None = None, env: Mapping[str, str | None] | None = None, command: Sequence[str] = SERVE
    ) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="ts-", dir="/tmp"))  # short, for the sockets
        self.runtime_dir = self.directory / "run"
        self.state_dir = self.directory / "state"
        self.runtime_dir.mkdir(mode=0o700)
        self.state_dir.mkdir(mode=0o700)
        self.app_socket = f"unix:{self.runtime_dir}/app/app.sock"
        self.admin_socket = f"unix:{self.runtime_dir}/admin/admin.sock"
        if len(self.admin_socket.removeprefix("unix:")) > SOCKET_PATH_MAX:
            raise RuntimeError(f"too long for a Unix socket: {self.admin_socket}")
        self.app_tcp, self.admin_tcp, self.http = (f"127.0.0.1:{free_port()}" for _ in range(3))
        given: dict[str, str | None] = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": str(self.directory),
            "XDG_RUNTIME_DIR": str(self.directory / "xdg-runtime"),
            "XDG_STATE_HOME": str(self.directory / "xdg-state"),
            "TOKENSIDECAR_RUNTIME_DIR": str(self.runtime_dir),
            "TOKENSIDECAR_STATE_DIR": str(self.state_dir),
            "TOKENSIDECAR_LISTEN_APP": f"{self.app_socket},{self.app_tcp}",
            "TOKENSIDECAR_LISTEN_ADMIN": f"{self.admin_socket},{self.admin_tcp}",
            "TOKENSIDECAR_LISTEN_HTTP": self.http,
            **(env or {}),
        }
        self.env = {name: value for name, value in given.items() if value is not None}
        self.command = [*command]
        if config is not None:
            file = self.directory / "config.toml"
            file.write_text(config, encoding="utf-8")
            self.command += ["--config", str(file)]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process of the last start; RuntimeError before the first."""
        if self._process is None:
            raise RuntimeError("the sidecar was never started")
        return self._process

    @property
    def running(self) -> bool:
        """Whether a process was started that has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the process, also again on the same directories and ports; does not wait until it is ready."""
        if self.running:
            raise RuntimeError("the sidecar runs already")
        with (self.directory / "stdout").open("ab") as out, (self.directory / "stderr").open("ab") as err:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=self.env,
                cwd=self.directory,
                start_new_session=True,  # Ctrl-C in the terminal is for pytest alone
            )

    def wait_until_ready(self, seconds: float = READY_SECONDS) -> None:
        """Returns once /readyz answers 200.

        Raises:
            RuntimeError: the process ended first, or the time is over; with the log.
        """
        end = time.monotonic() + seconds
        answer = "nothing"
        while time.monotonic() < end:
            if not self.running:
                raise RuntimeError(f"the sidecar ended with {self.process.returncode} at its start\n{self.log()}")
            try:
                status, body = self.get("/readyz")
            except OSError as error:
                answer = str(error)
            else:
                if status == http.client.OK:
                    return
                answer = f"{status} {body}"
            time.sleep(0.02)
        raise RuntimeError(f"not ready after {seconds} s; /readyz last answered: {answer}\n{self.log()}")

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of one GET on the http plane; OSError if it cannot be reached."""
        connection = http.client.HTTPConnection(self.http, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except http.client.HTTPException as error:
            raise ConnectionError(repr(error)) from error
        finally:
            connection.close()

    def stdout(self) -> str:
        """What the process wrote to standard output so far, over all its starts: the audit lines."""
        return self._text("stdout")

    def stderr(self) -> str:
        """What the process wrote to standard error so far, over all its starts: the log lines."""
        return self._text("stderr")

    def log(self) -> str:
        """Standard error and standard output so far, one after the other."""
        return self.stderr() + self.stdout()

    def _text(self, stream: str) -> str:
        file = self.directory / stream
        return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""

    def stop(self) -> None:
        """Ends it by SIGTERM, if it runs; AssertionError with the log unless it exits with 0 in time."""
        if not self.running:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"no exit within {STOP_SECONDS} s of SIGTERM\n{self.log()}") from None
        if code != 0:
            raise AssertionError(f"exit code {code} after SIGTERM\n{self.log()}")

    def kill(self) -> None:
        """Ends it by SIGKILL and waits until it is gone."""
        if self.running:
            self.process.kill()
            self.process.wait(STOP_SECONDS)

    def remove(self) -> None:
        """Removes its directory, with state and logs. It must have ended."""
        if self.running:
            raise RuntimeError("the sidecar still runs")
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        """Starts it and waits until it is ready."""
        try:
            self.start()
            self.wait_until_ready()
        except BaseException:
            self.kill()
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it by SIGTERM and removes its directory; AssertionError unless it ran until here and exits with 0."""
        try:
            if not self.running:
                raise AssertionError(f"the sidecar ended by itself with {self.process.returncode}\n{self.log()}")
            self.stop()
        finally:
            self.remove()
