"""A look at a SQLite store that changes nothing: no lock is taken, no file made, no clock settled and no schema brought up to date.

Of its ledger nothing is read.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sidecar.errors import UnavailableStoreError
from sidecar.stores.sqlite import SqliteStore, damaged


class SqliteLook(SqliteStore):
    """See `SqliteStore`; only what reads may be called."""

    writable = False

    def _open(self) -> None:
        self._connected()

    def _access(self) -> str:
        # Without a log nobody has it open, and SQLite would make a log even to read.
        return "mode=ro" if Path(f"{self._path}-wal").exists() else "mode=ro&immutable=1"

    def _use_log(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA query_only = ON")

    def _migrate(self, connection: sqlite3.Connection) -> None:
        """An earlier version's is read as it is: documents are in all of them."""

    def _check(self, connection: sqlite3.Connection) -> None:
        if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise UnavailableStoreError(damaged(self._path))
        self._anchor(connection)
        for name in self._revisions(connection):
            self._load(connection, name)

    def _revisions(self, connection: sqlite3.Connection) -> dict[str, int]:
        return dict(connection.execute("SELECT name, revision FROM documents").fetchall())

    def _now(self, connection: sqlite3.Connection) -> float:
        anchor = self._anchor(connection)
        if anchor.boot_id == self._boot_id:
            return anchor.time(self._clock.boot())
        # Of another start of the machine, or another machine's: whoever starts next settles it so.
        return max(self._clock.wall(), anchor.written)
