"""Records in a file, on the disk before anybody acts upon them, and chained so that nobody changes them unnoticed (see `sidecar.chain`).

Records that come at the same time share one fdatasync (group commit). A sync is quicker than a call, so each record would have one of its
own all the same, were it not that a group waits for more when the one before was shared: for `LINGER_SECONDS`. A lone caller never
waits. Everything that touches the disk
happens on one thread of its own; the loop only hands over lines and wakes whoever waits. A group that the disk does not take is cut off again, counted as lost,
and leaves the chain where it was, so that the file is whole whenever the disk works again.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from sidecar.audit import Backlog, Promise
from sidecar.chain import CHECKPOINT_EVERY, Chain, Head, head_of
from sidecar.logs import frames, get_logger
from sidecar.sinks.signing import HEAD, Signer

WAITING_BYTES = 8 * 1024 * 1024  # of records that the disk has not taken yet; more are lost
LINGER_SECONDS = 0.002
CHECKPOINT_SECONDS = 60.0  # at the latest after a record
HEADS_LOGGED_SECONDS = 10.0  # at most one checkpoint so often is in the log
_TAIL_BYTES = 64 * 1024

_log = get_logger()


class UnusableFileError(Exception):
    """The file cannot be an audit file; the text says why and what to do."""


class FileSink:
    """One file of one sidecar. It may be renamed away at any time: a new one is begun, and the chain goes on."""

    promise = Promise.DURABLE

    def __init__(self, path: Path, state_dir: Path, now: Callable[[], float]) -> None:
        self.lost = 0
        self._path = path
        self._state_dir = state_dir
        self._now = now
        self._groups: SimpleQueue[list[bytes] | None] = SimpleQueue()
        self._chain = Chain()
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
        # The thread's.
        self._descriptor = -1
        self._head_descriptor = -1
        self._identity = (0, 0)
        self._size = 0
        self._owed = True  # a checkpoint, before anything else: the file is new, or was not left by us

    @property
    def head(self) -> Head:
        """The last checkpoint."""
        return self._chain.signed

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
            await asyncio.to_thread(self._start)
        except (OSError, ValueError) as error:
            raise UnusableFileError(f"audit.sink {self._path}: {getattr(error, 'strerror', None) or error}") from error
        # A queue and a thread: an executor's futures would cost more than the sync itself.
        self._thread = Thread(target=self._work, name="audit", daemon=True)
        self._thread.start()
        self._tell(always=True)
        self._timer = self._loop.call_later(CHECKPOINT_SECONDS, self._tick)

    async def close(self) -> None:
        """Write what waits and a last checkpoint, and let go of the file."""
        if self._closed or self._descriptor < 0:
            return
        if self._timer:
            self._timer.cancel()
        while (pending := self.pending()) is not None:
            await pending
        self._closed = True
        self._groups.put(None)
        await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._end)
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
        signed, now = self._chain.signed, time.monotonic()
        if signed.seq > self._logged.seq and (always or now - self._logged_at >= HEADS_LOGGED_SECONDS):
            self._logged, self._logged_at = signed, now
            _log.info("audit.checkpoint", seq=signed.seq, chain=signed.value.hex())

    # -- on the thread (the start before it begins, the end after it has ended)

    def _work(self) -> None:
        while (group := self._groups.get()) is not None:
            kept = self._commit(group)
            self._loop.call_soon_threadsafe(self._ended, len(group), kept)

    def _start(self) -> None:
        self._signer = Signer.open_or_make(self._state_dir)
        head = self._state_dir / HEAD
        self._head_descriptor = os.open(head, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._chain = Chain(_read_head(self._head_descriptor))
        self._open()
        self._write(
            [], checkpoint=True
        )  # a full disk at the start is as one later: records are lost, or refused, until it has room

    def _end(self) -> None:
        if self._chain.since:
            self._write([], checkpoint=True)
        os.close(self._descriptor)
        os.close(self._head_descriptor)
        self._descriptor = -1

    def _commit(self, group: list[bytes]) -> bool:
        try:
            self._follow()
            return self._write(group, checkpoint=self._owed or (not group and self._chain.since > 0))
        except (OSError, UnusableFileError) as error:
            _log.warning("audit.failed", problem=str(error), lost=len(group))
        except Exception as error:  # noqa: BLE001
            # A thread that died would leave everybody waiting who needs a record.
            _log.error("audit.failed", error_type=type(error).__name__, frames=frames(error), lost=len(group))
        return False

    def _write(self, group: list[bytes], *, checkpoint: bool) -> bool:
        """On the disk as a whole, or not at all (False)."""
        chain, lines = self._chain.copy(), []
        if checkpoint:
            lines.append(self._checkpoint(chain))
        for line in group:
            lines.append(chain.link(line))
            if chain.since >= CHECKPOINT_EVERY:
                lines.append(self._checkpoint(chain))
        if not lines:
            return True
        data = b"".join(lines)
        try:
            _write_all(self._descriptor, data)
            os.fdatasync(self._descriptor)
        except OSError as error:
            _log.warning("audit.failed", problem=error.strerror, lost=len(group))
            self._undo()
            return False
        self._size += len(data)
        self._chain = chain
        self._owed = self._owed and not checkpoint
        # Not synced: it is for a start after this process was killed; after a power cut the file's own tail counts.
        os.pwrite(self._head_descriptor, _spelled(chain.head), 0)
        return True

    def _checkpoint(self, chain: Chain) -> bytes:
        time_ = datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="microseconds")
        facts = {"audit": 1, "time": time_, "caller": "sidecar", "plane": "admin", "verb": "checkpoint"}
        return chain.checkpoint({**facts, "instance": self._signer.instance, "lost": self.lost}, self._signer.sign)

    def _undo(self) -> None:
        try:
            os.ftruncate(self._descriptor, self._size)
        except OSError:
            os.close(self._descriptor)  # opened again, and looked at, by the next group
            self._descriptor = -1

    def _follow(self) -> None:
        """Begin the next file if this one was renamed; notice what others did to it."""
        if self._descriptor < 0:
            self._open()
            return
        try:
            found = self._path.stat()
        except FileNotFoundError:
            found = None
        if found and (found.st_dev, found.st_ino) == self._identity:
            if found.st_size != self._size:
                _log.error("audit.file_changed", path=str(self._path), expected=self._size, found=found.st_size)
                self._size, self._owed = found.st_size, True
            return
        if os.fstat(self._descriptor).st_nlink == 0:
            _log.error("audit.file_deleted", path=str(self._path))
        elif self._chain.since and not self._write([], checkpoint=True):
            raise UnusableFileError("the file that was renamed cannot be finished")
        os.close(self._descriptor)
        self._descriptor = -1
        self._open()
        _log.info("audit.file_begun", path=str(self._path), seq=self._chain.head.seq + 1)

    def _open(self) -> None:
        """Open the file, take off a last line that was never finished, and find out where the chain stands."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o640)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise UnusableFileError(f"audit.sink {self._path}: not a regular file")
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UnusableFileError(
                    f"audit.sink {self._path}: another sidecar writes it; name a file each"
                ) from None
            size = self._mend(descriptor, found.st_size)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor, self._identity, self._size = descriptor, (found.st_dev, found.st_ino), size
        self._owed = True

    def _mend(self, descriptor: int, size: int) -> int:
        start = max(0, size - _TAIL_BYTES)
        tail = os.pread(descriptor, size - start, start)
        end = tail.rfind(b"\n") + 1
        if end < len(tail):
            if not end and start:
                raise UnusableFileError(
                    f"audit.sink {self._path}: holds something else than records; name another file"
                )
            _log.warning("audit.torn_record", path=str(self._path), bytes=len(tail) - end)
            os.ftruncate(descriptor, start + end)
        if not end:
            return 0
        last = head_of(tail[tail.rfind(b"\n", 0, end - 1) + 1 : end - 1])
        if last is None:
            raise UnusableFileError(f"audit.sink {self._path}: holds something else than records; name another file")
        known = self._chain.head
        if last.seq > known.seq:
            self._chain.head = last
        elif last != known:
            _log.error("audit.records_missing", path=str(self._path), last=last.seq, expected=known.seq)
        return start + end


def _spelled(head: Head) -> bytes:
    return b"%020d %s\n" % (head.seq, head.value.hex().encode())


def _read_head(descriptor: int) -> Head:
    seq, _, value = os.pread(descriptor, 128, 0).decode("ascii", "replace").strip().partition(" ")
    try:
        return Head(int(seq), bytes.fromhex(value)) if len(value) == 64 else Head()
    except ValueError:
        return Head()


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
