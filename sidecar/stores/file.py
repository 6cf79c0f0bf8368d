"""A store in a folder: sealed rings as files, written by a keeper and read by any number of sidecars.

The folder is a local one, with one or more writers on this machine, or a Kubernetes Secret mounted into the pod, which the keeper
writes through the API (see `kubernetes.py`). `layout.py` says what is in it, `store_time.py` what time it is there.

Rules:
 1. True from `save` means on disk: the new file is written beside the old one, synced, renamed over it, and the folder is synced. A
    writer that is killed at any moment leaves the old file or the new one.
 2. Writers exclude each other by a lock (flock) on `.lock` in the folder, on one machine. Readers take no lock: what they open is whole.
 3. A folder that the kubelet mounted is read through its link `..data`, which is resolved once for each look; if it moved on meanwhile,
    the look is repeated. So a look never mixes two states.
 4. Only regular files of that one folder are read, up to a size; a link, a pipe or a directory in their place is an error.
 5. A file that is damaged is never written over, and a folder that lost its file `store` under a running writer is never filled anew.
 6. A write that failed may still turn up (its last sync was refused, not undone): whoever asked was told that the store is unavailable,
    and asks again.

Who may write in the folder can take rings away or put old ones back, but makes none: every ring is sealed and authenticated.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import secrets
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sidecar.errors import DeniedCallerError, UnavailableStoreError
from sidecar.ports import Document
from sidecar.stores import layout
from sidecar.stores.layout import DamagedFileError, RingFile, StoreFile
from sidecar.stores.store_time import StoreTime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from sidecar.ports import Clock

POLL_SECONDS = 0.5  # between looks for a change: one stat each
LOCK_SECONDS = 5.0
FILE_MODE = 0o640  # sidecars of other users read through the group; what is inside is sealed
_LOCK = ".lock"
_UNFINISHED = ".unfinished-"
_DATA = "..data"
_LOOKS = 10  # at a folder that keeps changing under them
_SETTLE_SECONDS = 0.02  # longer than the kernel's grain of a file's times

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Look:
    """What the first lines of all files say."""

    store: StoreFile | None
    rings: dict[str, RingFile]

    def written(self) -> float:
        """Store time of the last write, in seconds since the epoch; 0 where there is none."""
        times = [ring.written for ring in self.rings.values()]
        return max([*times, self.store.written if self.store else 0.0])


class _MovedError(Exception):
    """The folder's link moved on during a look."""


