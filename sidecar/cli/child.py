"""A sidecar as this process's child, for `demo --serve`: started, waited for, its log held back until it is wanted, ended with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Self

from sidecar.cli.exits import Code, CommandError

if TYPE_CHECKING:
    from types import TracebackType

READY = 20.0  # seconds
STOP = 15.0  # seconds: longer than the server's own grace
_KEPT = 5  # log lines that are told if it does not start


class ServingChild:
    """`tokensidecar serve` in a process of its own; SIGTERM to this one interrupts it as Ctrl-C does."""

    def __init__(self) -> None:
        self._last: deque[str] = deque(maxlen=_KEPT)
        self._passing_on = threading.Event()
        command = [sys.executable, "-m", "sidecar", "serve", "--end-with-parent"]
        self._process = subprocess.Popen(  # noqa: S603 # our own interpreter, our own module
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # Its log comes through a pipe and ends on our terminal, if we have one.
            env={"TOKENSIDECAR_LOG_FORMAT": "text" if sys.stderr.isatty() else "json", **os.environ},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        # SIGINT too: who starts us in the background may have had it ignored.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.default_int_handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _read(self) -> None:
        assert self._process.stdout is not None  # it was asked for
        for line in self._process.stdout:
            self._last.append(line)
            if self._passing_on.is_set():
                print(line, end="", file=sys.stderr, flush=True)

    def wait_until_ready(self, address: str) -> None:
        """Return once it takes calls at the address; CommandError if it ends first, or takes too long."""
        import tokensidecar

        end = time.monotonic() + READY
        while True:
            try:
                tokensidecar.connect(address, start_timeout=0.2).close()
            except tokensidecar.ConnectError as error:
                if self._process.poll() is not None:
                    self._reader.join(1)
                    raise CommandError(
                        Code.FAILURE, f"the sidecar did not start:\n{''.join(self._last).rstrip()}"
                    ) from error
                if time.monotonic() > end:
                    raise CommandError(Code.UNREACHABLE, f"the sidecar is not ready after {READY:.0f} s") from error
            else:
                return

    def serve_on(self) -> int:
        """Pass its log on to standard error until it ends or Ctrl-C; the exit code."""
        self._passing_on.set()
        try:
            return self._process.wait()
        except KeyboardInterrupt:
            return self.stop()

    def stop(self) -> int:
        """End it, if it runs; the exit code."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP)
            except subprocess.TimeoutExpired:
                self._process.kill()
        code = self._process.wait()
        self._reader.join(1)
        return code
