"""A KMS that is broken or away, at the port: running keepers go on and rotate, and nothing that it answers becomes a ring."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sidecar.data_keys import DamagedRingError
from sidecar.errors import UnavailableKmsError
from sidecar.keyring import Role
from tests.keepers import Fleet

if TYPE_CHECKING:
    from pathlib import Path

    from sidecar.ports import Kms

DAY = 86400.0


class BrokenKms:
    """Answers as it is told to: like the one inside, or not."""

    def __init__(self, inside: Kms) -> None:
        self._inside = inside
        self.fault = ""
        self.hangs = asyncio.Event()

    async def wrap(self, data_key: bytes, context: dict[str, str]) -> bytes:
        match self.fault:
            case "away":
                raise UnavailableKmsError("throttled")
            case "hangs":
                await self.hangs.wait()
                raise UnavailableKmsError("no answer")
            case "empty":
                return b""
            case "foreign":
                return bytes(60)
            case "another key":
                return await self._inside.wrap(bytes(32), context)
            case "another context":
                return await self._inside.wrap(data_key, {**context, "role": "other"})
            case "short":
                return (await self._inside.wrap(data_key, context))[:-1]
        return await self._inside.wrap(data_key, context)

    async def unwrap(self, wrapped: bytes, context: dict[str, str]) -> bytes:
        match self.fault:
            case "away":
                raise UnavailableKmsError("throttled")
            case "half a key":
                return (await self._inside.unwrap(wrapped, context))[:16]
            case "turned":
                return bytes(reversed(await self._inside.unwrap(wrapped, context)))
        return await self._inside.unwrap(wrapped, context)


FAULTS = ("away", "empty", "foreign", "another key", "another context", "short", "half a key", "turned")


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def _broken(fleet: Fleet) -> dict[Role, BrokenKms]:
    broken = {role: BrokenKms(kms) for role, kms in fleet.kms.items()}
    fleet.kms = dict(broken)
    return broken


@pytest.mark.parametrize("fault", FAULTS)
async def test_rekey_with_a_broken_kms_changes_nothing(fleet: Fleet, fault: str) -> None:
    broken = _broken(fleet)
    keeper = await fleet.start()
    before = keeper.ring("default")
    for kms in broken.values():
        kms.fault = fault
    with pytest.raises((UnavailableKmsError, DamagedRingError)):
        await keeper.rekey("default")
    for kms in broken.values():
        kms.fault = ""
    assert (await fleet.start()).ring("default") == before
    assert (await keeper.rekey("default")).revision == before.revision + 1


@pytest.mark.parametrize("fault", FAULTS)
async def test_no_ring_is_made_with_a_broken_kms(fleet: Fleet, fault: str) -> None:
    broken = _broken(fleet)
    for kms in broken.values():
        kms.fault = fault
    with pytest.raises((UnavailableKmsError, DamagedRingError)):
        await fleet.start()
    for kms in broken.values():
        kms.fault = ""
    assert (await fleet.start()).ring("default").revision == 1


async def test_rotations_go_on_while_the_kms_is_away_and_reach_who_only_reads(fleet: Fleet) -> None:
    broken = _broken(fleet)
    keeper, validator = await fleet.start(), await fleet.start(Role.OPEN)
    for kms in broken.values():
        kms.fault = "away"
    for _ in range(3):
        fleet.clock.pass_time(DAY)
        await keeper.refresh()
        await keeper.rotate("default", None, expected=0, request_id="")
        await keeper.destroy("default")
        await validator.refresh()
        assert validator.ring("default") == keeper.ring("default")
        assert not validator.stale("default")
    assert keeper.ring("default").revision >= 4


async def test_a_rekey_that_waits_for_the_kms_holds_up_no_rotation(fleet: Fleet) -> None:
    broken = _broken(fleet)
    keeper = await fleet.start()
    for kms in broken.values():
        kms.fault = "hangs"
    waiting = asyncio.create_task(keeper.rekey("default"))
    await asyncio.sleep(0)
    await asyncio.wait_for(keeper.rotate("default", None, expected=0, request_id=""), 5)
    assert not waiting.done()
    for kms in broken.values():
        kms.hangs.set()
    with pytest.raises(UnavailableKmsError):
        await waiting


async def test_a_keeper_whose_rings_are_under_the_further_key_starts_without_the_other_kms(fleet: Fleet) -> None:
    await fleet.start()
    new = {role: BrokenKms(fleet.kek(f"new-{role.value}")) for role in Role}
    for kms in new.values():
        kms.fault = "away"
    keeper = await fleet.start(kms=dict(new), further=dict(fleet.kms))
    assert keeper.further("default")
    for kms in new.values():
        kms.fault = ""
    await keeper.rekey("default")
    assert not keeper.further("default")
    assert (await fleet.start(kms=dict(new))).ring("default") == keeper.ring("default")
