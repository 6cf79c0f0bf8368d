"""The ledger's part of a SQLite store: tables, and what each call does within one transaction (see `ports.Ledger`).

Rules:
 1. Every function runs within a transaction that has the write lock from its start, except `revocations`, which reads.
 2. Every row carries a checksum, as documents do, and is checked whenever it is read: damage raises `DamagedRowError`.
 3. The revocation revision is one row that only `revoke` and a reuse move, so revisions are seen in their order.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from sidecar.ports import Ended, Revocation, Revocations, Spent, Turn

if TYPE_CHECKING:
    import sqlite3

    from sidecar.ports import Spending

TABLES = """
CREATE TABLE ledger (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  revision INTEGER NOT NULL,  -- of the last change of a revocation
  checksum BLOB NOT NULL
) STRICT;
CREATE TABLE revocations (
  digest BLOB PRIMARY KEY,
  kind TEXT NOT NULL,
  before INTEGER NOT NULL,
  until INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  checksum BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX revocations_revision ON revocations (revision);
CREATE INDEX revocations_until ON revocations (until);
CREATE TABLE consumed (
  token BLOB PRIMARY KEY,
  request BLOB NOT NULL,      -- of the call that consumed it, or empty
  until INTEGER NOT NULL,
  checksum BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX consumed_until ON consumed (until);
CREATE TABLE families (
  family BLOB PRIMARY KEY,
  current TEXT NOT NULL,      -- id of the refresh token that is to be spent next
  spent TEXT NOT NULL,        -- id of the one that was spent last, at this time:
  time REAL NOT NULL,
  until INTEGER NOT NULL,
  checksum BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX families_until ON families (until);
"""


class DamagedRowError(Exception):
    """A row is not as it was written."""


def make(connection: sqlite3.Connection) -> None:
    """The tables, and a ledger at revision 0."""
    for statement in TABLES.split(";"):
        connection.execute(statement)
    connection.execute("INSERT INTO ledger VALUES (1, 0, ?)", (_checksum(0),))


def revision(connection: sqlite3.Connection) -> int:
    """The revocation revision."""
    rows = connection.execute("SELECT revision, checksum FROM ledger").fetchall()
    if len(rows) != 1:
        raise DamagedRowError
    return int(_checked(rows[0])[0])


def revoke(connection: sqlite3.Connection, revocation: Revocation) -> int:
    """See `ports.Ledger`."""
    held = _held(connection, revocation.digest)
    before, until = revocation.before, revocation.until
    if held is not None:
        if held.before >= before and held.until >= until:
            return revision(connection)
        before, until = max(held.before, before), max(held.until, until)
    following = revision(connection) + 1
    row = (revocation.digest, revocation.kind.value, before, until, following)
    connection.execute("INSERT OR REPLACE INTO revocations VALUES (?, ?, ?, ?, ?, ?)", (*row, _checksum(*row)))
    connection.execute("UPDATE ledger SET revision = ?, checksum = ?", (following, _checksum(following)))
    return following


def revocations(connection: sqlite3.Connection, after: int, limit: int) -> Revocations:
    """See `ports.Ledger`. Two statements: to be run within one transaction, or the second could see more than the first."""
    present = revision(connection)
    found = connection.execute(
        "SELECT digest, kind, before, until, revision, checksum FROM revocations WHERE revision > ? ORDER BY revision LIMIT ?",
        (after, limit),
    ).fetchall()
    rows = [_checked(row) for row in found]
    entries = tuple(Revocation(Ended(kind), digest, before, until) for digest, kind, before, until, _ in rows)
    return Revocations(rows[-1][4] if len(rows) == limit else present, entries)


def consume(connection: sqlite3.Connection, now: float, token: bytes, request: bytes, until: int) -> bool:
    """See `ports.Ledger`."""
    if until <= now:
        return False
    row = connection.execute(
        "SELECT token, request, until, checksum FROM consumed WHERE token = ?", (token,)
    ).fetchone()
    if row is not None:
        return bool(request) and _checked(row)[1] == request
    values = (token, request, until)
    connection.execute("INSERT INTO consumed VALUES (?, ?, ?, ?)", (*values, _checksum(*values)))
    return True


def spend(connection: sqlite3.Connection, now: float, spending: Spending) -> Spent:
    """See `ports.Ledger`."""
    family = spending.family
    if family.until <= now or any(
        held is not None and held.before >= issued
        for digest, issued in spending.bars
        for held in (_held(connection, digest),)
    ):
        return Spent(Turn.REVOKED)
    row = connection.execute(
        "SELECT family, current, spent, time, until, checksum FROM families WHERE family = ?", (family.digest,)
    ).fetchone()
    if row is not None:
        _, current, last, time, until = _checked(row)
        if spending.token == last and now - time <= spending.grace:
            return Spent(Turn.REPEATED, current, time)
        known, until = spending.token == current, max(until, family.until)
    else:
        known, until = spending.first, family.until
    if not known:
        revoke(connection, family)
        return Spent(Turn.REUSED)
    values = (family.digest, spending.successor, spending.token, now, until)
    connection.execute("INSERT OR REPLACE INTO families VALUES (?, ?, ?, ?, ?, ?)", (*values, _checksum(*values)))
    return Spent(Turn.ROTATED, spending.successor, now)


def forget(connection: sqlite3.Connection, now: float, limit: int) -> int:
    """See `ports.Ledger`."""
    gone = 0
    for table, key in (("revocations", "digest"), ("consumed", "token"), ("families", "family")):
        gone += connection.execute(
            f"DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} WHERE until <= ? ORDER BY until LIMIT ?)",  # noqa: S608 - names of our own
            (now, limit),
        ).rowcount
    return gone


def _held(connection: sqlite3.Connection, digest: bytes) -> Revocation | None:
    row = connection.execute(
        "SELECT digest, kind, before, until, revision, checksum FROM revocations WHERE digest = ?", (digest,)
    ).fetchone()
    if row is None:
        return None
    _, kind, before, until, _ = _checked(row)
    return Revocation(Ended(kind), digest, before, until)


def _checked(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The row without its checksum, which must fit."""
    *values, checksum = row
    if checksum != _checksum(*values):
        raise DamagedRowError
    return tuple(values)


def _checksum(*values: bytes | str | float) -> bytes:
    """Eight bytes of BLAKE2b. Against accidents, as the documents' is."""
    return hashlib.blake2b(repr(values).encode(), digest_size=8).digest()
