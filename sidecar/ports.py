"""What the core needs from outside, as small as it can be: a store of documents, a KMS of two methods, clocks.

Errors: a store raises `UnavailableStoreError`, a KMS `UnavailableKmsError`; nothing else may come out of either.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Document:
    """A stored ring: what `sealing` made of it. `revision` counts from 1 and grows by one with each change."""

    revision: int
    content: bytes


class Store(Protocol):
    """Documents by name, each changed by compare-and-set only."""

    private: bool
    """True where only this machine can read it (SQLite)."""

    writable: bool
    """False where this process has no write credentials: then `save` raises `DeniedCallerError`."""

    async def store_id(self) -> str:
        """A random id, made once with the store; another id means another store."""
        ...

    async def now(self) -> float:
        """Store time, in seconds since the epoch. All times in a ring are store time."""
        ...

    async def revisions(self) -> dict[str, int]:
        """The revision of every document, in one cheap query."""
        ...

    async def load(self, name: str) -> Document | None:
        """The document, or None where there is none."""
        ...

    async def save(self, name: str, content: bytes, *, expected: int) -> bool:
        """Write revision `expected + 1` if the present one is `expected` (0: there is none); False, and no change, if not.

        True means durable.
        """
        ...

    def alone(self) -> AbstractAsyncContextManager[bool]:
        """True while no other process uses this store, and none can start to until the context ends; False otherwise."""
        ...

    async def scrub(self) -> None:
        """Leave no bytes of overwritten documents behind, as far as this store can."""
        ...

    async def close(self) -> None:
        """Let go of files and connections."""
        ...


class Kms(Protocol):
    """Wraps and unwraps data keys under a key-encryption key that never leaves it."""

    async def wrap(self, data_key: bytes, context: dict[str, str]) -> bytes:
        """Seal 32 bytes, bound to the context."""
        ...

    async def unwrap(self, wrapped: bytes, context: dict[str, str]) -> bytes:
        """The 32 bytes again. Another context, key or blob: `UnavailableKmsError`."""
        ...


class Clock(Protocol):
    """This machine's clocks, in seconds."""

    def wall(self) -> float:
        """Since the epoch; may jump."""
        ...

    def boot(self) -> float:
        """Since some start; never jumps, and counts suspended time (CLOCK_BOOTTIME)."""
        ...
