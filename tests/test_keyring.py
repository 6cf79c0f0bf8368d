"""The rules of a ring, alone and over long random histories."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from hypothesis.strategies import booleans, data, floats, sampled_from, sets

from sidecar.errors import ChangedRingError, InvalidRequestError
from sidecar.keyring import KEYS_AT_ONCE, REQUESTS_KEPT, Key, KeyState, KeyUse, Ring, Settings
from sidecar.profile import DEFAULT

SIGN, ENCRYPT = KeyUse.SIGNATURE, KeyUse.ENCRYPTION
TAIL = 900 + 3600 + 5 + 10
ORDER = [KeyState.PENDING, KeyState.ACTIVE, KeyState.RETIRING, KeyState.DESTROYED]


def _key(key_id: str, use: KeyUse = SIGN, *, made: float = 0.0, active: float | None = None) -> Key:
    return Key(
        key_id,
        use,
        "ES256" if use is SIGN else "A256KW",
        Settings.of(DEFAULT, use),
        made,
        made if active is None else active,
    )


def _ring(*keys: Key) -> Ring:
    return Ring("default", 1, keys)


def test_state_follows_from_times() -> None:
    key = replace(_key("a", made=0, active=10), retire_time=20, destroy_time=30)
    states = {0: 0, 9.999: 0, 10: 1, 19.999: 1, 20: 2, 29.999: 2, 30: 3, 1e12: 3}
    assert {at: ORDER.index(key.state(at)) for at in states} == states
    assert [state for state in KeyState if state.opens] == [KeyState.PENDING, KeyState.ACTIVE, KeyState.RETIRING]


@pytest.mark.parametrize("at", [0, 15, 25, 1e12])
def test_compromised_stays_compromised(at: float) -> None:
    key = replace(_key("a", active=10), retire_time=20.0, destroy_time=30.0, compromise_time=15.0)
    assert key.state(at) is KeyState.COMPROMISED


def test_successor_activates_when_its_predecessor_retires() -> None:
    ring = _ring(_key("a")).rotated(
        (_key("b", made=100, active=140),), now=100, activate=140, expected=1, request_id="r"
    )
    assert ring.revision == 2
    old = ring.key("a")
    assert old is not None
    assert (old.retire_time, old.destroy_time) == (140, 140 + TAIL)
    for now, issuer in ((100, "a"), (139.99, "a"), (140, "b"), (1e9, "b")):
        active = ring.active(SIGN, now)
        assert active is not None
        assert active.key_id == issuer
    pending = ring.key("b")
    assert pending is not None
    assert pending.state(100).opens


def test_rotation_leaves_other_uses_alone() -> None:
    ring = _ring(_key("e", ENCRYPT), _key("a"))
    rotated = ring.rotated((_key("b", made=1),), now=1, activate=1, expected=1, request_id="")
    assert rotated.key("e") == ring.key("e")


@pytest.mark.parametrize("expected", [2, 7])
def test_another_expected_revision_is_refused(expected: int) -> None:
    with pytest.raises(ChangedRingError, match="at revision 1, not"):
        _ring(_key("a")).rotated((_key("b"),), now=1, activate=1, expected=expected, request_id="")


def test_zero_expects_any_revision() -> None:
    ring = replace(_ring(_key("a")), revision=41)
    assert ring.rotated((_key("b"),), now=1, activate=1, expected=0, request_id="").revision == 42


def test_rotation_is_refused_while_a_successor_of_that_use_is_pending() -> None:
    ring = _ring(_key("a"), _key("e", ENCRYPT)).rotated(
        (_key("b", active=40),), now=0, activate=40, expected=1, request_id=""
    )
    with pytest.raises(ChangedRingError, match="pending already, until 1970-01-01T00:00:40Z"):
        ring.rotated((_key("c", made=1, active=41),), now=1, activate=41, expected=2, request_id="")
    assert ring.rotated((_key("f", ENCRYPT, made=1),), now=1, activate=1, expected=2, request_id="").revision == 3
    assert ring.rotated((_key("c", made=40),), now=40, activate=40, expected=2, request_id="").revision == 3


def test_retiring_key_keeps_its_times_at_the_next_rotation() -> None:
    ring = _ring(_key("a")).rotated((_key("b", made=10),), now=10, activate=10, expected=1, request_id="")
    later = ring.rotated((_key("c", made=20),), now=20, activate=20, expected=2, request_id="")
    assert later.key("a") == ring.key("a")


def test_full_ring_waits_until_a_key_goes() -> None:
    ring = _ring(_key("k0"))
    for i in range(1, KEYS_AT_ONCE):
        ring = ring.rotated((_key(f"k{i}", made=i),), now=i, activate=i, expected=0, request_id="")
    with pytest.raises(ChangedRingError, match=r"holds 100 signature keys .* 1970-01-01T01:15:16Z"):
        ring.rotated((_key("one-more", made=200),), now=200, activate=200, expected=0, request_id="")
    now = 1 + TAIL
    assert (
        len(ring.pruned(now).rotated((_key("x", made=now),), now=now, activate=now, expected=0, request_id="").keys)
        == KEYS_AT_ONCE
    )


def test_first_answer_is_kept_for_sixteen_requests() -> None:
    ring = _ring(_key("k0"))
    for i in range(1, REQUESTS_KEPT + 2):
        ring = ring.rotated((_key(f"k{i}", made=i),), now=i, activate=i, expected=0, request_id=f"r{i}")
    assert ring.answer_to("r1") is None
    kept = ring.answer_to("r2")
    assert kept is not None
    assert (kept.revision, kept.activate_time) == (3, 2)
    assert ring.answer_to("") is None


def test_compromised_key_hands_over_to_its_pending_successor_at_once() -> None:
    ring = _ring(_key("a")).rotated((_key("b", made=10, active=50),), now=10, activate=50, expected=1, request_id="")
    assert ring.uncovered(frozenset({"a"}), 20) == ()
    after = ring.compromised(frozenset({"a"}), (), now=20)
    assert _states(after, 20) == {"a": KeyState.COMPROMISED, "b": KeyState.ACTIVE}


def test_compromised_key_without_a_successor_needs_a_fresh_one() -> None:
    ring = _ring(_key("a"), _key("e", ENCRYPT))
    assert ring.uncovered(frozenset({"a"}), 20) == (SIGN,)
    after = ring.compromised(frozenset({"a"}), (_key("b", made=20),), now=20)
    assert _states(after, 20) == {"a": KeyState.COMPROMISED, "b": KeyState.ACTIVE, "e": KeyState.ACTIVE}


def test_active_key_goes_on_when_its_pending_successor_is_compromised() -> None:
    ring = _ring(_key("a")).rotated((_key("b", made=10, active=50),), now=10, activate=50, expected=1, request_id="")
    after = ring.compromised(frozenset({"b"}), (), now=20)
    assert _states(after, 60) == {"a": KeyState.ACTIVE, "b": KeyState.COMPROMISED}
    old = after.key("a")
    assert old is not None
    assert old.retire_time is old.destroy_time is None


def test_both_compromised_need_a_fresh_one() -> None:
    ring = _ring(_key("a")).rotated((_key("b", made=10, active=50),), now=10, activate=50, expected=1, request_id="")
    assert ring.uncovered(frozenset({"a", "b"}), 20) == (SIGN,)


def test_compromised_retiring_key_changes_no_other() -> None:
    ring = _ring(_key("a")).rotated((_key("b", made=10),), now=10, activate=10, expected=1, request_id="")
    after = ring.compromised(frozenset({"a"}), (), now=20)
    assert after.key("b") == ring.key("b")


def test_unknown_key_cannot_be_compromised() -> None:
    with pytest.raises(InvalidRequestError, match="key_ids: no key of profile 'default' has the id 'x'"):
        _ring(_key("a")).compromised(frozenset({"a", "x"}), (), now=20)


def test_second_compromise_keeps_the_time_of_the_first() -> None:
    ring = _ring(_key("a")).compromised(frozenset({"a"}), (_key("b", made=5),), now=5)
    again = ring.compromised(frozenset({"a"}), (), now=500).key("a")
    assert again is not None
    assert again.compromise_time == 5


def test_rotation_is_due_by_the_age_of_the_active_key() -> None:
    ring = _ring(_key("a", made=100))
    assert ring.rotation_due(SIGN, 86400, 200) == 86500
    waiting = ring.rotated((_key("b", made=200, active=240),), now=200, activate=240, expected=1, request_id="")
    assert waiting.rotation_due(SIGN, 86400, 210) is None
    assert waiting.rotation_due(SIGN, 86400, 240) == 86640


def _states(ring: Ring, now: float) -> dict[str, KeyState]:
    return {key.key_id: key.state(now) for key in ring.keys}


class Histories(RuleBasedStateMachine):
    """Any order of rotations, compromises, prunings and time: what must hold at every moment of it."""

    @initialize()
    def make(self) -> None:
        self.now = 1_000_000.0
        self.ids = map(str, count())
        self.ring = _ring(self._fresh(SIGN, 0), self._fresh(ENCRYPT, 0))
        self.seen: dict[str, KeyState] = {}
        self.issued_until: dict[str, float] = {}  # by key: `exp`, and leeway, of the last token that was made with it

    def _fresh(self, use: KeyUse, ahead: float) -> Key:
        return _key(next(self.ids), use, made=self.now, active=self.now + ahead)

    @rule(seconds=floats(0.001, 10_000) | sampled_from([30.0, 40.0, float(TAIL)]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(uses=sets(sampled_from([SIGN, ENCRYPT]), min_size=1), alone=booleans())
    def rotate(self, uses: set[KeyUse], alone: bool) -> None:
        ahead = 0.0 if alone else 40.0
        fresh = tuple(self._fresh(use, ahead) for use in sorted(uses, key=lambda u: u.value))
        pending = any(self.ring.pending(use, self.now) for use in uses)
        try:
            self.ring = self.ring.rotated(
                fresh, now=self.now, activate=self.now + ahead, expected=self.ring.revision, request_id=""
            )
        except ChangedRingError:
            assert pending or len(self.ring.keys) >= KEYS_AT_ONCE
        else:
            assert not pending

    @rule(draw=data())
    def compromise(self, draw: object) -> None:
        ids = [key.key_id for key in self.ring.keys]
        named = frozenset(draw.draw(sets(sampled_from(ids), min_size=1, max_size=3)))  # type: ignore[attr-defined]
        fresh = tuple(self._fresh(use, 0) for use in self.ring.uncovered(named, self.now))
        self.ring = self.ring.compromised(named, fresh, now=self.now)
        assert all(self.ring.key(one).state(self.now) is KeyState.COMPROMISED for one in named)  # type: ignore[union-attr]

    @rule()
    def prune(self) -> None:
        self.ring = self.ring.pruned(self.now)

    @invariant()
    def one_key_of_each_use_is_active(self) -> None:
        for use in (SIGN, ENCRYPT):
            active = [k for k in self.ring.keys if k.use is use and k.state(self.now) is KeyState.ACTIVE]
            assert len(active) == 1
            settings_ = active[0].settings
            self.issued_until[active[0].key_id] = self.now + settings_.max_ttl + settings_.leeway

    @invariant()
    def no_state_goes_back(self) -> None:
        for key_id, state in _states(self.ring, self.now).items():
            before = self.seen.get(key_id)
            if before is KeyState.COMPROMISED:
                assert state is KeyState.COMPROMISED
            elif before is not None and state is not KeyState.COMPROMISED:
                assert ORDER.index(state) >= ORDER.index(before)
            self.seen[key_id] = state

    @invariant()
    def every_key_outlives_its_last_token(self) -> None:
        for key_id, until in self.issued_until.items():
            key = self.ring.key(key_id)
            if self.now < until and self.seen.get(key_id) is not KeyState.COMPROMISED:
                assert key is not None
                assert key.state(self.now).opens or key.compromise_time is not None

    @invariant()
    def times_are_in_order(self) -> None:
        for key in self.ring.keys:
            assert key.create_time <= key.activate_time
            if key.retire_time is not None:
                assert key.destroy_time == key.retire_time + key.settings.tail
            else:
                assert key.destroy_time is None


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
