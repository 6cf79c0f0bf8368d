"""A store in one SQLite file, for the processes of one machine (https://sqlite.org/wal.html).

Rules:
 1. True from `save` means on disk: WAL with synchronous=FULL, and the directory entry is synced when the file is made.
 2. Every row carries a checksum, and the file is checked when it is opened: damage is noticed at the start, not at the first use.
 3. Store time is a wall-clock reading that is kept in the file together with the boot-time clock of the same moment, and goes on by the
    boot-time clock. A wall clock that is set therefore changes nothing. It is read anew only by a process that opens the file alone, or
    first since the machine started, and never so that it would lie before the last write.
 4. Each process that uses the store holds a shared lock on `<file>-members` for as long; whoever gets the exclusive one is alone.
 5. The file is made complete or not at all. One that is empty or short is damaged, and one that was replaced, removed or cut under a
    running process is refused: what is written there would be lost.
 6. A write that failed may still turn up after a crash (its sync was refused, not undone): whoever asked was told that the store is
    unavailable, and asks again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import sqlite3
import stat
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sidecar.errors import UnavailableStoreError
from sidecar.failpoints import failpoint
from sidecar.ports import REVOCATIONS, Document, Revocation, Revocations, Spending, Spent
from sidecar.stores import sqlite_ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from sidecar.ports import Clock

SCHEMA = 2
APPLICATION_ID = 0x746F6B73  # "toks"
BUSY_SECONDS = 5.0
MEMBERS_SECONDS = 10.0
_SMALLEST = 512  # bytes of the smallest page; SQLite takes a shorter file for an empty one
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_TABLES = """
CREATE TABLE store (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  id TEXT NOT NULL,
  boot_id TEXT NOT NULL,  -- of the machine's start that the anchor belongs to
  boot REAL NOT NULL,     -- the anchor: seconds by the boot-time clock ...
  wall REAL NOT NULL,     -- ... and since the epoch, at the same moment
  written REAL NOT NULL,  -- store time of the last write
  checksum BLOB NOT NULL
) STRICT;
CREATE TABLE documents (
  name TEXT PRIMARY KEY,
  revision INTEGER NOT NULL,
  content BLOB NOT NULL,
  checksum BLOB NOT NULL
) STRICT, WITHOUT ROWID;
"""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Anchor:
    """The one row of the table `store`."""

    store_id: str
    boot_id: str
    boot: float
    wall: float
    written: float

    def checksum(self) -> bytes:
        return _digest(self.store_id, self.boot_id, self.boot.hex(), self.wall.hex(), self.written.hex())

    def time(self, boot: float) -> float:
        """Store time at that reading of the same start's boot-time clock."""
        return self.wall + (boot - self.boot)


