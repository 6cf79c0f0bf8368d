"""PostgreSQL that stops, hangs, restarts, ends connections, loses answers, undoes transactions and is full; poolers, TLS and LISTEN."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.database import Database
from sidecar.errors import SidecarError, UnavailableStoreError
from sidecar.ports import Document, Ended, Revocation, Turn
from sidecar.stores import postgres_link
from sidecar.stores.postgres import PostgresStore
from tests.postgres import NEEDS, Postgres
from tests.running import free_port
from tests.stores.clusters import make_certificates
from tests.stores.ledger_contract import spending, token
from tests.stores.proxy import Proxy

pytestmark = [pytest.mark.needs(NEEDS), pytest.mark.timeout(180)]

Opened = Callable[..., Awaitable[PostgresStore]]


@pytest.fixture(scope="module")
def own() -> Iterator[Postgres]:
    """A server to be maltreated, which the tests of this module share and leave running."""
    with Postgres() as running:
        yield running


@pytest.fixture
def name(own: Postgres) -> str:
    return own.emptied()


@pytest.fixture
async def opened(own: Postgres) -> AsyncIterator[Opened]:
    stores: list[PostgresStore] = []

    async def opened(database: str | Database, **more: Any) -> PostgresStore:
        found = own.database(database, **more) if isinstance(database, str) else database
        stores.append(await PostgresStore.open(found))
        return stores[-1]

    yield opened
    for store in stores:
        await store.close()


async def _answers(store: PostgresStore) -> float:
    """Seconds until it answers again; AssertionError after twenty."""
    started = time.monotonic()
    while time.monotonic() < started + 20:
        with contextlib.suppress(SidecarError):
            await store.now()
            return time.monotonic() - started
        await asyncio.sleep(0.05)
    raise AssertionError("it does not answer any more")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns of one second instead of five."""
    monkeypatch.setattr(postgres_link, "SECONDS", 1.0)
    monkeypatch.setattr(postgres_link.Link.run, "__kwdefaults__", {"again": True, "seconds": 1.0})


# The server


async def test_stopped_server_is_told_and_found_again(own: Postgres, opened: Opened, name: str) -> None:
    store = await opened(name)
    assert await store.save("default", b"one", expected=0)
    await asyncio.to_thread(own.stop)
    try:
        for _ in range(20):
            started = time.monotonic()
            with pytest.raises(UnavailableStoreError, match=r"cannot be used"):
                await store.now()
            assert time.monotonic() - started < 2
    finally:
        await asyncio.to_thread(own.start)
    assert await _answers(store) < 6
    assert await store.load("default") == Document(1, b"one")


async def test_server_that_crashed_and_came_back_is_found_without_an_error(
    own: Postgres, opened: Opened, name: str
) -> None:
    store = await opened(name)
    await asyncio.to_thread(own.stop)
    await asyncio.to_thread(own.start)
    assert await store.now() > 0  # the lost connection was noticed while nobody used it


@pytest.mark.usefixtures("quick")
async def test_paused_server_holds_nobody_up_and_may_have_done_it(own: Postgres, opened: Opened, name: str) -> None:
    store, other = await opened(name), await opened(name)
    with own.paused():
        started = time.monotonic()
        results = await asyncio.gather(
            store.save("default", b"one", expected=0), *(store.now() for _ in range(5)), return_exceptions=True
        )
        assert time.monotonic() - started < 4
        assert all(isinstance(each, UnavailableStoreError) for each in results), results
        assert "does not answer in time" in str(results[0])
        again = time.monotonic()
        with pytest.raises(UnavailableStoreError):
            await store.now()
        await store.close()
        assert time.monotonic() - again < 3
    await _answers(other)
    assert await other.load("default") in (None, Document(1, b"one"))


