"""The SQLite store: the contract, damage, store time, members, and disks that fail."""

# ruff: noqa: ASYNC221, ASYNC240 -- nothing else runs on these tests' loops

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.clocks import SystemClock
from sidecar.errors import UnavailableStoreError
from sidecar.ports import Document, Store, Turn
from sidecar.stores import sqlite
from sidecar.stores.sqlite import SqliteStore
from tests.hand_clock import START, HandClock
from tests.running import ROOT
from tests.stores.contract import OpenStore, StoreContract
from tests.stores.ledger_contract import LedgerContract, LedgerStore, OpenLedger, spending, token


class TestSqliteStore(StoreContract):
    @pytest.fixture
    async def open_store(self, tmp_path: Path) -> AsyncIterator[OpenStore]:
        stores: list[Store] = []

        async def opened() -> Store:
            stores.append(await SqliteStore.open(tmp_path / "state.db", SystemClock()))
            return stores[-1]

        yield opened
        for store in stores:
            await store.close()


class TestSqliteLedger(LedgerContract):
    @pytest.fixture
    async def open_ledger(self, tmp_path: Path) -> AsyncIterator[OpenLedger]:
        stores: list[LedgerStore] = []

        async def opened() -> LedgerStore:
            stores.append(await SqliteStore.open(tmp_path / "state.db", SystemClock()))
            return stores[-1]

        yield opened
        for store in stores:
            await store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


async def _filled(path: Path, clock: HandClock) -> None:
    store = await SqliteStore.open(path, clock)
    assert await store.save("default", b"content " * 40, expected=0)
    await store.close()


# Files


async def test_files_are_private_whatever_the_umask(path: Path, clock: HandClock) -> None:
    before = os.umask(0)
    try:
        store = await SqliteStore.open(path, clock)
        await store.save("default", b"one", expected=0)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        await store.close()
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("state.db", "state.db-members", "state.db-shm", "state.db-wal"), 0o600)


async def test_what_was_saved_is_there_after_reopening(path: Path, clock: HandClock) -> None:
    await _filled(path, clock)
    store = await SqliteStore.open(path, clock)
    assert await store.load("default") == Document(1, b"content " * 40)
    await store.close()


async def test_scrub_leaves_no_bytes_of_what_was_overwritten(path: Path, clock: HandClock) -> None:
    store = await SqliteStore.open(path, clock)
    await store.save("default", b"MARKED-SECRET" * 2000, expected=0)
    await store.save("default", b"short", expected=1)
    held = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"MARKED-SECRET" in held  # the log still has it
    await store.scrub()
    held = b"".join(file.read_bytes() for file in path.parent.iterdir())
    await store.close()
    assert b"MARKED-SECRET" not in held


async def test_opening_empties_the_log_of_a_killed_process(path: Path, clock: HandClock) -> None:
    # The child leaves by a kill, with the log full of overwritten documents.
    child = subprocess.run([sys.executable, "-c", _CHILD_FILLS_AND_DIES, str(path)], cwd=ROOT, check=False, timeout=60)
    assert child.returncode == -signal.SIGKILL
    assert b"MARKED-SECRET" in path.with_name("state.db-wal").read_bytes()
    store = await SqliteStore.open(path, SystemClock())
    held = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert await store.load("default") == Document(2, b"short")
    await store.close()
    assert b"MARKED-SECRET" not in held


