"""A profile's format changes as a whole: at every moment the keys that issue are all of one format, whatever is rotated or revoked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidecar.audit import Audit
from sidecar.caller import Caller, Plane
from sidecar.duties import Duties, Duty
from sidecar.errors import InvalidTokenError, StaleStateError
from sidecar.gate import gate
from sidecar.issue import Grant, Issue
from sidecar.jose.encrypt import decrypt
from sidecar.keeper import Keeper
from sidecar.keyring import KeyUse, Role, uses_of
from sidecar.kms.file import FileKms
from sidecar.metrics import Metrics
from sidecar.policy import Policy
from sidecar.profile import DEFAULT, Format, Profile
from sidecar.validate import Accepted, Demand, Validate
from tests.stores.memory import MemoryStore
from tests.test_keeper import World

SIGN, ENCRYPT = KeyUse.SIGNATURE, KeyUse.ENCRYPTION
NESTED, ENCRYPTED, SIGNED = (
    replace(DEFAULT, format=f, sign="" if f is Format.ENCRYPTED else "ES256")
    for f in (Format.NESTED, Format.ENCRYPTED, Format.SIGNED)
)
AHEAD = 30 + 10
APP = Caller("unix:app", Plane.APP)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def _changing(world: World, before: Profile, after: Profile) -> Keeper:
    """A keeper whose configuration has the next format, beside another sidecar."""
    await world.keeper(before)
    return await world.keeper(replace(after, settings_revision=2))


def _format(keeper: Keeper) -> Format:
    """That of the tokens that are made now; the keys agree on it, or nobody would accept them."""
    issuing = keeper.issuing("default")
    keys = {key.facts.use: key.facts for key in (issuing.encryption, issuing.signature) if key}
    found = {key.settings.format for key in keys.values()}
    assert len(found) == 1, keys
    format_ = found.pop()
    assert set(keys) == set(uses_of(format_))
    return format_


def _active(keeper: Keeper, use: KeyUse) -> str:
    key = keeper.rings()["default"].active(use, keeper.now())
    assert key is not None
    return key.key_id


def _pending(keeper: Keeper, use: KeyUse) -> str:
    key = keeper.rings()["default"].pending(use, keeper.now())
    assert key is not None
    return key.key_id


@pytest.mark.parametrize("asked", [(SIGN,), (ENCRYPT,), None])
async def test_asked_for_one_key_of_another_format_all_of_its_keys_come(
    world: World, asked: tuple[KeyUse, ...] | None
) -> None:
    keeper = await _changing(world, ENCRYPTED, NESTED)
    await keeper.rotate("default", asked, expected=1, request_id="")
    assert _format(keeper) is Format.ENCRYPTED
    world.clock.pass_time(AHEAD)
    assert _format(keeper) is Format.NESTED


async def test_due_key_whose_use_the_next_format_lacks_is_rotated_to_that_format(world: World) -> None:
    keeper = await _changing(world, ENCRYPTED, SIGNED)
    world.clock.pass_time(DEFAULT.rotate_every)
    await keeper.refresh()
    assert Duties(keeper, keeper._store, holder="here", spread=0.0).due(keeper.now()) == [
        Duty("default", "rotate", ENCRYPT)
    ]
    await keeper.rotate("default", (ENCRYPT,), expected=1, request_id="")
    world.clock.pass_time(AHEAD)
    assert _format(keeper) is Format.SIGNED


async def test_revoked_key_of_a_former_format_is_not_replaced(world: World) -> None:
    keeper = await _changing(world, NESTED, ENCRYPTED)
    await keeper.rotate("default", None, expected=1, request_id="")
    world.clock.pass_time(AHEAD)
    former = _active(keeper, SIGN)
    await keeper.compromise("default", frozenset({former}))
    assert _format(keeper) is Format.ENCRYPTED
    assert keeper.rings()["default"].active(SIGN, keeper.now()) is None


async def test_revoking_does_not_change_the_format(world: World) -> None:
    keeper = await _changing(world, ENCRYPTED, NESTED)
    await keeper.compromise("default", frozenset({_active(keeper, ENCRYPT)}))
    assert _format(keeper) is Format.ENCRYPTED


async def test_revoked_key_has_a_substitute_until_the_next_format_is_whole(world: World) -> None:
    keeper = await _changing(world, ENCRYPTED, NESTED)
    await keeper.rotate("default", None, expected=1, request_id="")
    revoked = _active(keeper, ENCRYPT)
    await keeper.compromise("default", frozenset({revoked}))
    substitute = _active(keeper, ENCRYPT)
    assert _format(keeper) is Format.ENCRYPTED
    world.clock.pass_time(AHEAD)
    assert _format(keeper) is Format.NESTED
    assert keeper.find(["default"], substitute, ENCRYPT) is not None
    assert keeper.find(["default"], revoked, ENCRYPT) is None


@pytest.mark.parametrize("use", [SIGN, ENCRYPT])
async def test_revoked_key_of_the_next_format_leaves_the_present_one_whole(world: World, use: KeyUse) -> None:
    keeper = await _changing(world, ENCRYPTED, NESTED)
    await keeper.rotate("default", None, expected=1, request_id="")
    await keeper.compromise("default", frozenset({_pending(keeper, use)}))
    assert _format(keeper) is Format.ENCRYPTED
    world.clock.pass_time(AHEAD)
    assert _format(keeper) is (Format.NESTED if use is SIGN else Format.ENCRYPTED)


async def test_next_format_whose_keys_were_all_revoked_comes_whole_with_the_next_rotation(world: World) -> None:
    keeper = await _changing(world, SIGNED, NESTED)
    await keeper.rotate("default", None, expected=1, request_id="")
    for use in (SIGN, ENCRYPT):
        await keeper.compromise("default", frozenset({_pending(keeper, use)}))
    world.clock.pass_time(AHEAD)
    assert _format(keeper) is Format.SIGNED
    await keeper.rotate("default", (SIGN,), expected=0, request_id="")
    world.clock.pass_time(AHEAD)
    assert _format(keeper) is Format.NESTED


# Tokens of a format that a validator has not seen yet


class _Sink:
    promise = None
    lost = 0

    def write(self, line: bytes) -> bool:
        return bool(line)

    def pending(self) -> None:
        return None


def _parts(keeper: Keeper) -> tuple[Any, ...]:
    audit = Audit(_Sink(), required=False, salt=b"s" * 32, now=keeper.now)
    return keeper, Policy(keeper.profiles, dict.fromkeys(Plane, "here")), audit, Metrics(("default",), "0")


def _issued(keeper: Keeper) -> str:
    grant = Grant("default", "user-42", ("orders",), None, "", (), None)
    return Issue(*_parts(keeper))(APP, grant, "r", "an-id-of-a-token").token


async def _accepted(keeper: Keeper, token: str) -> Accepted:
    return await Validate(*_parts(keeper))(APP, Demand(token, ("orders",), ("default",), ()), "r")


@pytest.mark.parametrize("before", [NESTED, ENCRYPTED])
async def test_token_that_is_signed_alone_is_not_called_forged_by_who_has_not_seen_its_key(
    world: World, before: Profile
) -> None:
    validator, keeper = await world.keeper(before), await world.keeper(replace(SIGNED, settings_revision=2))
    await keeper.rotate("default", None, expected=1, request_id="")
    world.clock.pass_time(AHEAD)
    token = _issued(keeper)
    assert token.count(".") == 2
    world.disk.down = True
    with pytest.raises(StaleStateError):
        await _accepted(validator, token)
    world.disk.down = False
    world.clock.pass_time(1)
    assert (await _accepted(validator, token)).ring_revision == 2


async def test_token_that_is_signed_alone_is_not_called_forged_by_who_has_no_ring(world: World) -> None:
    keks = dict.fromkeys(Role, FileKms(world.path / "kek"))
    validator = Keeper({"default": SIGNED}, MemoryStore(world.disk), keks, world.clock, allow_bootstrap=False)
    await validator.start()
    token = _issued(await world.keeper(SIGNED))
    with pytest.raises(StaleStateError):
        await _accepted(validator, token)


async def test_inner_layer_alone_is_no_token_of_a_nested_profile(world: World) -> None:
    keeper = await world.keeper(NESTED)
    outer = gate(_issued(keeper), segments=frozenset({5}))
    key = keeper.find(["default"], outer.kid, ENCRYPT)
    assert key is not None
    inner = decrypt(outer, key.key.material, content=key.key.facts.settings.content).decode()
    with pytest.raises(InvalidTokenError) as refused:
        await _accepted(keeper, inner)
    assert refused.value.stage == "key.format"
