"""Rates: so many items in so much time, held by a token bucket (RFC 3290, section 5.1.3.1, is one of many descriptions)."""

from __future__ import annotations

import re
from dataclasses import dataclass

PATTERN = r"[1-9][0-9]{0,8}/(?:s|m|h)"
_SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Rate:
    """`items` in `seconds`, and as many at once."""

    items: int
    seconds: int

    @classmethod
    def parsed(cls, text: str) -> Rate:
        """From "100/s", "600/m" or "1000/h". ValueError: a sentence that says what it must be."""
        if not isinstance(text, str) or not re.fullmatch(PATTERN, text):
            raise ValueError('must be a rate such as "100/s", "600/m" or "1000/h"')
        items, _, unit = text.partition("/")
        return cls(int(items), _SECONDS[unit])

    def __str__(self) -> str:
        """As the config file spells it."""
        return f"{self.items}/{next(unit for unit, seconds in _SECONDS.items() if seconds == self.seconds)}"


class Bucket:
    """One rate being kept. Times are seconds of any clock that does not step back."""

    __slots__ = ("_at", "_left", "rate")

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate = rate
        self._left = float(rate.items)
        self._at = now

    def wait(self, items: int, now: float) -> float:
        """Seconds until so many may pass; 0: now. More than the rate has at once may pass when the bucket is full."""
        rate = self.rate
        self._left = min(rate.items, self._left + max(0.0, now - self._at) * rate.items / rate.seconds)
        self._at = now
        short = min(items, rate.items) - self._left
        return short * rate.seconds / rate.items if short > 1e-9 else 0.0

    def take(self, items: int) -> None:
        """Let them pass, right after `wait` said 0. What is more than the rate has at once is owed, and waited for by the next."""
        self._left -= items
