"""The file KMS: the contract, the file's form and owner, and how a key is made."""

# ruff: noqa: ASYNC240 -- nothing else runs on these tests' loops

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from sidecar.errors import UnavailableKmsError
from sidecar.kms import file
from sidecar.kms.file import FileKms, make, open_or_make
from sidecar.ports import Kms
from tests.hand_clock import HandClock
from tests.kms.contract import CONTEXT, KEY, KmsContract
from tests.running import ROOT
from tests.stores.memory import Disk, MemoryStore

SECRET = bytes(range(100, 132))


def _written(path: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return path


class TestFileKms(KmsContract):
    @pytest.fixture
    def kms(self, tmp_path: Path) -> Kms:
        make(tmp_path / "kek")
        return FileKms(tmp_path / "kek")

    @pytest.fixture
    def other_kms(self, tmp_path: Path) -> Kms:
        make(tmp_path / "other")
        return FileKms(tmp_path / "other")


class _BrokenKms:
    """Wraps nothing, binds nothing."""

    async def wrap(self, data_key: bytes, context: dict[str, str]) -> bytes:
        return data_key

    async def unwrap(self, wrapped: bytes, context: dict[str, str]) -> bytes:
        return wrapped


@pytest.mark.parametrize(
    "fact",
    [
        KmsContract.test_wrapped_key_hides_the_key,
        KmsContract.test_wrapping_twice_differs,
        KmsContract.test_another_context_does_not_unwrap,
        KmsContract.test_no_changed_byte_unwraps,
        KmsContract.test_no_other_length_unwraps,
        KmsContract.test_only_data_keys_are_wrapped,
    ],
)
async def test_the_contract_finds_a_broken_kms(fact: Callable[[KmsContract, Kms], Awaitable[None]]) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        await fact(KmsContract(), _BrokenKms())


async def test_the_contract_finds_a_kms_without_a_key_of_its_own() -> None:
    with pytest.raises(pytest.fail.Exception):
        await KmsContract().test_another_key_does_not_unwrap(_BrokenKms(), _BrokenKms())


@pytest.mark.parametrize(
    "text",
    [
        SECRET.hex(),
        SECRET.hex().upper() + "\n",
        f"  {SECRET.hex()} \r\n",
        base64.urlsafe_b64encode(SECRET).decode(),
        base64.urlsafe_b64encode(SECRET).decode().rstrip("=") + "\n",
    ],
)
async def test_one_key_in_every_form_is_the_same(tmp_path: Path, text: str) -> None:
    plain = FileKms(_written(tmp_path / "plain", SECRET.hex()))
    assert await FileKms(_written(tmp_path / "kek", text)).unwrap(await plain.wrap(KEY, CONTEXT), CONTEXT) == KEY


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        SECRET,
        SECRET.hex()[:-1],
        SECRET.hex() + "0",
        SECRET.hex()[:-1] + "g",
        "A" * 42,
        "+" * 43,
        "ü" * 43,
        f"{SECRET.hex()}\n{SECRET.hex()}",
        "0" * 100000,
    ],
)
def test_file_that_holds_no_key_is_refused_without_a_word_of_it(tmp_path: Path, text: str | bytes) -> None:
    path = _written(tmp_path / "kek", text)
    with pytest.raises(UnavailableKmsError, match="is not a key-encryption key") as caught:
        FileKms(path)
    assert SECRET.hex()[:16] not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o666, 0o660])
def test_file_that_others_may_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    path = _written(tmp_path / "kek", SECRET.hex(), mode)
    with pytest.raises(UnavailableKmsError, match="chmod 600"):
        FileKms(path)


def _found(**members: int) -> os.stat_result:
    values = {"st_mode": 0o100600, "st_uid": 1000, "st_gid": 1000, **members}
    return os.stat_result((values["st_mode"], 1, 1, 1, values["st_uid"], values["st_gid"], 64, 0, 0, 0))


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"st_uid": 1000}, None),
        ({"st_uid": 0}, None),
        ({"st_uid": 0, "st_mode": 0o100440, "st_gid": 2000}, None),  # a Kubernetes Secret with fsGroup 2000
        ({"st_uid": 0, "st_mode": 0o100440, "st_gid": 3000}, "by others"),  # a group that is not ours
        ({"st_uid": 0, "st_mode": 0o100444, "st_gid": 2000}, "by others"),
        ({"st_uid": 0, "st_mode": 0o100460, "st_gid": 2000}, "by others"),
        ({"st_uid": 1000, "st_mode": 0o100440, "st_gid": 2000}, "by others"),
        ({"st_uid": 1001}, "belongs to user 1001"),
        ({"st_mode": 0o040700}, "not a regular file"),
        ({"st_mode": 0o010600}, "not a regular file"),
    ],
)
def test_owner_and_mode(monkeypatch: pytest.MonkeyPatch, members: dict[str, int], words: str | None) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getegid", lambda: 1000)
    monkeypatch.setattr(os, "getgroups", lambda: [1000, 2000])
    if words is None:
        file._check_owner(Path("/kek"), _found(**members))
        return
    with pytest.raises(UnavailableKmsError, match=words):
        file._check_owner(Path("/kek"), _found(**members))


