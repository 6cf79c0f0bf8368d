"""A store in memory: works as a real one does, shared by any number of members, and can be broken by hand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from sidecar.errors import DeniedCallerError, UnavailableStoreError
from sidecar.ports import Clock, Document


class Disk:
    """What the members share."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.store_id = "a" * 32
        self.documents: dict[str, Document] = {}
        self.offset = clock.wall() - clock.boot()
        self.members: set[MemoryStore] = set()
        self.calls = 0
        self.scrubs = 0
        self.down = False
        self.before_save: Callable[[], None] | None = None  # once

    def answer(self) -> None:
        self.calls += 1
        if self.down:
            raise UnavailableStoreError("down, by hand")


class MemoryStore:
    """A `ports.Store`."""

    private = True

    def __init__(self, disk: Disk, *, writable: bool = True) -> None:
        self.disk = disk
        self.writable = writable
        disk.members.add(self)

    async def store_id(self) -> str:
        await self._answer()
        return self.disk.store_id

    async def now(self) -> float:
        await self._answer()
        return self.disk.offset + self.disk.clock.boot()

    async def revisions(self) -> dict[str, int]:
        await self._answer()
        return {name: document.revision for name, document in self.disk.documents.items()}

    async def load(self, name: str) -> Document | None:
        await self._answer()
        return self.disk.documents.get(name)

    async def save(self, name: str, content: bytes, *, expected: int) -> bool:
        if not self.writable:
            raise DeniedCallerError("read-only, by hand")
        await self._answer()
        if hook := self.disk.before_save:
            self.disk.before_save = None
            hook()
        found = self.disk.documents.get(name)
        if (found.revision if found else 0) != expected:
            return False
        self.disk.documents[name] = Document(expected + 1, content)
        return True

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        await self._answer()
        yield self.disk.members == {self}

    async def scrub(self) -> None:
        await self._answer()
        self.disk.scrubs += 1

    async def close(self) -> None:
        self.disk.members.discard(self)

    async def _answer(self) -> None:
        await asyncio.sleep(0)  # as every real one does
        self.disk.answer()
