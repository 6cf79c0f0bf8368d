"""What every store with a ledger must do (`ports.Ledger`). A test module of such a store inherits this beside its store's contract."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Protocol

from sidecar.ports import FOREVER, REVOCATIONS, Ended, Ledger, Revocation, Spending, Store, Turn


class LedgerStore(Store, Ledger, Protocol):
    """A store that has a ledger."""


OpenLedger = Callable[[], Awaitable[LedgerStore]]
"""Another member of the same store, each time."""

DAY = 86400


async def token(store: Store, *, until: float = DAY, before: int = FOREVER) -> Revocation:
    """A fresh one, that may be forgotten in so many seconds."""
    return Revocation(Ended.TOKEN, secrets.token_bytes(16), before, int(await store.now() + until))


async def spending(store: Store, token_id: str, successor: str, *, family: bytes, first: bool = False) -> Spending:
    """Of a family that ends in a day."""
    ending = Revocation(Ended.FAMILY, family, FOREVER, int(await store.now()) + DAY)
    return Spending(ending, token_id, successor, first, ((family, 0),), grace=10.0)


class LedgerContract:
    """`open_ledger` opens one more member of an empty store, and closes them all at the end."""

    # Revocations

    async def test_ledger_of_a_new_store_is_empty(self, open_ledger: OpenLedger) -> None:
        ledger = await open_ledger()
        assert (await ledger.revocations(0, 10)).revision == 0
        assert REVOCATIONS not in await ledger.revisions()
        assert isinstance(ledger, Ledger)

    async def test_revocation_is_held_at_the_next_revision(self, open_ledger: OpenLedger) -> None:
        one, two = await open_ledger(), await open_ledger()
        first, second = await token(one), await token(one, before=12345)
        assert [await one.revoke(first), await two.revoke(second)] == [1, 2]
        page = await one.revocations(0, 10)
        assert (page.revision, page.entries) == (2, (first, second))
        assert (await two.revisions())[REVOCATIONS] == 2

    async def test_revocation_that_is_held_already_changes_nothing(self, open_ledger: OpenLedger) -> None:
        ledger = await open_ledger()
        held = await token(ledger)
        assert await ledger.revoke(held) == 1
        assert await ledger.revoke(await token(ledger)) == 2
        earlier = Revocation(held.kind, held.digest, held.before - 1, held.until - 1)
        assert await ledger.revoke(held) in (1, 2)
        assert await ledger.revoke(earlier) in (1, 2)
        assert (await ledger.revocations(0, 10)).revision == 2
        assert (await ledger.revocations(0, 10)).entries[0] == held

    async def test_of_a_revocation_held_twice_the_later_times_hold(self, open_ledger: OpenLedger) -> None:
        ledger = await open_ledger()
        held = await token(ledger, before=1000)
        await ledger.revoke(held)
        await ledger.revoke(await token(ledger))
        later = Revocation(held.kind, held.digest, 2000, held.until - 5)
        assert await ledger.revoke(later) == 3
        page = await ledger.revocations(2, 10)
        assert page.entries == (Revocation(held.kind, held.digest, 2000, held.until),)

    async def test_pages_lead_through_all_of_them_in_order(self, open_ledger: OpenLedger) -> None:
        ledger = await open_ledger()
        held = [await token(ledger) for _ in range(7)]
        for each in held:
            await ledger.revoke(each)
        seen: list[Revocation] = []
        revision = 0
        for _ in range(4):
            page = await ledger.revocations(revision, 2)
            seen += page.entries
            revision = page.revision
        assert (seen, revision) == (held, 7)
        after = await ledger.revocations(7, 2)
        beyond = await ledger.revocations(99, 2)
        assert (after.revision, after.entries) == (beyond.revision, beyond.entries) == (7, ())

    async def test_racing_revocations_each_get_a_revision_and_none_is_lost(self, open_ledger: OpenLedger) -> None:
        members = [await open_ledger() for _ in range(4)]
        held = [await token(members[0]) for _ in range(40)]
        given = await asyncio.gather(*(members[i % 4].revoke(each) for i, each in enumerate(held)))
        assert sorted(given) == list(range(1, 41))
        page = await members[0].revocations(0, 100)
        assert page.entries == tuple(each for _, each in sorted(zip(given, held, strict=True), key=lambda one: one[0]))

    async def test_reader_that_follows_racing_writers_misses_nothing(self, open_ledger: OpenLedger) -> None:
        writers, reader = [await open_ledger() for _ in range(3)], await open_ledger()
        held = [await token(reader) for _ in range(60)]
        seen: set[bytes] = set()

        async def follow() -> None:
            revision = 0
            while revision < len(held):
                page = await reader.revocations(revision, 7)
                seen.update(each.digest for each in page.entries)
                revision = page.revision

        async def write(writer: LedgerStore, share: list[Revocation]) -> None:
            for each in share:
                await writer.revoke(each)

        async with asyncio.timeout(30):
            await asyncio.gather(follow(), *(write(w, held[i::3]) for i, w in enumerate(writers)))
        assert seen == {each.digest for each in held}

    # Consumed tokens

    async def test_token_is_consumed_once(self, open_ledger: OpenLedger) -> None:
        one, two = await open_ledger(), await open_ledger()
        until, digest = int(await one.now()) + DAY, secrets.token_bytes(16)
        assert await one.consume(digest, b"", until)
        assert not await two.consume(digest, b"", until)
        assert not await one.consume(digest, b"r" * 16, until)
        assert await two.consume(secrets.token_bytes(16), b"", until)

    async def test_repeat_of_the_request_that_consumed_it_gets_the_same_answer(self, open_ledger: OpenLedger) -> None:
        one, two = await open_ledger(), await open_ledger()
        until, digest = int(await one.now()) + DAY, secrets.token_bytes(16)
        assert [await each.consume(digest, b"r" * 16, until) for each in (one, two, one)] == [True] * 3
        assert not await two.consume(digest, b"s" * 16, until)
        assert not await two.consume(digest, b"", until)

    async def test_of_racing_consumers_one_wins(self, open_ledger: OpenLedger) -> None:
        members = [await open_ledger() for _ in range(4)]
        until = int(await members[0].now()) + DAY
        for _ in range(10):
            digest = secrets.token_bytes(16)
            won = await asyncio.gather(
                *(members[i % 4].consume(digest, secrets.token_bytes(16), until) for i in range(12))
            )
            assert won.count(True) == 1

    async def test_token_that_may_have_been_forgotten_is_not_consumed(self, open_ledger: OpenLedger) -> None:
        ledger = await open_ledger()
        digest = secrets.token_bytes(16)
        assert not await ledger.consume(digest, b"", int(await ledger.now()) - 1)
        assert not await ledger.consume(digest, b"r" * 16, int(await ledger.now()) - 1)

    # Refresh families

    async def test_each_refresh_token_is_spent_once_in_a_row(self, open_ledger: OpenLedger) -> None:
        one, two = await open_ledger(), await open_ledger()
        family = secrets.token_bytes(16)
        spent = [
            await one.spend(await spending(one, "a", "b", family=family, first=True)),
            await two.spend(await spending(one, "b", "c", family=family)),
            await one.spend(await spending(one, "c", "d", family=family)),
        ]
        assert [each.turn for each in spent] == [Turn.ROTATED] * 3
        assert [each.successor for each in spent] == ["b", "c", "d"]
        now = await one.now()
        assert all(abs(each.time - now) < 5 for each in spent)

    async def test_lost_answer_is_given_again_with_the_same_successor(self, open_ledger: OpenLedger) -> None:
        ledger, family = await open_ledger(), secrets.token_bytes(16)
        first = await ledger.spend(await spending(ledger, "a", "b", family=family, first=True))
        again = await ledger.spend(await spending(ledger, "a", "other", family=family, first=True))
        assert (again.turn, again.successor, again.time) == (Turn.REPEATED, "b", first.time)
        assert (await ledger.spend(await spending(ledger, "b", "c", family=family))).turn is Turn.ROTATED

    async def test_token_whose_successor_is_spent_ends_its_family(self, open_ledger: OpenLedger) -> None:
        ledger, family = await open_ledger(), secrets.token_bytes(16)
        await ledger.spend(await spending(ledger, "a", "b", family=family, first=True))
        await ledger.spend(await spending(ledger, "b", "c", family=family))
        reused = await spending(ledger, "a", "x", family=family, first=True)
        assert (await ledger.spend(reused)).turn is Turn.REUSED
        assert (await ledger.revocations(0, 10)).entries == (reused.family,)
        for present in ("a", "b", "c"):
            assert (await ledger.spend(await spending(ledger, present, "y", family=family))).turn is Turn.REVOKED
        assert (await ledger.revocations(0, 10)).revision == 1

    async def test_repeat_after_the_grace_ends_the_family(self, open_ledger: OpenLedger) -> None:
        ledger, family = await open_ledger(), secrets.token_bytes(16)
        await ledger.spend(await spending(ledger, "a", "b", family=family, first=True))
        late = await spending(ledger, "a", "x", family=family, first=True)
        late = Spending(late.family, "a", "x", first=True, bars=late.bars, grace=-1.0)
        assert (await ledger.spend(late)).turn is Turn.REUSED
        assert (await ledger.revisions())[REVOCATIONS] == 1

    async def test_token_of_a_family_that_nobody_knows_ends_it_unless_it_began_it(
        self, open_ledger: OpenLedger
    ) -> None:
        ledger, family = await open_ledger(), secrets.token_bytes(16)
        assert (await ledger.spend(await spending(ledger, "m", "n", family=family))).turn is Turn.REUSED
        assert (await ledger.revocations(0, 10)).entries[0].digest == family

    async def test_barred_token_is_not_spent(self, open_ledger: OpenLedger) -> None:
        ledger, family = await open_ledger(), secrets.token_bytes(16)
        subject = Revocation(Ended.SUBJECT, secrets.token_bytes(16), 1000, int(await ledger.now()) + DAY)
        await ledger.revoke(subject)
        asked = await spending(ledger, "a", "b", family=family, first=True)
        for issued, turn in ((1000, Turn.REVOKED), (999, Turn.REVOKED), (1001, Turn.ROTATED)):
            barred = Spending(
                asked.family, "a", "b", first=True, bars=((family, 0), (subject.digest, issued)), grace=10.0
            )
            assert (await ledger.spend(barred)).turn is turn

    async def test_family_that_was_revoked_is_not_refreshed(self, open_ledger: OpenLedger) -> None:
        ledger, family = await open_ledger(), secrets.token_bytes(16)
        asked = await spending(ledger, "a", "b", family=family, first=True)
        await ledger.spend(asked)
        await ledger.revoke(asked.family)
        assert (await ledger.spend(asked)).turn is Turn.REVOKED
        assert (await ledger.spend(await spending(ledger, "b", "c", family=family))).turn is Turn.REVOKED

    async def test_of_racing_refreshes_one_rotates_and_all_get_its_successor(self, open_ledger: OpenLedger) -> None:
        members = [await open_ledger() for _ in range(4)]
        for _ in range(5):
            family = secrets.token_bytes(16)
            asked = [await spending(members[0], "a", f"b{i}", family=family, first=True) for i in range(8)]
            spent = await asyncio.gather(*(members[i % 4].spend(each) for i, each in enumerate(asked)))
            assert [each.turn for each in spent].count(Turn.ROTATED) == 1
            assert {each.turn for each in spent} == {Turn.ROTATED, Turn.REPEATED}
            assert len({(each.successor, each.time) for each in spent}) == 1

    # Time

    async def test_what_is_past_its_time_is_forgotten(self, open_ledger: OpenLedger) -> None:
        ledger = await open_ledger()
        over, held = await token(ledger, until=-2), await token(ledger)
        await ledger.revoke(over)
        await ledger.revoke(held)
        assert await ledger.forget(100) == 1
        assert await ledger.forget(100) == 0
        page = await ledger.revocations(0, 10)
        assert (page.revision, page.entries) == (2, (held,))

    async def test_no_more_than_the_limit_is_forgotten_at_once(self, open_ledger: OpenLedger) -> None:
        ledger = await open_ledger()
        for _ in range(5):
            await ledger.revoke(await token(ledger, until=-2))
        assert [await ledger.forget(2) for _ in range(4)] == [2, 2, 1, 0]
        assert (await ledger.revocations(0, 10)).revision == 5
