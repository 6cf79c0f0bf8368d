"""`make bench`: figures into results.json, pictures beside it, tables into tests/README.md. `python -m tests.bench calls latency` runs some parts only.

The server is pinned to one core and the load (h2load) to another. Everything that a default start has is on: policy, audit, metrics, logs.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc

from tests.bench import calls, inprocess, latency, plot, process, scale, tables

HERE = Path(__file__).parent
PARTS = {
    "process": process.measure,
    "calls": calls.measure,
    "latency": latency.measure,
    "scale": scale.measure,
    "inprocess": inprocess.measure,
}


def main() -> int:
    """Measure the parts that are asked for, keep what others have measured, draw."""
    for tool in ("h2load", "taskset"):
        if not shutil.which(tool):
            print(f"NOT RUN: benchmarks need {tool}", file=sys.stderr)
            return 1
    file = HERE / "results.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for name in sys.argv[1:] or PARTS:
        print(f"-- {name}", file=sys.stderr)
        results[name] = {
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "command": f"python -m tests.bench {name}",
            "python": platform.python_version(),
            "grpcio": grpc.__version__,
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            **PARTS[name](),
        }
        file.write_text(json.dumps(results, indent=1) + "\n")
    plot.draw(results, HERE)
    tables.write(results)
    return 0


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
