"""A store in PostgreSQL 14 or newer, for a fleet: rings, and what became of tokens.

The schema is in `postgres_schema.py`, the connection in `postgres_link.py`.

Rules:
 1. One statement for each call, so that each is a transaction of its own, takes one round trip and may go through a transaction pooler.
 2. True from `save`, and whatever a ledger method returns, means on the primary's disk. A standby that takes over without it is noticed
    as a rollback; synchronous replication avoids that.
 3. Store time is the server's clock.
 4. Nobody is ever alone: another process may connect at any moment, and no lock of a session would outlive a pooler. So a successor is
    always prepared ahead.
 5. What a connection's role may call decides what this process is: with `save`, a keeper; with `revoke`, `consume` and `spend`, one whose
    app may use one-time and refresh tokens; else a reader.
 6. Of the schema's versions see `postgres_schema.py`. Whoever may makes it, or brings it forward; a newer one that says that this program
    is too old for it is refused.

Overwritten rings stay in dead rows until a vacuum, and in the write-ahead log and backups: they end with the key-encryption key (`rekey`).
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sidecar.errors import DeniedCallerError, UnavailableStoreError
from sidecar.logs import get_logger
from sidecar.ports import REVOCATIONS, Document, Glance, Member
from sidecar.stores import postgres_ledger as ledger, postgres_schema as schema
from sidecar.stores.postgres_link import MIGRATION_SECONDS, Connection, Link

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sidecar.database import Database
    from sidecar.ports import Revocation, Revocations, Spending, Spent

_log = get_logger()

_PRIVILEGES = """
SELECT has_schema_privilege(n.oid, 'USAGE'),
  EXISTS (SELECT FROM pg_class AS c WHERE c.relnamespace = n.oid AND c.relname = 'store'),
  CASE WHEN has_schema_privilege(n.oid, 'USAGE') THEN has_function_privilege(to_regprocedure(%s), 'EXECUTE') END,
  CASE WHEN has_schema_privilege(n.oid, 'USAGE') THEN has_function_privilege(to_regprocedure(%s), 'EXECUTE') END,
  pg_has_role(n.nspowner, 'USAGE')
FROM pg_namespace AS n WHERE n.nspname = 'tokensidecar'
"""
_GLANCE = """
SELECT s.id, tokensidecar.now(), s.revocations, d.names, d.revisions FROM tokensidecar.store AS s,
  (SELECT array_agg(name) AS names, array_agg(revision) AS revisions FROM tokensidecar.documents) AS d
"""
_MEMBERS = """
SELECT instance, role, version, host, extract(epoch FROM since)::float8, extract(epoch FROM seen)::float8
FROM tokensidecar.members WHERE seen > clock_timestamp() - make_interval(secs => %s) ORDER BY since, instance
"""


@dataclass(frozen=True, slots=True)
class _Rights:
    """What this connection's role may do."""

    keep: bool
    tokens: bool
    own: bool


