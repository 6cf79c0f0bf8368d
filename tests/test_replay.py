"""Proofs that came before."""

from __future__ import annotations

import pytest

from sidecar.errors import OverloadedError, UnprovenPossessionError
from sidecar.replay import Replay


def proof(number: int) -> bytes:
    return number.to_bytes(32, "big")[::-1]


def test_a_proof_is_taken_once_for_each_profile() -> None:
    replay = Replay()
    replay.take("web", proof(1), 60, now=0)
    replay.take("other", proof(1), 60, now=0)
    with pytest.raises(UnprovenPossessionError):
        replay.take("web", proof(1), 60, now=59)


def test_a_full_memory_refuses_rather_than_forgets() -> None:
    replay = Replay(most=3)
    for number in range(3):
        replay.take("web", proof(number), 60 + number, now=0)
    with pytest.raises(OverloadedError):
        replay.take("web", proof(9), 60, now=60)
    replay.take("other", proof(9), 60, now=60)
    with pytest.raises(UnprovenPossessionError):
        replay.take("web", proof(2), 62, now=61.5)


def test_what_is_too_old_to_be_taken_again_makes_room() -> None:
    replay = Replay(most=3)
    for number in range(3):
        replay.take("web", proof(number), 60, now=0)
    replay.take("web", proof(9), 130, now=61)
    replay.take("web", proof(8), 130, now=61)


def test_a_clock_that_steps_back_does_not_stop_the_sweep() -> None:
    replay = Replay(most=1)
    replay.take("web", proof(1), 1060, now=1000)
    replay.take("web", proof(2), 1130, now=1070)
    with pytest.raises(OverloadedError):
        replay.take("web", proof(3), 160, now=100)
    replay.take("web", proof(4), 1300, now=1200)
