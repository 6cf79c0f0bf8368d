"""Records on standard output, for whatever collects a container's output."""

from __future__ import annotations

from sidecar.audit import Promise
from sidecar.logs import LineWriter


class StdoutSink:
    """Never waits: a record that the pipe does not take at once is lost, and counted."""

    promise = Promise.ACCEPTED

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer

    @property
    def lost(self) -> int:
        """Records that were not taken."""
        return self._writer.dropped

    def write(self, line: bytes) -> bool:
        """Whether the pipe has taken the line."""
        return self._writer.write(line)

    def pending(self) -> None:
        """None: what was taken is as much on record as it ever will be here."""
