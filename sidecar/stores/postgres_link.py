"""The one connection to PostgreSQL that a process has, and what happens when it is slow, broken or refused.

Rules:
 1. One connection at most, opened when it is needed and kept. Turns on it are taken in order, each bounded in time, waiting included.
 2. A turn that is not over in time is cut off at its socket: a server that is stopped, or a network that swallows, costs `SECONDS` and
    no more. What it asked for may have been done; who asked is told that the store is unavailable, and asks again.
 3. A cancelled caller leaves its turn, which ends by itself: nothing is cancelled inside the driver.
 4. After a connection that could not be made, further turns fail at once, until the next try: 0.1 s later, then twice as long, up to 5 s.
 5. A connection that was lost while nobody used it costs nothing but a new one. What is safe to repeat is repeated once on that; what the
    server itself undid (a serialization failure, a deadlock) is repeated a few times.
 6. Nothing depends on the session but LISTEN: no prepared statement, no setting, no lock. So a transaction pooler may stand between.
 7. Errors are told in an operator's words. What the server said is added as far as it can be printed, and never with a password.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import errors

from sidecar.errors import DeniedCallerError, SidecarError, UnavailableStoreError

if TYPE_CHECKING:
    from pathlib import Path

    from sidecar.database import Database

SECONDS = 5.0  # for a turn, and for a connection within it
MIGRATION_SECONDS = 600.0
BACK_OFF = (0.1, 5.0)  # seconds: the first, and the longest
ATTEMPTS = 5  # at what the server undid
_PASSWORD_MAX = 4096  # bytes

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
_T = TypeVar("_T")
Work = Callable[[Connection], Awaitable[_T]]

_UNDONE = (errors.SerializationFailure, errors.DeadlockDetected, errors.LockNotAvailable)
_WORDS: tuple[tuple[type[psycopg.Error], str], ...] = (
    (errors.InsufficientPrivilege, "this role lacks a right: see roles.sql and schema.sql in deploy/postgres"),
    (errors.TooManyConnections, "it has as many connections as it takes: use a pooler, or raise max_connections"),
    (errors.DiskFull, "its disk is full"),
    (errors.ReadOnlySqlTransaction, "it is read-only: a standby, or a setting of this role"),
    (errors.CannotConnectNow, "it is starting up or shutting down"),
    (errors.AdminShutdown, "it is shutting down, or an administrator ended the connection"),
    (errors.CrashShutdown, "it is recovering from a crash"),
    (errors.QueryCanceled, "it ended the statement: statement_timeout, or an administrator"),
    (errors.InFailedSqlTransaction, "the pooler mixes up sessions: it must pool sessions or transactions"),
)

_REFUSED = (
    (
        "password authentication failed",
        "it does not accept the password of this role: see keys.postgresql.password_file",
    ),
    ("no password supplied", "it wants a password: name its file in keys.postgresql.password_file"),
    ("no pg_hba.conf entry", "it does not let this role in from here: see its pg_hba.conf"),
    ("certificate", "TLS: see keys.postgresql.root_certificates"),
    ("too many clients", "it has as many connections as it takes: use a pooler, or raise max_connections"),
)
"""A connection that is refused has no code, only the server's words."""


