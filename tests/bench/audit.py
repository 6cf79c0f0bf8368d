"""`python -m tests.bench.audit`: what a required audit file costs Issue, at 64 concurrent callers.

Two sidecars on one core, the load (h2load) on another; rounds alternate between them. "without" has the default, standard output that
nobody waits for. The file is where TMPDIR is: name a real disk, if that is memory.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
from typing import Any

from tokensidecar.v1 import token_service_pb2 as pb

from tests.bench.calls import CLAIMS
from tests.bench.load import CONNECTIONS, SERVER_CORE, STREAMS, answered, closed, cpu_seconds
from tests.running import SERVE, RunningSidecar

ROUNDS = 7
CALLS = 4_000
PROFILE = """
[profiles.default]
issuer = "https://tokens.example.com"
audiences = ["orders"]
"""


def measure() -> dict[str, Any]:
    """Medians over the rounds; `ratio` is that of the rounds' own ratios. `cpu_us`: of the server's processor, a call."""
    ask = pb.IssueRequest(subject="user-42", audiences=["orders"], claims_json=json.dumps(CLAIMS)).SerializeToString()
    command = ["taskset", "-c", SERVER_CORE, *SERVE]
    rates: dict[str, list[float]] = {"without": [], "required": []}
    spent: dict[str, list[float]] = {"without": [], "required": []}
    late: dict[str, list[float]] = {"without": [], "required": []}
    with tempfile.TemporaryDirectory() as folder:
        file = f'{PROFILE}\n[audit]\nsink = "file:{folder}/audit.jsonl"\nrequired = true\n'
        with RunningSidecar(PROFILE, None, command) as without, RunningSidecar(file, None, command) as required:
            for _ in range(ROUNDS):
                for name, sidecar in (("without", without), ("required", required)):
                    before, used = answered(sidecar, "Issue"), cpu_seconds(sidecar.process.pid)
                    loaded = closed(sidecar.app_tcp, "/tokensidecar.v1.TokenService/Issue", ask, CALLS)
                    if answered(sidecar, "Issue") - before < CALLS:
                        raise RuntimeError(f"{name}: not every call was answered OK")
                    spent[name].append((cpu_seconds(sidecar.process.pid) - used) / CALLS * 1e6)
                    rates[name].append(loaded.rate)
                    late[name].append(loaded.p99)
    ratios = [b / a for a, b in zip(rates["without"], rates["required"], strict=True)]
    return {
        "load": f"h2load, {CONNECTIONS} connections x {STREAMS} streams, TCP loopback, {ROUNDS} rounds of {CALLS} calls",
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        **{f"{name}_per_second": round(statistics.median(values)) for name, values in rates.items()},
        **{f"{name}_cpu_us": round(statistics.median(values)) for name, values in spent.items()},
        **{f"{name}_p99_ms": statistics.median(values) for name, values in late.items()},
    }


def main() -> int:
    """Measure and print."""
    for tool in ("h2load", "taskset"):
        if not shutil.which(tool):
            print(f"NOT RUN: benchmarks need {tool}", file=sys.stderr)
            return 1
    print(json.dumps(measure(), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
