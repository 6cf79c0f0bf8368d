"""Disks, files and keys that fail: noticed at the start with one clear line, or at run time with the right reason; never a fresh ring."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from tests.faults import states
from tests.faults.waiting import run, wait_for
from tests.faults.witness import Witness, reason_of
from tests.running import RunningSidecar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.faults.conftest import NewSidecar, NewWitness

PROFILE = """
[profiles.default]
issuer = "urn:test"
audiences = ["orders"]
"""
SHORT = (
    PROFILE
    + """
[keys]
refresh_interval = "1s"
propagation = "2s"
max_staleness = "2s"
"""
)
TWO_PROFILES = PROFILE + PROFILE.replace("default", "other")
MOUNTS = pytest.mark.needs("mount", "umount", *([] if os.geteuid() == 0 else ["root"]))
EXIT_SECONDS = 20.0

pytestmark = pytest.mark.timeout(300)


def refused(running: RunningSidecar) -> str:
    """Start it, which must fail with exit code 1 and one line that is for people; gives the line."""
    before = len(running.stderr())
    running.start()
    assert running.process.wait(EXIT_SECONDS) == 1, running.log()
    lines = [line for line in running.stderr()[before:].splitlines() if not line.startswith("{")]
    assert len(lines) == 1, lines
    assert lines[0].startswith("tokensidecar serve: "), lines
    return lines[0]


@pytest.fixture(scope="module")
def template() -> Iterator[tuple[RunningSidecar, Witness]]:
    """A sidecar that has rotated once and has ended: its state directory is copied for each test."""
    running = RunningSidecar(PROFILE)
    try:
        run(running)
        witness = Witness(running)
        witness.issue()
        witness.rotate()
        witness.check()
        witness.close()
        running.stop()
        yield running, witness
    finally:
        running.kill()
        running.remove()


@pytest.fixture
def ended(
    template: tuple[RunningSidecar, Witness], new_sidecar: NewSidecar, new_witness: NewWitness
) -> tuple[RunningSidecar, Witness]:
    """A sidecar that has rotated once and has ended, and who remembers its tokens."""
    old, remembered = template
    running = new_sidecar(PROFILE)
    shutil.copytree(old.state_dir, running.state_dir, dirs_exist_ok=True)
    witness = new_witness(running)
    witness.tokens, witness.revision = list(remembered.tokens), remembered.revision
    return running, witness


def good_again(running: RunningSidecar, witness: Witness) -> None:
    """What was mended serves all that it did before."""
    if not running.running:
        run(running)
    witness.connect()
    witness.check()
    witness.rotate()
    witness.check()


# Directories and disks


@contextmanager
def mounted(where: Path, *options: str) -> Iterator[None]:
    subprocess.run(["mount", *options, str(where)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(where)], check=True)


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """Root is stopped by a mount only, others by the mode."""
    if os.geteuid() == 0:
        with mounted(directory, "--bind", "-o", "ro", str(directory)):
            yield
    else:
        mode = directory.stat().st_mode
        for path in (*directory.iterdir(), directory):
            path.chmod(0o500 if path.is_dir() else 0o400)
        try:
            yield
        finally:
            directory.chmod(mode)
            for path in directory.iterdir():
                path.chmod(0o600)


def fill(directory: Path) -> Path:
    """Take all that is left on its disk, to the last block."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
    return filler


@MOUNTS
def test_full_disk_refuses_writes_only_and_recovers(new_sidecar: NewSidecar, new_witness: NewWitness) -> None:
    running = new_sidecar(SHORT)
    with mounted(running.state_dir, "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs"):
        run(running)
        witness = new_witness(running)
        witness.check()
        before = states.contents(running.state_dir)
        filler = fill(running.state_dir)
        refusals = {reason_of(witness.rotate) for _ in range(5)}
        assert refusals == {"STORE_UNAVAILABLE"}
        assert reason_of(lambda: witness.revoke_keys(witness.active().values())) == "STORE_UNAVAILABLE"
        time.sleep(2.5)  # longer than max_staleness: what can be read is not stale
        witness.check()
        assert states.contents(running.state_dir) == before
        filler.unlink()
        good_again(running, witness)
        running.stop()


