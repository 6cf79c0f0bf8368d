"""The file itself, as the one thread sees it that touches the disk: appended to as a whole or not at all, followed when it is renamed.

Rules:
 1. One sidecar writes a file, and holds a lock on it as long as it runs.
 2. A command of the same state directory may write beside it (`beside`). Whoever writes holds a lock on the head of the chain meanwhile, goes on
    from where the other stood, and tells by the head where that is. It begins and ends with a checkpoint.
 3. A command finds its own chain in the file, or refuses: a file that a sidecar with another state directory writes is not its own.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sidecar.chain import CHECKPOINT_EVERY, Chain, Head, head_of
from sidecar.logs import frames, get_logger
from sidecar.sinks.signing import HEAD, Signer

UNKNOWN = -1  # size of a file that another one wrote
LOCK_SECONDS = 2.0  # for another's commit, at most
_TAIL_BYTES = 64 * 1024

_log = get_logger()


class UnusableFileError(Exception):
    """The file cannot be an audit file; the text says why and what to do."""


class ChainedFile:
    """All of it is for one thread. `chain` may be read by others; `lost` tells how many records were lost so far, for checkpoints."""

    def __init__(
        self, path: Path, state_dir: Path, now: Callable[[], float], lost: Callable[[], int], *, beside: bool
    ) -> None:
        self.chain = Chain()
        self._path = path
        self._state_dir = state_dir
        self._now = now
        self._lost = lost
        self._beside = beside
        self._descriptor = -1
        self._head_descriptor = -1
        self._identity = (0, 0)
        self._size = 0
        self._owed = True  # a checkpoint, before anything else: the file is new, or was not left by us

    @property
    def is_open(self) -> bool:
        """Between `start` and `end`."""
        return self._head_descriptor >= 0

    def start(self) -> None:
        """Open or make the file and the key, and go on with the chain. `OSError`, `ValueError`, `UnusableFileError`: that cannot be."""
        self._signer = Signer.open_or_make(self._state_dir)
        head = self._state_dir / HEAD
        self._head_descriptor = os.open(head, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with self._alone():
                self._open()
                self._write(
                    [], checkpoint=True
                )  # a full disk at the start is as one later: records are lost, or refused, until it has room
        except BaseException:
            os.close(self._head_descriptor)
            self._head_descriptor = -1
            raise

    def end(self) -> None:
        """A last checkpoint, and let go of the file."""
        try:
            with self._alone():
                if self.chain.since and self._descriptor >= 0:
                    self._write([], checkpoint=True)
        except (OSError, UnusableFileError) as error:
            _log.warning("audit.failed", problem=str(error), lost=0)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        os.close(self._head_descriptor)
        self._descriptor = self._head_descriptor = -1

    def commit(self, group: list[bytes]) -> bool:
        """Whether these records are on the disk, all of them; of none, a checkpoint for what has none yet."""
        try:
            with self._alone():
                self._follow()
                return self._write(group, checkpoint=self._owed or (not group and self.chain.since > 0))
        except (OSError, UnusableFileError) as error:
            _log.warning("audit.failed", problem=str(error), lost=len(group))
        except Exception as error:  # noqa: BLE001
            # A thread that died would leave everybody waiting who needs a record.
            _log.error("audit.failed", error_type=type(error).__name__, frames=frames(error), lost=len(group))
        return False

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While nobody else of this state directory writes, and from where the other one stood."""
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self._head_descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise UnusableFileError(f"{self._path}: another process does not let go of its chain") from None
                time.sleep(0.001)
        try:
            known = _read_head(self._head_descriptor)
            if known.seq > self.chain.head.seq:
                self.chain = Chain(known, 0, self.chain.signed)
                self._owed, self._size = True, UNKNOWN
            yield
        finally:
            fcntl.flock(self._head_descriptor, fcntl.LOCK_UN)

    def _write(self, group: list[bytes], *, checkpoint: bool) -> bool:
        """On the disk as a whole, or not at all (False)."""
        chain, lines = self.chain.copy(), []
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
        self.chain = chain
        self._owed = self._owed and not checkpoint
        # Not synced: it is for a start after this process was killed; after a power cut the file's own tail counts.
        os.pwrite(self._head_descriptor, _spelled(chain.head), 0)
        return True

    def _checkpoint(self, chain: Chain) -> bytes:
        time_ = datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="microseconds")
        facts = {"audit": 1, "time": time_, "caller": "sidecar", "plane": "admin", "verb": "checkpoint"}
        return chain.checkpoint({**facts, "instance": self._signer.instance, "lost": self._lost()}, self._signer.sign)

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
                self._look_over(found.st_size)
            return
        if os.fstat(self._descriptor).st_nlink == 0:
            _log.error("audit.file_deleted", path=str(self._path))
        elif self.chain.since and not self._write([], checkpoint=True):
            raise UnusableFileError("the file that was renamed cannot be finished")
        os.close(self._descriptor)
        self._descriptor = -1
        self._open()
        _log.info("audit.file_begun", path=str(self._path), seq=self.chain.head.seq + 1)

    def _look_over(self, size: int) -> None:
        """It is not as it was left. A process of this state directory may have been killed at it; else say so, and go on behind it."""
        last, end = _last(self._descriptor, size)
        if end < size and last is not None:
            _log.warning("audit.torn_record", path=str(self._path), bytes=size - end)
            os.ftruncate(self._descriptor, end)
            size = end
        if last is not None and last.seq > self.chain.head.seq:
            self.chain = Chain(last, 0, self.chain.signed)
        elif last != self.chain.head:
            _log.error("audit.file_changed", path=str(self._path), expected=self._size, found=size)
        self._size, self._owed = size, True

    def _open(self) -> None:
        """Open the file, take off a last line that was never finished, and find out where the chain stands."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o640)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise UnusableFileError(f"audit.sink {self._path}: not a regular file")
            served = not self._locked(descriptor)
            if served and not self._beside:
                raise UnusableFileError(f"audit.sink {self._path}: another sidecar writes it; name a file each")
            if served and _last(descriptor, found.st_size)[0] != self.chain.head:
                raise UnusableFileError(
                    f"audit.sink {self._path}: a sidecar with another state directory writes it; run this as that sidecar runs, or name another file"
                )
            if not served and self._beside:
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # a sidecar may start meanwhile
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

    @staticmethod
    def _locked(descriptor: int) -> bool:
        """Try for a moment: a command that looks whether somebody serves the file holds the lock as short as that."""
        for _ in range(20):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.005)
            else:
                return True
        return False

    def _mend(self, descriptor: int, size: int) -> int:
        """Take off a last line that was never finished, and find out where the chain stands; gives the size."""
        last, end = _last(descriptor, size)
        if size and last is None and (end or size > _TAIL_BYTES):
            raise UnusableFileError(f"audit.sink {self._path}: holds something else than records; name another file")
        if end < size:
            _log.warning("audit.torn_record", path=str(self._path), bytes=size - end)
            os.ftruncate(descriptor, end)
        if last is None:
            return end
        known = self.chain.head
        if last.seq > known.seq:
            self.chain.head = last
        elif last != known:
            _log.error("audit.records_missing", path=str(self._path), last=last.seq, expected=known.seq)
        return end


def _last(descriptor: int, size: int) -> tuple[Head | None, int]:
    """The last whole line as a record (None: it is none), and where it ends."""
    start = max(0, size - _TAIL_BYTES)
    tail = os.pread(descriptor, size - start, start)
    end = tail.rfind(b"\n") + 1
    if not end:
        return None, 0
    return head_of(tail[tail.rfind(b"\n", 0, end - 1) + 1 : end - 1]), start + end


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
