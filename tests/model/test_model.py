"""Fifty sidecars, simulated: the rules of keys.md hold in every run, and a rule that is broken is noticed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from itertools import count

import pytest

from tests.model.fleet import simulate
from tests.model.mutations import MUTATIONS
from tests.model.scenario import MACHINES, scenario
from tests.model.shrink import shrunk, told
from tests.running import ROOT

RUNS = 250
ENOUGH = 400  # runs in which each broken rule is found
FIRST = 1


@pytest.mark.timeout(600)  # a busy machine
def test_every_rule_holds_in_every_run() -> None:
    counts = Counter[str]()
    for seed in range(FIRST, FIRST + RUNS):
        result = simulate(scenario(seed))
        if result.violations:
            rule = result.violations[0].rule
            pytest.fail(
                f"seed {seed} violates {result.violations[0]}\n" + "\n".join(told(shrunk(scenario(seed), rule)))
            )
        counts.update(result.counts)
    # That nothing was violated says little where nothing happened.
    assert counts["issued"] > 30 * RUNS
    assert counts["validate OK"] > 100 * RUNS
    assert counts["destroyed"] > RUNS
    assert counts["revoked"] > RUNS / 4
    assert min(counts["validate STATE_STALE"], counts["issue STATE_STALE"]) > RUNS


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_broken_rule_is_found(mutation: str) -> None:
    with MUTATIONS[mutation]():
        assert any(simulate(scenario(seed)).violations for seed in range(FIRST, FIRST + ENOUGH))


def test_same_seed_is_the_same_run_whatever_the_hash_seed() -> None:
    seed = next(seed for seed in count(FIRST) if len(scenario(seed).machines) == MACHINES)
    program = f"import hashlib; from tests.model.fleet import simulate; from tests.model.scenario import scenario; print(hashlib.sha256(repr(simulate(scenario({seed}), tracing=True).trace).encode()).hexdigest())"
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(found) == 1


def test_trace_of_a_violation_is_short_and_ends_with_it() -> None:
    with MUTATIONS["successors pile up"]():
        seed = next(seed for seed in count(FIRST) if simulate(scenario(seed)).violations)
        found = scenario(seed)
        rule = simulate(found).violations[0].rule
        short = shrunk(found, rule)
        trace = told(short)
    assert len(short.events) < len(found.events) / 2
    assert f"VIOLATED {rule}" in trace[-1]
