"""The store in a folder: the contract, mounts, damage, time, and writers that race, fail and are killed."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidecar.clocks import SystemClock
from sidecar.errors import UnavailableStoreError
from sidecar.ports import Document, Store
from sidecar.stores import file, layout
from sidecar.stores.file import FileStore
from tests.hand_clock import START, HandClock
from tests.running import ROOT
from tests.stores.contract import OpenStore, ReaderContract, Renew, SharedStoreContract
from tests.stores.kubelet import mount

ROUNDS = 1000 if os.environ.get("TOKENSIDECAR_TEST_ALL") == "true" else 100


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "rings"
    folder.mkdir()
    return folder


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


class TestFileStore(SharedStoreContract):
    @pytest.fixture
    def open_store(self, path: Path) -> OpenStore:
        async def opened() -> Store:
            return await FileStore.open(path, SystemClock(), writable=True)

        return opened


class TestFileStoreReaders(ReaderContract):
    @pytest.fixture
    def open_store(self, path: Path) -> OpenStore:
        async def opened() -> Store:
            return await FileStore.open(path, SystemClock(), writable=True)

        return opened

    @pytest.fixture
    def open_reader(self, path: Path) -> OpenStore:
        async def opened() -> Store:
            return await FileStore.open(path, SystemClock(), writable=False)

        return opened

    @pytest.fixture
    def renew(self) -> Renew:
        async def nothing() -> None:
            pass

        return nothing


async def _writer(path: Path, clock: HandClock) -> FileStore:
    return await FileStore.open(path, clock, writable=True)


async def _reader(path: Path, clock: HandClock) -> FileStore:
    return await FileStore.open(path, clock, writable=False)


async def _filled(path: Path, clock: HandClock) -> FileStore:
    store = await _writer(path, clock)
    assert await store.save("default", b"content " * 5, expected=0)
    return store


def _contents(folder: Path) -> dict[str, bytes]:
    """What a keeper would put into the Secret."""
    return {f.name: f.read_bytes() for f in folder.iterdir() if not f.name.startswith(".")}


def _names(folder: Path) -> set[str]:
    return set(os.listdir(folder))  # noqa: PTH208


# Files


async def test_files_are_for_owner_and_group_whatever_the_umask(path: Path, clock: HandClock) -> None:
    before = os.umask(0)
    try:
        await _filled(path, clock)
    finally:
        os.umask(before)
    assert {name: (path / name).stat().st_mode & 0o777 for name in _names(path)} == {
        "default.ring": 0o640,
        "store": 0o640,
        ".lock": 0o600,
    }


async def test_what_was_saved_is_there_after_reopening(path: Path, clock: HandClock) -> None:
    first = await _filled(path, clock)
    again = await _writer(path, clock)
    assert await again.load("default") == Document(1, b"content " * 5)
    assert await again.store_id() == await first.store_id()


async def test_files_of_others_are_left_alone(path: Path, clock: HandClock) -> None:
    for name in ("README", "Ünï.ring", ".hidden.ring", "default.ring~"):
        (path / name).write_text("not ours")
    store = await _filled(path, clock)
    await store.scrub()
    assert await store.revisions() == {"default": 1}
    assert (path / "README").read_text() == "not ours"


async def test_no_name_leads_out_of_the_folder(path: Path, clock: HandClock) -> None:
    store = await _filled(path, clock)
    for name in ("../default", "", "a/b", ".", "a\x00b", "x" * 65):
        with pytest.raises(UnavailableStoreError, match="no file can hold"):
            await store.load(name)
        with pytest.raises(UnavailableStoreError, match="no file can hold"):
            await store.save(name, b"", expected=0)


async def test_oversize_ring_is_refused_before_it_is_written(path: Path, clock: HandClock) -> None:
    store = await _filled(path, clock)
    with pytest.raises(UnavailableStoreError, match="is the most"):
        await store.save("default", bytes(layout.LARGEST), expected=1)
    assert await store.revisions() == {"default": 1}


async def test_replaced_document_is_in_no_file(path: Path, clock: HandClock) -> None:
    store = await _writer(path, clock)
    await store.save("default", b"MARKED-SECRET" * 100, expected=0)
    (path / ".unfinished-default.ring").write_bytes(b"MARKED-SECRET of a writer that was killed")
    await store.save("other", b"", expected=0)
    await store.scrub()
    await store.save("default", b"short", expected=1)
    assert b"MARKED-SECRET" not in b"".join((path / name).read_bytes() for name in _names(path))


async def test_closed_store_answers_nothing(path: Path, clock: HandClock) -> None:
    store = await _filled(path, clock)
    await store.close()
    with pytest.raises(UnavailableStoreError, match="closed"):
        await store.load("default")


# Folders that are none


async def test_missing_folder_is_not_made(tmp_path: Path, clock: HandClock) -> None:
    for writable in (True, False):
        with pytest.raises(UnavailableStoreError, match="missing cannot be used: it is not there"):
            await FileStore.open(tmp_path / "missing", clock, writable=writable)
    assert not (tmp_path / "missing").exists()


async def test_file_is_no_folder(tmp_path: Path, clock: HandClock) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableStoreError, match="it is not a folder"):
        await _reader(tmp_path / "file", clock)


async def test_reader_of_an_empty_folder_waits_for_the_keeper(path: Path, clock: HandClock) -> None:
    with pytest.raises(UnavailableStoreError, match="its keeper has not written one yet"):
        await _reader(path, clock)
    assert _names(path) == set()


async def test_store_is_never_made_over_rings(path: Path, clock: HandClock) -> None:
    await _filled(path, clock)
    (path / "store").unlink()
    with pytest.raises(UnavailableStoreError, match="holds rings, but its file 'store' is missing"):
        await _writer(path, clock)


async def test_folder_that_was_emptied_in_use_is_not_filled_again(path: Path, clock: HandClock) -> None:
    store = await _filled(path, clock)
    for name in _names(path):
        (path / name).unlink()
    with pytest.raises(UnavailableStoreError, match="emptied or replaced while in use"):
        await store.save("default", b"two", expected=0)
    with pytest.raises(UnavailableStoreError, match="emptied or replaced while in use"):
        await store.store_id()


async def test_folder_that_was_replaced_in_use_is_not_written(path: Path, clock: HandClock) -> None:
    store = await _filled(path, clock)
    os.rename(path, path.with_name("moved"))  # noqa: PTH104
    os.mkdir(path)  # noqa: PTH102
    other = await _writer(path, clock)
    with pytest.raises(UnavailableStoreError, match="another store than at the start"):
        await store.save("default", b"two", expected=0)
    with pytest.raises(UnavailableStoreError, match="another store than at the start"):
        await store.heartbeat()
    assert await store.store_id() == await other.store_id()  # told as it is: the keeper compares


# Damage


async def test_a_flipped_bit_never_changes_what_is_read(path: Path, clock: HandClock) -> None:
    store = await _filled(path, clock)
    for name in ("default.ring", "store"):
        whole = (path / name).read_bytes()
        for position in range(len(whole)):
            (path / name).write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
            with pytest.raises(UnavailableStoreError, match="restore it from a backup"):
                await (store.load("default") if name == "default.ring" else store.store_id())
        (path / name).write_bytes(whole)
    assert await store.load("default") == Document(1, b"content " * 5)


async def test_a_file_cut_anywhere_is_noticed(path: Path, clock: HandClock) -> None:
    store = await _filled(path, clock)
    for name in ("default.ring", "store"):
        whole = (path / name).read_bytes()
        for cut in [*(whole[:length] for length in range(len(whole))), whole + b"\n"]:
            (path / name).write_bytes(cut)
            with pytest.raises(UnavailableStoreError, match=name):
                await store.revisions()
            with pytest.raises(UnavailableStoreError, match=name):
                await store.save("default", b"over it", expected=1)
            assert (path / name).read_bytes() == cut
        (path / name).write_bytes(whole)


async def test_ring_under_another_name_is_noticed(path: Path, clock: HandClock) -> None:
    store = await _filled(path, clock)
    (path / "default.ring").rename(path / "other.ring")
    with pytest.raises(UnavailableStoreError, match="the ring of another profile"):
        await store.load("other")


def _oversize(target: Path) -> None:
    with target.open("wb") as sparse:
        sparse.truncate(10 * 2**30)


def _socket(target: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        before = Path.cwd()
        os.chdir(target.parent)  # the path is longer than a socket's may be
        listener.bind(target.name)
        os.chdir(before)


@pytest.mark.parametrize("name", ["default.ring", "store"])
@pytest.mark.parametrize(
    "put",
    [
        pytest.param(Path.mkdir, id="directory"),
        pytest.param(os.mkfifo, id="pipe"),
        pytest.param(_socket, id="socket"),
        pytest.param(_oversize, id="oversize"),
        pytest.param(lambda target: target.symlink_to("/etc/hostname"), id="link out"),
        pytest.param(lambda target: target.symlink_to("gone"), id="link to nothing"),
        pytest.param(lambda target: target.write_bytes(os.urandom(5000)), id="foreign"),
        pytest.param(lambda target: target.touch(), id="empty"),
    ],
)
async def test_what_is_no_ring_is_an_error_and_stays(
    path: Path, clock: HandClock, name: str, put: Callable[[Path], object]
) -> None:
    store = await _filled(path, clock)
    (path / name).unlink()
    put(path / name)
    before = (path / name).lstat()
    async with asyncio.timeout(10):
        with pytest.raises(UnavailableStoreError, match=name):
            await store.revisions()
        with pytest.raises(UnavailableStoreError, match=name):
            await (store.load("default") if name == "default.ring" else store.store_id())
        with pytest.raises(UnavailableStoreError, match=name):
            await store.save("default", b"over it", expected=1)
    assert (path / name).lstat().st_ino == before.st_ino


async def test_one_profiles_damage_stops_no_change_to_another(path: Path, clock: HandClock) -> None:
    store = await _filled(path, clock)
    (path / "damaged.ring").write_bytes(b"tokensidecar-ring")
    assert await store.save("default", b"two", expected=1)
    assert await store.load("default") == Document(2, b"two")


# A mounted Secret


async def test_reader_sees_the_mount_move_on(tmp_path: Path, path: Path, clock: HandClock) -> None:
    writer = await _filled(path, clock)
    mount(tmp_path / "mounted", _contents(path))
    reader = await _reader(tmp_path / "mounted", clock)
    assert await reader.load("default") == Document(1, b"content " * 5)
    await writer.save("default", b"two", expected=1)
    await writer.save("added", b"new", expected=0)
    mount(tmp_path / "mounted", _contents(path))
    assert await reader.revisions() == {"default": 2, "added": 1}
    assert await reader.load("added") == Document(1, b"new")


async def test_empty_mounted_secret_is_no_store_yet(tmp_path: Path, clock: HandClock) -> None:
    mount(tmp_path / "mounted", {})
    with pytest.raises(UnavailableStoreError, match="its keeper has not written one yet"):
        await _reader(tmp_path / "mounted", clock)


async def test_writer_refuses_a_mount(tmp_path: Path, path: Path, clock: HandClock) -> None:
    await _filled(path, clock)
    mount(tmp_path / "mounted", _contents(path))
    with pytest.raises(UnavailableStoreError, match="kubernetes://NAMESPACE/SECRET"):
        await _writer(tmp_path / "mounted", clock)


async def test_a_look_never_mixes_two_states(tmp_path: Path, clock: HandClock) -> None:
    """The kubelet moves the mount on all the time; two rings always have the same revision in each state."""
    mounted = tmp_path / "mounted"
    store = layout.store_bytes(layout.StoreFile("a" * 32, START))

    def state(revision: int) -> dict[str, bytes]:
        rings = {p: layout.ring_bytes(p, Document(revision, b"x" * 3000), START) for p in ("a", "b", "c")}
        return {**{f"{p}.ring": ring for p, ring in rings.items()}, "store": store}

    mount(mounted, state(1))
    reader = await _reader(mounted, clock)
    stop = threading.Event()

    def move_on() -> None:
        revision = 1
        while not stop.wait(0.0005):
            revision += 1
            mount(mounted, state(revision))

    kubelet = threading.Thread(target=move_on)
    kubelet.start()
    seen = []
    try:
        for _ in range(500):
            found = await reader.revisions()
            assert set(found) == {"a", "b", "c"}
            assert len(set(found.values())) == 1, found
            seen.append(found["a"])
            document = await reader.load("b")
            assert document is not None
            assert document.revision >= found["b"]
    finally:
        stop.set()
        kubelet.join()
    assert seen == sorted(seen)
    assert seen[-1] > seen[0] + 10


@pytest.mark.parametrize("target", ["/etc", "../rings", "..", "..data"])
async def test_mount_that_leads_out_is_refused(tmp_path: Path, path: Path, clock: HandClock, target: str) -> None:
    await _filled(path, clock)
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted/..data").symlink_to(target)
    with pytest.raises(UnavailableStoreError, match="leads out of its folder"):
        await _reader(tmp_path / "mounted", clock)


async def test_mount_of_an_odd_make_is_refused(tmp_path: Path, path: Path, clock: HandClock) -> None:
    await _filled(path, clock)
    mounted = tmp_path / "mounted"
    mount(mounted, _contents(path))
    data = mounted / "..data"
    real = data.readlink()
    data.unlink()
    (mounted / "..way").symlink_to(path)
    puts: tuple[Callable[[], object], ...] = (
        lambda: data.symlink_to("..way"),
        lambda: data.symlink_to("gone"),
        lambda: data.symlink_to("default.ring"),
        data.mkdir,
    )
    for put in puts:
        put()
        with pytest.raises(UnavailableStoreError, match=r"mounted"):
            await _reader(mounted, clock)
        if data.is_symlink():
            data.unlink()
        else:
            data.rmdir()
    data.symlink_to(real)
    assert await (await _reader(mounted, clock)).revisions() == {"default": 1}


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that another user can get to; pytest's own are private."""
    with tempfile.TemporaryDirectory(prefix="ts-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


async def test_another_user_reads_a_folder_that_it_may_not_write(
    tmp_path: Path, path: Path, reachable: Path, clock: HandClock
) -> None:
    await _filled(path, clock)
    mounted = reachable / "mounted"
    mount(mounted, _contents(path))
    mounted.chmod(0o555)
    try:
        done = subprocess.run(  # noqa: ASYNC221
            [sys.executable, "-c", _CHILD_READS, str(mounted)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    finally:
        mounted.chmod(0o755)
    assert done.stdout == "{'default': 1} refused\n", done.stderr


_CHILD_READS = """
import asyncio, os, pathlib, sys
from sidecar.clocks import SystemClock
from sidecar.stores.file import FileStore
async def main():
    await asyncio.to_thread(int)  # imports what it needs
    if os.geteuid() == 0:  # become nobody, who may not be able to read Python's own files
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    folder = pathlib.Path(sys.argv[1])
    store = await FileStore.open(folder, SystemClock(), writable=False)
    try:
        (folder / "mine").touch()
        refused = "written"
    except PermissionError:
        refused = "refused"
    print(await store.revisions(), refused)
asyncio.run(main())
"""


# Noticing


async def test_change_is_noticed_and_nothing_else(
    path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "POLL_SECONDS", 0.02)
    writer = await _filled(path, clock)
    reader = await _reader(path, clock)
    async with asyncio.timeout(10):
        await reader.changed()  # whatever was before
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.changed(), 0.3)
        for expected in range(1, 20):
            await writer.save("default", b"two", expected=expected)
            await reader.changed()
        shutil.rmtree(path)
        await reader.changed()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.changed(), 0.3)


async def test_mount_that_moved_on_is_noticed(
    tmp_path: Path, path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "POLL_SECONDS", 0.02)
    await _filled(path, clock)
    mount(tmp_path / "mounted", _contents(path))
    reader = await _reader(tmp_path / "mounted", clock)
    async with asyncio.timeout(10):
        await reader.changed()
        waiting = asyncio.create_task(reader.changed())
        await asyncio.sleep(0.2)
        assert not waiting.done()
        mount(tmp_path / "mounted", _contents(path))
        await waiting


# Time


async def test_wall_clock_that_is_set_changes_nothing(path: Path, clock: HandClock) -> None:
    await _filled(path, clock)
    for store in (await _reader(path, clock), await _writer(path, clock)):
        before = await store.now()
        clock.set_wall(3600)
        assert await store.now() == before
        clock.pass_time(7)
        assert await store.now() == before + 7
        clock.set_wall(-2 * 3600)
        assert await store.now() == before + 7
        clock.set_wall(3600)


async def test_who_starts_behind_the_keepers_last_word_goes_by_it(path: Path, clock: HandClock) -> None:
    await _filled(path, clock)
    late = HandClock()
    late.set_wall(-3600)
    for store in (await _reader(path, late), await _writer(path, late)):
        assert await store.now() == START


async def test_heartbeat_tells_how_old_the_state_is(path: Path, clock: HandClock) -> None:
    keeper = await _filled(path, clock)
    reader = await _reader(path, clock)
    clock.pass_time(300)
    assert await reader.now() - await reader.written() == 300
    await keeper.heartbeat()
    assert await reader.written() == START + 300
    assert await reader.revisions() == {"default": 1}


async def test_heartbeat_never_goes_back(path: Path, clock: HandClock) -> None:
    keeper = await _filled(path, clock)
    clock.pass_time(300)
    await keeper.heartbeat()
    late = HandClock()
    await (await _writer(path, late)).heartbeat()
    assert await keeper.written() == START + 300


async def test_machine_without_a_clock_is_behind_and_not_lost(path: Path, clock: HandClock) -> None:
    clock.set_wall(-START - 100)  # before 1970
    store = await _filled(path, clock)
    assert await store.now() == 0
    assert await store.load("default") == Document(1, b"content " * 5)


# Writers among each other


async def test_writer_does_not_wait_for_ever(path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await _filled(path, clock)
    monkeypatch.setattr(file, "LOCK_SECONDS", 0.1)
    with (path / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UnavailableStoreError, match="locked for too long"):
            await store.save("default", b"two", expected=1)
        assert await store.load("default") == Document(1, b"content " * 5)  # readers need no lock
    assert await store.save("default", b"two", expected=1)


async def test_lock_on_a_file_that_was_removed_excludes_nobody(path: Path, clock: HandClock) -> None:
    store = await _filled(path, clock)
    with (path / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (path / ".lock").unlink()
        assert await store.save("default", b"two", expected=1)


def test_of_ten_processes_one_wins_each_round(path: Path) -> None:
    with contextlib.ExitStack() as stack:
        racers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", _CHILD_RACES, str(path), str(number), str(ROUNDS)],
                    cwd=ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for number in range(10)
        ]
        try:
            for racer in racers:
                assert racer.stdout is not None
                assert racer.stdout.readline() == "ready\n"
            outputs = [racer.communicate("go\n", timeout=100)[0] for racer in _told(racers)]
        finally:
            for racer in racers:
                racer.kill()
    assert [racer.returncode for racer in racers] == [0] * 10
    won = {number: list(map(int, output.split())) for number, output in enumerate(outputs)}
    assert sorted(r for rounds in won.values() for r in rounds) == list(range(ROUNDS))
    assert sum(bool(rounds) for rounds in won.values()) > 1, "no race"
    (last,) = (number for number, rounds in won.items() if ROUNDS - 1 in rounds)
    document, _ = layout.read_ring("default", (path / "default.ring").read_bytes())
    assert document == Document(ROUNDS, f"{last} {ROUNDS - 1}".encode())
    assert _names(path) == {".lock", "store", "default.ring"}


def _told(racers: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    """All of them go before the first one's output is waited for."""
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    return racers


_CHILD_RACES = """
import asyncio, pathlib, sys
from sidecar.clocks import SystemClock
from sidecar.stores.file import FileStore
async def main():
    path, number, rounds = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    store = await FileStore.open(path, SystemClock(), writable=True)
    print("ready", flush=True)
    sys.stdin.readline()
    for number_of_round in range(rounds):
        if await store.save("default", f"{number} {number_of_round}".encode(), expected=number_of_round):
            print(number_of_round)
asyncio.run(main())
"""


# Writers that are killed, and disks that fail: strace makes the kernel do it

_CALLS = "openat,unlinkat,fchmod,write,fsync,rename,renameat,renameat2,flock,close,newfstatat,fstat,getdents64,read"


@pytest.mark.needs("strace")
def test_killed_writer_leaves_the_old_or_the_new(path: Path, tmp_path: Path) -> None:
    """A save's system calls are listed once; then one writer after the other is killed before each of them."""
    old, new = b"old " * 3000, b"new " * 5000
    asyncio.run(_save(path, old, 0))
    whole = (path / "default.ring").read_bytes()
    log = tmp_path / "strace.log"
    main = _save_under_strace(path, f"trace={_CALLS}", "-o", str(log))
    calls = [
        name for thread, name in re.findall(r"^(\d+) +(\w+)\(", log.read_text(), re.MULTILINE) if int(thread) != main
    ]
    assert calls.index("renameat") > 20
    revisions = []
    for step, name in enumerate(calls):
        (path / "default.ring").write_bytes(whole)
        _save_under_strace(path, f"inject={name}:signal=KILL:when={calls[: step + 1].count(name)}")
        document, _ = layout.read_ring("default", (path / "default.ring").read_bytes())
        assert document in (Document(1, old), Document(2, new)), (step, name)
        revisions.append(document.revision)
        # The next writer is not kept from anything, and leaves nothing behind.
        asyncio.run(_save(path, b"next", document.revision))
        assert _names(path) == {".lock", "store", "default.ring"}
    renamed = calls.index("renameat")
    assert revisions == [1] * (renamed + 1) + [2] * (len(calls) - renamed - 1)


def _save_under_strace(path: Path, expression: str, *more: str) -> int:
    """The process id of the child that saved, or was killed while it did."""
    with _child(_CHILD_SAVES, path) as child:
        tell, hear = child.stdin, child.stdout
        assert tell is not None
        assert hear is not None
        assert hear.readline() == "open\n"
        with _strace(child, expression, *more) as strace:
            tell.write("go\n")
            tell.flush()
            saved = hear.readline()
            assert saved == ("saved\n" if expression.startswith("trace") else "")
            strace.wait(20)
        return child.pid


async def _save(path: Path, content: bytes, expected: int) -> None:
    store = await FileStore.open(path, SystemClock(), writable=True)
    assert await store.save("default", content, expected=expected)
    await store.scrub()


@pytest.mark.needs("strace")
def test_save_is_synced_before_and_after_the_rename(path: Path, tmp_path: Path) -> None:
    asyncio.run(_save(path, b"old", 0))
    log = tmp_path / "strace.log"
    _save_under_strace(path, "trace=fsync,fdatasync,rename,renameat,renameat2", "-y", "-o", str(log))
    calls = re.findall(r"(fsync|rename)\w*\((?:\d+<([^>]*)>|)", log.read_text())
    assert [name for name, _ in calls] == ["fsync", "rename", "fsync"]
    assert calls[0][1] == str(path / ".unfinished-default.ring")
    assert calls[2][1] == str(path)


@pytest.mark.needs("strace")
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("write:error=ENOSPC", "the disk is full"),
        ("write:error=EDQUOT", "the disk quota is used up"),
        ("fsync:error=EIO", "the disk reports an error"),
        ("rename,renameat,renameat2:error=EIO", "the disk reports an error"),
        ("openat:error=EROFS", "it is read-only"),
        ("openat:error=EMFILE", "Too many open files"),
    ],
)
def test_failing_disk_refuses_writes_and_recovers(path: Path, fault: str, words: str) -> None:
    asyncio.run(_save(path, b"old", 0))
    with _child(_CHILD_SAVES_TWICE, path) as child:
        tell, hear = child.stdin, child.stdout
        assert tell is not None
        assert hear is not None
        assert hear.readline() == "open\n"
        with _strace(child, f"inject={fault}", "-P", str(path), "-P", str(path / ".unfinished-default.ring")) as strace:
            tell.write("go\n")
            tell.flush()
            failed = hear.readline()
            strace.send_signal(signal.SIGINT)
            strace.wait(20)
        assert words in failed
        assert _names(path) == {".lock", "store", "default.ring"}
        tell.write("go\n")
        tell.flush()
        assert hear.readline() == "saved\n"
    document, _ = layout.read_ring("default", (path / "default.ring").read_bytes())
    assert document.content == b"new " * 5000


@contextlib.contextmanager
def _child(program: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            yield child
        finally:
            child.kill()


@contextlib.contextmanager
def _strace(child: subprocess.Popen[str], expression: str, *more: str) -> Iterator[subprocess.Popen[str]]:
    """Attached to all threads of the child."""
    output = () if "-o" in more else ("-o", "/dev/null")
    calls = expression.partition("=")[2].partition(":")[0]
    trace = () if expression.startswith("trace=") else ("-e", f"trace={calls}")
    with subprocess.Popen(
        ["strace", "-f", "-p", str(child.pid), *trace, "-e", expression, *output, *more],
        stderr=subprocess.PIPE,
        text=True,
    ) as strace:
        assert strace.stderr is not None
        assert "attached" in strace.stderr.readline()
        try:
            yield strace
        finally:
            strace.kill()


_CHILD_SAVES = """
import asyncio, os, pathlib, sys
from sidecar.clocks import SystemClock
from sidecar.stores.file import FileStore
async def main():
    store = await FileStore.open(pathlib.Path(sys.argv[1]), SystemClock(), writable=True)
    print("open", flush=True)
    sys.stdin.readline()
    assert await store.save("default", b"new " * 5000, expected=1)
    print("saved", flush=True)
asyncio.run(main())
"""
_CHILD_SAVES_TWICE = """
import asyncio, pathlib, sys
from sidecar.clocks import SystemClock
from sidecar.errors import UnavailableStoreError
from sidecar.stores.file import FileStore
async def main():
    store = await FileStore.open(pathlib.Path(sys.argv[1]), SystemClock(), writable=True)
    print("open", flush=True)
    sys.stdin.readline()
    try:
        await store.save("default", b"new " * 5000, expected=1)
        print("saved, and should not have been", flush=True)
    except UnavailableStoreError as error:
        print(error, flush=True)
    sys.stdin.readline()
    revision = (await store.revisions())["default"]
    assert await store.save("default", b"new " * 5000, expected=revision)
    print("saved", flush=True)
asyncio.run(main())
"""
