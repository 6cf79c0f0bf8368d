"""A long history: `python -m tests.history --seconds 600 --store sqlite`. Exits with 1 if a promise was not kept."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter

from tests.history.run import STORES, lived, told

SPAN = 60.0  # seconds of one history: a checker looks at it whole


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.history", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--store", choices=sorted(STORES), default="sqlite")
    parser.add_argument("--sidecars", type=int, default=3)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    end, seed, calls, faults = time.monotonic() + given.seconds, given.seed, Counter[str](), Counter[str]()
    violated: list[str] = []
    while time.monotonic() < end and not violated:
        with STORES[given.store](given.sidecars) as (stage, breaking):
            history, violated = lived(stage, min(SPAN, end - time.monotonic()), seed, breaking)
            faults.update(word.split()[0] for word in stage.done)
        for verb, counts in told(history).items():
            calls.update({f"{verb} {outcome}": count for outcome, count in counts.items()})
        print(
            f"seed {seed}: {len(history.calls)} calls, {len(stage.done)} faults, {len(violated)} violations", flush=True
        )
        seed += 1
    print(json.dumps({"calls": dict(sorted(calls.items())), "faults": dict(sorted(faults.items()))}, indent=1))
    for line in violated[:10]:
        print(line)
    return 1 if violated else 0


if __name__ == "__main__":
    sys.exit(main())
