"""A million revocations in memory: bytes and CPU time of each, since the machine may do other things too. `python -m tests.bench.denylist`, in a process of its own."""

from __future__ import annotations

import json
import secrets
import sys
import time
from pathlib import Path
from typing import Any

from sidecar.denylist import Denylist
from sidecar.ports import FOREVER, Ended, Revocation
from sidecar.stores.memory import Disk, MemoryStore
from tests.hand_clock import HandClock

ENTRIES = 1_000_000
LOOK_UPS = 100_000
FILE = Path(__file__).with_name("denylist.json")


def resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


def look_up(held: Denylist) -> float:
    """Microseconds that Validate's check of a token without `sid` takes: two look-ups, neither of which hits."""
    names = [secrets.token_urlsafe(16) for _ in range(LOOK_UPS)]
    started = time.process_time()
    for name in names:
        held.revoked("default", token_id=name, subject=name, family="", issued=1)
    return (time.process_time() - started) / LOOK_UPS * 1e6


def measured() -> dict[str, Any]:
    """All figures, to two decimals."""
    held = Denylist(MemoryStore(Disk(HandClock())))
    none = look_up(held)
    digests = secrets.token_bytes(16 * ENTRIES)
    before, started = resident(), time.process_time()
    for at in range(0, len(digests), 16):
        held.add(Revocation(Ended.TOKEN, digests[at : at + 16], FOREVER, 2_000_000_000))
    seconds = time.process_time() - started
    took = (resident() - before) / ENTRIES
    assert held.held == ENTRIES
    many = look_up(held)
    started = time.process_time()
    held.sweep(0.0)
    swept = (time.process_time() - started) * 1e3
    return {
        "entries": ENTRIES,
        "bytes_per_entry": round(took, 2),
        "us_per_added_entry": round(seconds / ENTRIES * 1e6, 2),
        "us_per_check_of_a_token": round(many, 2),
        "us_per_check_without_any": round(none, 2),
        "ms_per_look_for_what_is_over": round(swept, 2),
    }


def main() -> int:
    """Measure, print and keep."""
    figures = measured()
    FILE.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
