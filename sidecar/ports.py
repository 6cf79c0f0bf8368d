"""What the core needs from outside, as small as it can be: a store of documents, a ledger of ended tokens, a KMS of two methods, clocks.

Errors: a store and a ledger raise `UnavailableStoreError`, a KMS `UnavailableKmsError`; nothing else may come out of them, but a
`DeniedCallerError` from a write without write credentials.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

REVOCATIONS = "tokensidecar-revocations"
"""The name under which `Store.revisions` tells the revocation revision. No profile, and no document, can have it."""


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
        """The revision of every document, in one cheap query; of a store with a `Ledger`, `REVOCATIONS` among them once it is not 0."""
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


@dataclass(frozen=True, slots=True)
class Glance:
    """What `Store.store_id`, `now` and `revisions` would say, all of one moment."""

    store_id: str
    time: float
    revisions: dict[str, int]


@runtime_checkable
class Glancing(Protocol):
    """A store that is asked over a network, and tells in one query what every look for news needs."""

    async def glance(self) -> Glance:
        """Read at one moment, which lies between the call and its return."""
        ...


@dataclass(frozen=True, slots=True)
class Member:
    """A process that uses the store. Times are store time, in seconds since the epoch."""

    instance: str
    role: str
    version: str
    host: str
    since: float = 0.0
    seen: float = 0.0


@runtime_checkable
class Membered(Protocol):
    """A store that can tell who uses it, as far as they said so."""

    async def present(self, member: Member) -> None:
        """Say that this process is there; its times are the store's matter."""
        ...

    async def members(self, seconds: float) -> tuple[Member, ...]:
        """Who said so within so many seconds, the oldest first."""
        ...


class Ended(Enum):
    """What a revocation ends."""

    TOKEN = "token"  # noqa: S105 - a kind, not a secret
    """One access token, by `jti`."""
    SUBJECT = "subject"
    """Every token of a subject with `iat` up to a time, and every refresh family begun up to it."""
    FAMILY = "family"
    """A refresh family, and every access token that came from it, by `sid`."""


FOREVER = 2**53
"""`Revocation.before` of a token and of a family: whenever it was issued."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """What is ended, by digest: a ledger holds no claim in the clear. Times are store time, in whole seconds since the epoch.

    `digest`: 16 bytes over kind, profile and id, so that one look-up table serves all kinds. `before`: what was issued later is not
    concerned. `until`: when everything that it concerns has expired everywhere, and it may be forgotten; at most 2^53.
    """

    kind: Ended
    digest: bytes
    before: int
    until: int


@dataclass(frozen=True, slots=True)
class Revocations:
    """A page of them, oldest change first. `revision`: who has taken in this page, and all before it, has seen everything up to there."""

    revision: int
    entries: tuple[Revocation, ...]


class Turn(Enum):
    """What became of a refresh token that was presented."""

    ROTATED = "rotated"
    """It was the current one, and now its successor is."""
    REPEATED = "repeated"
    """It was spent last, within the grace, and its successor is unspent: this answers the same successor again."""
    REUSED = "reused"
    """It was spent before, or nobody knows its successor: the family is revoked now."""
    REVOKED = "revoked"
    """A bar applies, or the family's time is over: nothing was changed."""


@dataclass(frozen=True, slots=True)
class Spending:
    """A refresh token to be spent.

    `family`: the revocation that would end its family; its digest names the family, its `until` is when the family may be forgotten.
    `token`, `successor`: token ids, at most 64 characters of ASCII; the successor's is fresh and random. `first`: the token began the
    family, of which the ledger need not know yet. `bars`: (digest, issued): a held revocation of that digest with `before` >= issued
    forbids it; the family's own digest is among them. `grace`: for how many seconds after its spending the last one may be repeated.
    """

    family: Revocation
    token: str
    successor: str
    first: bool
    bars: Sequence[tuple[bytes, int]]
    grace: float


@dataclass(frozen=True, slots=True)
class Spent:
    """The turn that it took. `successor` and `time` (store time of the rotation, the first one if repeated) of ROTATED and REPEATED alone."""

    turn: Turn
    successor: str = ""
    time: float = 0.0


@runtime_checkable
class Ledger(Protocol):
    """What became of tokens: revoked, consumed, refreshed. A store may have one (SQLite, PostgreSQL) or lack it (a folder, a Secret).

    Each method is one transaction, and atomic against every other one of any member. What it returns is durable: it survives a power cut.
    If it raises, or its task is cancelled, it may have happened or not; to ask again with the same arguments is safe, and tells.
    Time is the store's own, read within the transaction.
    """

    async def revoke(self, revocation: Revocation) -> int:
        """Hold it, at the next revocation revision; gives a revision at which it is held.

        Idempotent: one that is held with the same or later times changes nothing. Of one that is held already the later `before` and the
        later `until` hold, and it moves to the next revision. Revisions become visible in their order: whoever sees one sees all before it.
        """
        ...

    async def revocations(self, after: int, limit: int) -> Revocations:
        """What was held or changed after that revision, at most so many; the last page has the present revision (0: there never was one).

        What has been forgotten is left out. `after` beyond the present revision: an empty page, with the present revision.
        """
        ...

    async def consume(self, token: bytes, request: bytes, until: int) -> bool:
        """Whether this call, or an earlier one with the same non-empty `request`, consumed the token. Both are digests of 16 bytes.

        Of racing calls one gets True, wherever they were made; with the same `request` all of them do. False if `until` has passed: the
        token may have been forgotten. It is remembered until then.
        """
        ...

    async def spend(self, spending: Spending) -> Spent:
        """Spend a refresh token: the bars, then whether it is the family's current one.

        Of racing calls with the same token one gets ROTATED, and the others REPEATED with the same successor and time. Reused: the family's
        revocation is held, at the next revocation revision, before this returns.
        """
        ...

    async def forget(self, limit: int) -> int:
        """Delete what is past its `until`, at most so many of each kind; gives how many. Changes no revision, and may race with anything."""
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
