"""A profile goes from any format to any other by rotation, and no token is refused on the way."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

from sidecar.keyring import KeyUse, uses_of
from sidecar.profile import DEFAULT, Format
from tests.test_keeper import World


@pytest.fixture
def world(tmp_path: object) -> World:
    return World(tmp_path)  # type: ignore[arg-type]


def layers(issuing: object) -> tuple[bool, bool]:
    return issuing.encryption is not None, issuing.signature is not None  # type: ignore[attr-defined]


LAYERS = {Format.NESTED: (True, True), Format.ENCRYPTED: (True, False), Format.SIGNED: (False, True)}


@pytest.mark.parametrize("format_", LAYERS)
async def test_a_ring_has_the_keys_of_its_format(world: World, format_: Format) -> None:
    keeper = await world.keeper(replace(DEFAULT, format=format_))
    assert keeper.rings()["default"].uses() == uses_of(format_)
    issuing = keeper.issuing("default")
    assert layers(issuing) == LAYERS[format_]
    assert issuing.outer.facts.use is (KeyUse.SIGNATURE if format_ is Format.SIGNED else KeyUse.ENCRYPTION)
    assert issuing.inner.facts.use is (KeyUse.ENCRYPTION if format_ is Format.ENCRYPTED else KeyUse.SIGNATURE)


@pytest.mark.parametrize(("before", "after"), [*permutations(LAYERS, 2)])
async def test_a_format_changes_with_the_next_rotation_and_old_keys_open(
    world: World, before: Format, after: Format
) -> None:
    first = await world.keeper(replace(DEFAULT, format=before))
    old = [key.key_id for key in first.rings()["default"].keys]
    await first._store.close()
    keeper = await world.keeper(replace(DEFAULT, format=after, settings_revision=2))
    assert layers(keeper.issuing("default")) == LAYERS[before]
    world.clock.pass_time(1)
    await keeper.rotate("default", None, expected=0, request_id="")
    assert layers(keeper.issuing("default")) == LAYERS[after]
    assert keeper.uses("default") == uses_of(after)
    assert keeper.issuing("default").inner.facts.settings.format is after
    assert set(old) <= {key.key_id for key in keeper.rings()["default"].keys}
    for key_id in old:
        key = keeper.rings()["default"].key(key_id)
        assert keeper.find(["default"], key_id, key.use) is not None


@pytest.mark.parametrize(("before", "after"), [*permutations(LAYERS, 2)])
async def test_a_format_that_is_changed_back_is_what_it_was(world: World, before: Format, after: Format) -> None:
    await (await world.keeper(replace(DEFAULT, format=before)))._store.close()
    for revision, format_ in ((2, after), (3, before)):
        keeper = await world.keeper(replace(DEFAULT, format=format_, settings_revision=revision))
        world.clock.pass_time(1)
        await keeper.rotate("default", None, expected=0, request_id="")
        assert layers(keeper.issuing("default")) == LAYERS[format_]
        await keeper._store.close()


@pytest.mark.parametrize("curve", ["P-256", "X25519"])
async def test_the_curve_is_kept_with_the_key(world: World, curve: str) -> None:
    profile = replace(DEFAULT, encrypt="ECDH-ES+A256KW", curve=curve)
    first = await world.keeper(profile)
    assert first.issuing("default").encryption.material.curve == curve
    await first._store.close()
    other = "X25519" if curve == "P-256" else "P-256"
    keeper = await world.keeper(replace(profile, curve=other, settings_revision=1))
    assert keeper.issuing("default").encryption.facts.settings.curve == curve
    assert not keeper.issuing("default").encryption.material.private
    assert keeper.find(
        ["default"], keeper.issuing("default").outer.facts.key_id, KeyUse.ENCRYPTION
    ).key.material.private
