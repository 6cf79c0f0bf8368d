"""Revocations in memory: look-ups, times, pages, forgetting, and a store that went back."""

from __future__ import annotations

import secrets

from hypothesis import given, settings, strategies as st

from sidecar.denylist import PAGE, SHARDS, SHARDS_SWEPT, Denylist, digest_of
from sidecar.ports import FOREVER, Ended, Revocation
from tests.hand_clock import START, HandClock
from tests.stores.memory import Disk, MemoryStore

LATER = int(START) + 1000


def denylist() -> Denylist:
    return Denylist(MemoryStore(Disk(HandClock())))


def of(kind: Ended, name: str, before: int = FOREVER, until: int = LATER, profile: str = "default") -> Revocation:
    return Revocation(kind, digest_of(kind, profile, name), before, until)


def revoked(held: Denylist, token_id: str = "t", subject: str = "s", family: str = "f", issued: int = 100) -> bool:
    return held.revoked("default", token_id=token_id, subject=subject, family=family, issued=issued)


def test_empty_one_holds_nothing() -> None:
    assert not revoked(denylist())


def test_each_kind_ends_what_it_names_and_nothing_else() -> None:
    for kind, hit in (
        (Ended.TOKEN, {"token_id": "x"}),
        (Ended.SUBJECT, {"subject": "x"}),
        (Ended.FAMILY, {"family": "x"}),
    ):
        held = denylist()
        held.add(of(kind, "x"))
        assert revoked(held, **hit)
        assert [name for name in ("token_id", "subject", "family") if revoked(held, **{name: "x"})] == [*hit]
        assert not held.revoked("other", token_id="x", subject="x", family="x", issued=1)


def test_subject_ends_up_to_its_time() -> None:
    held = denylist()
    held.add(of(Ended.SUBJECT, "s", before=100))
    assert revoked(held, issued=100)
    assert not revoked(held, issued=101)
    held.add(of(Ended.SUBJECT, "s", before=50))
    assert revoked(held, issued=100)
    held.add(of(Ended.SUBJECT, "s", before=150))
    assert revoked(held, issued=150)
    assert held.held == 1


def test_times_beyond_what_an_entry_can_hold_are_for_ever() -> None:
    held = denylist()
    held.add(of(Ended.TOKEN, "t", until=2**53))
    for _ in range(SHARDS // SHARDS_SWEPT):
        held.sweep(2**31)
    assert revoked(held)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 1000), st.integers(0, 100)), max_size=60), st.integers(0, 100)
)
@settings(max_examples=60, deadline=None)
def test_it_holds_what_a_dictionary_holds(entries: list[tuple[int, int, int]], now: int) -> None:
    held, model = denylist(), dict[int, tuple[int, int]]()
    for name, before, until in entries:
        held.add(of(Ended.SUBJECT, str(name), before, until))
        known = model.get(name, (0, 0))
        model[name] = max(known[0], before), max(known[1], until)
    for _ in range(SHARDS // SHARDS_SWEPT):
        held.sweep(now)
    kept = {name: before for name, (before, until) in model.items() if until > now}
    assert {n: held.before(Ended.SUBJECT, "default", str(n)) for n in range(41)} == {
        n: kept.get(n, -1) for n in range(41)
    }
    assert held.held == len(kept)


async def test_it_catches_up_page_by_page_and_then_only_with_news() -> None:
    disk = Disk(HandClock())
    store = MemoryStore(disk)
    for number in range(1, 2 * PAGE + 1):
        entry = Revocation(Ended.TOKEN, secrets.token_bytes(16), FOREVER, LATER)
        disk.revoked[entry.digest] = number, entry
    disk.revision = 2 * PAGE
    held = Denylist(store)
    await held.catch_up()
    assert (held.revision, held.held) == (2 * PAGE, 2 * PAGE)
    before = disk.calls
    await store.revoke(of(Ended.TOKEN, "t"))
    await held.catch_up()
    assert disk.calls == before + 2
    assert revoked(held)


async def test_what_a_store_that_went_back_has_forgotten_is_still_obeyed() -> None:
    disk = Disk(HandClock())
    store = MemoryStore(disk)
    held = Denylist(store)
    await store.revoke(of(Ended.TOKEN, "t"))
    await held.catch_up()
    disk.revoked, disk.revision = {}, 0
    await held.catch_up()
    assert held.revision == 0
    assert revoked(held)
    await store.revoke(of(Ended.TOKEN, "u"))
    await held.catch_up()
    assert revoked(held, token_id="u", subject="", family="")