@MOUNTS
def test_full_disk_at_the_start_is_told_in_one_line(new_sidecar: NewSidecar, new_witness: NewWitness) -> None:
    running = new_sidecar(PROFILE)
    with mounted(running.state_dir, "-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs"):
        filler = fill(running.state_dir)
        assert "No space left" in (line := refused(running)) or "disk is full" in line
        filler.unlink()
        run(running)
        witness = new_witness(running)
        witness.check()
        witness.rotate()
        running.kill()
        fill(running.state_dir)
        running.start()
        with suppress(RuntimeError):
            running.wait_until_ready()
        if running.running:  # it may serve, if it needs to write nothing
            witness.connect()
            witness.check()
            running.stop()
        else:
            assert running.process.returncode == 1
        (running.state_dir / "filler").unlink()
        good_again(running, witness)
        running.stop()


def test_read_only_directory_is_told_in_one_line(ended: tuple[RunningSidecar, Witness]) -> None:
    running, witness = ended
    with read_only(running.state_dir):
        assert str(running.state_dir) in refused(running)
    good_again(running, witness)


def test_read_only_directory_at_the_first_start_is_told_in_one_line(new_sidecar: NewSidecar) -> None:
    running = new_sidecar(PROFILE)
    with read_only(running.state_dir):
        assert str(running.state_dir) in refused(running)
    run(running)


# The database


def flip(file: Path, offset: int) -> None:
    data = bytearray(file.read_bytes())
    data[offset] ^= 0x10
    file.write_bytes(data)


def test_truncated_database_is_told_in_one_line(ended: tuple[RunningSidecar, Witness]) -> None:
    running, witness = ended
    database = running.state_dir / "state.db"
    whole = database.read_bytes()
    for length in (0, 4096, len(whole) - 4096):
        database.write_bytes(whole[:length])
        line = refused(running)
        assert "state.db" in line
        assert database.stat().st_size == length, "something was written over what is left"
    database.write_bytes(whole)
    good_again(running, witness)


def test_flipped_byte_is_told_in_one_line_or_does_no_harm(ended: tuple[RunningSidecar, Witness]) -> None:
    running, witness = ended
    database = running.state_dir / "state.db"
    whole = database.read_bytes()
    content = states.contents(running.state_dir)["default"]
    inside = whole.find(content[-200:])  # large contents are split over pages; their end is in one piece
    assert inside > 0
    for offset in (0, 100, inside):
        flip(database, offset)
        damaged = database.read_bytes()
        assert "state.db" in refused(running), offset
        assert database.read_bytes() == damaged, "a damaged file was written to"
        database.write_bytes(whole)
    good_again(running, witness)


def test_database_of_noise_is_told_in_one_line(ended: tuple[RunningSidecar, Witness]) -> None:
    running, witness = ended
    database = running.state_dir / "state.db"
    whole = database.read_bytes()
    noise = os.urandom(len(whole))
    database.write_bytes(noise)
    assert "state.db" in refused(running)
    assert database.read_bytes() == noise
    database.write_bytes(whole)
    good_again(running, witness)


def test_older_backup_put_back_is_noticed_at_the_start(ended: tuple[RunningSidecar, Witness]) -> None:
    """Nothing is answered and nothing changed on top of it, until the newest state is back."""
    running, witness = ended
    database = running.state_dir / "state.db"
    backup = database.read_bytes()
    run(running)
    witness.connect()
    witness.rotate()
    witness.check()
    running.stop()
    newest = database.read_bytes()
    database.write_bytes(backup)
    older = states.contents(running.state_dir)
    run(running)
    witness.connect()
    assert witness.validate(witness.tokens[-1]) == "STATE_STALE"
    assert reason_of(witness.rotate) == "STATE_STALE"
    assert witness.health() == "NOT_SERVING"
    assert running.get("/readyz")[0] == 200
    running.stop()
    assert states.contents(running.state_dir) == older
    database.write_bytes(newest)
    good_again(running, witness)


def test_missing_database_beside_its_key_is_noticed_at_the_start(ended: tuple[RunningSidecar, Witness]) -> None:
    """The key is not touched, and no ring takes the place of the one that was: put back, it is opened again."""
    running, witness = ended
    database, kek = running.state_dir / "state.db", running.state_dir / "kek"
    key = kek.read_bytes()
    database.rename(running.directory / "aside")
    run(running)
    witness.connect()
    assert witness.validate(witness.tokens[0]) == "STATE_STALE"
    assert reason_of(lambda: witness.issue(remember=False)) == "STATE_STALE"
    running.stop()
    assert kek.read_bytes() == key
    (running.directory / "aside").replace(database)
    good_again(running, witness)