class Link:
    """See the rules. `greet` is called on each new connection; what it raises means that the connection is of no use."""

    def __init__(self, database: Database, greet: Work[None], listen: str | None = None) -> None:
        """Connects to nothing. `listen`: the channel on which `told` is set; a new connection sets it too."""
        self.told = asyncio.Event()
        self._database = database
        self._greet = greet
        self._channel = listen
        self._connection: Connection | None = None
        self._watched: int | None = None
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._problem = ""
        self._failures = 0
        self._not_before = 0.0
        self._closed = False

    async def run(self, work: Work[_T], *, again: bool = True, seconds: float = SECONDS) -> _T:
        """What `work` gives, on the connection. `again`: it may be repeated where it is not known whether it was done.

        `UnavailableStoreError`; `DeniedCallerError` where the server says that this role may not.
        """
        if self._closed:
            raise UnavailableStoreError("the store is closed")
        task = asyncio.create_task(self._turn_of(work, time.monotonic() + seconds, again=again))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """End what is under way, and the connection. What is asked for later fails."""
        self._closed = True
        if self._turn.locked():
            self._cut()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=2 * SECONDS)
        await self._disconnect()

    def __repr__(self) -> str:
        return f"Link({self._database})"

    # Turns

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # fetched: perhaps nobody waits any more

    async def _turn_of(self, work: Work[_T], deadline: float, *, again: bool) -> _T:
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + deadline - time.monotonic()):
                await self._turn.acquire()
        except TimeoutError:
            raise UnavailableStoreError(
                f"{self._database} does not answer in time: {self._problem or 'too many ask at once'}"
            ) from None
        try:
            return await self._repeated(work, deadline, again=again)
        finally:
            self._watch()
            self._turn.release()

    async def _repeated(self, work: Work[_T], deadline: float, *, again: bool) -> _T:
        attempt = 0
        while True:
            attempt += 1
            connection = await self._connected(deadline)
            try:
                return await self._bounded(work(connection), connection, deadline)
            except _UNDONE as error:
                await self._rolled_back(connection)
                if attempt >= ATTEMPTS or time.monotonic() > deadline:
                    raise self._told(error) from None
                await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311 - jitter
            except psycopg.Error as error:
                broken = bool(connection.closed) or isinstance(error, psycopg.OperationalError)
                if broken:
                    await self._disconnect()
                else:
                    await self._rolled_back(connection)
                if not (broken and again and attempt == 1) or time.monotonic() > deadline:
                    raise self._told(error) from None
            except UnavailableStoreError as error:  # out of time
                self._problem = error.message
                raise

    async def _bounded(self, work: Awaitable[_T], connection: Connection, deadline: float) -> _T:
        """Rules 2 and 3."""
        task = asyncio.ensure_future(work)
        await asyncio.wait({task}, timeout=max(deadline - time.monotonic(), 0.0))
        if not task.done():
            _shut(connection)
            await asyncio.wait({task}, timeout=1.0)
            if not task.done():
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._disconnect()
            raise UnavailableStoreError(f"{self._database} does not answer in time")
        return task.result()

    async def _rolled_back(self, connection: Connection) -> None:
        """Out of the transaction that failed."""
        if connection.closed or connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            return
        try:
            await self._bounded(connection.rollback(), connection, time.monotonic() + 1.0)
        except (psycopg.Error, SidecarError):
            await self._disconnect()

    # The connection

    async def _connected(self, deadline: float) -> Connection:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        await self._disconnect()
        wait = self._not_before - time.monotonic()
        if wait > 0:
            raise UnavailableStoreError(self._problem, retry_after=wait)
        connection: Connection | None = None
        try:
            connection = await self._connect(deadline)
            await self._bounded(self._greeting(connection), connection, deadline)
        except (psycopg.Error, SidecarError, OSError, TimeoutError) as error:
            if connection is not None:
                await connection.close()
            raise self._failed(error) from None
        except BaseException:
            if connection is not None:
                await connection.close()
            raise
        self._connection, self._failures, self._problem = connection, 0, ""
        return connection

    async def _greeting(self, connection: Connection) -> None:
        await self._greet(connection)
        if self._channel is not None:
            connection.add_notify_handler(lambda _: self.told.set())
            await connection.execute(f"LISTEN {self._channel}".encode())
            self.told.set()  # something may have happened while nobody listened

    async def _connect(self, deadline: float) -> Connection:
        parameters = await asyncio.to_thread(_parameters, self._database)
        async with asyncio.timeout(max(deadline - time.monotonic(), 0.0)):
            return await psycopg.AsyncConnection.connect(
                **parameters, autocommit=True, prepare_threshold=None, connect_timeout=int(SECONDS)
            )

    def _failed(self, error: Exception) -> UnavailableStoreError:
        """Rule 4."""
        told = self._told(error)
        self._problem = told.message
        first, longest = BACK_OFF
        wait = min(first * 2 ** min(self._failures, 10), longest) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        self._failures += 1
        self._not_before = time.monotonic() + wait
        return UnavailableStoreError(told.message, retry_after=wait)

    async def _disconnect(self) -> None:
        self._unwatch()
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                await connection.close()

    def _cut(self) -> None:
        if self._connection is not None and not self._connection.closed:
            _shut(self._connection)

    # While nobody uses it

    def _watch(self) -> None:
        """Notice what the server says by itself: news, or that the connection is over."""
        if self._connection is not None and not self._connection.closed and not self._closed:
            self._watched = self._connection.pgconn.socket
            asyncio.get_running_loop().add_reader(self._watched, self._readable)

    def _unwatch(self) -> None:
        if self._watched is not None:
            asyncio.get_running_loop().remove_reader(self._watched)
            self._watched = None

    def _readable(self) -> None:
        connection = self._connection
        if connection is None or self._turn.locked():
            return
        try:
            connection.pgconn.consume_input()
            while connection.pgconn.notifies() is not None:
                self.told.set()
        except psycopg.Error:
            self._unwatch()
            connection.pgconn.finish()  # the next turn makes another one

    # Words

    def _told(self, error: Exception) -> SidecarError:
        if isinstance(error, SidecarError):
            return error
        if isinstance(error, TimeoutError | errors.ConnectionTimeout):
            return UnavailableStoreError(f"{self._database} cannot be reached in {SECONDS:.0f} s")
        words = next((said for kind, said in _WORDS if isinstance(error, kind)), "")
        said = _printable(error)
        words = words or next((advice for sign, advice in _REFUSED if sign in said), "")
        if isinstance(error, errors.InsufficientPrivilege):
            return DeniedCallerError(f"{self._database}: {words} (the server says: {said})")
        parts = [
            f"{self._database} cannot be used",
            words or said,
            f"the server says: {said}" if words and said else "",
        ]
        return UnavailableStoreError(": ".join(filter(None, parts)))


