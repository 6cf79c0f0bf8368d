"""A bounded run of every target; `python -m tests.fuzz` runs for longer, and by coverage."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.fuzz.mutations import mutated
from tests.fuzz.targets import LIMIT, TARGETS, SlowInputError, Target, inputs, judge

EXAMPLES = {"sqlite": 60, "ring": 100}


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_comes_in_gets_its_answer_in_time(name: str) -> None:
    kept = inputs(name)
    for data in kept:
        judge(name, data)

    @settings(
        max_examples=EXAMPLES.get(name, 300),
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(mutated(kept) | st.binary(max_size=200))
    def tried(data: bytes) -> None:
        judge(name, data)

    tried()


def _burn(_: bytes) -> None:
    end = time.process_time() + 2 * LIMIT
    while time.process_time() < end:
        pass


def test_what_is_slow_or_not_documented_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TARGETS, "slow", Target(_burn, ()))
    monkeypatch.setitem(TARGETS, "odd", Target(lambda data: data[9], (KeyError,)))
    with pytest.raises(SlowInputError):
        judge("slow", b"")
    with pytest.raises(IndexError):
        judge("odd", b"")
