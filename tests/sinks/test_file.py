"""The audit file: on the disk before it says so, whole whatever fails, and one chain through restarts, kills and renames."""

# ruff: noqa: ASYNC110, ASYNC240 - nothing else runs on these loops

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from sidecar.chain import CHECKPOINT_EVERY, BrokenChainError, Report, anchor, verify
from sidecar.sinks import file as sink_module
from sidecar.sinks.chained import UnusableFileError
from sidecar.sinks.file import FileSink
from sidecar.sinks.signing import PUBLIC_KEY, checker
from tests.running import ROOT

LINE = b'{"audit":1,"verb":"issue","profile":"default"}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[FileSink]:
    sink = FileSink(path, path.parent, time.time)
    await sink.open()
    try:
        yield sink
    finally:
        await sink.close()


async def kept(sink: FileSink) -> bool:
    pending = sink.pending()
    return pending is None or await pending


def records(*paths: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]


def verbs(path: Path) -> list[str]:
    return [record["verb"] for record in records(path)]


def good(*paths: Path) -> Report:
    key = checker((paths[0].parent / PUBLIC_KEY).read_bytes())
    return verify([(path.name, path.read_bytes().splitlines(keepends=True)) for path in paths], [key])


async def test_a_record_is_on_the_disk_when_it_is_said_to_be(path: Path) -> None:
    async with opened(path) as sink:
        assert sink.pending() is None
        assert sink.write(LINE)
        assert sink.backlog.records == 1
        assert await kept(sink)
        assert (sink.backlog.records, sink.backlog.seconds) == (0, 0.0)
        assert verbs(path) == ["checkpoint", "issue"]
    assert verbs(path) == ["checkpoint", "issue", "checkpoint"]
    assert good(path).last == 3


async def test_records_that_the_disk_keeps_waiting_are_told_with_their_age(path: Path) -> None:
    async with opened(path) as sink:
        slow, sync = threading.Event(), os.fdatasync
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fdatasync", lambda descriptor: (slow.wait(5), sync(descriptor)))
            assert sink.write(LINE)
            first = sink.pending()
            await asyncio.sleep(0.05)
            assert sink.write(LINE)
            backlog = sink.backlog
            slow.set()
            assert first is not None
            assert await first
        assert backlog.records == 2
        assert 0.05 <= backlog.seconds < 5
        assert await kept(sink)