_CHILD_FILLS_AND_DIES = """
import asyncio, os, pathlib, signal, sys
from sidecar.clocks import SystemClock
from sidecar.stores.sqlite import SqliteStore
async def main():
    store = await SqliteStore.open(pathlib.Path(sys.argv[1]), SystemClock())
    assert await store.save("default", b"MARKED-SECRET" * 2000, expected=0)
    assert await store.save("default", b"short", expected=1)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


# Damage


async def test_a_flipped_bit_never_changes_what_is_read(path: Path, clock: HandClock) -> None:
    await _filled(path, clock)
    whole = path.read_bytes()
    noticed = 0
    for position in range(len(whole)):
        if position > 200 and whole[position - 8 : position + 8] == bytes(16):
            continue  # unused space: tens of thousands of zeros
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x01]) + whole[position + 1 :])
        try:
            store = await SqliteStore.open(path, clock)
        except UnavailableStoreError as error:
            assert str(path) in str(error)  # noqa: PT017
            noticed += 1
            continue
        try:
            assert await store.load("default") == Document(1, b"content " * 40), position
            assert abs(await store.now() - START) < 1, position
        finally:
            await store.close()
    assert noticed > 300  # the content alone has 320 bytes


@pytest.mark.parametrize("length", [0, 1, 99, 4096, 8192, 12287])
async def test_truncated_database_is_noticed(path: Path, clock: HandClock, length: int) -> None:
    await _filled(path, clock)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UnavailableStoreError, match="damaged: restore it from a backup"):
        await SqliteStore.open(path, clock)


@pytest.mark.parametrize("word", [b"STRICT", b"documents", b"REAL"])
async def test_damaged_schema_that_is_no_text_is_damage(path: Path, clock: HandClock, word: bytes) -> None:
    await _filled(path, clock)
    path.write_bytes(path.read_bytes().replace(word, b"\xff" + word[1:]))
    with pytest.raises(UnavailableStoreError, match="damaged: restore it from a backup"):
        await SqliteStore.open(path, clock)


async def test_database_of_another_program_is_refused(path: Path, clock: HandClock) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine (a)")
    connection.close()
    with pytest.raises(UnavailableStoreError, match="not one of this program"):
        await SqliteStore.open(path, clock)


async def test_newer_schema_is_refused(path: Path, clock: HandClock) -> None:
    await _filled(path, clock)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {sqlite.SCHEMA + 1}")
    connection.close()
    with pytest.raises(UnavailableStoreError, match="use the version that wrote it"):
        await SqliteStore.open(path, clock)


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("/nowhere/at/all")])
async def test_path_that_is_no_file_is_refused(path: Path, clock: HandClock, make: object) -> None:
    assert callable(make)
    make(path)
    with pytest.raises(UnavailableStoreError, match=r"state\.db"):
        await SqliteStore.open(path, clock)


async def test_missing_directory_is_refused(path: Path, clock: HandClock) -> None:
    with pytest.raises(UnavailableStoreError, match="No such file or directory"):
        await SqliteStore.open(path / "deeper" / "state.db", clock)


async def test_database_that_is_replaced_while_in_use_is_refused(path: Path, clock: HandClock) -> None:
    await _filled(path, clock)
    backup = path.with_name("backup.db")
    shutil.copy(path, backup)
    store = await SqliteStore.open(path, clock)
    await store.save("default", b"two", expected=1)
    backup.replace(path)
    with pytest.raises(UnavailableStoreError, match="replaced while in use"):
        await store.save("default", b"three", expected=2)
    path.unlink()
    with pytest.raises(UnavailableStoreError, match="removed while in use"):
        await store.revisions()
    await store.close()


@pytest.mark.parametrize("length", [0, 1, 4096])
async def test_database_that_is_cut_while_in_use_is_not_written_to(path: Path, clock: HandClock, length: int) -> None:
    await _filled(path, clock)
    store = await SqliteStore.open(path, clock)
    os.truncate(path, length)
    for _ in range(3):
        with pytest.raises(UnavailableStoreError, match="damaged: restore it from a backup"):
            await store.save("default", b"two", expected=1)
    assert path.stat().st_size == length
    await store.close()


async def test_start_that_was_killed_while_making_the_file_is_made_good(path: Path, clock: HandClock) -> None:
    for name in ("state.db.unfinished", "state.db.unfinished-journal"):
        path.with_name(name).write_bytes(b"half a file")
    await _filled(path, clock)
    assert sorted(file.name for file in path.parent.iterdir()) == ["state.db", "state.db-members"]


async def test_missing_database_is_not_made_anew_beside_its_log(path: Path, clock: HandClock) -> None:
    path.with_name("state.db-wal").write_bytes(b"frames")
    with pytest.raises(UnavailableStoreError, match="is missing, but its log"):
        await SqliteStore.open(path, clock)
    assert not path.exists()


async def test_a_closed_store_says_so(path: Path, clock: HandClock) -> None:
    store = await SqliteStore.open(path, clock)
    await store.close()
    with pytest.raises(UnavailableStoreError, match="closed"):
        await store.now()


async def test_locked_database_answers_in_time_and_recovers(
    path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.1)
    store = await SqliteStore.open(path, clock)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableStoreError, match="locked"):
        await store.save("default", b"one", expected=0)
    assert await store.revisions() == {}
    other.execute("ROLLBACK")
    other.close()
    assert await store.save("default", b"one", expected=0)
    await store.close()


# Store time


async def test_setting_the_wall_clock_does_not_move_store_time(path: Path, clock: HandClock) -> None:
    store = await SqliteStore.open(path, clock)
    for jump in (3600, -7200, 10 * 365 * 86400, -20 * 365 * 86400):
        clock.set_wall(jump)
        assert await store.now() == START
    clock.pass_time(12)
    assert await store.now() == START + 12
    await store.close()


async def test_opening_alone_takes_the_wall_clock_again(path: Path, clock: HandClock) -> None:
    await _filled(path, clock)
    clock.set_wall(3600)
    store = await SqliteStore.open(path, clock)
    assert await store.now() == START + 3600
    await store.close()


async def test_opening_beside_another_member_keeps_its_time(path: Path, clock: HandClock) -> None:
    first = await SqliteStore.open(path, clock)
    clock.set_wall(3600)
    second = await SqliteStore.open(path, clock)
    assert await second.now() == await first.now() == START
    await first.close()
    await second.close()


async def test_store_time_never_goes_behind_the_last_write(path: Path, clock: HandClock) -> None:
    store = await SqliteStore.open(path, clock)
    clock.pass_time(100)
    await store.save("default", b"one", expected=0)
    await store.close()
    clock.pass_time(10)
    clock.set_wall(-3600)
    store = await SqliteStore.open(path, clock)
    assert await store.now() == START + 110  # goes on by the boot-time clock
    await store.close()


async def test_wall_clock_that_was_wrong_and_wrote_nothing_is_forgotten(path: Path, clock: HandClock) -> None:
    await _filled(path, clock)
    clock.set_wall(3600)
    await (await SqliteStore.open(path, clock)).close()
    clock.set_wall(-3600)
    clock.pass_time(5)
    store = await SqliteStore.open(path, clock)
    assert await store.now() == START + 5
    await store.close()


async def test_restarted_machine_takes_its_wall_clock(
    path: Path, clock: HandClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _filled(path, clock)
    _restart(tmp_path, monkeypatch)
    late = HandClock()
    late.set_wall(500)
    store = await SqliteStore.open(path, late)
    assert await store.now() == START + 500
    await store.close()


async def test_restarted_machine_without_a_clock_goes_on_from_the_last_write(
    path: Path, clock: HandClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.pass_time(50)
    await _filled(path, clock)
    _restart(tmp_path, monkeypatch)
    early = HandClock()
    early.set_wall(-START)  # 1970
    store = await SqliteStore.open(path, early)
    assert await store.now() == START + 50
    await store.close()


async def test_another_machine_on_the_same_file_makes_the_first_unavailable(
    path: Path, clock: HandClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await SqliteStore.open(path, clock)
    _restart(tmp_path, monkeypatch)
    second = await SqliteStore.open(path, clock)
    with pytest.raises(UnavailableStoreError, match="another machine"):
        await first.save("default", b"one", expected=0)
    assert await second.save("default", b"one", expected=0)
    await first.close()
    await second.close()


def _restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "boot_id"
    other.write_text("00000000-0000-4000-8000-000000000000\n", encoding="ascii")
    monkeypatch.setattr(sqlite, "_BOOT_ID", other)


# Members


async def test_another_process_is_a_member_until_it_dies(path: Path) -> None:
    store = await SqliteStore.open(path, SystemClock())
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _CHILD_STAYS, str(path), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"open\n"
    async with store.alone() as alone:
        assert not alone
    child.kill()
    await child.wait()
    async with store.alone() as alone:
        assert alone
    await store.close()


async def test_starting_process_waits_for_who_is_alone(path: Path) -> None:
    store = await SqliteStore.open(path, SystemClock())
    async with store.alone() as alone:
        assert alone
        starting = asyncio.create_task(SqliteStore.open(path, SystemClock()))
        await asyncio.sleep(0.3)
        assert not starting.done()
    second = await starting
    async with second.alone() as alone:
        assert not alone
    await second.close()
    await store.close()


async def test_starting_process_does_not_wait_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "MEMBERS_SECONDS", 0.1)
    store = await SqliteStore.open(path, SystemClock())
    async with store.alone():
        with pytest.raises(UnavailableStoreError, match="keeps the store"):
            await SqliteStore.open(path, SystemClock())
    await store.close()


async def test_nobody_is_alone_once_the_members_file_was_replaced(path: Path) -> None:
    store = await SqliteStore.open(path, SystemClock())
    members = path.with_name("state.db-members")
    members.unlink()
    members.touch()
    async with store.alone() as alone:
        assert not alone
    await store.close()


_CHILD_STAYS = """
import asyncio, pathlib, sys
from sidecar.clocks import SystemClock
from sidecar.stores.sqlite import SqliteStore
async def main():
    await SqliteStore.open(pathlib.Path(sys.argv[1]), SystemClock())
    print("open", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


# Disks that fail: strace makes the kernel say so


@pytest.mark.needs("strace")
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("pwrite64:error=ENOSPC", "the disk is full"),
        ("pwrite64:error=EIO", "the disk reports an error"),
        ("pwrite64:error=EROFS", "the disk reports an error"),
        ("fdatasync,fsync:error=EIO", "the disk reports an error"),
        ("fdatasync,fsync:error=ENOSPC", "the disk reports an error"),
    ],
)
def test_failing_disk_refuses_writes_and_recovers(path: Path, fault: str, words: str) -> None:
    """The child writes, is told to go on once strace has attached with the fault, fails, and writes again when strace is gone."""
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD_WRITES, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == "saved 1\n"
            calls = fault.partition(":")[0]
            with subprocess.Popen(
                [
                    "strace",
                    "-f",
                    "-p",
                    str(child.pid),
                    "-e",
                    f"trace={calls}",
                    "-e",
                    f"inject={fault}",
                    "-o",
                    "/dev/null",
                ],
                stderr=subprocess.PIPE,
                text=True,
            ) as strace:
                assert strace.stderr is not None
                assert "attached" in strace.stderr.readline()
                child.stdin.write("go\n")
                child.stdin.flush()
                failed = child.stdout.readline()
                read = child.stdout.readline()
                strace.send_signal(signal.SIGINT)
                strace.wait(20)
            assert words in failed
            assert read == "read revision 1\n"
            child.stdin.write("go\n")
            child.stdin.flush()
            assert child.stdout.readline() == "saved 2\n"
        finally:
            child.kill()