def test_missing_file_and_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnavailableKmsError, match="there is no key-encryption key"):
        FileKms(tmp_path / "kek")
    with pytest.raises(UnavailableKmsError):
        FileKms(tmp_path)
    with pytest.raises(UnavailableKmsError, match="No such file or directory"):
        make(tmp_path / "deeper" / "kek")


def test_a_pipe_does_not_hold_the_start_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "kek", 0o600)
    with pytest.raises(UnavailableKmsError, match="not a regular file"):
        FileKms(tmp_path / "kek")


def test_kms_shows_no_key(tmp_path: Path) -> None:
    kms = FileKms(_written(tmp_path / "kek", SECRET.hex()))
    assert SECRET.hex() not in repr(kms) + str(vars(kms))


def test_made_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    for mask in (0, 0o777):
        before = os.umask(mask)
        try:
            make(tmp_path / f"kek{mask}")
        finally:
            os.umask(before)
        assert (tmp_path / f"kek{mask}").stat().st_mode & 0o7777 == 0o600
    assert len({path.read_text() for path in tmp_path.iterdir()}) == 2


def test_no_file_is_ever_overwritten(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("empty", "link"):
        with pytest.raises(FileExistsError):
            make(tmp_path / name)
    assert (tmp_path / "empty").read_bytes() == b""
    assert not (tmp_path / "nowhere").exists()


def test_ten_makers_make_one(tmp_path: Path) -> None:
    made = []

    def try_it() -> None:
        try:
            make(tmp_path / "kek")
        except FileExistsError:
            return
        made.append((tmp_path / "kek").read_bytes())

    threads = [threading.Thread(target=try_it) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [(tmp_path / "kek").read_bytes()]


_CHILD_MAKES = "import pathlib, sys; from sidecar.kms.file import make; make(pathlib.Path(sys.argv[1]))"


@pytest.mark.needs("strace")
@pytest.mark.parametrize("call", ["openat", "fchmod", "write", "fsync", "rename"])
def test_killed_maker_leaves_a_whole_key_or_none(tmp_path: Path, call: str) -> None:
    """The kernel kills the process at each call that touches the file."""
    path = tmp_path / "kek"
    log = tmp_path / "strace.log"
    ends = []
    for which in range(1, 4):
        child = subprocess.run(
            [
                *("strace", "-f", "-o", str(log), "-P", str(path), "-P", f"{path}.unfinished"),
                *("-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={which}"),
                *(sys.executable, "-c", _CHILD_MAKES, str(path)),
            ],
            cwd=ROOT,
            check=False,
            timeout=60,
            capture_output=True,
        )
        ends.append(child.returncode)
        if path.exists():
            FileKms(path)
            path.unlink()
    assert ends[0] == -signal.SIGKILL
    make(path)
    FileKms(path)
    assert not path.with_name("kek.unfinished").exists()


@pytest.mark.needs("strace")
@pytest.mark.parametrize("fault", ["write:error=ENOSPC", "fsync:error=EIO", "rename:error=EIO"])
def test_failing_disk_leaves_no_key(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "kek"
    child = subprocess.run(
        [
            *("strace", "-f", "-o", "/dev/null", "-P", f"{path}.unfinished", "-e", f"trace={fault.partition(':')[0]}"),
            *("-e", f"inject={fault}", sys.executable, "-c", _CHILD_MAKES, str(path)),
        ],
        cwd=ROOT,
        check=False,
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert "cannot make the key-encryption key" in child.stderr
    assert list(tmp_path.iterdir()) == []


# First start


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    store = MemoryStore(Disk(HandClock()))
    yield store
    await store.close()


async def test_key_is_made_where_there_is_no_ring(tmp_path: Path, store: MemoryStore) -> None:
    wrapped = await (await open_or_make(tmp_path / "kek", store)).wrap(KEY, CONTEXT)
    assert await (await open_or_make(tmp_path / "kek", store)).unwrap(wrapped, CONTEXT) == KEY


async def test_missing_key_beside_a_ring_is_refused(tmp_path: Path, store: MemoryStore) -> None:
    await store.save("default", b"sealed", expected=0)
    with pytest.raises(
        UnavailableKmsError,
        match=r"is missing, but the store holds rings sealed under it \(default\): put the key back",
    ):
        await open_or_make(tmp_path / "kek", store)
    assert list(tmp_path.iterdir()) == []


async def test_key_that_appears_meanwhile_is_taken(tmp_path: Path) -> None:
    """Another process makes key and ring between our look at the file and our look at the store."""

    class Racing(MemoryStore):
        async def revisions(self) -> dict[str, int]:
            make(tmp_path / "kek")
            return {"default": 1}

    await open_or_make(tmp_path / "kek", Racing(Disk(HandClock())))


async def test_no_key_is_made_for_a_shared_store(tmp_path: Path, store: MemoryStore) -> None:
    store.private = False
    with pytest.raises(UnavailableKmsError, match="there is no key-encryption key"):
        await open_or_make(tmp_path / "kek", store)
    assert list(tmp_path.iterdir()) == []


async def test_key_that_is_no_good_is_never_replaced(tmp_path: Path, store: MemoryStore) -> None:
    path = _written(tmp_path / "kek", b"")
    with pytest.raises(UnavailableKmsError, match="is not a key-encryption key"):
        await open_or_make(path, store)
    assert path.read_bytes() == b""
