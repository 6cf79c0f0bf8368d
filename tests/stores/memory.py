"""The store in memory, with hooks to break it by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sidecar.stores import memory

if TYPE_CHECKING:
    from sidecar.ports import Clock


class Disk(memory.Disk):
    """Counts, and may be hooked into."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.store_id = "a" * 32
        self.calls = 0
        self.scrubs = 0
        self.before_save: Callable[[], None] | None = None  # once
        self.before_now: Callable[[], None] | None = None  # once

    def answer(self) -> None:
        self.calls += 1
        super().answer()


class MemoryStore(memory.MemoryStore):
    disk: Disk

    async def now(self) -> float:
        if hook := self.disk.before_now:
            self.disk.before_now = None
            hook()
        return await super().now()

    async def save(self, name: str, content: bytes, *, expected: int) -> bool:
        if self.writable and not self.disk.down and (hook := self.disk.before_save):
            self.disk.before_save = None
            hook()
        return await super().save(name, content, expected=expected)

    async def scrub(self) -> None:
        await super().scrub()
        self.disk.scrubs += 1