class SqliteStore:
    """See `ports.Store` and `ports.Ledger`. One connection, used by one thread; every call is safe from any task."""

    private = True
    writable = True

    def __init__(self, path: Path, clock: Clock) -> None:
        """Touches nothing; `open` does."""
        self._path = path
        self._clock = clock
        self._boot_id = _read_boot_id()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._members: int | None = None
        self._alone = asyncio.Lock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._size = 0
        self._closed = False

    @classmethod
    async def open(cls, path: Path, clock: Clock) -> SqliteStore:
        """The store in that file, made if there is none. The directory must be there.

        `UnavailableStoreError`, with words for an operator: the file cannot be used, is damaged, is not ours or of a newer version.
        """
        store = cls(path, clock)
        try:
            await store._run(store._open)
        except BaseException:
            await store.close()
            raise
        return store

    async def store_id(self) -> str:
        """See `ports.Store`."""
        return await self._run(lambda: self._anchor(self._connected()).store_id)

    async def now(self) -> float:
        """See `ports.Store`."""
        return await self._run(lambda: self._now(self._connected()))

    async def revisions(self) -> dict[str, int]:
        """See `ports.Store`."""
        return await self._run(lambda: self._revisions(self._connected()))

    async def load(self, name: str) -> Document | None:
        """See `ports.Store`."""
        return await self._run(lambda: self._load(self._connected(), name))

    async def save(self, name: str, content: bytes, *, expected: int) -> bool:
        """See `ports.Store`."""
        return await self._run(lambda: self._save(self._connected(), name, content, expected))

    async def revoke(self, revocation: Revocation) -> int:
        """See `ports.Ledger`."""
        return await self._run(lambda: self._write(lambda connection, _: sqlite_ledger.revoke(connection, revocation)))

    async def revocations(self, after: int, limit: int) -> Revocations:
        """See `ports.Ledger`."""
        return await self._run(lambda: self._revocations(self._connected(), after, limit))

    async def consume(self, token: bytes, request: bytes, until: int) -> bool:
        """See `ports.Ledger`."""
        return await self._run(
            lambda: self._write(lambda connection, now: sqlite_ledger.consume(connection, now, token, request, until))
        )

    async def spend(self, spending: Spending) -> Spent:
        """See `ports.Ledger`."""
        return await self._run(
            lambda: self._write(lambda connection, now: sqlite_ledger.spend(connection, now, spending))
        )

    async def forget(self, limit: int) -> int:
        """See `ports.Ledger`."""
        return await self._run(
            lambda: self._write(lambda connection, now: sqlite_ledger.forget(connection, now, limit))
        )

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        """See `ports.Store`."""
        async with self._alone:
            alone = await self._run(self._lock_out_others)
            try:
                yield alone
            finally:
                if alone:
                    # By the same thread, so after a write that was cancelled but is still under way.
                    with contextlib.suppress(UnavailableStoreError):  # closed meanwhile, and with it the lock
                        await asyncio.shield(self._run(lambda: self._lock(fcntl.F_RDLCK)))

    async def scrub(self) -> None:
        """Move the log into the file, which overwrites what was deleted with zeros, and truncate it."""
        await self._run(lambda: self._scrub(self._connected()))

    async def close(self) -> None:
        """See `ports.Store`."""
        if not self._closed:
            self._closed = True
            await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
            self._thread.shutdown(wait=False)

    # What follows runs in the store's thread.

    async def _run(self, work: Callable[[], _T]) -> _T:
        if self._closed:
            raise UnavailableStoreError("the store is closed")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work)

    def _guarded(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter of a damaged schema that SQLite quotes
            if _code(error) in _LASTING:
                self._disconnect()  # the next call opens and checks the file again
            raise UnavailableStoreError(_words(self._path, error)) from error
        except sqlite_ledger.DamagedRowError as error:
            self._disconnect()
            raise UnavailableStoreError(damaged(self._path)) from error
        except OSError as error:
            raise UnavailableStoreError(f"the store {self._path} cannot be used: {error.strerror or error}") from error
        except UnavailableStoreError:
            self._disconnect()
            raise

    def _open(self) -> None:
        self._members = os.open(f"{self._path}-members", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + MEMBERS_SECONDS
        while not self._lock(fcntl.F_RDLCK):
            if time.monotonic() > deadline:
                raise UnavailableStoreError(f"another process keeps the store {self._path} to itself for too long")
            time.sleep(0.02)
        alone = self._lock(fcntl.F_WRLCK)
        try:
            self._make_file()
            connection = self._connected()
            with _transaction(connection):
                self._settle_time(connection, alone=alone)
            with contextlib.suppress(
                UnavailableStoreError
            ):  # what a killed process left in the log; others may be reading it now
                self._scrub(connection)
        finally:
            if alone:
                self._lock(fcntl.F_RDLCK)

    def _make_file(self) -> None:
        """One process makes it, whole, under another name first; then it gets its own."""
        deadline = time.monotonic() + MEMBERS_SECONDS
        while not self._lock_makers():
            if time.monotonic() > deadline:
                raise UnavailableStoreError(f"another process is making the store {self._path} for too long")
            time.sleep(0.02)
        try:
            if _is_there(self._path):
                return
            log = Path(f"{self._path}-wal")
            if _is_there(log) and log.stat().st_size:
                raise UnavailableStoreError(
                    f"the database {self._path} is missing, but its log {log} is there: put the database back, or move the log away too"
                )
            self._write_file()
        finally:
            fcntl.flock(self._members_descriptor(), fcntl.LOCK_UN)
        failpoint("start.store_made")

    def _write_file(self) -> None:
        unfinished = Path(f"{self._path}.unfinished")
        for left in (unfinished, Path(f"{unfinished}-journal")):  # by a start that was killed
            left.unlink(missing_ok=True)
        # Private from the start; SQLite gives its log the same mode.
        os.close(os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(f"file:{_quoted(unfinished)}?mode=rw", uri=True, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous = EXTRA")
            with _transaction(connection):
                self._make_schema(connection)
        finally:
            connection.close()
        unfinished.rename(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _lock_makers(self) -> bool:
        """Of another kind than the members' locks, so that the two do not meet."""
        try:
            fcntl.flock(self._members_descriptor(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _members_descriptor(self) -> int:
        if self._members is None:
            raise UnavailableStoreError("the store is closed")
        return self._members

    def _connected(self) -> sqlite3.Connection:
        """The connection, as long as the file is still the one that it was opened on."""
        try:
            found = self._path.stat()
        except FileNotFoundError as error:
            raise UnavailableStoreError(
                f"the database {self._path} was removed while in use: put it back and start again"
            ) from error
        if not stat.S_ISREG(found.st_mode):
            raise UnavailableStoreError(f"{self._path} is not a regular file")
        if found.st_size < max(self._size, _SMALLEST):
            raise UnavailableStoreError(damaged(self._path))
        self._size = found.st_size  # it never shrinks: nothing is vacuumed
        identity = (found.st_dev, found.st_ino)
        if self._identity not in (None, identity):
            raise UnavailableStoreError(
                f"the database {self._path} was replaced while in use: start again to use this one"
            )
        if self._connection is None:
            connection = sqlite3.connect(
                f"file:{_quoted(self._path)}?{self._access()}", uri=True, timeout=BUSY_SECONDS, isolation_level=None
            )
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection, self._identity = connection, identity
        return self._connection

    def _access(self) -> str:
        """How SQLite is to open the file."""
        return "mode=rw"

    def _use_log(self, connection: sqlite3.Connection) -> None:
        if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
            raise UnavailableStoreError(
                f"the file system of {self._path} cannot hold a database in WAL mode: use a local disk"
            )

    def _prepare(self, connection: sqlite3.Connection) -> None:
        self._use_log(connection)
        for pragma in ("synchronous = FULL", "secure_delete = ON", "trusted_schema = OFF", "cell_size_check = ON"):
            connection.execute(f"PRAGMA {pragma}")
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        if application != APPLICATION_ID:
            raise UnavailableStoreError(
                f"{self._path} is a database, but not one of this program: name another file in keys.store"
            )
        schema = _schema(connection)
        if not 1 <= schema <= SCHEMA:
            raise UnavailableStoreError(
                f"the database {self._path} has schema {schema}, and this version knows 1 to {SCHEMA}: use the version that wrote it, or a newer one"
            )
        if schema < SCHEMA:
            self._migrate(connection)
        self._check(connection)

    def _migrate(self, connection: sqlite3.Connection) -> None:
        """From schema 1: the ledger's tables are added, all or none, and nothing that was there is touched."""
        with _transaction(connection):
            if _schema(connection) < SCHEMA:  # nobody was quicker
                sqlite_ledger.make(connection)
                connection.execute(f"PRAGMA user_version = {SCHEMA}")
            failpoint("migrate.tables_made")

    def _make_schema(self, connection: sqlite3.Connection) -> None:
        for statement in _TABLES.split(";"):
            connection.execute(statement)
        sqlite_ledger.make(connection)
        wall = self._clock.wall()
        self._put_anchor(connection, _Anchor(secrets.token_hex(16), self._boot_id, self._clock.boot(), wall, wall))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA}")

    def _check(self, connection: sqlite3.Connection) -> None:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != ("ok",):
            raise UnavailableStoreError(damaged(self._path))
        self._anchor(connection)
        sqlite_ledger.revision(connection)  # the other rows of the ledger are checked when they are read
        for (name,) in connection.execute("SELECT name FROM documents").fetchall():
            self._load(connection, name)

    def _settle_time(self, connection: sqlite3.Connection, *, alone: bool) -> None:
        anchor = self._anchor(connection)
        boot, wall = self._clock.boot(), self._clock.wall()
        restarted = anchor.boot_id != self._boot_id
        if not (alone or restarted):
            return
        running = anchor.written if restarted else anchor.time(boot)
        # Before the last write: then the clock is wrong, or it was. Go on from what is known, and let the keeper find the difference.
        settled = wall if wall >= anchor.written else max(running, anchor.written)
        self._put_anchor(connection, _Anchor(anchor.store_id, self._boot_id, boot, settled, anchor.written))

    def _anchor(self, connection: sqlite3.Connection) -> _Anchor:
        rows = connection.execute("SELECT id, boot_id, boot, wall, written, checksum FROM store").fetchall()
        if len(rows) == 1 and _Anchor(*rows[0][:5]).checksum() == rows[0][5]:
            return _Anchor(*rows[0][:5])
        raise UnavailableStoreError(damaged(self._path))

    def _put_anchor(self, connection: sqlite3.Connection, anchor: _Anchor) -> None:
        row = (anchor.store_id, anchor.boot_id, anchor.boot, anchor.wall, anchor.written, anchor.checksum())
        connection.execute("INSERT OR REPLACE INTO store VALUES (1, ?, ?, ?, ?, ?, ?)", row)

    def _now(self, connection: sqlite3.Connection) -> float:
        anchor = self._anchor(connection)
        if anchor.boot_id != self._boot_id:
            raise UnavailableStoreError(
                f"the store {self._path} is in use by another machine: SQLite serves one machine only"
            )
        return anchor.time(self._clock.boot())

    def _load(self, connection: sqlite3.Connection, name: str) -> Document | None:
        row = connection.execute("SELECT revision, content, checksum FROM documents WHERE name = ?", (name,)).fetchone()
        if row is None:
            return None
        revision, content, checksum = row
        if _digest(name, str(revision), content) != checksum:
            raise UnavailableStoreError(damaged(self._path))
        return Document(revision, content)

    def _save(self, connection: sqlite3.Connection, name: str, content: bytes, expected: int) -> bool:
        with _transaction(connection):
            now = self._now(connection)
            found = self._load(connection, name)
            if (found.revision if found else 0) != expected:
                return False
            checksum = _digest(name, str(expected + 1), content)
            connection.execute(
                "INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?)", (name, expected + 1, content, checksum)
            )
            self._mark_written(connection, now)
        return True

    def _write(self, work: Callable[[sqlite3.Connection, float], _T]) -> _T:
        """A transaction at store time `now`."""
        connection = self._connected()
        with _transaction(connection):
            now = self._now(connection)
            result = work(connection, now)
            self._mark_written(connection, now)
        return result

    def _mark_written(self, connection: sqlite3.Connection, now: float) -> None:
        anchor = self._anchor(connection)
        written = max(now, anchor.written)
        self._put_anchor(connection, _Anchor(anchor.store_id, anchor.boot_id, anchor.boot, anchor.wall, written))

    def _revisions(self, connection: sqlite3.Connection) -> dict[str, int]:
        found = dict(connection.execute("SELECT name, revision FROM documents").fetchall())
        revocations = sqlite_ledger.revision(connection)
        return {**found, REVOCATIONS: revocations} if revocations else found

    def _revocations(self, connection: sqlite3.Connection, after: int, limit: int) -> Revocations:
        connection.execute("BEGIN")  # both its statements see the same moment
        try:
            return sqlite_ledger.revocations(connection, after, limit)
        finally:
            connection.execute("COMMIT")

    def _scrub(self, connection: sqlite3.Connection) -> None:
        busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise UnavailableStoreError(
                f"the log of {self._path} is in use by another process and could not be emptied now"
            )

    def _lock_out_others(self) -> bool:
        members = self._members_descriptor()
        if not os.path.samestat(os.fstat(members), Path(f"{self._path}-members").stat()):
            return False  # somebody replaced the file: others may hold locks on the new one
        return self._lock(fcntl.F_WRLCK)

    def _lock(self, kind: int) -> bool:
        """Change the lock on the members file, at once or not at all.

        An open file description's lock (F_OFD_SETLK): two stores in one process count as two members, and to close another
        descriptor of the file does not lose it. Going from shared to exclusive and back never lets go in between.
        """
        # struct flock on 64-bit Linux: l_type, l_whence, l_start, l_len (0: all), l_pid
        request = struct.pack("@hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)
        try:
            fcntl.fcntl(self._members_descriptor(), fcntl.F_OFD_SETLK, request)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _close(self) -> None:
        self._disconnect()
        if self._members is not None:
            os.close(self._members)
            self._members = None


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, with the write lock from the start."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A failed COMMIT may have rolled back by itself.
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


# After these the connection is not to be trusted. After a full or failing disk or a busy file it is, and a new one might not open.
_LASTING = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
    }
)
_WORDS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_BUSY: "another process keeps it locked",
    sqlite3.SQLITE_LOCKED: "another process keeps it locked",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
    sqlite3.SQLITE_PERM: "access is denied",
    sqlite3.SQLITE_AUTH: "access is denied",
}


def _code(error: Exception) -> int:
    """The primary result code; that of a damaged file for an error of the driver's own, which only odd contents cause."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF


def _words(path: Path, error: Exception) -> str:
    cause = _WORDS.get(_code(error))
    return f"the store {path} cannot be used: {cause}" if cause else damaged(path)


def damaged(path: Path) -> str:
    """What to say of a file that is."""
    return f"the database {path} is damaged: restore it from a backup; it is never repaired or replaced by itself"


def _schema(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _digest(*parts: str | bytes) -> bytes:
    """SHA-256 over the parts and their lengths. Against accidents; forgery is what sealing is for."""
    hashed = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        hashed.update(len(data).to_bytes(8, "big") + data)
    return hashed.digest()


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _read_boot_id() -> str:
    """The kernel's name for this start of the machine."""
    return _BOOT_ID.read_text(encoding="ascii").strip()