_CHILD_WRITES = """
import asyncio, pathlib, sys
from sidecar.clocks import SystemClock
from sidecar.errors import UnavailableStoreError
from sidecar.stores.sqlite import SqliteStore
async def main():
    store = await SqliteStore.open(pathlib.Path(sys.argv[1]), SystemClock())
    assert await store.save("default", b"x" * 9000, expected=0)
    print("saved 1", flush=True)
    sys.stdin.readline()
    try:
        await store.save("default", b"y" * 9000, expected=1)
        print("saved, and should not have been", flush=True)
    except UnavailableStoreError as error:
        print(error, flush=True)
    try:
        print("read revision", (await store.load("default")).revision, flush=True)
    except UnavailableStoreError as error:
        print("not read:", error, flush=True)
    sys.stdin.readline()
    revision = (await store.revisions())["default"]
    assert await store.save("default", b"z", expected=revision)
    print("saved", revision + 1, flush=True)
    await store.close()
asyncio.run(main())
"""


# The ledger


_SCHEMA_1 = """
CREATE TABLE store (only INTEGER PRIMARY KEY CHECK (only = 1), id TEXT NOT NULL, boot_id TEXT NOT NULL, boot REAL NOT NULL, wall REAL NOT NULL,
  written REAL NOT NULL, checksum BLOB NOT NULL) STRICT;
CREATE TABLE documents (name TEXT PRIMARY KEY, revision INTEGER NOT NULL, content BLOB NOT NULL, checksum BLOB NOT NULL) STRICT, WITHOUT ROWID;
"""


