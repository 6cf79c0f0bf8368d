"""Records in a file, on the disk before anybody acts upon them, and chained so that nobody changes them unnoticed (see `sidecar.chain`).

Records that come at the same time share one fdatasync (group commit). A sync is quicker than a call, so each record would have one of its
own all the same, were it not that a group waits for more when the one before was shared: for `LINGER_SECONDS`. A lone caller never
waits. Everything that touches the disk
happens on one thread of its own; the loop only hands over lines and wakes whoever waits. A group that the disk does not take is cut off again, counted as lost,
and leaves the chain where it was, so that the file is whole whenever the disk works again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from sidecar.audit import Backlog, Promise
from sidecar.chain import Head
from sidecar.logs import get_logger
from sidecar.sinks.chained import ChainedFile, UnusableFileError

WAITING_BYTES = 8 * 1024 * 1024  # of records that the disk has not taken yet; more are lost
LINGER_SECONDS = 0.002
CHECKPOINT_SECONDS = 60.0  # at the latest after a record
HEADS_LOGGED_SECONDS = 10.0  # at most one checkpoint so often is in the log

_log = get_logger()


class FileSink:
    """One file of one sidecar. It may be renamed away at any time: a new one is begun, and the chain goes on."""

    promise = Promise.DURABLE

    def __init__(self, path: Path, state_dir: Path, now: Callable[[], float], *, beside: bool = False) -> None:
        """`beside`: for a command, which may write while a sidecar of this state directory does."""
        self.lost = 0
        self._path = path
        self._beside = beside
        self._file = ChainedFile(path, state_dir, now, lambda: self.lost, beside=beside)
        self._groups: SimpleQueue[list[bytes] | None] = SimpleQueue()
        # The loop's: lines that wait, who waits for those, and who waits for those that are being written; None: there are none.
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._next: list[asyncio.Future[bool]] | None = None
        self._running: list[asyncio.Future[bool]] | None = None
        self._group = 0  # records of the last group
        self._since = self._next_since = 0.0  # when the first of those being written came, and of those that wait
        self._crowded_until = 0.0
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._logged = Head()
        self._logged_at = float("-inf")

    @property
    def head(self) -> Head:
        """The last checkpoint."""
        return self._file.chain.signed

    @property
    def backlog(self) -> Backlog:
        """What is not on the disk yet."""
        writing = self._group if self._running is not None else 0
        oldest = self._since if writing else self._next_since
        records = writing + len(self._waiting)
        return Backlog(records, self._loop.time() - oldest if records else 0.0, self.head)

    async def open(self) -> None:
        """Open or make the file and the key, and go on with the chain. `UnusableFileError`: that cannot be."""
        self._loop = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(self._file.start)
        except (OSError, ValueError) as error:
            raise UnusableFileError(f"audit.sink {self._path}: {getattr(error, 'strerror', None) or error}") from error
        # A queue and a thread: an executor's futures would cost more than the sync itself.
        self._thread = Thread(target=self._work, name="audit", daemon=True)
        self._thread.start()
        self._tell(always=True)
        self._timer = self._loop.call_later(CHECKPOINT_SECONDS, self._tick)

    async def close(self) -> None:
        """Write what waits and a last checkpoint, and let go of the file."""
        if self._closed or not self._file.is_open:
            return
        if self._timer:
            self._timer.cancel()
        while (pending := self.pending()) is not None:
            await pending
        self._closed = True
        self._groups.put(None)
        await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._file.end)
        self._tell(always=True)

    def write(self, line: bytes) -> bool:
        """Take a line, for the next group; False: too many wait already, or it is closed."""
        if self._closed or self._bytes + len(line) > WAITING_BYTES:
            self.lost += 1
            return False
        self._waiting.append(line)
        self._bytes += len(line)
        if self._next is None:
            self._next, self._next_since = [], self._loop.time()
            if self._running is None:
                self._loop.call_later(LINGER_SECONDS if self._crowded() else 0, self._begin)
        return True

    def pending(self) -> Awaitable[bool] | None:
        """Whether everything taken so far is on the disk, to wait for; None: it is."""
        last = self._running if self._next is None else self._next
        if last is None:
            return None
        waiter = self._loop.create_future()
        last.append(waiter)
        return waiter

    # -- on the loop

    def _begin(self) -> None:
        if self._running is not None or self._next is None:
            return
        group, self._waiting, self._bytes = self._waiting, [], 0
        self._running, self._next, self._group = self._next, None, len(group)
        self._since = self._next_since
        self._groups.put(group)

    def _ended(self, count: int, kept: bool) -> None:
        if not kept:
            self.lost += count
        for waiter in self._running or ():
            if not waiter.done():  # cancelled
                waiter.set_result(kept)
        self._running, self._crowded_until = None, self._loop.time() + 2 * LINGER_SECONDS
        self._tell()
        if self._next is not None:
            self._loop.call_later(LINGER_SECONDS, self._begin)

    def _crowded(self) -> bool:
        return self._group > 1 and self._loop.time() < self._crowded_until

    def _tick(self) -> None:
        """A checkpoint for what has none, and a look at whether the file was renamed, also when nobody calls."""
        self._timer = self._loop.call_later(CHECKPOINT_SECONDS, self._tick)
        if self._running is None and self._next is None:
            self._next = []
            self._loop.call_soon(self._begin)

    def _tell(self, *, always: bool = False) -> None:
        signed, now = self._file.chain.signed, time.monotonic()
        if (
            not self._beside
            and signed.seq > self._logged.seq
            and (always or now - self._logged_at >= HEADS_LOGGED_SECONDS)
        ):
            self._logged, self._logged_at = signed, now
            _log.info("audit.checkpoint", seq=signed.seq, chain=signed.value.hex())

    def _work(self) -> None:
        while (group := self._groups.get()) is not None:
            kept = self._file.commit(group)
            self._loop.call_soon_threadsafe(self._ended, len(group), kept)
