"""What the sidecar needs of tracing. Without `[traces]` there is none: nothing is imported, and a call pays for one comparison with None.

A span says which method, for whom, about which configured profile, and how it ended. Never a token, a claim, or an exception's text.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Protocol

Metadata = Iterable[tuple[str, str | bytes]]


class UnavailableTracesError(Exception):
    """Traces are configured and cannot be had; the text says why and what to do."""


class Traces(Protocol):
    """Makes spans and sends them off. Nothing here waits or raises."""

    def call(self, method: str, metadata: Metadata) -> AbstractContextManager[None]:
        """A span around a call of "SERVICE/METHOD", or of the door that has but one, under the caller's own if the metadata names one (W3C Trace Context)."""
        ...

    def answered(self, code: str, reason: str, **facts: str) -> None:
        """Say in the span of this call how it ended: the gRPC code, the contract's reason, and further facts."""
        ...

    def step(self, name: str) -> AbstractContextManager[None]:
        """A span within that of this call, where there is one."""
        ...

    async def close(self) -> None:
        """Send what waits, in bounded time."""
        ...
