"""The attacker's hour: `python -m tests.attack --seconds 60`, on a machine that does nothing else for the honest client's times to mean something.

Exits with 1 if a token was accepted that must not be, an honest call got a wrong answer, memory passed the pod's limit, or logs grew without bound.
"""

from __future__ import annotations

import argparse
import json
import sys

from tests.attack.attacked import attacked, broken

P99 = 0.05  # seconds: the aim


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.attack", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="at least so long")
    parser.add_argument("--forged", type=int, default=0, help="and until so many forged tokens were sent, as 1000000")
    parser.add_argument("--unknown-kids", type=int, default=0, help="and so many under unknown kids, as 100000")
    parser.add_argument("--longest", type=float, default=7200.0, help="but no longer than so many seconds")
    given = parser.parse_args()
    found = attacked(given.seconds, {"forged": given.forged, "unknown_kids": given.unknown_kids}, given.longest)
    print(json.dumps(found.told(), indent=1))
    violated = broken(found)
    for line in violated:
        print(line)
    p99 = found.wait(0.99)
    print(
        f"the honest client's p99: {p99 * 1000:.1f} ms, {'within' if p99 < P99 else 'over'} the aim of {P99 * 1000:.0f} ms"
    )
    return 1 if violated else 0


if __name__ == "__main__":
    sys.exit(main())