async def test_those_who_wait_together_share_one_sync(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs = 0
    real = os.fdatasync

    def counted(descriptor: int) -> None:
        nonlocal syncs
        syncs += 1
        time.sleep(0.01)
        real(descriptor)

    async def caller() -> bool:
        for _ in range(10):
            sink.write(LINE)
            if not await kept(sink):
                return False
        return True

    async with opened(path) as sink:
        monkeypatch.setattr(os, "fdatasync", counted)
        assert all(await asyncio.gather(*(caller() for _ in range(64))))
        assert 10 <= syncs <= 22
    assert good(path).last >= 640


async def test_the_loop_goes_on_while_the_disk_is_slow(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(path) as sink:
        monkeypatch.setattr(os, "fdatasync", lambda _: time.sleep(0.3))
        sink.write(LINE)
        done = asyncio.ensure_future(kept(sink))
        turns = 0
        while not done.done():
            await asyncio.sleep(0.01)
            turns += 1
        assert turns > 10
        monkeypatch.undo()


async def test_a_waiter_that_is_cancelled_takes_nobody_with_it(path: Path) -> None:
    async with opened(path) as sink:
        sink.write(LINE)
        first, second = asyncio.ensure_future(kept(sink)), asyncio.ensure_future(kept(sink))
        await asyncio.sleep(0)
        first.cancel()
        assert await second


@contextmanager
def full_at(size: int) -> Iterator[None]:
    """The kernel takes bytes of a file up to here, then refuses: first a short write, then an error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_what_the_disk_did_not_take_whole_is_cut_off_and_counted(path: Path) -> None:
    async with opened(path) as sink:
        sink.write(LINE)
        assert await kept(sink)
        size = path.stat().st_size
        with full_at(size + 30):
            sink.write(LINE)
            sink.write(LINE)
            assert not await kept(sink)
        assert path.stat().st_size == size
        assert sink.lost == 2
        sink.write(LINE)
        assert await kept(sink)
    assert good(path).lost == 2
    assert verbs(path) == ["checkpoint", "issue", "issue", "checkpoint"]


@pytest.mark.parametrize("cannot_be_cut", [False, True])
async def test_a_failing_sync_is_a_record_that_is_not_kept(
    path: Path, monkeypatch: pytest.MonkeyPatch, cannot_be_cut: bool
) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async with opened(path) as sink:
        monkeypatch.setattr(os, "fdatasync", fails)
        if cannot_be_cut:
            monkeypatch.setattr(os, "ftruncate", fails)
        sink.write(LINE)
        assert not await kept(sink)
        monkeypatch.undo()
        sink.write(LINE)
        assert await kept(sink)
    report = good(path)  # whole, whether the record that was not kept is in it or not
    assert report.last == (5 if cannot_be_cut else 3)
    assert sink.lost == 1


async def test_a_disk_that_is_full_at_the_start_takes_records_later(path: Path) -> None:
    with full_at(0):
        sink = FileSink(path, path.parent, time.time)
        with pytest.raises(UnusableFileError):  # not even the key could be made
            await sink.open()
    async with opened(path):
        pass
    size = path.stat().st_size
    with full_at(size):
        sink = FileSink(path, path.parent, time.time)
        await sink.open()
        sink.write(LINE)
        assert not await kept(sink)
    sink.write(LINE)
    assert await kept(sink)
    await sink.close()
    assert good(path).lost == 1


async def test_more_than_can_wait_is_lost_and_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "WAITING_BYTES", 3 * len(LINE))
    async with opened(path) as sink:
        assert [sink.write(LINE) for _ in range(5)] == [True] * 3 + [False] * 2
        assert await kept(sink)
        assert sink.lost == 2
        assert sink.write(LINE)
    assert good(path).lost == 2


async def test_a_checkpoint_stands_after_every_so_many_records(path: Path) -> None:
    async with opened(path) as sink:
        for _ in range(CHECKPOINT_EVERY + 1):
            sink.write(LINE)
        assert await kept(sink)
        assert sink.head.seq == CHECKPOINT_EVERY + 2
        assert anchor(sink.head) == int(sink.head.value.hex()[:13], 16)
    assert good(path).checkpoints == 3


async def test_an_idle_sidecar_signs_what_it_wrote(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "CHECKPOINT_SECONDS", 0.05)
    async with opened(path) as sink:
        sink.write(LINE)
        assert await kept(sink)
        await eventually(lambda: sink.head.seq == 3)
        await asyncio.sleep(0.2)
        assert sink.head.seq == 3  # nothing new, nothing more to sign


async def eventually(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not fact():
            await asyncio.sleep(0.01)


# -- restarts, kills, renames


async def test_the_chain_goes_on_after_a_restart(path: Path) -> None:
    for _ in range(3):
        async with opened(path) as sink:
            sink.write(LINE)
    assert good(path).last == 9


async def test_a_renamed_file_is_finished_and_a_new_one_begun(path: Path) -> None:
    old = path.with_suffix(".1")
    async with opened(path) as sink:
        sink.write(LINE)
        assert await kept(sink)
        path.rename(old)
        sink.write(LINE)
        assert await kept(sink)
    assert verbs(old) == ["checkpoint", "issue", "checkpoint"]
    assert verbs(path) == ["checkpoint", "issue", "checkpoint"]
    assert good(old, path).last == 6
    assert good(path).first == 4


async def test_renamed_between_two_runs_the_chain_goes_on(path: Path) -> None:
    old = path.with_suffix(".1")
    async with opened(path) as sink:
        sink.write(LINE)
    path.rename(old)
    async with opened(path) as sink:
        sink.write(LINE)
    assert good(old, path).last == 6


async def test_a_copied_and_emptied_file_goes_on(path: Path) -> None:
    old = path.with_suffix(".1")
    async with opened(path) as sink:
        sink.write(LINE)
        assert await kept(sink)
        old.write_bytes(path.read_bytes())
        path.write_bytes(b"")
        sink.write(LINE)
        assert await kept(sink)
    assert good(old, path).last == 5


async def test_a_tail_that_was_cut_off_between_two_runs_shows(path: Path) -> None:
    async with opened(path) as sink:
        sink.write(LINE)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    good(path)
    async with opened(path):
        pass
    with pytest.raises(BrokenChainError) as caught:
        good(path)
    assert caught.value.seq == 4


async def test_what_somebody_else_wrote_into_it_shows(path: Path) -> None:
    async with opened(path) as sink:
        sink.write(LINE)
        assert await kept(sink)
        with path.open("ab") as other:
            other.write(LINE)
        sink.write(LINE)
        assert await kept(sink)
    with pytest.raises(BrokenChainError) as caught:
        good(path)
    assert (caught.value.line, caught.value.seq) == (3, None)


async def test_a_line_that_was_never_finished_is_taken_off(path: Path) -> None:
    async with opened(path) as sink:
        sink.write(LINE)
    with path.open("ab") as file:
        file.write(LINE[:20])
    async with opened(path):
        pass
    assert good(path).last == 4


@pytest.mark.parametrize("content", [b"127.0.0.1 localhost\n", b"x" * 100_000, b"{}\n"])
async def test_a_file_of_something_else_is_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(UnusableFileError, match="something else"):
        await FileSink(path, path.parent, time.time).open()
    assert path.read_bytes() == content


async def test_two_cannot_write_one_file(path: Path) -> None:
    async with opened(path):
        with pytest.raises(UnusableFileError, match="another sidecar"):
            await FileSink(path, path.parent, time.time).open()
    assert good(path).last == 1


@asynccontextmanager
async def beside(path: Path, state: Path | None = None) -> AsyncIterator[FileSink]:
    """As a command writes."""
    sink = FileSink(path, state or path.parent, time.time, beside=True)
    await sink.open()
    try:
        yield sink
    finally:
        await sink.close()


async def test_a_command_writes_into_the_chain_of_a_sidecar_that_runs(path: Path) -> None:
    async with opened(path) as sink:
        sink.write(LINE)
        assert await kept(sink)
        async with beside(path) as command:
            for both in (command, sink, command, sink):
                both.write(LINE)
                assert await kept(both)
        sink.write(LINE)
        assert await kept(sink)
        assert sink.lost == command.lost == 0
    assert good(path).lost == 0
    assert verbs(path).count("issue") == 6


async def test_a_command_and_a_sidecar_that_write_at_once_keep_one_chain(path: Path) -> None:
    async def write(sink: FileSink) -> None:
        for _ in range(100):
            sink.write(LINE)
            assert await kept(sink)

    async with opened(path) as sink, beside(path) as first, beside(path) as second:
        await asyncio.gather(*(write(each) for each in (sink, first, second)))
    assert good(path).last == len(records(path))
    assert verbs(path).count("issue") == 300


async def test_a_rename_while_a_command_writes_goes_on_in_the_new_file(path: Path) -> None:
    old = path.with_suffix(".1")
    async with opened(path) as sink, beside(path) as command:
        for each in (sink, command):
            each.write(LINE)
            assert await kept(each)
        path.rename(old)
        for each in (command, sink, command, sink):
            each.write(LINE)
            assert await kept(each)
    assert good(old, path).last == len(records(old, path))
    assert [verbs(file).count("issue") for file in (old, path)] == [2, 4]


async def test_a_sidecar_starts_while_a_command_writes(path: Path) -> None:
    async with beside(path) as command:
        command.write(LINE)
        assert await kept(command)
        async with opened(path) as sink:
            for each in (sink, command):
                each.write(LINE)
                assert await kept(each)
    assert good(path).last == len(records(path))


async def test_a_command_refuses_a_file_that_another_state_directory_s_sidecar_writes(
    path: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    async with opened(path) as sink:
        with pytest.raises(UnusableFileError, match="another state directory"):
            await FileSink(path, other, time.time, beside=True).open()
        sink.write(LINE)
        assert await kept(sink)
    assert good(path).last == len(records(path))


_KILLED = """
import asyncio, os, signal, sys, time
from pathlib import Path
from sidecar.sinks import chained
from sidecar.sinks.file import FileSink
async def main():
    path = Path(sys.argv[1])
    sink = FileSink(path, path.parent, time.time, beside=True)
    await sink.open()
    def killed(*_):
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[2] == "head":
        os.pwrite = killed
    else:
        whole = chained._write_all
        chained._write_all = lambda descriptor, data: (whole(descriptor, data[:20]), killed())
    sink.write(b'{"audit":1,"verb":"rekey"}\\n')
    await sink.pending()
asyncio.run(main())
"""


@pytest.mark.parametrize(("step", "kept_records"), [("head", 1), ("half", 0)])
async def test_a_command_that_was_killed_leaves_a_chain_that_goes_on(path: Path, step: str, kept_records: int) -> None:
    async with opened(path) as sink:
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", _KILLED, str(path), step], cwd=ROOT, check=False, timeout=60
        )
        assert done.returncode == -signal.SIGKILL
        sink.write(LINE)
        assert await kept(sink)
    assert good(path).last == len(records(path))
    assert verbs(path).count("rekey") == kept_records


async def test_a_device_or_a_missing_folder_is_refused(tmp_path: Path) -> None:
    for path in (Path("/dev/null"), tmp_path / "none" / "audit.jsonl"):
        with pytest.raises(UnusableFileError, match=r"audit\.sink"):
            await FileSink(path, tmp_path, time.time).open()


async def test_files_of_the_state_directory_are_closed_to_others(path: Path) -> None:
    async with opened(path):
        pass
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes.pop("audit.jsonl") & 0o007 == 0
    assert modes == {"audit-key.pem": 0o600, "audit-key-public.pem": 0o644, "audit-head": 0o600}


CHILD = """
import asyncio, sys, time
from pathlib import Path
from sidecar import logs
from sidecar.sinks.file import FileSink
logs.configure("error", "json")
async def main():
    path = Path(sys.argv[1])
    sink = FileSink(path, path.parent, time.time)
    await sink.open()
    number = 0
    async def caller():
        nonlocal number
        while True:
            number += 1
            mine = number
            sink.write(b'{"audit":1,"verb":"issue","n":%d}\\n' % mine)
            if await sink.pending():
                print(mine, flush=True)
    await asyncio.gather(*(caller() for _ in range(8)))
asyncio.run(main())
"""


def test_a_kill_loses_nothing_that_was_said_to_be_kept(path: Path) -> None:
    said: list[int] = []
    for run in range(5):
        with subprocess.Popen([sys.executable, "-c", CHILD, str(path)], cwd=ROOT, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            lines = [int(child.stdout.readline()) for _ in range(40 + run)]
            child.send_signal(signal.SIGKILL)
            lines += [int(line) for line in child.stdout.read().splitlines(keepends=True) if line.endswith(b"\n")]
        said.append(len(lines))

    async def begin_again() -> None:
        async with opened(path):
            pass

    asyncio.run(begin_again())
    good(path)
    runs: list[list[int]] = []
    for record in records(path):
        if record["verb"] == "checkpoint":
            if not runs or runs[-1]:
                runs.append([])
        else:
            runs[-1].append(record["n"])
    runs = [run for run in runs if run]
    assert len(runs) == 5
    for kept_, told in zip(runs, said, strict=True):
        assert kept_ == list(range(1, len(kept_) + 1))
        assert told <= len(kept_) <= told + 16