@pytest.mark.usefixtures("quick")
async def test_cancelled_caller_leaves_the_connection_whole(own: Postgres, opened: Opened, name: str) -> None:
    store = await opened(name)
    for _ in range(20):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.001):
                await store.revisions()
    assert await store.revisions() == {}
    with own.paused(), contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.1):
            await store.now()
    assert await _answers(store) < 6


async def test_ended_backends_cost_nothing(own: Postgres, opened: Opened, name: str) -> None:
    store = await opened(name)
    for number in range(5):
        assert own.terminate(name) >= 1
        await asyncio.sleep(0.05)
        assert await store.save("default", b"x", expected=number)
        own.terminate(name)
        assert (await store.load("default")) == Document(number + 1, b"x")


async def test_after_a_refused_connection_calls_fail_at_once_until_the_next_try(own: Postgres, name: str) -> None:
    port = free_port()
    with pytest.raises(UnavailableStoreError) as caught:
        await PostgresStore.open(own.database(name, hosts=(("127.0.0.1", port),)))
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 0.1


async def test_one_connection_is_all_that_a_process_has(own: Postgres, opened: Opened, name: str) -> None:
    store = await opened(name)
    await asyncio.gather(*(store.now() for _ in range(50)), *(_revoked(store) for _ in range(20)))
    with own.admin("postgres") as admin:
        rows = admin.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", (name,)).fetchone()
    assert rows == (1,)


# The transaction


async def test_serialization_failures_are_repeated(own: Postgres, opened: Opened, name: str) -> None:
    with own.admin("postgres") as admin:
        admin.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'".encode())
    try:
        members = [await opened(name) for _ in range(5)]
        held = [await token(members[0]) for _ in range(25)]
        given = await asyncio.gather(*(members[i % 5].revoke(each) for i, each in enumerate(held)))
        assert sorted(given) == list(range(1, 26))
        for number in range(5):
            won = await asyncio.gather(*(each.save("default", b"x", expected=number) for each in members))
            assert won.count(True) == 1
        digest, until = secrets.token_bytes(16), int(await members[0].now()) + 60
        used = await asyncio.gather(*(each.consume(digest, b"", until) for each in members))
        assert used.count(True) == 1
    finally:
        with own.admin("postgres") as admin:
            admin.execute(f"ALTER DATABASE {name} RESET default_transaction_isolation".encode())


async def test_what_is_answered_is_on_disk_whatever_the_database_says(own: Postgres, opened: Opened, name: str) -> None:
    """A crash right after the answer loses nothing, though commits of that database do not wait for the disk."""
    with own.admin("postgres") as admin:
        admin.execute(f"ALTER DATABASE {name} SET synchronous_commit = 'off'".encode())
        admin.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
        admin.execute("SELECT pg_reload_conf()")
    try:
        for number in range(3):
            store = await opened(name)
            assert await store.save("default", b"x", expected=number)
            revocation = await token(store)
            assert await store.revoke(revocation) == number + 1
            digest = secrets.token_bytes(16)
            assert await store.consume(digest, b"", revocation.until)
            await store.close()
            await asyncio.to_thread(own.stop, signal.SIGQUIT)
            await asyncio.to_thread(own.start)
            found = await opened(name)
            assert (await found.load("default")) == Document(number + 1, b"x")
            assert (await found.revocations(number, 10)).entries == (revocation,)
            assert not await found.consume(digest, b"", revocation.until)
    finally:
        with own.admin("postgres") as admin:
            admin.execute(f"ALTER DATABASE {name} RESET synchronous_commit".encode())
            admin.execute("ALTER SYSTEM RESET ALL")
            admin.execute("SELECT pg_reload_conf()")


