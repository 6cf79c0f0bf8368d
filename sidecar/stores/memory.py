"""A store in memory, for tests and `tokensidecar fake`: works as a real one does, shared by any number of members, gone with them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator

from sidecar.errors import DeniedCallerError, UnavailableStoreError
from sidecar.ports import REVOCATIONS, Clock, Document, Revocation, Revocations, Spending, Spent, Turn


class Disk:
    """What the members share."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.store_id = secrets.token_hex(16)
        self.documents: dict[str, Document] = {}
        self.offset = clock.wall() - clock.boot()
        self.members: set[MemoryStore] = set()
        self.down = False
        self.revision = 0
        self.revoked: dict[bytes, tuple[int, Revocation]] = {}
        self.consumed: dict[bytes, tuple[bytes, int]] = {}
        self.families: dict[bytes, tuple[str, str, float, int]] = {}  # current, spent, time, until

    def answer(self) -> None:
        """Every call begins here."""
        if self.down:
            raise UnavailableStoreError("down, by hand")


class MemoryStore:
    """A `ports.Store` with a `ports.Ledger`."""

    private = True

    def __init__(self, disk: Disk, *, writable: bool = True) -> None:
        """A member of those that share the disk."""
        self.disk = disk
        self.writable = writable
        disk.members.add(self)

    async def store_id(self) -> str:
        """See `ports.Store`."""
        await self._answer()
        return self.disk.store_id

    async def now(self) -> float:
        """See `ports.Store`."""
        await self._answer()
        return self.disk.offset + self.disk.clock.boot()

    async def revisions(self) -> dict[str, int]:
        """See `ports.Store`."""
        await self._answer()
        found = {name: document.revision for name, document in self.disk.documents.items()}
        return {**found, REVOCATIONS: self.disk.revision} if self.disk.revision else found

    async def load(self, name: str) -> Document | None:
        """See `ports.Store`."""
        await self._answer()
        return self.disk.documents.get(name)

    async def save(self, name: str, content: bytes, *, expected: int) -> bool:
        """See `ports.Store`."""
        if not self.writable:
            raise DeniedCallerError("read-only, by hand")
        await self._answer()
        found = self.disk.documents.get(name)
        if (found.revision if found else 0) != expected:
            return False
        self.disk.documents[name] = Document(expected + 1, content)
        return True

    async def revoke(self, revocation: Revocation) -> int:
        """See `ports.Ledger`."""
        await self._answer()
        return self._revoke(revocation)

    def _revoke(self, new: Revocation) -> int:
        if found := self.disk.revoked.get(new.digest):
            held = found[1]
            if held.before >= new.before and held.until >= new.until:
                return self.disk.revision
            new = Revocation(new.kind, new.digest, max(held.before, new.before), max(held.until, new.until))
        self.disk.revision += 1
        self.disk.revoked[new.digest] = self.disk.revision, new
        return self.disk.revision

    async def revocations(self, after: int, limit: int) -> Revocations:
        """See `ports.Ledger`."""
        await self._answer()
        found = sorted((one for one in self.disk.revoked.values() if one[0] > after), key=lambda one: one[0])[:limit]
        revision = found[-1][0] if len(found) == limit else self.disk.revision
        return Revocations(revision, tuple(entry for _, entry in found))

    async def consume(self, token: bytes, request: bytes, until: int) -> bool:
        """See `ports.Ledger`."""
        await self._answer()
        if until <= self._now():
            return False
        if token not in self.disk.consumed:
            self.disk.consumed[token] = request, until
            return True
        return bool(request) and self.disk.consumed[token][0] == request

    async def spend(self, spending: Spending) -> Spent:
        """See `ports.Ledger`."""
        await self._answer()
        now, family, held = self._now(), spending.family, self.disk.revoked
        barred = any(digest in held and held[digest][1].before >= issued for digest, issued in spending.bars)
        if barred or family.until <= now:
            return Spent(Turn.REVOKED)
        if row := self.disk.families.get(family.digest):
            current, spent, time, _ = row
            if spending.token == spent and now - time <= spending.grace:
                return Spent(Turn.REPEATED, current, time)
        if not (spending.token == current if row else spending.first):
            self._revoke(family)
            return Spent(Turn.REUSED)
        self.disk.families[family.digest] = spending.successor, spending.token, now, family.until
        return Spent(Turn.ROTATED, spending.successor, now)

    async def forget(self, limit: int) -> int:
        """See `ports.Ledger`."""
        await self._answer()
        now, disk = self._now(), self.disk
        revoked = [key for key, (_, entry) in disk.revoked.items() if entry.until <= now][:limit]
        consumed = [key for key, (_, until) in disk.consumed.items() if until <= now][:limit]
        families = [key for key, (*_, until) in disk.families.items() if until <= now][:limit]
        disk.revoked = {key: value for key, value in disk.revoked.items() if key not in revoked}
        disk.consumed = {key: value for key, value in disk.consumed.items() if key not in consumed}
        disk.families = {key: value for key, value in disk.families.items() if key not in families}
        return len(revoked) + len(consumed) + len(families)

    def _now(self) -> float:
        return self.disk.offset + self.disk.clock.boot()

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        """See `ports.Store`."""
        await self._answer()
        yield self.disk.members == {self}

    async def scrub(self) -> None:
        """See `ports.Store`."""
        await self._answer()

    async def close(self) -> None:
        """See `ports.Store`."""
        self.disk.members.discard(self)

    async def _answer(self) -> None:
        await asyncio.sleep(0)  # as every real one does
        self.disk.answer()