def mended_while_running(running: RunningSidecar, witness: Witness, spoil: Callable[[], None]) -> None:
    """Writes refuse at once; tokens validate until the state is too old; nothing is made anew."""
    run(running)
    witness.connect()
    witness.check()
    spoil()
    assert reason_of(witness.rotate) == "STORE_UNAVAILABLE"
    assert witness.validate(witness.tokens[-1]) == "OK"
    wait_for(lambda: witness.validate(witness.tokens[-1]) == "STATE_STALE")
    assert reason_of(witness.rotate) in {"STORE_UNAVAILABLE", "STATE_STALE"}


@pytest.mark.parametrize("fault", ["deleted", "cut"])
def test_database_spoilt_while_in_use_is_never_replaced_by_a_fresh_one(
    fault: str, new_sidecar: NewSidecar, new_witness: NewWitness
) -> None:
    running = new_sidecar(SHORT)
    run(running)
    witness = new_witness(running)
    database = running.state_dir / "state.db"
    running.stop()
    backup = database.read_bytes()

    def spoil() -> None:
        if fault == "deleted":
            database.unlink()
        else:
            os.truncate(database, 4096)

    mended_while_running(running, witness, spoil)
    assert database.exists() == (fault != "deleted")
    running.stop()
    if fault != "deleted":
        assert "state.db" in refused(running)
    database.unlink(missing_ok=True)
    for log in ("state.db-wal", "state.db-shm"):
        (running.state_dir / log).unlink(missing_ok=True)
    database.write_bytes(backup)
    database.chmod(0o600)
    good_again(running, witness)


def test_store_out_of_reach_makes_state_stale_and_recovers_by_itself(
    new_sidecar: NewSidecar, new_witness: NewWitness
) -> None:
    running = new_sidecar(SHORT)
    run(running)
    witness = new_witness(running)
    witness.check()
    token = witness.issue()
    assert witness.health() == "SERVING"
    database, aside = running.state_dir / "state.db", running.directory / "aside"
    database.rename(aside)
    moved = time.monotonic()
    assert reason_of(witness.rotate) == "STORE_UNAVAILABLE"
    wait_for(lambda: reason_of(lambda: witness.issue(remember=False)) == "STATE_STALE")
    # Not before its time: the last read was at most one refresh interval, with its jitter, before the move.
    assert time.monotonic() - moved >= 2.0 - 1.2 - 0.1
    assert witness.validate(token) == "STATE_STALE"
    assert witness.validate(witness.tokens[0]) == "STATE_STALE"
    wait_for(lambda: witness.health() == "NOT_SERVING")
    assert witness.health("") == "SERVING"
    assert running.get("/livez")[0] == 200
    status, body = running.get("/readyz")
    assert status == 200
    assert "default: state is stale" in body
    assert 'tokensidecar_state_stale{profile="default"} 1.0' in running.get("/metrics")[1]
    aside.rename(database)
    wait_for(lambda: witness.validate(token) == "OK")
    wait_for(lambda: witness.health() == "SERVING")
    assert running.get("/readyz") == (200, "ready\n")
    good_again(running, witness)
    assert (
        running.stderr().count("store.lost") == running.stderr().count("store.found") == 1
    )  # said once, not each time


def test_older_backup_put_in_place_while_running_is_noticed(new_sidecar: NewSidecar, new_witness: NewWitness) -> None:
    """A copy over the file, and a copy in place of it: either way nothing is built on the older state."""
    running = new_sidecar(SHORT)
    run(running)
    witness = new_witness(running)
    witness.check()
    running.stop()
    database = running.state_dir / "state.db"
    backup = database.read_bytes()
    run(running)
    witness.connect()
    witness.rotate()
    witness.check()
    newest = states.ring(running.state_dir)
    copy = running.state_dir / "copy"
    copy.write_bytes(backup)
    copy.chmod(0o600)
    shutil.copyfile(database, running.directory / "newest")
    database.rename(running.directory / "aside")
    copy.rename(database)
    assert reason_of(witness.rotate) == "STORE_UNAVAILABLE"
    assert witness.validate(witness.tokens[-1]) == "OK"
    wait_for(lambda: witness.validate(witness.tokens[-1]) == "STATE_STALE")
    assert database.read_bytes() == backup, "something was written to the older state"
    (running.directory / "aside").rename(database)
    wait_for(lambda: witness.validate(witness.tokens[-1]) == "OK")
    assert states.ring(running.state_dir) == newest
    good_again(running, witness)


