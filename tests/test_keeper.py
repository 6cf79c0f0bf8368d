"""The keeper, on a store in memory and on SQLite: keys, time, staleness, rollback, races and crashes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.clocks import SystemClock
from sidecar.data_keys import DamagedRingError
from sidecar.duties import Duties, Duty
from sidecar.errors import (
    ChangedRingError,
    InvalidRequestError,
    SidecarError,
    StaleStateError,
    UnavailableKmsError,
    UnavailableStoreError,
)
from sidecar.jose import keys as jose_keys
from sidecar.keeper import Keeper
from sidecar.keyring import PUBLISH_AHEAD, KeyState, KeyUse, Ring, Role
from sidecar.kms.file import FileKms, make, open_or_make
from sidecar.ports import Document
from sidecar.profile import DEFAULT, Format, Profile
from sidecar.stores.sqlite import SqliteStore
from tests.hand_clock import START, HandClock
from tests.running import ROOT
from tests.stores.memory import Disk, MemoryStore

SIGN, ENCRYPT = KeyUse.SIGNATURE, KeyUse.ENCRYPTION
TAIL = 900 + 3600 + 5 + 10
ALONE = replace(DEFAULT, name="other", format=Format.ENCRYPTED, sign="")


class World:
    """One disk, one KEK, and clocks for each sidecar on it."""

    def __init__(self, path: Path) -> None:
        make(path / "kek")
        self.path = path
        self.clock = HandClock()
        self.disk = Disk(self.clock)

    async def keeper(self, *profiles: Profile, clock: HandClock | None = None, kms: FileKms | None = None) -> Keeper:
        named = {profile.name: profile for profile in profiles or (DEFAULT,)}
        keks = dict.fromkeys(Role, kms or FileKms(self.path / "kek"))
        keeper = Keeper(named, MemoryStore(self.disk), keks, clock or self.clock)
        await keeper.start()
        return keeper


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def _issuer(keeper: Keeper, profile: str = "default") -> str:
    return keeper.issuing(profile).encryption.facts.key_id


def _state(keeper: Keeper, key_id: str) -> KeyState | None:
    key = keeper.rings()["default"].key(key_id)
    return None if key is None else key.state(keeper.now())


def _due(keeper: Keeper) -> list[Duty]:
    return Duties(keeper, keeper._store, holder="here", spread=0.0).due(keeper.now())


async def _rotate(keeper: Keeper, expected: int = 0, request_id: str = "") -> Ring:
    return (await keeper.rotate("default", None, expected=expected, request_id=request_id)).ring


# Start


async def test_first_start_makes_active_keys_of_each_use(world: World) -> None:
    keeper = await world.keeper(DEFAULT, ALONE)
    issuing = keeper.issuing("default")
    assert issuing.signature is not None
    assert (issuing.encryption.material.algorithm, issuing.signature.material.algorithm) == ("A256KW", "ES256")
    assert issuing.signature.material.private
    assert keeper.issuing("other").signature is None
    assert {name: ring.revision for name, ring in keeper.rings().items()} == {"default": 1, "other": 1}


async def test_second_start_loads_the_same_keys(world: World) -> None:
    first = await world.keeper()
    second = await world.keeper()
    assert first.rings() == second.rings()
    assert _issuer(first) == _issuer(second)


async def test_start_that_loses_the_race_loads_the_winners_ring(world: World) -> None:
    first = await World(_fresh(world.path)).keeper()  # only to have some ring's document
    assert first.rings()["default"].revision == 1
    winner = await _elsewhere(world)
    world.disk.before_save = lambda: world.disk.documents.update(winner)
    keeper = await world.keeper()
    assert world.disk.documents == winner
    assert keeper.rings()["default"].revision == 1


def _fresh(path: Path) -> Path:
    (path / "fresh").mkdir()
    return path / "fresh"


async def _elsewhere(world: World) -> dict[str, Document]:
    """The documents that another sidecar would make in this store."""
    await world.keeper()
    documents = dict(world.disk.documents)
    world.disk.documents.clear()
    return documents


async def test_ten_first_starts_agree(world: World) -> None:
    keepers = await asyncio.gather(*(world.keeper() for _ in range(10)))
    assert len({_issuer(keeper) for keeper in keepers}) == 1


async def test_who_may_make_no_ring_is_stale_until_there_is_one(world: World) -> None:
    keks = dict.fromkeys(Role, FileKms(world.path / "kek"))
    keeper = Keeper({"default": DEFAULT}, MemoryStore(world.disk), keks, world.clock, allow_bootstrap=False)
    await keeper.start()
    assert world.disk.documents == {}
    for ask in (lambda: keeper.issuing("default"), lambda: keeper.find(["default"], "k", ENCRYPT)):
        with pytest.raises(StaleStateError, match="no ring for profile 'default'"):
            ask()
    made = await world.keeper()
    await keeper.refresh()
    assert _issuer(keeper) == _issuer(made)


async def test_another_kek_refuses_to_start_and_overwrites_nothing(world: World) -> None:
    await world.keeper()
    before = dict(world.disk.documents)
    make(world.path / "other")
    with pytest.raises(UnavailableKmsError, match="does not open the keys of profile 'default'"):
        await world.keeper(kms=FileKms(world.path / "other"))
    assert world.disk.documents == before


async def test_damaged_ring_refuses_to_start_and_is_not_overwritten(world: World) -> None:
    await world.keeper()
    content = world.disk.documents["default"].content
    for damaged in (content[:-20], b"", b"{}", content.replace(b'"revision":1', b'"revision":2')):
        world.disk.documents["default"] = Document(1, damaged)
        with pytest.raises(DamagedRingError, match="never replaced by a fresh one"):
            await world.keeper()
        assert world.disk.documents["default"].content == damaged


async def test_rings_swapped_between_profiles_refuse_to_start(world: World) -> None:
    twin = replace(DEFAULT, name="twin")
    await world.keeper(DEFAULT, twin)
    documents = world.disk.documents
    documents["default"], documents["twin"] = documents["twin"], documents["default"]
    with pytest.raises((DamagedRingError, UnavailableKmsError)):
        await world.keeper(DEFAULT, twin)


# Rotate


async def test_alone_the_successor_is_active_at_once_and_the_old_key_still_opens(world: World) -> None:
    keeper = await world.keeper()
    old = _issuer(keeper)
    changed = await keeper.rotate("default", None, expected=1, request_id="")
    assert (changed.revision, changed.activate_time) == (2, keeper.now())
    assert _issuer(keeper) != old
    found = keeper.find(["default"], old, ENCRYPT)
    assert found is not None
    assert found.key.facts.state(keeper.now()) is KeyState.RETIRING


async def test_beside_others_the_successor_is_prepared(world: World) -> None:
    keeper, other = await world.keeper(), await world.keeper()
    old = _issuer(keeper)
    changed = await keeper.rotate("default", None, expected=1, request_id="")
    assert changed.activate_time == keeper.now() + 30 + 10
    new = next(key for key in changed.ring.keys if key.use is ENCRYPT and key.key_id != old)
    assert _issuer(keeper) == old
    assert keeper.find(["default"], new.key_id, ENCRYPT) is not None  # pending opens
    await other.refresh()
    world.clock.pass_time(39.9)
    assert _issuer(keeper) == _issuer(other) == old
    world.clock.pass_time(0.2)
    assert _issuer(keeper) == _issuer(other) == new.key_id


async def test_published_profile_is_prepared_for_those_who_cache(world: World) -> None:
    keeper = await world.keeper(replace(DEFAULT, published=True))
    changed = await keeper.rotate("default", None, expected=1, request_id="")
    assert changed.activate_time == keeper.now() + PUBLISH_AHEAD + 10


async def test_rotation_of_one_use_leaves_the_other(world: World) -> None:
    keeper = await world.keeper()
    before = keeper.issuing("default")
    await keeper.rotate("default", (SIGN,), expected=1, request_id="")
    after = keeper.issuing("default")
    assert after.encryption.facts == before.encryption.facts
    assert after.signature != before.signature


async def test_use_that_the_profile_has_not_is_refused(world: World) -> None:
    keeper = await world.keeper(ALONE)
    for uses in ((SIGN,), (ENCRYPT, SIGN), ()):
        with pytest.raises(InvalidRequestError, match="uses"):
            await keeper.rotate("other", uses, expected=0, request_id="")


async def test_rotation_at_another_revision_is_refused(world: World) -> None:
    keeper = await world.keeper()
    with pytest.raises(ChangedRingError):
        await _rotate(keeper, expected=2)
    assert world.disk.documents["default"].revision == 1


async def test_rotation_is_refused_while_a_successor_is_pending(world: World) -> None:
    keeper, _ = await world.keeper(), await world.keeper()
    await _rotate(keeper)
    with pytest.raises(ChangedRingError, match="pending already"):
        await _rotate(keeper)


async def test_same_request_gets_the_first_answer_from_every_sidecar(world: World) -> None:
    keeper, other = await world.keeper(), await world.keeper()
    first = await keeper.rotate("default", None, expected=1, request_id="once")
    for again in (keeper, other, await world.keeper()):
        world.clock.pass_time(1)
        repeated = await again.rotate("default", None, expected=1, request_id="once")
        assert (repeated.revision, repeated.activate_time) == (first.revision, first.activate_time)
    assert world.disk.documents["default"].revision == 2


async def test_of_ten_racing_rotators_one_wins(world: World) -> None:
    keepers = [await world.keeper() for _ in range(10)]
    results = await asyncio.gather(*(_rotate(keeper, expected=1) for keeper in keepers), return_exceptions=True)
    assert sum(isinstance(result, Ring) for result in results) == 1
    assert sum(isinstance(result, ChangedRingError) for result in results) == 9
    assert world.disk.documents["default"].revision == 2
    await asyncio.gather(*(keeper.refresh() for keeper in keepers))
    assert len({keeper.rings()["default"] for keeper in keepers}) == 1


async def test_ten_rotations_of_one_sidecar_at_once_each_see_the_last(world: World) -> None:
    keeper = await world.keeper()
    results = await asyncio.gather(*(_rotate(keeper, expected=1) for _ in range(10)), return_exceptions=True)
    assert sum(isinstance(result, Ring) for result in results) == 1
    assert keeper.rings()["default"].revision == 2


async def test_failed_save_changes_nothing_and_the_next_one_works(world: World) -> None:
    keeper = await world.keeper()
    before = keeper.rings()["default"]

    def fail() -> None:
        raise UnavailableStoreError("full, by hand")

    world.disk.before_save = fail
    with pytest.raises(UnavailableStoreError):
        await _rotate(keeper)
    assert keeper.rings()["default"] == before
    assert (await _rotate(keeper, expected=1)).revision == 2


async def test_changed_settings_apply_to_the_next_key(world: World) -> None:
    await (await world.keeper())._store.close()
    keeper = await world.keeper(replace(DEFAULT, max_ttl=7200))
    assert keeper.issuing("default").encryption.facts.settings.max_ttl == 3600
    await _rotate(keeper)
    assert keeper.issuing("default").encryption.facts.settings.max_ttl == 7200


async def test_profile_that_becomes_nested_gets_its_signature_key_with_the_next_rotation(world: World) -> None:
    one = replace(ALONE, name="default")
    await (await world.keeper(one))._store.close()
    keeper = await world.keeper()
    assert keeper.issuing("default").signature is None
    await keeper.rotate("default", (ENCRYPT,), expected=0, request_id="")
    assert keeper.issuing("default").signature is not None


# Compromise


async def test_compromised_key_neither_issues_nor_opens_and_its_successor_is_active(world: World) -> None:
    keeper, other = await world.keeper(), await world.keeper()
    bad = _issuer(keeper)
    changed = await keeper.compromise("default", frozenset({bad}))
    assert changed.activate_time == keeper.now()
    assert keeper.find(["default"], bad, ENCRYPT) is None
    assert _issuer(keeper) != bad
    await other.refresh()
    assert other.find(["default"], bad, ENCRYPT) is None
    assert _issuer(other) == _issuer(keeper)


async def test_compromised_material_is_nowhere(world: World) -> None:
    keeper = await world.keeper()
    bad = _issuer(keeper)
    await keeper.compromise("default", frozenset({bad}))
    assert bad not in json.loads(world.disk.documents["default"].content)["parts"]
    live = keeper._live["default"].opened
    assert bad not in {**live.issue, **live.open}
    assert world.disk.scrubs == 1


async def test_compromise_again_changes_nothing(world: World) -> None:
    keeper = await world.keeper()
    bad = _issuer(keeper)
    first = await keeper.compromise("default", frozenset({bad}))
    again = await keeper.compromise("default", frozenset({bad}))
    assert again.revision == first.revision == 2


async def test_compromise_of_an_unknown_key_changes_nothing(world: World) -> None:
    keeper = await world.keeper()
    with pytest.raises(InvalidRequestError, match="key_ids"):
        await keeper.compromise("default", frozenset({_issuer(keeper), "unknown"}))
    assert world.disk.documents["default"].revision == 1


async def test_compromise_wins_over_a_rotation_that_was_quicker(world: World) -> None:
    keeper, other = await world.keeper(), await world.keeper()
    bad = _issuer(keeper)
    ahead = dict(world.disk.documents)
    await _rotate(other)
    rotated, world.disk.documents = world.disk.documents, ahead
    world.disk.before_save = lambda: world.disk.documents.update(rotated)
    changed = await keeper.compromise("default", frozenset({bad}))
    assert changed.revision == 3
    assert _state(keeper, bad) is KeyState.COMPROMISED
    assert _issuer(keeper) != bad


async def test_scrub_that_failed_is_owed_until_it_is_done(world: World) -> None:
    keeper = await world.keeper()
    await _rotate(keeper)
    retiring = next(k.key_id for k in keeper.rings()["default"].keys if k.retire_time is not None)
    store = keeper._store
    scrub = store.scrub

    async def fail() -> None:
        raise UnavailableStoreError("busy, by hand")

    store.scrub = fail  # type: ignore[method-assign]
    await keeper.compromise("default", frozenset({retiring}))
    assert Duty("default", "destroy") in _due(keeper)
    store.scrub = scrub  # type: ignore[method-assign]
    assert await keeper.destroy("default") is None
    assert world.disk.scrubs == 1
    assert _due(keeper) == []


# Destroy and duties


async def test_retired_key_is_destroyed_when_its_last_token_has_expired(world: World) -> None:
    keeper = await world.keeper()
    old = _issuer(keeper)
    await _rotate(keeper)
    world.clock.pass_time(TAIL - 1)
    await keeper.refresh()
    assert keeper.find(["default"], old, ENCRYPT) is not None
    assert await keeper.destroy("default") is None
    assert _due(keeper) == []
    world.clock.pass_time(1)
    assert keeper.find(["default"], old, ENCRYPT) is None  # at once, whether the duty was done or not
    assert _due(keeper) == [Duty("default", "destroy")]
    changed = await keeper.destroy("default")
    assert changed is not None
    assert old not in {key.key_id for key in changed.ring.keys}
    assert old not in world.disk.documents["default"].content.decode()
    assert old not in keeper._live["default"].opened.open
    assert world.disk.scrubs == 1


async def test_nothing_is_destroyed_while_the_clock_is_off(world: World) -> None:
    keeper = await world.keeper()
    await _rotate(keeper)
    world.clock.pass_time(TAIL + 1)
    for jump in (6, -12):
        world.clock.set_wall(jump)
        with pytest.raises(StaleStateError):
            await keeper.destroy("default")
    assert world.disk.documents["default"].revision == 2
    world.clock.set_wall(6)
    assert await keeper.destroy("default") is not None


@pytest.mark.parametrize("jump", [6, -3600])
async def test_keys_are_not_rotated_by_a_clock_that_is_off_but_what_is_compromised_is_ended(
    world: World, jump: float
) -> None:
    keeper = await world.keeper()
    world.clock.set_wall(jump)
    with pytest.raises(StaleStateError, match=r"clock is \d+ s (ahead of|behind) the store's"):
        await _rotate(keeper)
    assert world.disk.documents["default"].revision == 1
    compromised = keeper.rings()["default"].active(SIGN, START)
    assert compromised
    await keeper.compromise("default", frozenset({compromised.key_id}))
    assert _state(keeper, compromised.key_id) is KeyState.COMPROMISED
    world.clock.set_wall(-jump)
    await _rotate(keeper)
    assert world.disk.documents["default"].revision == 3


async def test_rotation_is_due_by_age_for_each_use(world: World) -> None:
    keeper = await world.keeper()
    world.clock.pass_time(86400 - 1)
    await keeper.refresh()
    assert _due(keeper) == []
    world.clock.pass_time(1)
    assert _due(keeper) == [Duty("default", "rotate", ENCRYPT), Duty("default", "rotate", SIGN)]
    await keeper.rotate("default", (ENCRYPT,), expected=0, request_id="")
    assert _due(keeper) == [Duty("default", "rotate", SIGN)]


# Time and staleness


@pytest.mark.parametrize("jump", [5.1, 3600, 10 * 365 * 86400, -5.1, -3600, -10 * 365 * 86400])
async def test_clock_jump_makes_stale_and_changes_nothing(world: World, jump: float) -> None:
    keeper = await world.keeper()
    issuer, documents = _issuer(keeper), dict(world.disk.documents)
    world.clock.set_wall(jump)
    await keeper.refresh()
    assert keeper.stale("default")
    assert keeper.now() == START
    assert keeper.skew() == pytest.approx(jump)
    assert _due(keeper) == []
    for ask in (lambda: keeper.issuing("default"), lambda: keeper.find(["default"], issuer, ENCRYPT)):
        with pytest.raises(StaleStateError):
            ask()
    assert world.disk.documents == documents
    world.clock.set_wall(-jump)
    assert _issuer(keeper) == issuer


async def test_store_that_is_down_is_noticed_only_at_the_bound(world: World) -> None:
    keeper = await world.keeper()
    issuer = _issuer(keeper)
    world.disk.down = True
    world.clock.pass_time(900)
    with pytest.raises(UnavailableStoreError):
        await keeper.refresh()
    assert keeper.staleness("default") == 900
    assert keeper.find(["default"], issuer, ENCRYPT) is not None
    world.clock.pass_time(0.1)
    with pytest.raises(StaleStateError):
        keeper.find(["default"], issuer, ENCRYPT)
    with pytest.raises(StaleStateError):
        keeper.issuing("default")
    world.disk.down = False
    await keeper.refresh()
    assert not keeper.stale("default")
    assert keeper.staleness("default") == 0


async def test_age_is_what_the_older_clock_says(world: World) -> None:
    keeper = await world.keeper()
    world.clock.pass_time(10)
    world.clock.set_wall(3)
    assert keeper.staleness("default") == 13
    world.clock.set_wall(-7)
    assert keeper.staleness("default") == 10


async def test_bound_is_the_one_written_with_the_keys(world: World) -> None:
    await world.keeper(replace(DEFAULT, max_staleness=60))
    keeper = await world.keeper(replace(DEFAULT, max_staleness=900))
    world.disk.down = True
    world.clock.pass_time(61)
    assert keeper.stale("default")


async def test_one_stale_profile_makes_the_question_unanswerable(world: World) -> None:
    keeper = await world.keeper(DEFAULT, replace(ALONE, max_staleness=60))
    issuer = _issuer(keeper)
    world.clock.pass_time(61)
    assert keeper.find(["default"], issuer, ENCRYPT) is not None
    with pytest.raises(StaleStateError):
        keeper.find(["default", "other"], issuer, ENCRYPT)


# Rollback


async def test_older_document_makes_stale_until_the_newest_is_back(world: World) -> None:
    keeper = await world.keeper()
    older = dict(world.disk.documents)
    await _rotate(keeper)
    newest, world.disk.documents = world.disk.documents, older
    await keeper.refresh()
    with pytest.raises(StaleStateError, match="gone back"):
        keeper.issuing("default")
    for change in (_rotate(keeper), keeper.compromise("default", frozenset({"x"})), keeper.destroy("default")):
        with pytest.raises(StaleStateError, match="gone back"):
            await change
    assert world.disk.documents == older
    world.disk.documents = newest
    await keeper.refresh()
    assert not keeper.stale("default")


async def test_another_history_is_never_taken_for_the_newest(world: World) -> None:
    keeper = await world.keeper()
    older = dict(world.disk.documents)
    await _rotate(keeper)
    world.disk.documents = older
    other = await world.keeper()  # starts on the older state, and cannot know
    await keeper.refresh()
    world.clock.pass_time(1)
    for _ in range(2):
        await _rotate(other)
        await keeper.refresh()
        assert keeper.stale("default")
        world.clock.pass_time(60)


async def test_vanished_ring_is_not_made_anew(world: World) -> None:
    keeper = await world.keeper()
    world.disk.documents.clear()
    await keeper.refresh()
    assert keeper.stale("default")
    with pytest.raises(StaleStateError):
        await _rotate(keeper)
    assert world.disk.documents == {}


async def test_another_store_makes_stale(world: World) -> None:
    keeper = await world.keeper()
    world.disk.store_id = "b" * 32
    with pytest.raises(UnavailableStoreError, match="not the one"):
        await keeper.refresh()
    assert keeper.stale("default")


async def test_damage_in_a_running_store_is_told_and_the_known_ring_serves_on(world: World) -> None:
    keeper = await world.keeper()
    issuer = _issuer(keeper)
    world.disk.documents["default"] = Document(2, b"{}")
    with pytest.raises(UnavailableStoreError, match="cannot be used"):
        await keeper.refresh()
    with pytest.raises(UnavailableStoreError, match="cannot be used"):
        await _rotate(keeper)
    assert _issuer(keeper) == issuer
    assert world.disk.documents["default"] == Document(2, b"{}")


# Unknown keys


async def test_unknown_key_is_found_by_one_refresh(world: World) -> None:
    keeper, other = await world.keeper(), await world.keeper()
    world.clock.pass_time(1)
    await other.compromise("default", frozenset({_issuer(other)}))
    found = await keeper.find_or_refresh(["default"], _issuer(other), ENCRYPT)
    assert found is not None
    assert found.ring_revision == 2


async def test_a_hundred_thousand_unknown_keys_cost_no_store_call_each(world: World) -> None:
    keeper = await world.keeper()
    world.clock.pass_time(1)
    before = world.disk.calls
    for i in range(100_000):
        assert await keeper.find_or_refresh(["default"], f"unknown-{i}", ENCRYPT) is None
    assert world.disk.calls - before < 10


async def test_a_thousand_at_once_share_one_refresh(world: World) -> None:
    keeper = await world.keeper()
    world.clock.pass_time(1)
    before = world.disk.calls
    found = await asyncio.gather(*(keeper.find_or_refresh(["default"], str(i), ENCRYPT) for i in range(1000)))
    assert found == [None] * 1000
    assert world.disk.calls - before < 10


async def test_unknown_key_without_a_store_is_never_called_forged(world: World) -> None:
    keeper = await world.keeper()
    world.clock.pass_time(1)
    world.disk.down = True
    before = world.disk.calls
    for _ in range(50):
        with pytest.raises(StaleStateError, match="cannot ask its store"):
            await keeper.find_or_refresh(["default"], "unknown", ENCRYPT)
    assert world.disk.calls - before < 10
    world.disk.down = False
    world.clock.pass_time(1)
    assert await keeper.find_or_refresh(["default"], "unknown", ENCRYPT) is None


async def test_cancelled_caller_does_not_end_the_refresh_of_others(world: World) -> None:
    keeper = await world.keeper()
    world.clock.pass_time(1)
    first = asyncio.create_task(keeper.find_or_refresh(["default"], "a", ENCRYPT))
    second = asyncio.create_task(keeper.find_or_refresh(["default"], "b", ENCRYPT))
    await asyncio.sleep(0)
    first.cancel()
    assert await second is None


async def test_key_is_found_by_its_use_and_profile_only(world: World) -> None:
    keeper = await world.keeper(DEFAULT, ALONE)
    issuer = _issuer(keeper)
    assert keeper.find(["default"], issuer, SIGN) is None
    assert keeper.find(["other"], issuer, ENCRYPT) is None
    found = keeper.find(["other", "default"], issuer, ENCRYPT)
    assert found is not None
    assert found.profile is keeper.profiles["default"]


async def test_verification_never_sees_the_private_half(world: World) -> None:
    keeper = await world.keeper()
    signature = keeper.issuing("default").signature
    assert signature is not None
    found = keeper.find(["default"], signature.facts.key_id, SIGN)
    assert found is not None
    assert not found.key.material.private


async def test_public_keys_are_pending_active_and_retiring_signature_keys(world: World) -> None:
    keeper, _ = await world.keeper(), await world.keeper()
    await _rotate(keeper)
    keys, revision = keeper.public_jwks("default", tuple(KeyUse))
    ring = keeper.rings()["default"]
    assert {key["kid"] for key in keys} == {key.key_id for key in ring.keys if key.use is SIGN}
    assert len(keys) == revision == 2
    assert all(key.keys() == {"alg", "crv", "kid", "kty", "use", "x", "y"} for key in keys)
    assert keeper.public_jwks("default", (ENCRYPT,)) == ([], 2)
    world.clock.pass_time(60)
    await keeper.compromise("default", frozenset({keys[0]["kid"]}))
    assert keys[0]["kid"] not in {key["kid"] for key in keeper.public_jwks("default", (SIGN,))[0]}


async def test_no_kms_call_after_the_start(world: World) -> None:
    class Dying(FileKms):
        dead = False

        async def unwrap(self, wrapped: bytes, context: dict[str, str]) -> bytes:
            if self.dead:
                raise UnavailableKmsError("down, by hand")
            return await super().unwrap(wrapped, context)

    kms = Dying(world.path / "kek")
    keeper, other = await world.keeper(kms=kms), await world.keeper()
    kms.dead = True
    await _rotate(other)
    await keeper.refresh()
    world.clock.pass_time(60)
    await keeper.compromise("default", frozenset({_issuer(keeper)}))
    assert keeper.rings()["default"].revision == 3


# On SQLite


@pytest.fixture
async def on_disk(tmp_path: Path) -> AsyncIterator[Callable[[], Awaitable[Keeper]]]:
    stores: list[SqliteStore] = []

    async def opened() -> Keeper:
        store = await SqliteStore.open(tmp_path / "state.db", SystemClock())
        stores.append(store)
        keks = dict.fromkeys(Role, await open_or_make(tmp_path / "kek", store))
        keeper = Keeper({"default": DEFAULT}, store, keks, SystemClock())
        await keeper.start()
        return keeper

    yield opened
    for store in stores:
        await store.close()


async def test_two_keepers_on_one_database_agree(on_disk: Callable[[], Awaitable[Keeper]]) -> None:
    one, two = await on_disk(), await on_disk()
    assert _issuer(one) == _issuer(two)
    results = await asyncio.gather(_rotate(one, 1), _rotate(two, 1), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["ChangedRingError", "Ring"]
    await asyncio.gather(one.refresh(), two.refresh())
    assert one.rings() == two.rings()
    assert one.rings()["default"].pending(ENCRYPT, one.now()) is not None


async def test_old_keys_bytes_are_gone_from_the_files(on_disk: Callable[[], Awaitable[Keeper]], tmp_path: Path) -> None:
    keeper = await on_disk()
    part = json.loads(keeper._live["default"].opened.content)["parts"][bad := _issuer(keeper)]["open"]
    assert part in _bytes_of(tmp_path)
    await keeper.compromise("default", frozenset({bad}))
    assert part not in _bytes_of(tmp_path)


def _bytes_of(path: Path) -> str:
    return "".join(file.read_bytes().decode("latin-1") for file in sorted(path.iterdir()))


_CHILD = """
import asyncio, pathlib, sys
from sidecar.clocks import SystemClock
from sidecar.keeper import Keeper
from sidecar.keyring import KeyUse, Role
from sidecar.kms.file import open_or_make
from sidecar.profile import DEFAULT
from sidecar.stores.sqlite import SqliteStore
class Ahead(SystemClock):
    def wall(self):
        return super().wall() + float(sys.argv[3])
