"""The store in PostgreSQL: the contracts on a real server, rights, versions, and what an operator gets to read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sidecar.database import Database
from sidecar.errors import DeniedCallerError, UnavailableStoreError
from sidecar.ports import FOREVER, Document, Ended, Member, Revocation, Revocations, Spending, Turn
from sidecar.stores import postgres_schema as schema
from sidecar.stores.postgres import PostgresStore
from tests.postgres import NEEDS, Postgres
from tests.running import ROOT
from tests.stores.contract import OpenStore, ReaderContract, Renew, SharedStoreContract
from tests.stores.ledger_contract import LedgerContract, spending, token

pytestmark = pytest.mark.needs(NEEDS)

OpenPostgres = Callable[..., Awaitable[PostgresStore]]


@pytest.fixture
def name(postgres: Postgres) -> str:
    """A database with our schema, and nothing else in it."""
    return postgres.emptied()


@pytest.fixture
async def opened(postgres: Postgres) -> AsyncIterator[OpenPostgres]:
    """Opens a store on that database as that login, and closes it at the end."""
    stores: list[PostgresStore] = []

    async def opened(database: str | Database, login: str = "keeper", **more: Any) -> PostgresStore:
        found = postgres.database(database, login, **more) if isinstance(database, str) else database
        stores.append(await PostgresStore.open(found))
        return stores[-1]

    yield opened
    for store in stores:
        await store.close()


class TestPostgresStore(SharedStoreContract, ReaderContract, LedgerContract):
    @pytest.fixture
    def open_store(self, opened: OpenPostgres, name: str) -> OpenStore:
        return lambda: opened(name)

    @pytest.fixture
    def open_ledger(self, opened: OpenPostgres, name: str) -> Callable[[], Awaitable[PostgresStore]]:
        logins = iter(["keeper", "writer"] * 20)
        return lambda: opened(name, next(logins))

    @pytest.fixture
    def open_reader(self, opened: OpenPostgres, name: str) -> OpenStore:
        return lambda: opened(name, "reader")

    @pytest.fixture
    def renew(self) -> Renew:
        async def nothing() -> None: ...

        return nothing

    async def test_what_is_past_its_time_is_forgotten(self, opened: OpenPostgres, name: str) -> None:  # type: ignore[override]
        await super().test_what_is_past_its_time_is_forgotten(lambda: opened(name))

    async def test_no_more_than_the_limit_is_forgotten_at_once(self, opened: OpenPostgres, name: str) -> None:  # type: ignore[override]
        await super().test_no_more_than_the_limit_is_forgotten_at_once(lambda: opened(name))


# Rights: what each role of deploy/postgres may do, tried

TRIED = {
    "SELECT id FROM tokensidecar.store": ("reader", "writer", "keeper"),
    "SELECT * FROM tokensidecar.documents": ("reader", "writer", "keeper"),
    "SELECT * FROM tokensidecar.revocations": ("reader", "writer", "keeper"),
    "SELECT * FROM tokensidecar.members": ("reader", "writer", "keeper"),
    "SELECT tokensidecar.present('i', 'both', '1', 'h')": ("reader", "writer", "keeper"),
    "SELECT tokensidecar.revoke(1::smallint, '\\x00000000000000000000000000000001', 1, 1)": ("writer", "keeper"),
    "SELECT tokensidecar.consume('\\x00000000000000000000000000000001', '', 9999999999)": ("writer", "keeper"),
    "SELECT turn FROM tokensidecar.spend(3::smallint, '\\x00000000000000000000000000000001', 1, 1, 'a', 'b', true, '{}', '{}', 1)": (
        "writer",
        "keeper",
    ),
    "SELECT tokensidecar.save('x', '\\x00', 0)": ("keeper",),
    "SELECT tokensidecar.forget(1)": ("keeper",),
    "SELECT * FROM tokensidecar.consumed": (),
    "SELECT * FROM tokensidecar.families": (),
    "SELECT tokensidecar.make_durable()": (),
    "INSERT INTO tokensidecar.documents VALUES ('y', 1, '')": (),
    "UPDATE tokensidecar.documents SET revision = 1": (),
    "DELETE FROM tokensidecar.documents": (),
    "TRUNCATE tokensidecar.documents": (),
    "DELETE FROM tokensidecar.revocations": (),
    "UPDATE tokensidecar.revocations SET until = 0": (),
    "DELETE FROM tokensidecar.consumed": (),
    "UPDATE tokensidecar.store SET revocations = 0": (),
    "DELETE FROM tokensidecar.members": (),
    "CREATE TABLE tokensidecar.mine ()": (),
    "CREATE OR REPLACE FUNCTION tokensidecar.now() RETURNS float8 LANGUAGE sql AS 'SELECT 0::float8'": (),
    "DROP TABLE tokensidecar.families": (),
    "DROP SCHEMA tokensidecar CASCADE": (),
    "ALTER FUNCTION tokensidecar.now() SET search_path = public": (),
    "SET ROLE tokensidecar_owner": (),
}


@pytest.mark.parametrize("login", ["reader", "writer", "keeper"])
def test_each_role_may_do_its_part_and_nothing_else(postgres: Postgres, name: str, login: str) -> None:
    with psycopg.connect(
        host="127.0.0.1", port=postgres.port, user=login, password=postgres.password, dbname=name, autocommit=True
    ) as connection:
        for statement, logins in TRIED.items():
            if login in logins:
                connection.execute(statement.encode())
                continue
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


def test_everybody_else_may_do_nothing(postgres: Postgres, name: str) -> None:
    with postgres.admin(name) as admin, admin.transaction(force_rollback=True):
        admin.execute("CREATE ROLE stranger")
        admin.execute("SET LOCAL ROLE stranger")
        for statement in TRIED:
            if statement != "SET ROLE tokensidecar_owner":  # of a superuser's session it says nothing
                with pytest.raises(psycopg.errors.InsufficientPrivilege), admin.transaction():
                    admin.execute(statement.encode())


async def test_reader_takes_no_token_back_and_sweeps_nothing(opened: OpenPostgres, name: str) -> None:
    keeper, reader = await opened(name), await opened(name, "reader")
    await keeper.revoke(await token(keeper, until=-2))
    for asked in (
        reader.revoke(await token(reader)),
        reader.consume(b"t" * 16, b"", 2**40),
        reader.spend(await spending(reader, "a", "b", family=b"f" * 16, first=True)),
    ):
        with pytest.raises(DeniedCallerError, match=r"no write credentials.*tokensidecar_write"):
            await asked
    assert await reader.forget(10) == 0
    assert (await reader.revocations(0, 10)).revision == 1


async def test_writer_of_tokens_changes_no_ring(opened: OpenPostgres, name: str) -> None:
    writer = await opened(name, "writer")
    assert not writer.writable
    with pytest.raises(DeniedCallerError, match=r"no write credentials.*tokensidecar\.save"):
        await writer.save("default", b"mine", expected=0)


async def test_right_that_is_taken_away_under_a_running_process_is_denied(
    postgres: Postgres, opened: OpenPostgres
) -> None:
    own = postgres.create()
    store = await opened(own)
    with postgres.admin(own) as admin:
        admin.execute("REVOKE EXECUTE ON FUNCTION tokensidecar.save FROM tokensidecar_keeper")
    with pytest.raises(DeniedCallerError, match=r"lacks a right.*permission denied for function save"):
        await store.save("default", b"one", expected=0)
    assert await store.load("default") is None


# Members


async def test_members_are_those_who_said_that_they_are_there(opened: OpenPostgres, name: str) -> None:
    keeper, reader = await opened(name), await opened(name, "reader")
    await keeper.present(Member("one", "both", "0.1.0", "pod-1"))
    await reader.present(Member("two", "validator", "0.1.0", "pod-2"))
    await reader.present(Member("two", "validator", "0.2.0", "pod-2"))
    found = await reader.members(60)
    assert [(each.instance, each.role, each.version, each.host) for each in found] == [
        ("one", "both", "0.1.0", "pod-1"),
        ("two", "validator", "0.2.0", "pod-2"),
    ]
    now = await keeper.now()
    assert all(now - 60 < each.since <= each.seen <= now for each in found)
    assert found[1].seen > found[1].since
    assert await keeper.members(0) == ()


async def test_member_that_is_gone_for_long_is_forgotten(postgres: Postgres, opened: OpenPostgres, name: str) -> None:
    keeper = await opened(name)
    for instance in ("gone", "here"):
        await keeper.present(Member(instance, "both", "0.1.0", "pod"))
    with postgres.admin(name) as admin:
        admin.execute("UPDATE tokensidecar.members SET seen = seen - interval '1 hour' WHERE instance = 'gone'")
    await keeper.forget(10)
    assert [each.instance for each in await keeper.members(86400)] == ["here"]


# Versions of the schema


async def test_keeper_whose_role_may_makes_the_schema_and_ten_at_once_make_one(
    postgres: Postgres, opened: OpenPostgres
) -> None:
    own = postgres.create(schema=False)
    stores = await asyncio.gather(*(opened(own, "owner") for _ in range(10)))
    assert len({await store.store_id() for store in stores}) == 1
    keeper, reader = await opened(own), await opened(own, "reader")
    assert await keeper.save("default", b"one", expected=0)
    assert await reader.load("default") == Document(1, b"one")
    assert await reader.store_id() == await stores[0].store_id()


async def test_without_a_schema_who_may_not_make_it_says_what_to_do(postgres: Postgres, opened: OpenPostgres) -> None:
    own = postgres.create(schema=False)
    for login in ("reader", "keeper"):
        with pytest.raises(UnavailableStoreError, match=r"no schema 'tokensidecar' yet: .*deploy/postgres/schema\.sql"):
            await opened(own, login)


NEXT = "ALTER TABLE tokensidecar.members ADD COLUMN note text;"


async def test_programs_of_two_versions_work_on_one_database(
    postgres: Postgres, opened: OpenPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = postgres.create()
    before = await opened(own)
    assert await before.save("default", b"one", expected=0)
    with monkeypatch.context() as patch:
        patch.setattr(schema, "SCHEMA", 2)
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, (1, NEXT)))
        following = await opened(own)  # may not migrate, and works on what is there
        assert await following.save("default", b"two", expected=1)
        owner = await opened(own, "owner")
        with postgres.admin(own) as admin:
            assert admin.execute("SELECT version, oldest FROM tokensidecar.store").fetchall() == [(2, 1)]
            assert admin.execute("SELECT note FROM tokensidecar.members").fetchall() == []
        assert await owner.load("default") == await following.load("default") == Document(2, b"two")
        # What one ends is ended for the other, both ways.
        for number, (one, other) in enumerate(((before, owner), (following, before)), 1):
            ended = Revocation(Ended.TOKEN, bytes([number]) * 16, FOREVER, 2**40)
            assert await one.revoke(ended) == number
            assert await other.revocations(number - 1, 10) == Revocations(number, (ended,))
            assert await one.consume(bytes([number]) * 16, b"", 2**40)
            assert not await other.consume(bytes([number]) * 16, b"", 2**40)
            family = Revocation(Ended.FAMILY, bytes([16 + number]) * 16, FOREVER, 2**40)
            spending = Spending(family, "t0", f"t1-{number}", first=True, bars=((family.digest, 0),), grace=10.0)
            assert (await one.spend(spending)).turn is Turn.ROTATED
            repeated = await other.spend(replace(spending, successor="another"))
            assert (repeated.turn, repeated.successor) == (Turn.REPEATED, f"t1-{number}")
    again = await opened(own)
    assert await before.save("default", b"three", expected=2)
    assert await again.save("default", b"four", expected=3)
    assert await following.load("default") == Document(4, b"four")
    assert await again.store_id() == await owner.store_id()


async def test_newer_schema_that_this_version_is_too_old_for_is_refused(
    postgres: Postgres, opened: OpenPostgres
) -> None:
    own = postgres.create()
    running = await opened(own)
    with postgres.admin(own) as admin:
        admin.execute("UPDATE tokensidecar.store SET version = 3, oldest = 2")
    with pytest.raises(UnavailableStoreError, match=r"has schema 3, on which programs that know 2 or newer work"):
        await opened(own, "owner")
    postgres.terminate(own)
    with pytest.raises(UnavailableStoreError, match=r"this one knows 1: use the version that made it, or a newer one"):
        await running.now()


async def test_older_schema_that_is_too_old_for_this_version_is_refused(
    postgres: Postgres, opened: OpenPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = postgres.create()
    monkeypatch.setattr(schema, "SCHEMA", 3)
    monkeypatch.setattr(schema, "OLDEST", 2)
    with pytest.raises(UnavailableStoreError, match=r"has schema 1, and this program works on 2 or newer"):
        await opened(own)


async def test_migration_that_fails_changes_nothing(
    postgres: Postgres, opened: OpenPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = postgres.create()
    with monkeypatch.context() as patch:
        patch.setattr(schema, "SCHEMA", 2)
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, (1, NEXT + "SELECT 1 / 0")))
        with pytest.raises(UnavailableStoreError, match="division by zero"):
            await opened(own, "owner")
    with postgres.admin(own) as admin:
        assert admin.execute("SELECT version FROM tokensidecar.store").fetchall() == [(1,)]
    assert await (await opened(own)).revisions() == {}


async def test_schema_of_somebody_else_is_left_alone(postgres: Postgres, opened: OpenPostgres) -> None:
    own = postgres.create(schema=False)
    with postgres.admin(own) as admin:
        admin.execute("CREATE SCHEMA tokensidecar AUTHORIZATION tokensidecar_owner")
    with pytest.raises(UnavailableStoreError, match="a schema 'tokensidecar' that is not ours"):
        await opened(own, "owner")
    with pytest.raises(UnavailableStoreError, match=r"may not use the schema .*roles\.sql"):
        await opened(own, "reader")


def test_script_in_deploy_is_that_of_the_code() -> None:
    written = (ROOT / "deploy/postgres/schema.sql").read_text()
    assert written == schema.script(), "run: python -m tests.stores.schema"


def test_number_of_migrations_is_the_schemas_version() -> None:
    assert (len(schema.MIGRATIONS), schema.OLDEST) == (schema.SCHEMA, max(1, schema.SCHEMA - 1))
    assert all(max(1, number - 1) == oldest for number, (oldest, _) in enumerate(schema.MIGRATIONS, start=1))


# What an operator gets to read


async def test_wrong_password_is_told_without_it(postgres: Postgres, opened: OpenPostgres, name: str) -> None:
    with pytest.raises(UnavailableStoreError, match=r"does not .*password_file") as caught:
        await opened(postgres.database(name, "keeper", password_file=postgres.password_file("wrong")))
    assert postgres.password not in str(caught.value)
    assert f"keeper@127.0.0.1:{postgres.port}/{name}" in str(caught.value)


async def test_changed_password_is_read_anew(
    postgres: Postgres, opened: OpenPostgres, name: str, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.touch(mode=0o600)
    file.write_text(postgres.password + "\n")
    store = await opened(postgres.database(name, "keeper", password_file=file))
    file.write_text("old\n")
    postgres.terminate(name)
    with pytest.raises(UnavailableStoreError):
        await store.now()
    file.write_text(postgres.password)
    await asyncio.sleep(0.2)
    assert await store.now() > 0


@pytest.mark.parametrize(
    ("mode", "content", "word"),
    [
        (0o644, "secret", "chmod o="),
        (0o600, "", "one line"),
        (0o600, "a\nb\n", "one line"),
        (0o600, "x" * 5000, "one line"),
    ],
)
async def test_password_file_that_is_no_good_is_told(
    postgres: Postgres, opened: OpenPostgres, name: str, tmp_path: Path, mode: int, content: str, word: str
) -> None:
    file = tmp_path / "password"
    file.write_text(content)
    file.chmod(mode)
    with pytest.raises(UnavailableStoreError, match=word) as caught:
        await opened(postgres.database(name, "keeper", password_file=file))
    assert "secret" not in str(caught.value)
    with pytest.raises(UnavailableStoreError, match="No such file"):
        await opened(postgres.database(name, "keeper", password_file=tmp_path / "none"))


async def test_what_cannot_be_reached_is_named(postgres: Postgres, opened: OpenPostgres) -> None:
    for database, word in (
        (postgres.database("nowhere"), 'database "nowhere" does not exist'),
        (postgres.database("postgres", hosts=(("127.0.0.1", 9),)), "refused"),
        (postgres.database("postgres", hosts=(("/nowhere", 5432),)), "No such file"),
        (postgres.database("postgres", hosts=(("nowhere.invalid", 5432),), allow_plaintext=True), "nowhere.invalid"),
    ):
        with pytest.raises(UnavailableStoreError, match=word):
            await opened(database)


async def test_passfile_and_socket_do_as_well(
    postgres: Postgres, opened: OpenPostgres, name: str, tmp_path: Path
) -> None:
    passfile = tmp_path / "pgpass"
    passfile.touch(mode=0o600)
    passfile.write_text(f"*:*:*:keeper:{postgres.password}\n")
    hosts = ((str(postgres.folder), postgres.port),)
    store = await opened(postgres.database(name, hosts=hosts, password_file=None, passfile=passfile))
    assert await store.revisions() == {}


async def test_password_of_the_environment_is_not_used(
    postgres: Postgres, opened: OpenPostgres, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PGPASSWORD", postgres.password)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UnavailableStoreError, match="password"):
        await opened(postgres.database(name, password_file=None))


async def test_second_host_is_taken_where_the_first_is_down(
    postgres: Postgres, opened: OpenPostgres, name: str
) -> None:
    store = await opened(postgres.database(name, hosts=(("127.0.0.1", 9), ("127.0.0.1", postgres.port))))
    assert await store.revisions() == {}
