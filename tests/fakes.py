"""`tokensidecar fake` as a child of the test: started at once on free ports, and ended with its standard input."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Self

import grpc
from google.protobuf.duration_pb2 import Duration
from tokensidecar.fake.v1 import fake_service_pb2 as pb, fake_service_pb2_grpc

from tests.running import ROOT

if TYPE_CHECKING:
    from types import TracebackType

COMMAND = str(ROOT / ".venv/bin/tokensidecar")


class RunningFake:
    """As a context manager: serving inside. Addresses are as its first line says them."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self.home = home
        env = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_RUNTIME_DIR": str(home), "XDG_STATE_HOME": str(home)}
        self._process = subprocess.Popen(
            [COMMAND, "fake", "--free-ports", "--until-eof", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
            cwd=home,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the fake has not started"
        where = json.loads(line)
        self.app, self.admin, self.control = where["app"], where["admin"], where["control"]
        self._channel = grpc.insecure_channel(self.control)
        self.service = fake_service_pb2_grpc.FakeServiceStub(self._channel)

    def advance(self, seconds: int) -> float:
        """Lets time go by; gives store time."""
        moved = self.service.MoveClock(pb.MoveClockRequest(advance=Duration(seconds=seconds)))
        return moved.time.seconds + moved.time.nanos / 1e9

    def fail(self, *failures: pb.Failure) -> None:
        self.service.SetFailures(pb.SetFailuresRequest(failures=failures))

    def end(self) -> int:
        """Closes its standard input; the exit code."""
        self._channel.close()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        try:
            return self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.end() == 0