class FileStore:
    """See `ports.Store`. Every call is safe from any task; file work is done in threads, and nothing stays open between calls."""

    private = False

    def __init__(self, path: Path, clock: Clock, *, writable: bool) -> None:
        """Reads the clock and touches nothing; `open` does."""
        self.writable = writable
        self._path = path
        self._time = StoreTime(clock)
        self._store_id: str | None = None
        self._seen: tuple[int, ...] | None = ()  # the folder's state when `changed` last returned; None: not there
        self._closed = False

    @classmethod
    async def open(cls, path: Path, clock: Clock, *, writable: bool) -> FileStore:
        """The store in that folder, which must be there. A writer makes a store where there is none; a reader does not.

        `UnavailableStoreError`, with words for an operator: no folder, no store in it, or one that cannot be used.
        """
        store = cls(path, clock, writable=writable)
        await store._run(store._open)
        return store

    async def store_id(self) -> str:
        """See `ports.Store`."""
        return (await self._run(self._facts)).store_id

    async def now(self) -> float:
        """See `ports.Store`, and `store_time.py`."""
        return await self._run(lambda: self._now(self._look(strict=False)))

    async def written(self) -> float:
        """The keeper's time at its last write, heartbeats included: how old it is tells how long no word of the keeper came here."""
        return (await self._run(lambda: self._look(strict=False))).written()

    async def revisions(self) -> dict[str, int]:
        """See `ports.Store`. Opens each file and reads its first line."""
        return await self._run(lambda: {name: ring.revision for name, ring in self._look(strict=True).rings.items()})

    async def load(self, name: str) -> Document | None:
        """See `ports.Store`."""
        return await self._run(lambda: self._in_folder(lambda folder: self._load(folder, name)))

    async def save(self, name: str, content: bytes, *, expected: int) -> bool:
        """See `ports.Store`. `DeniedCallerError` where this process may only read."""
        self._demand_writable()
        return await self._run(lambda: self._save(name, content, expected))

    async def heartbeat(self) -> None:
        """Write the time, so that readers know how old their state can be. `DeniedCallerError` as for `save`."""
        self._demand_writable()
        await self._run(self._beat)

    async def changed(self) -> None:
        """Return once the folder has changed since this last returned; the first time at once.

        One stat every `POLL_SECONDS`. Raises nothing but `UnavailableStoreError` when closed: a folder that vanished is a change.
        """
        found = await self._run(self._signature)
        while found == self._seen:
            await asyncio.sleep(POLL_SECONDS)
            found = await self._run(self._signature)
        # Two changes within the grain of a file's times look like one: wait until there can be no second.
        before = None
        while found != before:
            await asyncio.sleep(_SETTLE_SECONDS)
            before, found = found, await self._run(self._signature)
        self._seen = found

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        """False: others may read the folder at any time, and nobody would know."""
        yield False

    async def scrub(self) -> None:
        """Remove what killed writers left unfinished; a file that was replaced is unlinked already.

        That is all that a folder can promise. Its blocks keep the bytes until they are used again, and so do snapshots and backups:
        those copies end when the key-encryption key ends.
        """
        if self.writable:
            await self._run(self._scrub)

    async def close(self) -> None:
        """See `ports.Store`."""
        self._closed = True

    def __repr__(self) -> str:
        return f"FileStore({self._path})"

    def _demand_writable(self) -> None:
        if not self.writable:
            raise DeniedCallerError("this sidecar has no write credentials for its store: a keeper changes it")

    # What follows runs in threads.

    async def _run(self, work: Callable[[], _T]) -> _T:
        if self._closed:
            raise UnavailableStoreError("the store is closed")
        return await asyncio.to_thread(self._guarded, work)

    def _guarded(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except OSError as error:
            raise UnavailableStoreError(f"the store {self._path} cannot be used: {_words(error)}") from error

    def _open(self) -> None:
        if self.writable:
            with self._locked() as folder:
                look = self._look_in(folder, strict=True)
                if look.store is None:
                    if look.rings:
                        raise UnavailableStoreError(
                            f"the folder {self._path} holds rings, but its file {layout.STORE!r} is missing: restore it from a backup; "
                            "it is never made anew over existing rings"
                        )
                    made = StoreFile(secrets.token_hex(16), max(self._time.now(), 0.0))
                    self._replace(folder, layout.STORE, layout.store_bytes(made))
        self._store_id = self._facts().store_id

    def _now(self, look: _Look) -> float:
        return max(self._time.now(), look.written())

    def _facts(self) -> StoreFile:
        return self._known(self._look(strict=False))

    def _known(self, look: _Look) -> StoreFile:
        if look.store is None:
            raise UnavailableStoreError(
                f"the folder {self._path} holds no store: its keeper has not written one yet, or it is another folder"
                if self._store_id is None
                else f"the folder {self._path} was emptied or replaced while in use: put its files back, or start again"
            )
        return look.store

    # Reading

    def _look(self, *, strict: bool) -> _Look:
        return self._in_folder(lambda folder: self._look_in(folder, strict=strict))

    def _in_folder(self, read: Callable[[int], _T]) -> _T:
        """What `read` finds in the folder's files, all of one state."""
        with _folder(self._path) as folder:
            for _ in range(_LOOKS):
                try:
                    target = self._target(folder)
                    if target is None:
                        return read(folder)
                    with self._linked(folder, target) as data:
                        try:
                            return read(data)
                        finally:
                            if self._target(folder) != target:
                                raise _MovedError
                except _MovedError:
                    continue
        raise UnavailableStoreError(f"the folder {self._path} changes faster than it can be read")

    def _target(self, folder: int) -> str | None:
        """Where the kubelet's link leads; None: it is a folder without one."""
        try:
            target = os.readlink(_DATA, dir_fd=folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise UnavailableStoreError(f"{self._path}/{_DATA} is not a link as the kubelet makes it") from error
            raise
        if "/" in target or target in ("", ".", "..", _DATA):
            raise UnavailableStoreError(f"{self._path}/{_DATA} leads out of its folder")
        return target

    @contextlib.contextmanager
    def _linked(self, folder: int, target: str) -> Iterator[int]:
        try:
            data = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            if self._target(folder) != target:
                raise _MovedError from None
            raise
        except NotADirectoryError as error:  # a link to one included
            raise UnavailableStoreError(f"{self._path}/{_DATA} leads to no folder of the kubelet's") from error
        try:
            yield data
        finally:
            os.close(data)

    def _look_in(self, folder: int, *, strict: bool) -> _Look:
        """Not `strict`: rings that cannot be read are left out. One profile's damage does not stop a change to another one."""
        rings = {}
        for name in os.listdir(folder):
            profile = layout.profile_of(name)
            if profile is None:
                continue
            try:
                with self._file(folder, name) as file, self._no_damage(name):
                    if file is not None:
                        rings[profile] = layout.read_ring_line(os.read(file, layout.LINE_MAX), os.fstat(file).st_size)
            except (UnavailableStoreError, OSError):
                if strict:
                    raise
        with self._file(folder, layout.STORE) as file, self._no_damage(layout.STORE):
            store = None if file is None else layout.read_store(os.read(file, layout.LINE_MAX))
        return _Look(store, rings)

    def _load(self, folder: int, profile: str) -> Document | None:
        name = layout.file_name(profile)
        with self._file(folder, name) as file, self._no_damage(name):
            if file is None:
                return None
            document, _ = layout.read_ring(profile, _read_all(file))
            return document

    @contextlib.contextmanager
    def _file(self, folder: int, name: str) -> Iterator[int | None]:
        """The file, to be read; None: there is none."""
        try:
            # A pipe would make open wait for its writer.
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):  # a link, a socket
                raise UnavailableStoreError(f"{self._path}/{name} is not a regular file") from error
            raise
        try:
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode):
                raise UnavailableStoreError(f"{self._path}/{name} is not a regular file")
            if found.st_size > layout.LARGEST:
                raise UnavailableStoreError(f"{self._path}/{name} is larger than {layout.LARGEST} bytes: no ring is")
            yield file
        finally:
            os.close(file)

    @contextlib.contextmanager
    def _no_damage(self, name: str) -> Iterator[None]:
        try:
            yield
        except DamagedFileError as error:
            raise UnavailableStoreError(
                f"{self._path}/{name} {error}: restore it from a backup; it is never repaired or replaced by itself"
            ) from error

    def _signature(self) -> tuple[int, ...] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns

    # Writing

    def _save(self, profile: str, content: bytes, expected: int) -> bool:
        name = layout.file_name(profile)
        with self._locked() as folder:
            now = self._now(self._same(folder))
            found = self._load(folder, profile)  # whole: what is damaged is not written over
            if (found.revision if found else 0) != expected:
                return False
            self._replace(folder, name, layout.ring_bytes(profile, Document(expected + 1, content), now))
        return True

    def _beat(self) -> None:
        with self._locked() as folder:
            look = self._same(folder)
            self._replace(
                folder, layout.STORE, layout.store_bytes(StoreFile(self._known(look).store_id, self._now(look)))
            )

    def _scrub(self) -> None:
        with self._locked() as folder:
            for name in os.listdir(folder):  # noqa: PTH208 - of a descriptor
                if name.startswith(_UNFINISHED):
                    os.unlink(name, dir_fd=folder)
            os.fsync(folder)

    def _same(self, folder: int) -> _Look:
        """A look, if this is still the store of the start."""
        look = self._look_in(folder, strict=False)
        if self._known(look).store_id != self._store_id:
            raise UnavailableStoreError(
                f"the folder {self._path} holds another store than at the start: start again to use it"
            )
        return look

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """The folder, with no other writer in it."""
        with _folder(self._path) as folder:
            if self._target(folder) is not None:
                raise UnavailableStoreError(
                    f"{self._path} is mounted by the kubelet and cannot be written: the keeper's store is kubernetes://NAMESPACE/SECRET"
                )
            deadline = time.monotonic() + LOCK_SECONDS
            while (lock := _try_lock(folder)) is None:
                if time.monotonic() > deadline:
                    raise UnavailableStoreError(f"another process keeps the folder {self._path} locked for too long")
                time.sleep(0.005)
            try:
                yield folder
            finally:
                os.close(lock)

    def _replace(self, folder: int, name: str, whole: bytes) -> None:
        unfinished = _UNFINISHED + name
        with contextlib.suppress(FileNotFoundError):  # of a writer that was killed
            os.unlink(unfinished, dir_fd=folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(unfinished, flags, 0o600, dir_fd=folder)
        try:
            try:
                os.fchmod(file, FILE_MODE)  # whatever the umask
                rest = memoryview(whole)
                while rest:
                    rest = rest[os.write(file, rest) :]
                os.fsync(file)
            finally:
                os.close(file)
            os.rename(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(unfinished, dir_fd=folder)
            raise
        os.fsync(folder)


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(folder: int) -> int | None:
    """The lock file, locked; None: another one holds it, or the file was replaced just now."""
    lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), os.stat(_LOCK, dir_fd=folder, follow_symlinks=False)):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None


def _read_all(file: int) -> bytes:
    parts = []
    left = layout.LARGEST + 1
    while left and (part := os.read(file, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


_WORDS = {
    errno.ENOENT: "it is not there",
    errno.ENOTDIR: "it is not a folder",
    errno.EACCES: "access is denied; sidecars of other users read through the folder's group",
    errno.EPERM: "access is denied",
    errno.EROFS: "it is read-only",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EIO: "the disk reports an error",
}


def _words(error: OSError) -> str:
    return _WORDS.get(error.errno or 0) or error.strerror or "it reports an error"