async def _as_schema_1(path: Path, clock: HandClock) -> None:
    """A database as the first version left it: its own tables, and none of the ledger."""
    await _filled(path, clock)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for table in ("ledger", "revocations", "consumed", "families"):
            connection.execute(f"DROP TABLE {table}")
        connection.execute("PRAGMA user_version = 1")
        shapes = {
            name: [column[1:4] for column in connection.execute(f"PRAGMA table_info({name})")]
            for name in ("store", "documents")
        }
    with contextlib.closing(sqlite3.connect(":memory:")) as first:
        first.executescript(_SCHEMA_1)
        for name, columns in shapes.items():
            assert columns == [column[1:4] for column in first.execute(f"PRAGMA table_info({name})")]


async def test_database_of_the_first_schema_is_migrated_and_keeps_what_it_holds(path: Path, clock: HandClock) -> None:
    await _as_schema_1(path, clock)
    stores = await asyncio.gather(*(SqliteStore.open(path, clock) for _ in range(4)))
    assert [await store.load("default") for store in stores] == [Document(1, b"content " * 40)] * 4
    assert await stores[0].revoke(await token(stores[0])) == 1
    assert (await stores[3].revocations(0, 10)).revision == 1
    for store in stores:
        await store.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)


async def test_migration_that_is_killed_leaves_the_first_schema(path: Path, clock: HandClock) -> None:
    await _as_schema_1(path, clock)
    child = subprocess.run(
        [sys.executable, "-c", _CHILD_OPENS, str(path)],
        cwd=ROOT,
        env={**os.environ, "TOKENSIDECAR_FAILPOINT": "migrate.tables_made"},
        check=False,
        timeout=60,
    )
    assert child.returncode == -signal.SIGKILL
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'ledger'").fetchone() == (0,)
    store = await SqliteStore.open(path, SystemClock())
    assert await store.load("default") == Document(1, b"content " * 40)
    await store.close()


