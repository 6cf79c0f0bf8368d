"""Store time where the store has no clock of its own: that of the keeper, which is what a folder or a Secret can pass on.

Rules:
 1. The wall clock is read once, at the start, together with the boot-time clock; from there on time goes on by the boot-time clock. A
    wall clock that is set later is therefore seen as a skew, by a reader and by the keeper alike, and changes nothing.
 2. Store time never lies before what the keeper wrote last: a machine that starts with a clock behind that sees the skew.
 3. A reader whose clock is ahead at its start is not noticed: what it reads may be minutes old, or days if the keeper is down. Clocks
    are assumed to be synchronised; so is the keeper's, by which everybody goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sidecar.ports import Clock

_TRIES = 5


class StoreTime:
    """A wall-clock reading that goes on by the boot-time clock. Seconds since the epoch."""

    def __init__(self, clock: Clock) -> None:
        """Reads both clocks."""
        self._clock = clock
        # Between the two readings the process may lose the processor: the closest pair of a few is taken.
        pairs = [(clock.boot(), clock.wall(), clock.boot()) for _ in range(_TRIES)]
        before, wall, after = min(pairs, key=lambda pair: pair[2] - pair[0])
        self._offset = wall - (before + after) / 2

    def now(self) -> float:
        """What this machine takes for store time, before anything that was read."""
        return self._clock.boot() + self._offset