async def main():
    path = pathlib.Path(sys.argv[1])
    store = await SqliteStore.open(path / "state.db", Ahead())
    keks = dict.fromkeys(Role, await open_or_make(path / "kek", store))
    keeper = Keeper({"default": DEFAULT}, store, keks, Ahead())
    await keeper.start()
    issuer = keeper.issuing("default").encryption.facts.key_id
    if sys.argv[2] == "rotate":
        await keeper.rotate("default", None, expected=0, request_id="once")
    elif sys.argv[2] == "revoke_keys":
        await keeper.compromise("default", frozenset({issuer}))
    elif sys.argv[2] == "destroy":
        await keeper.destroy("default")
    await store.close()
asyncio.run(main())
"""

STEPS = {
    "start": ("store_made", "kek_made", "before_save", "saved"),
    "rotate": ("before_save", "saved", "swapped"),
    "revoke_keys": ("before_save", "saved", "swapped"),
    "destroy": ("before_save", "saved", "scrubbed"),
}


@pytest.mark.parametrize(
    ("operation", "step"), [(operation, step) for operation, steps in STEPS.items() for step in steps]
)
async def test_killed_at_any_step_the_next_start_is_whole(
    on_disk: Callable[[], Awaitable[Keeper]], tmp_path: Path, operation: str, step: str
) -> None:
    before: Keeper | None = None
    if operation != "start":
        before = await on_disk()
        if operation == "destroy":
            await _rotate(before)
        ring, issuer = before.rings()["default"], _issuer(before)
        await before._store.close()
    child = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", _CHILD, str(tmp_path), operation, str(TAIL + 1) if operation == "destroy" else "0"],
        cwd=ROOT,
        env={**os.environ, "TOKENSIDECAR_FAILPOINT": f"{operation}.{step}"},
        check=False,
        timeout=60,
        capture_output=True,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    if operation == "destroy":
        # What the child saved is a time ahead of ours: the machine of who starts next must have got there too.
        return await _check_destroyed(tmp_path, ring, kept=step == "before_save")
    after = await on_disk()
    now = after.now()
    for use in after.uses("default"):
        assert [k.state(now) for k in after.rings()["default"].keys if k.use is use].count(KeyState.ACTIVE) == 1
    if before is None:
        assert after.rings()["default"].revision == 1
        return None
    expected = 1 if step == "before_save" else 2
    assert after.rings()["default"].revision == expected
    found = after.find(["default"], issuer, ENCRYPT)
    if operation == "rotate":
        assert found is not None
        again = await after.rotate("default", None, expected=1, request_id="once")
        assert again.revision == 2
        assert after.rings()["default"].revision == 2
    else:
        assert (found is None) == (expected == 2)
    return None


async def _check_destroyed(path: Path, ring: Ring, *, kept: bool) -> None:
    class Ahead(SystemClock):
        def wall(self) -> float:
            return super().wall() + TAIL + 2

    store = await SqliteStore.open(path / "state.db", Ahead())
    keeper = Keeper({"default": DEFAULT}, store, dict.fromkeys(Role, FileKms(path / "kek")), Ahead())
    await keeper.start()
    try:
        old = [key.key_id for key in ring.keys if key.retire_time is not None]
        assert [
            key.key_id in {k.key_id for k in keeper.rings()["default"].keys} for key in ring.keys if key.key_id in old
        ] == [kept] * 2
        assert all(keeper.find(["default"], key_id, use) is None for key_id in old for use in KeyUse)
        await keeper.destroy("default")
        assert all(key_id not in _bytes_of(path) for key_id in old)
    finally:
        await store.close()


async def test_missing_kek_beside_a_ring_refuses_to_start(
    on_disk: Callable[[], Awaitable[Keeper]], tmp_path: Path
) -> None:
    keeper = await on_disk()
    await keeper._store.close()
    (tmp_path / "kek").rename(tmp_path / "kek.away")
    with pytest.raises(UnavailableKmsError, match="put the key back"):
        await on_disk()
    assert not (tmp_path / "kek").exists()
    (tmp_path / "kek.away").rename(tmp_path / "kek")
    assert (await on_disk()).rings() == keeper.rings()


async def test_restored_older_database_is_refused_by_who_knows_better(
    on_disk: Callable[[], Awaitable[Keeper]], tmp_path: Path
) -> None:
    keeper = await on_disk()
    await keeper._store.scrub()
    shutil.copy(tmp_path / "state.db", tmp_path / "backup.db")
    await _rotate(keeper)
    (tmp_path / "backup.db").replace(tmp_path / "state.db")
    with pytest.raises(SidecarError, match="replaced while in use"):
        await keeper.refresh()
    with pytest.raises(UnavailableStoreError, match="replaced while in use"):
        await _rotate(keeper)


async def test_slow_answer_of_the_store_does_not_move_its_time(world: World) -> None:
    keeper = await world.keeper()
    before = keeper.now()
    world.disk.before_now = lambda: world.clock.pass_time(8)  # on the way there: the store reads its clock at the end
    await keeper.refresh()
    assert keeper.now() == pytest.approx(before + 8)
    assert not keeper.stale("default")


@pytest.mark.parametrize("operation", ["make", "rotate", "compromise"])
async def test_keys_are_made_off_the_event_loop_and_under_the_lock(
    world: World, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """An RSA key takes a third of a second, in which calls are answered; who also wants to change the ring waits."""
    keeper = await world.keeper()
    token_key = _issuer(keeper)
    answered, making, generate = threading.Event(), threading.Event(), jose_keys.generate

    def slow(algorithm: str, **of: str) -> jose_keys.Material:
        making.set()
        assert answered.wait(10), "the loop waits for the key"
        return generate(algorithm, **of)

    monkeypatch.setattr(jose_keys, "generate", slow)
    work: dict[str, Callable[[], Awaitable[object]]] = {
        "make": lambda: world.keeper(ALONE),
        "rotate": lambda: keeper.rotate("default", None, expected=0, request_id="a"),
        "compromise": lambda: keeper.compromise("default", frozenset({token_key})),
    }
    changing = asyncio.ensure_future(work[operation]())
    assert await asyncio.to_thread(making.wait, 10)
    assert _issuer(keeper) == token_key  # and refreshed, while the key is being made
    await keeper.refresh()
    others = (
        [asyncio.ensure_future(keeper.rotate("default", None, expected=1, request_id="b"))]
        if operation != "make"
        else []
    )
    await asyncio.sleep(0.01)
    assert not changing.done()
    assert not any(other.done() for other in others)
    answered.set()
    await changing
    for other in others:
        with pytest.raises(ChangedRingError):
            await other
