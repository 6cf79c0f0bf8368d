"""Many runs of the simulated fleet: `python -m tests.model --runs 10000 --seed 1`. Exits with 1 and the shortest trace on a violation."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from typing import Self

from tests.model.mutations import MUTATIONS
from tests.model.parts import part_of
from tests.model.scenario import scenario
from tests.model.shrink import shrunk, told

CHUNK = 20


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the others follow")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--mutation", choices=sorted(MUTATIONS), help="break this rule, and see it found (in one process)"
    )
    given = parser.parse_args()
    if given.mutation:
        with MUTATIONS[given.mutation]():
            return _run(given.runs, given.seed, 1)
    return _run(given.runs, given.seed, given.jobs)


def _run(runs: int, first: int, jobs: int) -> int:
    seeds = [range(at, min(at + CHUNK, first + runs)) for at in range(first, first + runs, CHUNK)]
    began, done, steps, counts = time.monotonic(), 0, 0, Counter[str]()
    violated: list[tuple[int, str, str]] = []
    with multiprocessing.get_context("spawn").Pool(jobs) if jobs > 1 else _Here() as pool:
        for part in pool.imap(part_of, seeds):
            done, steps = done + part.runs, steps + part.steps
            counts.update(part.counts)
            violated += part.violated
            _progress(done, runs, time.monotonic() - began)
            if violated:
                break
    seconds = time.monotonic() - began
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(
        f"{done} runs from seed {first} in {seconds:.0f} s, {done / seconds:.1f} runs/s, {steps / seconds:,.0f} steps/s; "
        f"{counts['rings']:,} rings stored, {counts['destroyed']:,} keys destroyed, {counts['revoked']:,} revocations, "
        f"{counts['issued']:,} tokens made, {counts['validate OK']:,} times accepted; violations: {len(violated)}"
    )
    for seed, rule, words in violated[:1]:
        print(f"\nseed {seed} violates {rule}: {words}\nthe shortest trace found:")
        short = shrunk(scenario(seed), rule)
        print("\n".join(told(short)))
    return 1 if violated else 0


class _Here:
    """A pool of this process."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    imap = staticmethod(map)


def _progress(done: int, runs: int, seconds: float) -> None:
    line = f"{done}/{runs} runs, {seconds:.0f} s, about {seconds / done * (runs - done):.0f} s to go"
    if sys.stderr.isatty():
        print(f"\r{line:<60}", end="", file=sys.stderr, flush=True)
    elif done == runs or done % (10 * CHUNK) == 0:
        print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
