"""A sidecar whose output goes into pipes that somebody reads, or does not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self

from tests.running import SERVE, RunningSidecar

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

_SHELL = ("/bin/sh", "-c", 'exec "$@" >"$STDOUT" 2>"$STDERR"', "sh", *SERVE)


class Piped:
    """`sidecar` runs inside; "stdout" and "stderr" are read only when a test says so, and by then it must have room to go on."""

    def __init__(self, config: str | None, env: Mapping[str, str | None] | None = None) -> None:
        names = {"STDOUT": "stdout.pipe", "STDERR": "stderr.pipe"}
        self.sidecar = RunningSidecar(config, env, _SHELL)
        self._readers: dict[str, int] = {}
        for variable, name in names.items():
            path = self.sidecar.directory / name
            os.mkfifo(path, 0o600)
            self.sidecar.env[variable] = str(path)
            self._readers[name.removesuffix(".pipe")] = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def read(self, stream: str) -> str:
        """What is in the pipe now."""
        data = b""
        try:
            while more := os.read(self._readers[stream], 65536):
                data += more
        except BlockingIOError:
            pass
        return data.decode()

    def fill(self, stream: str) -> None:
        """Fill the pipe, as a reader that has stopped would leave it."""
        writer = os.open(self.sidecar.directory / f"{stream}.pipe", os.O_WRONLY | os.O_NONBLOCK)
        try:
            for size in (4096, 1):
                try:
                    while os.write(writer, b"\n" * size):
                        pass
                except BlockingIOError:
                    continue
        finally:
            os.close(writer)

    def hang_up(self, stream: str) -> None:
        """Close the reader: whoever writes gets EPIPE."""
        os.close(self._readers.pop(stream))

    def __enter__(self) -> Self:
        try:
            self.sidecar.__enter__()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.sidecar.__exit__(kind, error, trace)
        finally:
            self._close()

    def _close(self) -> None:
        for stream in list(self._readers):
            self.hang_up(stream)
