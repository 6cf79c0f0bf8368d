"""A clock that moves only by hand."""

from __future__ import annotations

START = 1_800_000_000.0


class HandClock:
    """A `ports.Clock`. `pass_time` is time going by; `set_wall` is somebody setting the clock."""

    def __init__(self) -> None:
        self._wall = START
        self._boot = 1000.0

    def wall(self) -> float:
        return self._wall

    def boot(self) -> float:
        return self._boot

    def pass_time(self, seconds: float) -> None:
        self._wall += seconds
        self._boot += seconds

    def set_wall(self, seconds: float) -> None:
        """By so much; negative: back."""
        self._wall += seconds
