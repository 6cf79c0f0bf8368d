"""A real nginx on the configuration of deploy/nginx, with the addresses of a test."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.running import ROOT, free_port

if TYPE_CHECKING:
    from types import TracebackType

CONFIG = ROOT / "deploy/nginx/nginx.conf"


class RunningNginx:
    """nginx in front of an app, asking the sidecar's forward auth."""

    def __init__(self, forward_auth: int, app_port: int) -> None:
        self.port = free_port()
        self._directory = tempfile.TemporaryDirectory(prefix="nginx-")
        folder = self._directory.name
        text = CONFIG.read_text().replace("listen 10000;", f"listen 127.0.0.1:{self.port};")
        text = text.replace("127.0.0.1:8793", f"127.0.0.1:{forward_auth}").replace(
            "127.0.0.1:8080", f"127.0.0.1:{app_port}"
        )
        temporary = "".join(
            f"  {name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        text = text.replace("http {\n", "http {\n" + temporary, 1).replace("/dev/stdout", f"{folder}/access.log")
        self._file = Path(folder, "nginx.conf")
        self._file.write_text(
            f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/error.log;\n{text}"
        )

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            ["nginx", "-c", self._file, "-p", self._directory.name, "-e", Path(self._directory.name, "error.log")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        until = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                if self._process.poll() is not None or time.monotonic() > until:
                    self._process.kill()
                    raise RuntimeError(f"nginx: {self._process.communicate()[1]}") from None
                time.sleep(0.02)
            else:
                return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.communicate(timeout=10)
        self._directory.cleanup()
