"""This machine's clocks."""

from __future__ import annotations

import time


class SystemClock:
    """The real ones; see `ports.Clock`."""

    def wall(self) -> float:
        """Seconds since the epoch, by a clock that people and NTP may set."""
        return time.time()

    def boot(self) -> float:
        """Seconds since the machine started, by a clock that nobody sets and that goes on while the machine sleeps."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)