# The keys


def test_missing_key_is_told_in_one_line_and_not_replaced(ended: tuple[RunningSidecar, Witness]) -> None:
    running, witness = ended
    kek = running.state_dir / "kek"
    key, before = kek.read_bytes(), states.contents(running.state_dir)
    kek.unlink()
    assert str(kek) in refused(running)
    assert not kek.exists()
    assert states.contents(running.state_dir) == before
    kek.write_bytes(key)
    kek.chmod(0o600)
    good_again(running, witness)


def test_key_lost_while_running_does_not_stop_it(ended: tuple[RunningSidecar, Witness]) -> None:
    running, witness = ended
    run(running)
    kek = running.state_dir / "kek"
    key = kek.read_bytes()
    kek.unlink()
    witness.connect()
    witness.rotate()
    witness.check()
    kek.write_bytes(key)
    kek.chmod(0o600)


def test_another_key_is_told_in_one_line(ended: tuple[RunningSidecar, Witness]) -> None:
    running, witness = ended
    kek = running.state_dir / "kek"
    right, before = kek.read_bytes(), states.contents(running.state_dir)
    for key in (b"0" * 64, b"", b"\x00" * 32):
        kek.write_bytes(key)
        assert str(kek) in refused(running)
        assert kek.read_bytes() == key
        assert states.contents(running.state_dir) == before
    kek.write_bytes(right)
    good_again(running, witness)


def test_key_that_others_can_read_is_told_in_one_line(ended: tuple[RunningSidecar, Witness]) -> None:
    running, witness = ended
    kek = running.state_dir / "kek"
    kek.chmod(0o644)
    assert str(kek) in refused(running)
    kek.chmod(0o600)
    good_again(running, witness)


def test_ring_of_another_profile_is_told_in_one_line(new_sidecar: NewSidecar, new_witness: NewWitness) -> None:
    running = new_sidecar(TWO_PROFILES)
    run(running)
    one, other = new_witness(running), new_witness(running, "other")
    one.check()
    other.check()
    running.stop()
    right = states.contents(running.state_dir)
    swapped = {"default": right["other"], "other": right["default"]}
    for name, content in swapped.items():
        states.put(running.state_dir, name, content)
    assert "profile" in refused(running)
    assert states.contents(running.state_dir) == swapped
    for name, content in right.items():
        states.put(running.state_dir, name, content)
    good_again(running, one)
    other.connect()
    other.check()


def test_ring_of_another_profile_put_in_while_running_is_not_built_on(
    new_sidecar: NewSidecar, new_witness: NewWitness
) -> None:
    running = new_sidecar(TWO_PROFILES + SHORT.removeprefix(PROFILE))
    run(running)
    witness = new_witness(running)
    witness.check()
    right = states.contents(running.state_dir)
    states.put(running.state_dir, "default", right["other"])
    assert (
        reason_of(witness.rotate) == "KMS_UNAVAILABLE"
    )  # the data keys do not open for this profile, and only the KMS knows
    assert witness.validate(witness.tokens[-1]) == "OK"
    assert states.contents(running.state_dir)["default"] == right["other"]
    states.put(running.state_dir, "default", right["default"])
    good_again(running, witness)


# The salt of the audit log


def test_salt_that_is_not_whole_is_told_in_one_line(ended: tuple[RunningSidecar, Witness]) -> None:
    running, witness = ended
    salt = running.state_dir / "audit-salt"
    salt.write_bytes(b"")  # with no salt at all, whoever reads the log could try out subjects
    assert str(salt) in refused(running)
    assert salt.read_bytes() == b""
    salt.unlink()
    (running.state_dir / "audit-salt.unfinished").write_bytes(b"half")  # as of a start that was killed
    good_again(running, witness)
    assert len(salt.read_bytes()) == 32
    states.check_files(running.state_dir)