def _shut(connection: Connection) -> None:
    """Both ways, so that who waits on the socket wakes up; the driver then finds it closed."""
    with contextlib.suppress(OSError, psycopg.Error):
        end = socket.socket(fileno=os.dup(connection.pgconn.socket))
        try:
            end.shutdown(socket.SHUT_RDWR)
        finally:
            end.close()


def _parameters(database: Database) -> dict[str, Any]:
    """For the driver (https://www.postgresql.org/docs/current/libpq-connect.html). Reads the password anew."""
    parameters: dict[str, Any] = {
        "host": ",".join(host for host, _ in database.hosts),
        "port": ",".join(str(port) for _, port in database.hosts),
        "user": database.role,
        "dbname": database.name,
        "password": "",  # none from the environment
        "application_name": "tokensidecar",
        "client_encoding": "UTF8",
        "gssencmode": "disable",
        "target_session_attrs": "primary",  # a standby may be behind, and that would look like a rollback
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 15000,
        "sslmode": "prefer" if database.plaintext else "verify-full",
    }
    if not database.plaintext:
        parameters["sslrootcert"] = str(database.root_certificates or "system")
    if database.certificate and database.certificate_key:
        parameters |= {"sslcert": str(database.certificate), "sslkey": str(database.certificate_key)}
    if database.password_file:
        parameters["password"] = _password(database.password_file)
    if database.passfile:
        parameters["passfile"] = str(database.passfile)
    return parameters


def _password(path: Path) -> str:
    """The first line of the file."""
    try:
        with path.open("rb") as file:
            data = file.read(_PASSWORD_MAX + 1)
            open_to_all = os.fstat(file.fileno()).st_mode & 0o007
        text = data.decode().removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise UnavailableStoreError(f"the password in {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        text = ""
    if open_to_all:
        raise UnavailableStoreError(
            f"{path} holds a password, and every user of this machine may open it: chmod o= {path}"
        )
    if not text or len(data) > _PASSWORD_MAX or any(c in text for c in "\n\r\0"):
        raise UnavailableStoreError(f"the file {path} does not hold a password in one line of UTF-8")
    return text


def _printable(error: Exception) -> str:
    """What the server, or the driver, said in its first line. Neither repeats a password."""
    found = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    text = found or (str(error).strip().splitlines() or [type(error).__name__])[0]
    return "".join(c for c in text[:300] if c.isprintable())
