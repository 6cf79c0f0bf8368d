"""Some runs, one after another: what one process does of many."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from tests.model.fleet import simulate
from tests.model.scenario import scenario


@dataclass(frozen=True, slots=True)
class Part:
    """What some runs came to."""

    runs: int
    steps: int
    counts: Counter[str]
    violated: tuple[tuple[int, str, str], ...]  # seed, rule, words


def part_of(seeds: range) -> Part:
    """The runs of these seeds."""
    steps, counts, violated = 0, Counter[str](), []
    for seed in seeds:
        result = simulate(scenario(seed))
        steps += result.steps
        counts.update(result.counts)
        violated += [(seed, v.rule, v.words) for v in result.violations[:1]]
    return Part(len(seeds), steps, counts, tuple(violated))
