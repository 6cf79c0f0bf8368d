"""A store that went back is noticed, over restarts too, until it is whole again or somebody accepts it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from sidecar.denylist import digest_of
from sidecar.errors import StaleStateError, UnavailableStoreError
from sidecar.keeper import WHOLE_SECONDS
from sidecar.keyring import KeyUse, Role
from sidecar.pins import FILE, Pin, Pins
from sidecar.ports import FOREVER, Ended, Revocation
from tests.hand_clock import START
from tests.keepers import Fleet
from tests.stores.memory import MemoryStore

if TYPE_CHECKING:
    from pathlib import Path

    from sidecar.keeper import Keeper
    from sidecar.ports import Document

ENCRYPT = KeyUse.ENCRYPTION


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


async def _rotate(keeper: Keeper) -> None:
    await keeper.rotate("default", None, expected=0, request_id="")


def _pin(revision: int, history: int = 1, signer: str = "s", alarm: str = "") -> Pin:
    return Pin(history, revision, f"digest {history}.{revision}", signer, alarm)


async def test_restart_on_an_older_store_serves_nothing(fleet: Fleet) -> None:
    older, _ = await _rolled_back(fleet)
    for roles in ((), (Role.ISSUE,), (Role.OPEN,)):
        again = await fleet.start(*roles, state="state")
        assert again.alarms() == {"default": "revision 1 after 2"}
        assert again.stale("default")
        if not roles:
            with pytest.raises(StaleStateError, match="gone back"):
                await _rotate(again)
    assert fleet.disk.documents == older


async def test_who_started_before_there_was_a_ring_pins_it_when_it_comes(fleet: Fleet) -> None:
    early = await fleet.start(Role.OPEN, state="state")
    assert early.alarms() == {}
    keeper = await fleet.start()
    older = dict(fleet.disk.documents)
    await _rotate(keeper)
    await early.refresh()
    fleet.disk.documents = older
    again = await fleet.start(Role.OPEN, state="state")
    assert again.alarms() == {"default": "revision 1 after 2"}


async def _rolled_back(fleet: Fleet) -> tuple[dict[str, Document], dict[str, Document]]:
    """The documents of an older state, in force again after a newer one was pinned, and those of the newer one."""
    keeper = await fleet.start(state="state")
    older = dict(fleet.disk.documents)
    await _rotate(keeper)
    newest = fleet.disk.documents
    fleet.disk.documents = dict(older)
    return older, newest


async def test_newest_state_that_is_back_ends_the_alarm(fleet: Fleet) -> None:
    _, newest = await _rolled_back(fleet)
    again = await fleet.start(state="state")
    await again.refresh()
    assert again.stale("default")
    fleet.disk.documents = newest
    await again.refresh()
    assert (again.alarms(), again.stale("default")) == ({}, False)
    assert (await fleet.start(state="state")).alarms() == {}


async def test_another_history_stays_an_alarm_however_long_it_gets(fleet: Fleet) -> None:
    await _rolled_back(fleet)
    again, stranger = await fleet.start(state="state"), await fleet.start()
    for _ in range(4):
        await _rotate(stranger)
        fleet.clock.pass_time(60)
        await again.refresh()
        assert again.stale("default")
        assert (await fleet.start(state="state")).stale("default")


async def test_store_that_lost_its_ring_gets_no_new_one(fleet: Fleet) -> None:
    await fleet.start(state="state")
    fleet.disk.documents.clear()
    again = await fleet.start(state="state")
    assert again.alarms() == {"default": "the ring is gone"}
    assert fleet.disk.documents == {}
    with pytest.raises(StaleStateError):
        again.issuing("default")


async def test_another_store_is_an_alarm_over_a_restart(fleet: Fleet) -> None:
    await fleet.start(state="state")
    fleet.disk.documents.clear()
    fleet.disk.store_id = "b" * 32
    again = await fleet.start(state="state")
    assert again.alarms() == {"default": "it is another store"}
    assert fleet.disk.documents == {}
    with pytest.raises(UnavailableStoreError, match="not the one"):
        await again.refresh()


async def test_without_a_disk_a_restart_forgets(fleet: Fleet) -> None:
    """The stated limit of a process that has nowhere to keep pins."""
    keeper = await fleet.start()
    older = dict(fleet.disk.documents)
    await _rotate(keeper)
    fleet.disk.documents = older
    assert (await fleet.start()).alarms() == {}


# Revocations


async def _revoke(fleet: Fleet, *names: str) -> None:
    for name in names:
        digest = digest_of(Ended.TOKEN, "default", name)
        await MemoryStore(fleet.disk).revoke(Revocation(Ended.TOKEN, digest, FOREVER, int(START) + 10_000))


async def _forgetful(fleet: Fleet) -> tuple[Keeper, dict[bytes, tuple[int, Revocation]]]:
    """A sidecar that saw two revocations, and all of them; the ledger has gone back to the first."""
    keeper = await fleet.start(state="state", listing=True)
    await _revoke(fleet, "a", "b")
    await keeper.refresh()
    newest = dict(fleet.disk.revoked)
    fleet.disk.revoked = {digest: each for digest, each in newest.items() if each[0] == 1}
    fleet.disk.revision = 1
    return keeper, newest


GONE_BACK = {"default": "revocations 1 after 2"}


async def test_revocations_that_went_back_are_an_alarm_here_and_over_a_restart(fleet: Fleet) -> None:
    running, _ = await _forgetful(fleet)
    await running.refresh()
    assert (running.alarms(), running.stale("default")) == (GONE_BACK, True)
    assert running.denylist
    assert running.denylist.revoked("default", token_id="b", subject="", family="", issued=1)
    with pytest.raises(StaleStateError, match="gone back"):
        await _rotate(running)
    for listing in (True, False):
        assert (await fleet.start(Role.OPEN, state="state", listing=listing)).alarms() == GONE_BACK


async def test_who_starts_after_the_revocations_went_back_knows(fleet: Fleet) -> None:
    await _forgetful(fleet)
    assert (await fleet.start(state="state", listing=True)).alarms() == GONE_BACK


async def test_newest_revocations_that_are_back_end_the_alarm(fleet: Fleet) -> None:
    running, newest = await _forgetful(fleet)
    await running.refresh()
    fleet.disk.revoked, fleet.disk.revision = newest, 2
    await _revoke(fleet, "c")
    await running.refresh()
    assert (running.alarms(), running.stale("default")) == ({}, False)
    assert (await fleet.start(state="state", listing=True)).alarms() == {}


async def test_revocations_that_went_on_from_an_older_state_stay_an_alarm(fleet: Fleet) -> None:
    running, _ = await _forgetful(fleet)
    await running.refresh()
    await _revoke(fleet, "c", "d", "e")
    await running.refresh()
    assert running.stale("default")
    again = await fleet.start(state="state", listing=True)
    assert again.alarms() == {"default": "other revocations than those that are known"}


async def test_who_starts_when_they_have_gone_on_from_an_older_state_knows(fleet: Fleet) -> None:
    await _forgetful(fleet)
    await _revoke(fleet, "c", "d", "e")
    again = await fleet.start(state="state", listing=True)
    assert again.alarms() == {"default": "other revocations than those that are known"}


async def test_revocations_that_expired_are_no_step_back(fleet: Fleet) -> None:
    running = await fleet.start(state="state", listing=True)
    await _revoke(fleet, "a", "b")
    await running.refresh()
    fleet.disk.revoked.clear()
    await running.refresh()
    for listing in (True, False):
        assert (await fleet.start(state="state", listing=listing)).alarms() == {}


async def test_keeper_accepts_for_all_that_revocations_are_lost(fleet: Fleet) -> None:
    running, _ = await _forgetful(fleet)
    other = await fleet.start(Role.OPEN, state="other", listing=True)
    assert other.alarms() == {}  # it never saw the newer ones
    validator = await fleet.start(Role.OPEN, listing=True)
    await running.refresh()
    operator = await fleet.start(state="state")
    assert await operator.accept_rollback() == GONE_BACK
    assert operator.rings()["default"].history == 2
    for each in (running, other, validator):
        await each.refresh()
        assert (each.alarms(), each.rings()["default"].history) == ({}, 2)
    await _revoke(fleet, "c")
    for each in (running, other):
        await each.refresh()
        assert not each.stale("default")
    for state in ("state", "other"):
        assert (await fleet.start(state=state, listing=True)).alarms() == {}


async def test_who_cannot_write_accepts_lost_revocations_for_itself_alone(fleet: Fleet) -> None:
    running, _ = await _forgetful(fleet)
    await running.refresh()
    operator = await fleet.start(Role.OPEN, state="state")
    assert await operator.accept_rollback() == GONE_BACK
    await running.refresh()
    assert running.alarms() == {}
    assert running.rings()["default"].history == 1
    assert (await fleet.start(state="state", listing=True)).alarms() == {}


# Acceptance


async def test_keeper_that_accepts_starts_a_history_that_everybody_takes_for_newer(fleet: Fleet) -> None:
    keeper = await fleet.start(state="keeper")
    older = dict(fleet.disk.documents)
    validator, issuer = await fleet.start(Role.OPEN, state="validator"), await fleet.start(Role.ISSUE)
    for _ in range(3):
        await _rotate(keeper)
        fleet.clock.pass_time(60)
    for other in (validator, issuer):
        await other.refresh()
    fleet.disk.documents = older
    for other in (keeper, validator, issuer):
        await other.refresh()
        assert other.stale("default")
    operator = await fleet.start(state="keeper")
    assert await operator.accept_rollback() == {"default": "revision 1 after 4"}
    ring = operator.rings()["default"]
    assert (ring.history, ring.revision) == (2, 2)
    for other in (keeper, validator, issuer, await fleet.start(Role.OPEN, state="validator")):
        await other.refresh()
        assert (other.alarms(), other.rings()["default"]) == ({}, ring)
    assert validator.find(["default"], issuer.issuing("default").encryption.facts.key_id, ENCRYPT) is not None
    await _rotate(keeper)


async def test_newer_state_of_the_old_history_is_a_step_back_once_the_loss_was_accepted(fleet: Fleet) -> None:
    _, newest = await _rolled_back(fleet)
    operator = await fleet.start(state="state")
    await operator.accept_rollback()
    fleet.disk.documents = newest
    fleet.clock.pass_time(WHOLE_SECONDS)  # its revision is the same
    await operator.refresh()
    assert operator.stale("default")


async def test_who_cannot_write_accepts_for_itself_alone(fleet: Fleet) -> None:
    keeper = await fleet.start(state="keeper")
    older = dict(fleet.disk.documents)
    validator = await fleet.start(Role.OPEN, state="validator")
    await _rotate(keeper)
    await validator.refresh()
    fleet.disk.documents = dict(older)
    await validator.refresh()
    operator = await fleet.start(Role.OPEN, state="validator")
    assert await operator.accept_rollback() == {"default": "revision 1 after 2"}
    assert fleet.disk.documents == older
    await validator.refresh()  # reads what the operator has pinned
    assert (validator.alarms(), validator.rings()["default"].revision) == ({}, 1)
    assert not (await fleet.start(Role.OPEN, state="validator")).alarms()
    assert (await fleet.start(state="keeper")).alarms()


async def test_loss_of_a_whole_store_is_accepted_with_a_fresh_ring(fleet: Fleet) -> None:
    await fleet.start(state="state")
    fleet.disk.documents.clear()
    fleet.disk.store_id = "b" * 32
    operator = await fleet.start(state="state")
    assert await operator.accept_rollback() == {"default": "it is another store"}
    again = await fleet.start(state="state")
    assert (again.alarms(), again.stale("default")) == ({}, False)
    assert again.rings()["default"].history == 2


async def test_nothing_that_went_back_is_nothing_to_accept(fleet: Fleet) -> None:
    keeper = await fleet.start(state="state")
    assert await keeper.accept_rollback() == {}
    assert keeper.rings()["default"].revision == 1


# The file


async def test_damaged_file_is_an_alarm_and_is_not_written_over(fleet: Fleet) -> None:
    keeper = await fleet.start(state="state")
    await _rotate(keeper)
    path = fleet.path / "state" / FILE
    whole = path.read_bytes()
    for damaged in (b"", whole[:-30], whole.replace(b'"revision": 2', b'"revision": 1'), b"[]", b"\xff" * 10):
        path.write_bytes(damaged)
        again = await fleet.start(state="state")
        assert again.alarms() == {"default": "the file of pins is damaged"}
        assert again.stale("default")
        with pytest.raises(UnavailableStoreError):
            await again.refresh()
        assert path.read_bytes() == damaged
    assert await again.accept_rollback()
    assert not (await fleet.start(state="state")).alarms()


async def test_file_is_private_and_holds_no_secret(fleet: Fleet) -> None:
    await fleet.start(state="state")
    path = fleet.path / "state" / FILE
    assert path.stat().st_mode & 0o777 == 0o600
    pins = json.loads(path.read_text())["pins"]
    assert pins.keys() == {"store_id", "rings"}
    assert pins["rings"]["default"].keys() == {
        "history", "revision", "digest", "signer", "alarm", "revocations", "revoked", "forgot",
    }  # fmt: skip


async def test_file_that_cannot_be_written_leaves_the_pins_in_memory(fleet: Fleet) -> None:
    keeper = await fleet.start(state="state")
    older = dict(fleet.disk.documents)
    path = fleet.path / "state" / FILE
    path.unlink()
    path.with_name(f"{FILE}.unfinished").mkdir()  # so that no file of that name can be made
    await _rotate(keeper)
    newest, fleet.disk.documents = fleet.disk.documents, older
    await keeper.refresh()
    assert keeper.stale("default")
    fleet.disk.documents = newest
    path.with_name(f"{FILE}.unfinished").rmdir()
    await keeper.refresh()
    await keeper.refresh()
    assert not keeper.stale("default")
    assert json.loads(path.read_text())["pins"]["rings"]["default"]["revision"] == 2


def test_older_pins_never_replace_newer_ones_of_another_process(tmp_path: Path) -> None:
    quick, slow = Pins(tmp_path / FILE), Pins(tmp_path / FILE)
    for pins, revision in ((quick, 5), (slow, 4)):
        pins.store_id = "a"
        pins.rings = {"default": _pin(revision), f"other{revision}": _pin(1)}
        pins.write()
        assert not pins.unwritten
    read = Pins(tmp_path / FILE)
    read.load()
    assert read.rings == {"default": _pin(5), "other4": _pin(1), "other5": _pin(1)}


def test_pins_of_another_store_are_written_over_only_when_that_was_accepted(tmp_path: Path) -> None:
    one, other = Pins(tmp_path / FILE), Pins(tmp_path / FILE)
    one.store_id, one.rings = "a", {"default": _pin(5)}
    one.write()
    other.store_id, other.rings = "b", {"default": _pin(1)}
    other.write()
    read = Pins(tmp_path / FILE)
    read.load()
    assert read.store_id == "a"
    other.replace("b", {"default": _pin(1, alarm="it went back"), "gone": None})
    read.load()
    assert (read.store_id, read.rings) == ("b", {"default": _pin(1)})


def test_unfinished_file_of_a_killed_process_does_no_harm(tmp_path: Path) -> None:
    pins = Pins(tmp_path / FILE)
    pins.store_id, pins.rings = "a", {"default": _pin(5)}
    pins.write()
    (tmp_path / f"{FILE}.unfinished").write_bytes(b"half")
    pins.rings = {"default": _pin(6)}
    pins.write()
    assert os.listdir(tmp_path) == [FILE]  # noqa: PTH208
