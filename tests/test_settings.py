"""The ring decides and configuration proposes; and what several processes see of each other over time."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings, strategies as st

from sidecar.errors import ChangedRingError, StaleStateError
from sidecar.keyring import PUBLISH_AHEAD, KeyState, KeyUse, Role
from sidecar.profile import DEFAULT, Format
from tests.keepers import Fleet

if TYPE_CHECKING:
    from sidecar.keeper import Keeper
    from sidecar.keyring import Ring
    from sidecar.profile import Profile

ENCRYPT, SIGN = KeyUse.ENCRYPTION, KeyUse.SIGNATURE
LONGER = replace(DEFAULT, max_ttl=7200)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


async def _rotated(fleet: Fleet, keeper: Keeper) -> int:
    """Rotates, and gives the maximum ttl of the next keys."""
    await keeper.refresh()
    ring = (await keeper.rotate("default", None, expected=0, request_id="")).ring
    fleet.clock.pass_time(60)
    found = {key.settings.max_ttl for use in KeyUse if (key := ring.newest(use))}
    assert len(found) == 1
    return found.pop()


async def test_alone_a_changed_configuration_applies_to_the_next_key(fleet: Fleet) -> None:
    await (await fleet.start())._store.close()
    keeper = await fleet.start(profile=LONGER)
    assert keeper.differing()["default"] == ("encryption.max_ttl", "signature.max_ttl")
    assert await _rotated(fleet, keeper) == 7200
    assert keeper.differing()["default"] == ()


async def test_beside_others_the_same_settings_revision_changes_nothing(fleet: Fleet) -> None:
    first, other = await fleet.start(), await fleet.start(profile=LONGER)
    revision = other.rings()["default"].revision
    await other.refresh()
    assert (other.differing()["default"] != (), other.rings()["default"].revision) == (True, revision)
    assert [await _rotated(fleet, each) for each in (other, first, other)] == [3600] * 3


async def test_the_higher_settings_revision_decides_for_all(fleet: Fleet) -> None:
    old, new = await fleet.start(), await fleet.start(profile=replace(LONGER, settings_revision=2))
    assert await _rotated(fleet, old) == 3600
    assert await _rotated(fleet, new) == 7200
    # From then on whoever rotates does it by the newer settings, and who differs is told so.
    assert await _rotated(fleet, old) == 7200
    assert (old.differing()["default"] != (), new.differing()["default"]) == (True, ())


async def test_settings_apply_use_by_use(fleet: Fleet) -> None:
    await fleet.start()
    new = await fleet.start(profile=replace(LONGER, settings_revision=2))
    for use in (ENCRYPT, SIGN):
        await new.rotate("default", (use,), expected=0, request_id="")
    ring = new.rings()["default"]
    assert [key.settings.max_ttl for use in KeyUse if (key := ring.newest(use))] == [7200, 7200]


async def test_compromise_beside_others_follows_the_ring(fleet: Fleet) -> None:
    await fleet.start()
    other = await fleet.start(profile=LONGER)
    await other.compromise("default", frozenset({other.issuing("default").encryption.facts.key_id}))
    assert other.issuing("default").encryption.facts.settings.max_ttl == 3600


async def test_format_changes_with_both_its_keys(fleet: Fleet) -> None:
    alone = replace(DEFAULT, format=Format.ENCRYPTED, sign="")
    old, new = await fleet.start(profile=alone), await fleet.start(profile=replace(DEFAULT, settings_revision=2))
    assert old.uses("default") == (ENCRYPT,)
    await new.rotate("default", (ENCRYPT,), expected=0, request_id="")
    fleet.clock.pass_time(60)
    await old.refresh()
    for keeper in (old, new):
        assert keeper.uses("default") == (ENCRYPT, SIGN)
        assert keeper.issuing("default").signature is not None


async def test_published_encryption_key_opens_for_as_long_as_others_may_have_it_cached(fleet: Fleet) -> None:
    keeper = await fleet.start(profile=replace(DEFAULT, published=True, encrypt="ECDH-ES+A256KW"))
    changed = await keeper.rotate("default", None, expected=0, request_id="")
    lasts = {
        key.use: key.destroy_time - key.retire_time
        for key in changed.ring.keys
        if key.retire_time is not None and key.destroy_time is not None
    }
    assert lasts[ENCRYPT] - lasts[SIGN] == PUBLISH_AHEAD


# Histories

ROLES: tuple[tuple[Role, ...], ...] = ((), (), (Role.ISSUE,), (Role.OPEN,))
STEPS = st.lists(
    st.tuples(
        st.integers(0, len(ROLES) - 1),
        st.sampled_from(["rotate", "rekey", "compromise", "destroy", "restart", "refresh", "refresh"]),
        st.sampled_from([0.0, 1.0, 39.0, 41.0, 600.0, 5000.0]),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(STEPS, st.integers(1, 2))
def test_whatever_keepers_issuers_and_validators_do_the_rules_hold(
    steps: list[tuple[int, str, float]], revision: int
) -> None:
    with tempfile.TemporaryDirectory() as path:
        asyncio.run(_history(Fleet(Path(path)), steps, replace(LONGER, settings_revision=revision)))


async def _history(fleet: Fleet, steps: list[tuple[int, str, float]], other: Profile) -> None:
    profiles = [DEFAULT, other, DEFAULT, other]
    fleet_of = [await _start(fleet, i, profiles[i]) for i in range(len(ROLES))]
    last = fleet_of[0].rings()["default"]
    highest = 0
    for who, what, seconds in steps:
        fleet.clock.pass_time(seconds)
        if what == "restart":
            fleet_of[who] = await _start(fleet, who, profiles[who])
        elif what == "refresh" or ROLES[who]:
            await fleet_of[who].refresh()
        else:
            await _change(fleet_of[who], what)
        issued = [(use, _issuer(fleet_of[i], use)) for i in (0, 1, 2) for use in last.uses()]
        ring = fleet_of[who].rings()["default"]
        if fleet.disk.documents["default"].revision == ring.revision:
            _check_step(last, ring)
            last = ring
        assert fleet.disk.documents["default"].revision >= highest
        highest = fleet.disk.documents["default"].revision
        now = fleet.clock.wall()
        for use in last.uses():
            assert [key.state(now) for key in last.keys if key.use is use].count(KeyState.ACTIVE) == 1
        # What anybody may issue with, a validator opens, as it is or after one look.
        for use, key_id in issued:
            if key_id is not None and fleet_of[3].staleness("default") < 900:
                fleet.clock.pass_time(1)
                found = await fleet_of[3].find_or_refresh(["default"], key_id, use)
                key = fleet_of[3].rings()["default"].key(key_id)
                assert found is not None or (key is not None and key.compromise_time is not None)
        assert not any(keeper.alarms() for keeper in fleet_of)


async def _start(fleet: Fleet, who: int, profile: Profile) -> Keeper:
    return await fleet.start(*ROLES[who], profile=profile, state=f"state{who}")


async def _change(keeper: Keeper, what: str) -> None:
    try:
        if what == "rotate":
            await keeper.rotate("default", None, expected=0, request_id="")
        elif what == "rekey":
            await keeper.rekey("default")
        elif what == "destroy":
            await keeper.destroy("default")
        else:
            active = keeper.rings()["default"].active(ENCRYPT, keeper.now())
            await keeper.compromise("default", frozenset({active.key_id} if active else ()))
    except ChangedRingError:
        pass


def _issuer(keeper: Keeper, use: KeyUse) -> str | None:
    try:
        issuing = keeper.issuing("default")
    except StaleStateError:
        return None
    key = issuing.encryption if use is ENCRYPT else issuing.signature
    return key.facts.key_id if key else None


def _check_step(before: Ring, after: Ring) -> None:
    """No time of a key is taken back, and none goes before its tokens have."""
    for key in before.keys:
        found = after.key(key.key_id)
        if found is None:
            continue
        assert found.activate_time <= key.activate_time
        assert (found.compromise_time is not None) >= (key.compromise_time is not None)
    for use in after.uses():
        newest, was = after.newest(use), before.newest(use)
        assert newest is not None
        assert was is None or newest.settings.revision >= was.settings.revision