async def test_full_disk_is_told_and_recovers(own: Postgres, opened: Opened, name: str) -> None:
    """`temp_file_limit` and quotas do not stand in for it; a table space of a page or two on a full file system would need root. What the
    server answers then is SQLSTATE 53100, raised here by a trigger."""
    store = await opened(name)
    with own.admin(name) as admin:
        admin.execute(
            "CREATE FUNCTION public.full_disk() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE disk_full USING MESSAGE = 'could not extend file'; END $$"
        )
        admin.execute(
            "CREATE TRIGGER full_disk BEFORE INSERT ON tokensidecar.documents EXECUTE FUNCTION public.full_disk()"
        )
    try:
        with pytest.raises(UnavailableStoreError, match=r"its disk is full: the server says: could not extend file"):
            await store.save("default", b"one", expected=0)
        assert await store.load("default") is None
    finally:
        with own.admin(name) as admin:
            admin.execute("DROP FUNCTION public.full_disk CASCADE")
    assert await store.save("default", b"one", expected=0)


# Lost answers


@pytest.mark.parametrize("lost", ["request", "answer"])
async def test_connection_that_is_cut_in_a_commit_is_told_and_a_repeat_tells(
    own: Postgres, opened: Opened, name: str, lost: str
) -> None:
    async with Proxy(own.port) as proxy:
        hosts = (("127.0.0.1", proxy.port),)
        store = await opened(name, hosts=hosts)
        reader = await opened(name)
        done = lost == "answer"

        proxy.cut(lost, containing=b"tokensidecar.save")
        with pytest.raises(UnavailableStoreError):
            await store.save("default", b"one", expected=0)
        await proxy.settled()
        assert (await reader.load("default") is not None) is done
        assert await store.save("default", b"one", expected=0) is not done

        # What is idempotent is repeated by itself, once, on a new connection: nobody notices.
        proxy.cut(lost, containing=b"tokensidecar.revoke")
        assert await store.revoke(await token(store)) == 1
        assert (await reader.revocations(0, 10)).revision == 1

        proxy.cut(lost, containing=b"tokensidecar.consume")
        digest, until = secrets.token_bytes(16), int(await reader.now()) + 60
        assert await store.consume(digest, b"r" * 16, until)
        assert not await reader.consume(digest, b"s" * 16, until)

        proxy.cut(lost, containing=b"tokensidecar.consume")
        digest = secrets.token_bytes(16)
        with pytest.raises(UnavailableStoreError):  # without a request nobody could tell whose it was
            await store.consume(digest, b"", until)
        await proxy.settled()
        assert await reader.consume(digest, b"", until) is not done

        proxy.cut(lost, containing=b"tokensidecar.spend")
        family = secrets.token_bytes(16)
        spent = await store.spend(await spending(reader, "a", "b", family=family, first=True))
        assert (spent.turn, spent.successor) == (Turn.REPEATED if done else Turn.ROTATED, "b")
        assert (await reader.spend(await spending(reader, "b", "c", family=family))).turn is Turn.ROTATED


async def test_cut_off_twice_is_told(own: Postgres, opened: Opened, name: str) -> None:
    async with Proxy(own.port) as proxy:
        store = await opened(name, hosts=(("127.0.0.1", proxy.port),))
        proxy.cut("answer", containing=b"tokensidecar.revoke", times=2)
        held = Revocation(Ended.TOKEN, b"d" * 16, 1, 2**40)
        with pytest.raises(UnavailableStoreError):
            await store.revoke(held)
        assert await store.revoke(held) == 1
        assert (await store.revocations(0, 10)).entries == (held,)


# Between: poolers, TLS, LISTEN