_CHILD_OPENS = """
import asyncio, pathlib, sys
from sidecar.clocks import SystemClock
from sidecar.stores.sqlite import SqliteStore
asyncio.run(SqliteStore.open(pathlib.Path(sys.argv[1]), SystemClock()))
"""


@pytest.mark.parametrize("table", ["revocations", "consumed", "families", "ledger"])
async def test_changed_row_of_the_ledger_is_damage(path: Path, clock: HandClock, table: str) -> None:
    store = await SqliteStore.open(path, clock)
    held = await token(store)
    asked = await spending(store, "a", "b", family=b"f" * 16, first=True)
    await store.revoke(held)
    await store.consume(b"t" * 16, b"r" * 16, held.until)
    await store.spend(asked)
    column = {"families": "time", "ledger": "revision"}.get(table, "until")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"UPDATE {table} SET {column} = {column} + 1")
    with pytest.raises(UnavailableStoreError, match="is damaged"):
        await {
            "revocations": lambda: store.revocations(0, 10),
            "consumed": lambda: store.consume(b"t" * 16, b"r" * 16, held.until),
            "families": lambda: store.spend(asked),
            "ledger": store.revisions,
        }[table]()
    await store.close()


async def test_token_is_forgotten_when_its_time_has_passed(path: Path, clock: HandClock) -> None:
    store = await SqliteStore.open(path, clock)
    asked = await spending(store, "a", "b", family=b"f" * 16, first=True)
    await store.spend(asked)
    assert await store.consume(b"t" * 16, b"", asked.family.until)
    clock.pass_time(86399)
    assert await store.forget(10) == 0
    clock.pass_time(2)
    assert (await store.spend(asked)).turn is Turn.REVOKED
    assert not await store.consume(b"t" * 16, b"", asked.family.until)
    assert await store.forget(10) == 2
    await store.close()


async def test_grace_goes_by_store_time(path: Path, clock: HandClock) -> None:
    store = await SqliteStore.open(path, clock)
    asked = await spending(store, "a", "b", family=b"f" * 16, first=True)
    await store.spend(asked)
    clock.pass_time(10)
    assert (await store.spend(asked)).turn is Turn.REPEATED
    clock.pass_time(0.1)
    assert (await store.spend(asked)).turn is Turn.REUSED
    await store.close()
