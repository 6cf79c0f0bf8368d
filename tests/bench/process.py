"""What a sidecar costs that nobody calls: start-up to ready, memory, idle CPU."""

from __future__ import annotations

import statistics
import time
from typing import Any

from tests.bench.load import cpu_seconds, rss_mb
from tests.running import RunningSidecar

STARTS = 5
IDLE_SECONDS = 30


def measure() -> dict[str, Any]:
    """The embedded default. The first start also makes keys and database."""
    sidecar = RunningSidecar()
    try:
        starts = []
        for _ in range(STARTS):
            begun = time.perf_counter()
            sidecar.start()
            sidecar.wait_until_ready()
            starts.append(time.perf_counter() - begun)
            memory = rss_mb(sidecar.process.pid)
            sidecar.stop()
        sidecar.start()
        sidecar.wait_until_ready()
        time.sleep(5)
        before = cpu_seconds(sidecar.process.pid)
        time.sleep(IDLE_SECONDS)
        idle = (cpu_seconds(sidecar.process.pid) - before) / IDLE_SECONDS * 100
        sidecar.stop()
    finally:
        sidecar.kill()
        sidecar.remove()
    return {
        "first_start_s": round(starts[0], 3),
        "start_s": round(statistics.median(starts[1:]), 3),
        "ready_memory_mb": round(memory, 1),
        "idle_cpu_percent": round(idle, 3),
    }
