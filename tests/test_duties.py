"""Duties of several keepers: each waits its own while, and one of them does each."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from sidecar.audit import Audit, Promise
from sidecar.commits import Commits
from sidecar.destroy import Destroy
from sidecar.duties import CLAIM_SECONDS, DOCUMENT, REKEY_EVERY, Claim, Duties, Duty
from sidecar.keyring import KeyUse, Role
from sidecar.policy import Policy
from sidecar.ports import Document
from sidecar.profile import DEFAULT, refreshing
from sidecar.rekey import Rekey
from sidecar.rotate import Rotate
from sidecar.schedule import Perform
from tests.keepers import Fleet

if TYPE_CHECKING:
    from pathlib import Path

    from sidecar.keeper import Keeper

DAY = 86400.0
ROTATE = Duty("default", "rotate", KeyUse.ENCRYPTION)


class _Nowhere:
    promise = Promise.ACCEPTED
    lost = 0

    def write(self, line: bytes) -> bool:
        return True

    def pending(self) -> None:
        return None


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def _duties(keeper: Keeper, holder: str = "a", spread: float = 0.0) -> Duties:
    return Duties(keeper, keeper._store, holder=holder, spread=spread)


async def _pass(fleet: Fleet, seconds: float, *keepers: Keeper) -> None:
    fleet.clock.pass_time(seconds)
    await asyncio.gather(*(keeper.refresh() for keeper in keepers))


@pytest.mark.parametrize(("every", "delay"), [(86400, 600.0), (1000, 100.0), (3, 0.3)])
async def test_each_keeper_waits_within_ten_minutes_and_a_tenth(fleet: Fleet, every: int, delay: float) -> None:
    keeper = await fleet.start(profile=replace(DEFAULT, rotate_every=every))
    first, middle, last = (_duties(keeper, spread=spread) for spread in (0.0, 0.5, 1.0))
    await _pass(fleet, every + 0.01, keeper)
    assert [ROTATE in each.due(keeper.now()) for each in (first, middle, last)] == [True, False, False]
    await _pass(fleet, delay / 2, keeper)
    assert [ROTATE in each.due(keeper.now()) for each in (first, middle, last)] == [True, True, False]
    await _pass(fleet, delay / 2, keeper)
    assert ROTATE in last.due(keeper.now())


async def test_who_is_no_keeper_owes_nothing(fleet: Fleet) -> None:
    keeper = await fleet.start()
    others = [await fleet.start(Role.ISSUE), await fleet.start(Role.OPEN), await fleet.start(*Role, writable=False)]
    await _pass(fleet, DAY + 1, keeper, *others)
    assert [len(_duties(each).due(each.now())) for each in (keeper, *others)] == [2, 0, 0, 0]


async def test_of_ten_keepers_one_has_the_claim_and_does_it(fleet: Fleet) -> None:
    keepers = [await fleet.start() for _ in range(10)]
    await _pass(fleet, DAY + 1, *keepers)
    claims = await asyncio.gather(*(_duties(k, holder=str(i)).claim(ROTATE) for i, k in enumerate(keepers)))
    assert claims.count(Claim.WON) == 1
    assert claims.count(Claim.LOST) == 9
    winner = keepers[claims.index(Claim.WON)]
    await winner.rotate("default", (KeyUse.ENCRYPTION,), expected=0, request_id="")
    again = [await _duties(k, holder=str(i)).claim(ROTATE) for i, k in enumerate(keepers)]
    assert again == [Claim.DONE] * 10
    assert fleet.disk.documents["default"].revision == 2


async def test_claim_of_a_keeper_that_died_ends(fleet: Fleet) -> None:
    keeper, other = await fleet.start(), await fleet.start()
    await _pass(fleet, DAY + 1, keeper, other)
    assert await _duties(keeper).claim(ROTATE) is Claim.WON
    await _pass(fleet, CLAIM_SECONDS - 1, other)
    assert await _duties(other, "b").claim(ROTATE) is Claim.LOST
    await _pass(fleet, 1, other)
    assert await _duties(other, "b").claim(ROTATE) is Claim.WON
    assert await _duties(keeper).claim(ROTATE) is Claim.LOST


async def test_holder_claims_its_profiles_next_duty_too(fleet: Fleet) -> None:
    keeper, other = await fleet.start(), await fleet.start()
    await _pass(fleet, DAY + 1, keeper, other)
    assert await _duties(keeper).claim(ROTATE) is Claim.WON
    assert await _duties(keeper).claim(Duty("default", "rotate", KeyUse.SIGNATURE)) is Claim.WON


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"\xff", b'{"default":3}', b'{"default":["x","y"]}', b'{"default":["x",1e300]}', b"[" * 100_000],
)
async def test_nonsense_in_the_claims_holds_nothing_up(fleet: Fleet, content: bytes) -> None:
    keeper = await fleet.start()
    await _pass(fleet, DAY + 1, keeper)
    fleet.disk.documents[DOCUMENT] = Document(7, content)
    assert await _duties(keeper).claim(ROTATE) is Claim.WON
    assert json.loads(fleet.disk.documents[DOCUMENT].content) == {"default": ["a", keeper.now() + CLAIM_SECONDS]}


async def test_data_keys_are_renewed_after_thirty_days(fleet: Fleet) -> None:
    keeper = await fleet.start(profile=replace(DEFAULT, rotate_every=365 * 86400))
    duties, renewal = _duties(keeper), Duty("default", "rekey")
    await _pass(fleet, REKEY_EVERY - 1, keeper)
    assert duties.due(keeper.now()) == []
    await _pass(fleet, 1, keeper)
    assert duties.due(keeper.now()) == [renewal]
    assert await duties.claim(renewal) is Claim.WON
    await keeper.rekey("default")
    assert duties.due(keeper.now()) == []


async def test_nothing_is_due_while_the_store_has_gone_back(fleet: Fleet) -> None:
    keeper = await fleet.start()
    older = dict(fleet.disk.documents)
    await keeper.rotate("default", None, expected=0, request_id="")
    fleet.disk.documents = older
    await _pass(fleet, DAY + 1, keeper)
    assert _duties(keeper).due(keeper.now()) == []


async def test_due_key_of_refresh_tokens_is_rotated_for_its_profile(fleet: Fleet) -> None:
    profile = refreshing(replace(DEFAULT, refresh_ttl=3600, refresh_max_ttl=7200))
    keeper, commits = await fleet.start(profile=profile), Commits()
    await _pass(fleet, DAY + 1, keeper)
    (duty,) = [each for each in _duties(keeper).due(keeper.now()) if each.kind == "rotate"]
    assert duty == Duty("default.refresh", "rotate", KeyUse.REFRESH)
    audit, policy = (
        Audit(_Nowhere(), required=False, salt=bytes(32), now=fleet.clock.wall),
        Policy({"default": DEFAULT}, {}),
    )
    rotate, destroy = Rotate(keeper, policy, audit, commits), Destroy(keeper, policy, audit, commits)
    changed = await Perform(rotate, destroy, Rekey(keeper, audit, commits))(duty, request_id="a")
    assert changed
    assert changed.revision == fleet.disk.documents["default.refresh"].revision == 2
