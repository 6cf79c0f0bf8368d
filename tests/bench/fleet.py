"""`python -m tests.bench.fleet`: ten sidecars on one folder, in figures and a picture.

From a rotation's answer to every sidecar knowing it; what fails under load through a rotation; memory and idle CPU of each sidecar.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import matplotlib as mpl
from tokensidecar.v1 import token_service_pb2 as pb

from tests.bench.__main__ import _cpu
from tests.bench.load import cpu_seconds, rss_mb
from tests.e2e.calls import SECONDS, Plane
from tests.fleet.fleet import Fleet, Load
from tests.running import RunningSidecar

HERE = Path(__file__).parent
SIDECARS = 10
ROTATIONS = 10
IDLE_SECONDS = 20
APART = 8.5  # seconds: until a successor is active, and the next rotation may be
KEYS = {"propagation": "6s", "max_skew": "1s", "max_staleness": "15m", "rotate_every": "24h"}
"""`propagation` is short, or ten rotations would take as many minutes; `refresh_interval` is the default, so that what is measured is how
soon a change is noticed, and no fast poll."""


def main() -> int:
    """Measure, print, write the files."""
    fleet = Fleet(KEYS, {"ttl": "1m", "max_ttl": "5m"})
    try:
        results: dict[str, Any] = {
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "command": "python -m tests.bench.fleet",
            "python": platform.python_version(),
            "grpcio": grpc.__version__,
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "sidecars": SIDECARS,
            **_measure(fleet),
        }
    finally:
        problems = fleet.end()
    if problems:
        print("\n".join(problems), file=sys.stderr)
        return 1
    (HERE / "fleet.json").write_text(json.dumps(results, indent=1) + "\n")
    plot(results, HERE / "fleet.png")
    print(json.dumps({name: value for name, value in results.items() if name != "known_s"}, indent=1))
    return 0


def _measure(fleet: Fleet) -> dict[str, Any]:
    keeper = fleet.keeper()
    roles = [("issuer", "validator")[number % 2] for number in range(SIDECARS)]
    sidecars = [fleet.sidecar(role) for role in roles]
    time.sleep(2)
    idle = _idle(keeper, sidecars)
    known: list[float] = []
    with Load(sidecars[0].app_socket, sidecars[1].app_socket, threads=2) as load:
        for _ in range(ROTATIONS):
            known += rotation(keeper, sidecars)
            time.sleep(APART)
        calls = len(load.key_ids)
    ordered = sorted(known)
    return {
        **idle,
        "rotations": ROTATIONS,
        "known_s": [round(seconds, 3) for seconds in known],
        "known_p50_s": round(statistics.median(ordered), 3),
        "known_p99_s": round(ordered[len(ordered) * 99 // 100], 3),
        "known_max_s": round(ordered[-1], 3),
        "load_tokens": calls,
        "load_failures": len(load.failures),
        "load_keys_seen": len(set(load.key_ids)),
    }


def _idle(keeper: RunningSidecar, sidecars: list[RunningSidecar]) -> dict[str, Any]:
    before = [cpu_seconds(each.process.pid) for each in (keeper, *sidecars)]
    time.sleep(IDLE_SECONDS)
    percent = [
        (cpu_seconds(each.process.pid) - cpu) / IDLE_SECONDS * 100
        for each, cpu in zip((keeper, *sidecars), before, strict=True)
    ]
    memory = [rss_mb(each.process.pid) for each in (keeper, *sidecars)]
    return {
        "keeper_memory_mb": round(memory[0], 1),
        "keeper_idle_cpu_percent": round(percent[0], 2),
        "sidecar_memory_mb": round(statistics.median(memory[1:]), 1),
        "sidecar_memory_max_mb": round(max(memory[1:]), 1),
        "sidecar_idle_cpu_percent": round(statistics.median(percent[1:]), 2),
        "sidecar_idle_cpu_max_percent": round(max(percent[1:]), 2),
    }


def rotation(keeper: RunningSidecar, sidecars: list[RunningSidecar]) -> list[float]:
    """Seconds from the answer to Rotate until each sidecar has the revision, seen by asking them in turn for their public keys."""
    with ExitStack() as stack:
        planes = [stack.enter_context(Plane(each.admin_socket)) for each in sidecars]
        for plane in planes:
            plane.get_jwks(pb.GetJwksRequest(), timeout=SECONDS)  # connected
        admin = stack.enter_context(Plane(keeper.admin_socket))
        rotated = admin.rotate(pb.RotateRequest(), timeout=SECONDS)
        begun = time.perf_counter()
        known: dict[int, float] = {}
        while len(known) < len(planes) and time.perf_counter() - begun < 60:
            for number, plane in enumerate(planes):
                if number in known:
                    continue
                if plane.get_jwks(pb.GetJwksRequest(), timeout=SECONDS).ring_revision >= rotated.ring_revision:
                    known[number] = time.perf_counter() - begun
            time.sleep(0.005)
    if len(known) < len(planes):
        raise RuntimeError("not every sidecar knew of the rotation within a minute")
    return list(known.values())


def plot(results: dict[str, Any], file: Path) -> None:
    """The distribution of the times, and the figures beside it."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, pane = plt.subplots(figsize=(8, 3.8), constrained_layout=True)
    pane.hist(results["known_s"], bins=24, color="#2f6f9f")
    pane.axvline(results["known_p50_s"], color="#c05020", linewidth=1)
    pane.set_xlabel("seconds from Rotate's answer until a sidecar knows the new keys")
    pane.set_ylabel("sidecars")
    pane.spines[["top", "right"]].set_visible(False)
    pane.set_title(
        f"{results['sidecars']} sidecars on one folder, {results['rotations']} rotations: "
        f"median {results['known_p50_s']} s, longest {results['known_max_s']} s\n"
        f"{results['load_tokens']} tokens issued and validated meanwhile, {results['load_failures']} failures; "
        f"{results['sidecar_memory_mb']} MB and {results['sidecar_idle_cpu_percent']} % of a core idle, each",
        fontsize=10,
    )
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