@pytest.fixture
def pooler(own: Postgres, name: str, tmp_path: Path) -> Iterator[int]:
    """pgbouncer in transaction mode with two connections to the server; its port."""
    port = free_port()
    folder = own.folder / f"pooler-{port}"
    folder.mkdir()
    users = "".join(f'"{login}" "{own.password}"\n' for login in ("keeper", "reader", "writer"))
    (folder / "users").write_text(users)
    (folder / "ini").write_text(
        f"[databases]\n{name} = host=127.0.0.1 port={own.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
        f"unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {folder}/users\npool_mode = transaction\ndefault_pool_size = 2\n"
        f"max_client_conn = 2000\nlogfile = {folder}/log\n"
    )
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    own.give_away(folder)
    process = subprocess.Popen(
        [*own.as_user(), "pgbouncer", "-q", str(folder / "ini")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.needs("pgbouncer")
async def test_everything_goes_through_a_pooler_of_transactions(
    own: Postgres, opened: Opened, name: str, pooler: int
) -> None:
    through = own.database(name, hosts=(("127.0.0.1", pooler),))
    deadline = time.monotonic() + 10
    while True:
        try:
            members = [await opened(through)]
            break
        except UnavailableStoreError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
    members += [await opened(through) for _ in range(5)]  # six sidecars on two connections
    for number in range(10):
        won = await asyncio.gather(*(each.save("default", b"x", expected=number) for each in members))
        assert won.count(True) == 1
    held = [await token(members[0]) for _ in range(30)]
    given = await asyncio.gather(*(members[i % 6].revoke(each) for i, each in enumerate(held)))
    assert sorted(given) == list(range(1, 31))
    assert len((await members[3].revocations(0, 100)).entries) == 30
    with own.admin("postgres") as admin:
        rows = admin.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", (name,)).fetchone()
    assert rows is not None
    assert rows[0] <= 2


async def test_listener_is_told_within_moments_and_others_never(own: Postgres, opened: Opened, name: str) -> None:
    writer, listener, poller = await opened(name), await opened(name, listen=True), await opened(name)
    await listener.changed()  # the connection itself is news
    for change in (
        lambda: writer.save("default", b"one", expected=0),
        lambda: _revoked(writer),
    ):
        waiting = asyncio.create_task(listener.changed())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await change()
        async with asyncio.timeout(2):
            await waiting
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await poller.changed()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await listener.changed()


async def _revoked(store: PostgresStore) -> int:
    return await store.revoke(await token(store))


async def test_listener_whose_connection_was_lost_looks_and_listens_again(
    own: Postgres, opened: Opened, name: str
) -> None:
    writer, listener = await opened(name), await opened(name, listen=True)
    await listener.changed()
    own.terminate(name)
    await asyncio.sleep(0.05)
    await listener.now()
    async with asyncio.timeout(2):
        await listener.changed()
    await writer.save("default", b"one", expected=0)
    async with asyncio.timeout(2):
        await listener.changed()


async def test_beyond_this_machine_the_server_must_prove_its_name(
    own: Postgres, opened: Opened, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Database, "local", property(lambda _: False))  # as if it were
    with pytest.raises(UnavailableStoreError, match=r"root_certificates|does not support SSL"):
        await opened(name)
    ca = make_certificates(tmp_path)
    (tmp_path / "other").mkdir()
    other = make_certificates(tmp_path / "other")
    for file in ("server.crt", "server.key"):
        (own.data / file).write_bytes((tmp_path / file).read_bytes())
        (own.data / file).chmod(0o600)
        own.give_away(own.data / file)
    with own.admin("postgres") as admin:
        admin.execute("ALTER SYSTEM SET ssl = on")
        admin.execute("SELECT pg_reload_conf()")
    try:
        await asyncio.sleep(0.3)
        store = await opened(name, root_certificates=ca)
        assert await store.revisions() == {}
        with own.admin(name) as admin:
            rows = admin.execute(
                "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'keeper'"
            )
            assert rows.fetchone() == (True,)
        for wrong in (other, None):
            with pytest.raises(UnavailableStoreError, match=r"TLS: see keys\.postgresql\.root_certificates"):
                await opened(name, root_certificates=wrong)
        assert await (await opened(name, allow_plaintext=True)).revisions() == {}
    finally:
        with own.admin("postgres") as admin:
            admin.execute("ALTER SYSTEM RESET ALL")
            admin.execute("SELECT pg_reload_conf()")
