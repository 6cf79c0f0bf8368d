"""Revocations in memory, fed by the ledger: what Validate and Issue look up without asking anybody.

Rules (keys.md, 15):
 1. An id becomes a digest at the door (`digest_of`): 16 bytes of SHA-256 over kind, profile and id. Nothing here is a claim in the clear.
 2. Entries lie in 1,024 sorted arrays, 16 bytes each, and no object for any of them: a million are 16 MB. 74 bits of the digest tell
    them apart, so that of 10^15 good tokens about one is refused beside a million revocations.
 3. What is held is never forgotten before its `until`, also if the ledger should go back to an older state.
 4. `revision` is how far the ledger was read: everything up to there is held.
"""

from __future__ import annotations

import asyncio
import hashlib
from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING

from sidecar.logs import get_logger
from sidecar.ports import Ended, Revocation

if TYPE_CHECKING:
    from sidecar.ports import Ledger

PAGE = 2000  # entries that are read at once, and taken in before others get their turn
SHARDS = 1024
SHARDS_SWEPT = 64  # at each look for news
_END = 2**32 - 1  # seconds since the epoch, in 2106; later is for ever

_log = get_logger()


def digest_of(kind: Ended, profile: str, name: str) -> bytes:
    """By what a ledger knows it. No profile's name has a NUL."""
    return hashlib.sha256(f"{kind.value}\0{profile}\0{name}".encode()).digest()[:16]


class _Shard:
    """Entries whose digests begin with the same ten bits: the next 64 bits, sorted, with the times of each."""

    __slots__ = ("before", "keys", "until")

    def __init__(self) -> None:
        self.keys, self.before, self.until = array("Q"), array("I"), array("I")


class Denylist:
    """All that is revoked. Times are store time, in seconds since the epoch."""

    def __init__(self, ledger: Ledger) -> None:
        """Empty; `catch_up` fills it."""
        self._ledger = ledger
        self._shards = [_Shard() for _ in range(SHARDS)]
        self._swept = 0
        self.revision = 0
        self.newest = b""  # digest of the last one that was read; empty: none was, or the ledger went back
        self.held = 0

    async def catch_up(self) -> None:
        """Take in what the ledger has that is not held yet. Raises `UnavailableStoreError`; what was taken in by then stays."""
        while True:
            page = await self._ledger.revocations(self.revision, PAGE)
            for entry in page.entries:
                self.add(entry)
            if page.revision < self.revision:
                _log.error("revocations.rolled_back", revocation_revision=page.revision, known=self.revision)
                self.newest = b""
            if page.entries:
                self.newest = page.entries[-1].digest
            self.revision = page.revision
            if len(page.entries) < PAGE:
                return
            await asyncio.sleep(0)

    def add(self, entry: Revocation) -> None:
        """Hold it from now on. Of one that is held the later times hold."""
        shard, key = self._place(entry.digest)
        before, until = min(entry.before, _END), min(entry.until, _END)
        at = bisect_left(shard.keys, key)
        if at < len(shard.keys) and shard.keys[at] == key:
            shard.before[at], shard.until[at] = max(shard.before[at], before), max(shard.until[at], until)
            return
        shard.keys.insert(at, key)
        shard.before.insert(at, before)
        shard.until.insert(at, until)
        self.held += 1

    def before(self, kind: Ended, profile: str, name: str) -> int:
        """Up to which `iat` what has this name is revoked; -1: it is not."""
        if not self.held:
            return -1
        shard, key = self._place(digest_of(kind, profile, name))
        at = bisect_left(shard.keys, key)
        return shard.before[at] if at < len(shard.keys) and shard.keys[at] == key else -1

    def revoked(self, profile: str, *, token_id: str, subject: str, family: str, issued: int) -> bool:
        """Whether a token is: by its id, its subject or its family. An empty family: it has none."""
        if not self.held:
            return False
        return (
            self.before(Ended.TOKEN, profile, token_id) >= 0
            or self.before(Ended.SUBJECT, profile, subject) >= issued
            or (family != "" and self.before(Ended.FAMILY, profile, family) >= 0)
        )

    def sweep(self, now: float) -> None:
        """Forget what is past its time, in the next few shards."""
        for _ in range(SHARDS_SWEPT):
            shard = self._shards[self._swept]
            self._swept = (self._swept + 1) % SHARDS
            kept = [at for at, until in enumerate(shard.until) if until > now]
            if len(kept) < len(shard.until):
                self.held -= len(shard.until) - len(kept)
                shard.keys = array("Q", [shard.keys[at] for at in kept])
                shard.before = array("I", [shard.before[at] for at in kept])
                shard.until = array("I", [shard.until[at] for at in kept])

    def _place(self, digest: bytes) -> tuple[_Shard, int]:
        number = int.from_bytes(digest[:10])
        return self._shards[number >> 70], (number >> 6) & (2**64 - 1)
