"""A real Envoy on the configuration of deploy/envoy, with the addresses of a test."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import yaml

from tests.running import ROOT, free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

BINARY = ".venv/bin/envoy"
CONFIG = ROOT / "deploy/envoy/envoy.yaml"
START_SECONDS = 20.0

Tree = dict[str, Any]


class RunningEnvoy:
    """Envoy in front of an app, asking the sidecar at `socket`. `changed` may change the configuration, as a tree, first."""

    def __init__(
        self,
        socket: str,
        app_port: int,
        grpc_port: int,
        changed: Callable[[Tree], None] = lambda _: None,
        config: Path = CONFIG,
    ) -> None:
        self.port, self.admin_port = free_port(), free_port()
        self._directory = tempfile.TemporaryDirectory(prefix="envoy-")
        tree: Tree = yaml.safe_load(config.read_text())
        tree["admin"]["address"]["socket_address"]["port_value"] = self.admin_port
        self.listener(tree)["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": self.port}
        at: dict[str, Tree] = {
            "tokensidecar": {"pipe": {"path": socket.removeprefix("unix:")}},
            "app": {"socket_address": {"address": "127.0.0.1", "port_value": app_port}},
            "app_grpc": {"socket_address": {"address": "127.0.0.1", "port_value": grpc_port}},
        }
        for cluster in tree["static_resources"]["clusters"]:
            if cluster["name"] in at:
                endpoint(cluster)["address"] = at[cluster["name"]]
        changed(tree)
        self._file = Path(self._directory.name, "envoy.yaml")
        self._file.write_text(yaml.safe_dump(tree))
        self._log = Path(self._directory.name, "log")

    @staticmethod
    def listener(tree: Tree) -> Tree:
        """The one listener."""
        found: Tree = tree["static_resources"]["listeners"][0]
        return found

    @classmethod
    def manager(cls, tree: Tree) -> Tree:
        """Its HttpConnectionManager."""
        found: Tree = cls.listener(tree)["filter_chains"][0]["filters"][0]["typed_config"]
        return found

    @property
    def log(self) -> str:
        """What it wrote so far: its own lines, and the access log."""
        return self._log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    ROOT / BINARY,
                    "-c",
                    self._file,
                    "--disable-hot-restart",
                    "--concurrency",
                    "1",
                    "--log-level",
                    "warning",
                    "--file-flush-interval-msec",
                    "100",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={"PATH": os.environ["PATH"]},
            )
        try:
            self._wait()
        except BaseException:
            self._end()
            raise
        return self

    def _wait(self) -> None:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise RuntimeError(f"Envoy ended with {self._process.returncode}\n{self.log}")
            connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=2)
            try:
                connection.request("GET", "/ready")
                if connection.getresponse().status == http.client.OK:
                    return
            except OSError:
                pass
            finally:
                connection.close()
            time.sleep(0.05)
        raise RuntimeError(f"Envoy is not ready\n{self.log}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended = self._process.poll()
        self._end()
        if ended is not None and error is None:
            raise AssertionError(f"Envoy ended by itself with {ended}")

    def _end(self) -> None:
        if self._process.poll() is None:
            os.killpg(
                self._process.pid, signal.SIGTERM
            )  # the binary is started by a script; both are of this session alone
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait(10)
        self._directory.cleanup()


def endpoint(cluster: Tree) -> Tree:
    """The one endpoint of a cluster."""
    found: Tree = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    return found
