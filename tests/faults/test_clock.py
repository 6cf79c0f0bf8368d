"""Wall clocks that jump, on the real process (libfaketime): stale at most, nothing changed, nothing destroyed, and good again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.faults import states
from tests.faults.waiting import run, wait_for
from tests.faults.witness import reason_of
from tests.wrong_clock import Clock

if TYPE_CHECKING:
    from pathlib import Path

    from tests.faults.conftest import NewSidecar, NewWitness
    from tests.faults.witness import Witness
    from tests.running import RunningSidecar

HOUR, TEN_YEARS = 3600, 3652 * 86400
JUMPS = (HOUR, -HOUR, TEN_YEARS, -TEN_YEARS)
# An hour ahead, every key would be due: the active one for rotation, the retired one for destruction.
CONFIG = """
[profiles.default]
issuer = "urn:test"
audiences = ["orders"]
ttl = "5m"
max_ttl = "5m"

[keys]
refresh_interval = "1s"
propagation = "2s"
max_staleness = "5m"
rotate_every = "30m"
"""
DUTIES_SECONDS = 1.5  # in which the schedule is looked at

pytestmark = [pytest.mark.needs("faketime"), pytest.mark.timeout(300)]


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "clock")


@pytest.fixture
def rotated(clock: Clock, new_sidecar: NewSidecar, new_witness: NewWitness) -> tuple[RunningSidecar, Witness]:
    """A sidecar with an active and a retiring key of each use, and a token under each."""
    running = new_sidecar(CONFIG, clock.env)
    run(running)
    witness = new_witness(running)
    witness.issue()
    witness.rotate()
    witness.check()
    return running, witness


def issuing(witness: Witness) -> str:
    return reason_of(lambda: witness.issue(remember=False))


def test_jump_of_the_wall_clock_makes_stale_and_changes_nothing(
    clock: Clock, rotated: tuple[RunningSidecar, Witness]
) -> None:
    running, witness = rotated
    before = states.contents(running.state_dir)
    for seconds in JUMPS:
        clock.jump(seconds)
        wait_for(lambda: issuing(witness) == "STATE_STALE")
        assert witness.validate(witness.tokens[0]) == "STATE_STALE", seconds
        time.sleep(DUTIES_SECONDS)
        assert issuing(witness) == "STATE_STALE", seconds
        assert witness.health() == "NOT_SERVING"
        assert running.get("/readyz")[0] == 200
        assert states.contents(running.state_dir) == before, seconds
        clock.jump(0)
        wait_for(lambda: issuing(witness) == "OK")
        witness.check()
    assert states.contents(running.state_dir) == before


@pytest.mark.parametrize("seconds", [-HOUR, -TEN_YEARS])
def test_start_with_a_clock_that_is_behind_changes_nothing(
    seconds: int, clock: Clock, rotated: tuple[RunningSidecar, Witness]
) -> None:
    running, witness = rotated
    running.stop()
    before = states.contents(running.state_dir)
    clock.jump(seconds)
    run(running)
    time.sleep(DUTIES_SECONDS)
    assert states.contents(running.state_dir) == before, running.log()
    clock.jump(0)
    running.stop()
    run(running)
    witness.connect()
    witness.check()
    assert states.contents(running.state_dir) == before


@pytest.mark.parametrize("seconds", [HOUR, TEN_YEARS])
def test_clock_that_is_set_right_after_the_first_start_needs_one_more_start_at_most(
    seconds: int, clock: Clock, new_sidecar: NewSidecar, new_witness: NewWitness
) -> None:
    """A machine that learns the time only after the sidecar began."""
    running = new_sidecar(CONFIG, clock.env)
    clock.jump(-seconds)
    run(running)
    witness = new_witness(running)
    assert issuing(witness) == "OK"
    clock.jump(0)
    wait_for(lambda: issuing(witness) == "STATE_STALE")
    running.stop()
    run(running)
    witness.connect()
    witness.check()