class PostgresStore:
    """See `ports.Store`. Every call is safe from any task of one event loop."""

    private = False

    def __init__(self, database: Database) -> None:
        """Connects to nothing; `open` does."""
        self.writable = False
        self._database = database
        self._link = Link(database, self._greet, schema.CHANNEL if database.listen else None)
        self._migrates = False
        self._rights = _Rights(keep=False, tokens=False, own=False)

    @classmethod
    async def open(cls, database: Database, *, make: bool = True) -> PostgresStore:
        """The store in that database; made, or brought forward, by who may, if it is to `make`.

        `UnavailableStoreError`, with words for an operator.
        """
        store = cls(database)
        store._migrates = make
        try:
            await store._link.run(_nothing, seconds=MIGRATION_SECONDS)
        except DeniedCallerError as error:
            await store.close()
            raise UnavailableStoreError(error.message) from None
        except BaseException:
            await store.close()
            raise
        store._migrates = False
        store.writable = store._rights.keep
        return store

    async def store_id(self) -> str:
        """See `ports.Store`."""
        return str(await self._value("SELECT id FROM tokensidecar.store"))

    async def now(self) -> float:
        """See `ports.Store`."""
        return float(await self._value("SELECT tokensidecar.now()"))

    async def revisions(self) -> dict[str, int]:
        """See `ports.Store`."""
        return (await self.glance()).revisions

    async def glance(self) -> Glance:
        """See `ports.Glancing`. The one query that a sidecar asks again and again."""
        rows = await self._rows(_GLANCE)
        if len(rows) != 1:
            raise UnavailableStoreError(f"{self._database} holds a damaged store: restore it from a backup")
        store_id, now, revocations, names, revisions = rows[0]
        found = dict(zip(names or (), revisions or (), strict=True))
        return Glance(store_id, now, {**found, REVOCATIONS: revocations} if revocations else found)

    async def load(self, name: str) -> Document | None:
        """See `ports.Store`."""
        rows = await self._rows("SELECT revision, content FROM tokensidecar.documents WHERE name = %s", (name,))
        return Document(*rows[0]) if rows else None

    async def save(self, name: str, content: bytes, *, expected: int) -> bool:
        """See `ports.Store`. `DeniedCallerError` where this role may not."""
        if not self.writable:
            raise DeniedCallerError(
                "this sidecar has no write credentials for its store: a keeper, whose role may call tokensidecar.save, changes it"
            )
        return bool(await self._value("SELECT tokensidecar.save(%s, %s, %s)", (name, content, expected), again=False))

    # `ports.Ledger`

    async def revoke(self, revocation: Revocation) -> int:
        """See `ports.Ledger`."""
        return ledger.revision(await self._called(*ledger.revoke(revocation)))

    async def revocations(self, after: int, limit: int) -> Revocations:
        """See `ports.Ledger`."""
        rows = await self._rows(*ledger.page(after, limit))
        return ledger.read_page(rows[0], limit)

    async def consume(self, token: bytes, request: bytes, until: int) -> bool:
        """See `ports.Ledger`."""
        return bool((await self._called(*ledger.consume(token, request, until), again=bool(request)))[0])

    async def spend(self, spending: Spending) -> Spent:
        """See `ports.Ledger`."""
        return ledger.read_spent(await self._called(*ledger.spend(spending)))

    async def forget(self, limit: int) -> int:
        """See `ports.Ledger`. 0 where this role may not: a keeper does it."""
        if not self._rights.keep:
            return 0
        return int(await self._value("SELECT tokensidecar.forget(%s)", (limit,)))

    async def _called(self, query: str, values: Sequence[object], *, again: bool = True) -> tuple[Any, ...]:
        if not self._rights.tokens:
            raise DeniedCallerError(
                "this sidecar has no write credentials for its store: grant its role tokensidecar_write, for tokens to be taken back, "
                "refreshed or used once"
            )
        rows = await self._rows(query, values, again=again)
        return rows[0]

    # `ports.Membered`

    async def present(self, member: Member) -> None:
        """See `ports.Membered`."""
        values = (member.instance, member.role, member.version, member.host)
        await self._rows("SELECT tokensidecar.present(%s, %s, %s, %s)", values)

    async def members(self, seconds: float) -> tuple[Member, ...]:
        """See `ports.Membered`."""
        return tuple(Member(*row) for row in await self._rows(_MEMBERS, (seconds,)))

    async def changed(self) -> None:
        """Return when the server told of a change since the last return; never, unless keys.postgresql.listen is set."""
        await self._link.told.wait()
        self._link.told.clear()

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        """False: see rule 4."""
        yield False

    async def scrub(self) -> None:
        """Nothing that a client can promise; see the end of the text above."""

    async def close(self) -> None:
        """See `ports.Store`."""
        await self._link.close()

    def __repr__(self) -> str:
        return f"PostgresStore({self._database})"

    # Asking

    async def _rows(self, query: str, values: Sequence[object] = (), *, again: bool = True) -> list[tuple[Any, ...]]:
        async def work(connection: Connection) -> list[tuple[Any, ...]]:
            async with connection.cursor(binary=True) as cursor:
                await cursor.execute(query.encode(), values or None)
                return await cursor.fetchall()

        return await self._link.run(work, again=again)

    async def _value(self, query: str, values: Sequence[object] = (), *, again: bool = True) -> Any:
        rows = await self._rows(query, values, again=again)
        if len(rows) != 1:
            raise UnavailableStoreError(f"{self._database} holds a damaged store: restore it from a backup")
        return rows[0][0]

    # A new connection

    async def _greet(self, connection: Connection) -> None:
        """Look at the schema, and at what may be done in it."""
        version, oldest = await self._look(connection)
        if self._migrates and version < schema.SCHEMA and (version == 0 or self._rights.own):
            await self._migrate(connection)
            version, oldest = await self._look(connection)
        if version == 0:
            raise UnavailableStoreError(
                f"{self._database} has no schema 'tokensidecar' yet: start a keeper whose role may make it, or run deploy/postgres/schema.sql"
            )
        if oldest > schema.SCHEMA:
            raise UnavailableStoreError(
                f"{self._database} has schema {version}, on which programs that know {oldest} or newer work, and this one knows "
                f"{schema.SCHEMA}: use the version that made it, or a newer one"
            )
        if version < schema.OLDEST:
            raise UnavailableStoreError(
                f"{self._database} has schema {version}, and this program works on {schema.OLDEST} or newer: "
                "start a keeper whose role owns the schema, or run the upgrades in deploy/postgres"
            )

    async def _look(self, connection: Connection) -> tuple[int, int]:
        """The schema's version (0: there is none), and the oldest program that works on it; what this role may do."""
        cursor = await connection.execute(_PRIVILEGES, (schema.SAVE, schema.CONSUME))
        row = await cursor.fetchone()
        if row is None:
            return 0, 0
        usage, whole, keep, tokens, own = row
        if not usage:
            raise UnavailableStoreError(
                f"{self._database}: this role may not use the schema 'tokensidecar': grant it one of the roles of deploy/postgres/roles.sql"
            )
        if not whole:
            raise UnavailableStoreError(
                f"{self._database} has a schema 'tokensidecar' that is not ours: name another database in keys.store"
            )
        self._rights = _Rights(keep=bool(keep), tokens=bool(tokens), own=bool(own))
        found = await (await connection.execute("SELECT version, oldest FROM tokensidecar.store")).fetchall()
        if len(found) != 1:
            raise UnavailableStoreError(f"{self._database} holds a damaged store: restore it from a backup")
        return int(found[0][0]), int(found[0][1])

    async def _migrate(self, connection: Connection) -> None:
        """Bring the schema forward to this program's version, in one transaction; who comes second finds it done."""
        async with connection.transaction():
            await connection.execute("SET LOCAL lock_timeout = '60s'")
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (schema.LOCK,))
            version, _ = await self._look(connection)
            if version >= schema.SCHEMA:
                return
            if version == 0 and not await self._may_create(connection):
                return
            for number, (oldest, text) in enumerate(schema.MIGRATIONS, start=1):
                if number <= version:
                    continue
                _log.info("store.migrating", schema=number, of=schema.SCHEMA)
                await connection.execute(text.encode())
                if number == 1:
                    await connection.execute(
                        "INSERT INTO tokensidecar.store (id, version, oldest) VALUES (%s, %s, %s)",
                        (secrets.token_hex(16), number, oldest),
                    )
                else:
                    await connection.execute(
                        "UPDATE tokensidecar.store SET version = %s, oldest = %s", (number, oldest)
                    )
            await connection.execute(schema.GRANTS.encode())
        _log.info("store.migrated", schema=schema.SCHEMA, before=version)

    async def _may_create(self, connection: Connection) -> bool:
        cursor = await connection.execute("SELECT has_database_privilege(current_database(), 'CREATE')")
        row = await cursor.fetchone()
        return bool(row and row[0])


async def _nothing(_: Connection) -> None:
    """To be connected."""
