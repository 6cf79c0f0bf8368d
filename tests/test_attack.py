"""A short form of `python -m tests.attack`: everything at once; times are for a quiet machine, and not looked at here."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.attack.attacked import MIB, Found, attacked, broken, memory_limit


@pytest.mark.timeout(300)
def test_all_attacks_at_once_get_nothing_and_break_nothing() -> None:
    found = attacked(
        seconds=5, least={"forged": 200, "unknown_kids": 200, "giant_metadata": 5, "bombs": 50}, longest=60
    )
    assert broken(found) == [], found.told()
    assert found.answers["OK"] >= 10
    assert all(found.sent[name] for name in ("forged", "unknown_kids", "giant_metadata", "bombs")), found.told()


KEPT = Found(
    seconds=10,
    waits=[0.01],
    answers=Counter(OK=100),
    memory=memory_limit(),
    limit=memory_limit(),
    log_lines=200,
    audit_bytes=1024,
    judged=1,
)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"accepted": Counter(forged=1)}, "accepted: {'forged': 1}"),
        ({"wrong": ["INTERNAL odd"]}, "wrong answer"),
        ({"answers": Counter(OK=100, CANCELLED=2)}, "2 of the honest calls were turned away"),
        ({"ended": ["pings"]}, "attacks ended by themselves: ['pings']"),
        ({"memory": memory_limit() + MIB}, "MiB, and the pod has"),
        ({"log_lines": 1000}, "1000 lines of log"),
        ({"audit_bytes": 2048}, "2048 bytes of audit for 1 tokens"),
    ],
)
def test_a_promise_that_does_not_hold_is_told(change: dict[str, object], says: str) -> None:
    assert broken(KEPT) == []
    (told,) = broken(replace(KEPT, **change))  # type: ignore[arg-type]
    assert says in told
