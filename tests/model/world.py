"""What the sidecars of one run share, and what stands between: one store, a line to it for each machine, clocks that are not right."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

from sidecar.errors import DeniedCallerError, UnavailableStoreError
from sidecar.pins import Pin, Pins
from sidecar.ports import Document
from sidecar.stores.store_time import StoreTime
from tests.model.checker import Checker
from tests.model.engine import Sealed
from tests.model.loop import VirtualLoop
from tests.model.scenario import Kind, Machine

_T = TypeVar("_T")
STORE_ID = "a" * 32


class MachineClock:
    """A `ports.Clock`: so much ahead, so much too fast, and now and then set by somebody."""

    def __init__(self, loop: VirtualLoop, skew: float, drift: float, boot: float) -> None:
        self._loop = loop
        self._start = loop.time()
        self._skew, self._rate, self._boot = skew, 1.0 + drift, boot
        self.jump = 0.0

    def wall(self) -> float:
        return self._start + (self._loop.time() - self._start) * self._rate + self._skew + self.jump

    def boot(self) -> float:
        return self._boot + (self._loop.time() - self._start) * self._rate


class Line:
    """How a machine reaches the store."""

    def __init__(self) -> None:
        self.cut = ""  # what is lost: "request" or "reply"; nothing if empty
        self.slow = 0.0  # seconds that either way may take; beside the ordinary ones


class Shared:
    """The store itself: every version of every document, with the time of its commit."""

    def __init__(self, loop: VirtualLoop, checker: Checker) -> None:
        self.loop = loop
        self.checker = checker
        self.times: dict[str, list[float]] = {}
        self.documents: dict[str, list[Document]] = {}
        self.members: set[ModelStore] = set()
        self.taken: ModelStore | None = None  # by who is alone, until it is done
        self.calls = 0

    def at(self, name: str, time: float) -> Document | None:
        """The document as it was then."""
        index = bisect.bisect_right(self.times.get(name, []), time)
        return self.documents[name][index - 1] if index else None

    def commit(self, name: str, content: bytes, expected: int) -> bool:
        now = self.loop.time()
        before = self.at(name, now)
        if (before.revision if before else 0) != expected:
            return False
        after = Document(expected + 1, content)
        self.times.setdefault(name, []).append(now)
        self.documents.setdefault(name, []).append(after)
        self.checker.committed(name, before, after, now)
        return True


class ModelStore:
    """A `ports.Store`, as one process sees it."""

    def __init__(
        self,
        shared: Shared,
        kind: Kind,
        machine: Machine,
        clock: MachineClock,
        line: Line,
        rng: random.Random,
        *,
        writable: bool,
    ) -> None:
        self.private = kind is Kind.LOCAL
        self.writable = writable
        self._shared, self._kind, self._machine, self._line, self._rng = shared, kind, machine, line, rng
        self._time = StoreTime(clock) if kind is Kind.MOUNTED else None
        self._mounted = kind is Kind.MOUNTED and not machine.keeper
        shared.members.add(self)

    async def store_id(self) -> str:
        await self._there()
        return STORE_ID

    async def now(self) -> float:
        await self._there()
        if self._time is None:
            now = self._shared.loop.time()
        else:
            now = max(self._time.now(), *(times[-1] for times in self._written()))
        await self._back()
        return now

    async def revisions(self) -> dict[str, int]:
        found = await self._read(lambda time: {name: self._shared.at(name, time) for name in self._shared.documents})
        return {name: document.revision for name, document in found.items() if document}

    async def load(self, name: str) -> Document | None:
        return await self._read(lambda time: self._shared.at(name, time))

    async def save(self, name: str, content: bytes, *, expected: int) -> bool:
        if not self.writable:
            raise DeniedCallerError("read-only, by the model")
        loop = self._shared.loop
        if self._time is not None and isinstance(content, Sealed):
            content.written = max(self._time.now(), *(times[-1] for times in self._written()))
        if self._line.cut == "request" or self._rng.random() < self._machine.unreliable / 2:
            await loop.sleep(1.0)
            raise UnavailableStoreError("the request was lost, by the model")
        # What is on its way to the store arrives, whatever becomes of who sent it.
        arrived: asyncio.Future[bool] = loop.create_future()
        loop.at(loop.time() + self._delay(), self._arrive, arrived, name, content, expected)
        saved = await arrived
        await self._back()
        return saved

    def _arrive(self, arrived: asyncio.Future[bool], name: str, content: bytes, expected: int) -> None:
        saved = self._shared.commit(name, content, expected)
        if not arrived.done():
            arrived.set_result(saved)

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        shared = self._shared
        if not self.private or shared.members != {self} or shared.taken:
            yield False
            return
        shared.taken = self
        try:
            yield True
        finally:
            shared.taken = None

    async def scrub(self) -> None:
        await self._there()
        await self._back()

    async def close(self) -> None:
        self.gone()

    def gone(self) -> None:
        """The process has ended, in whatever way."""
        self._shared.members.discard(self)

    # The line

    async def _read(self, look: Callable[[float], _T]) -> _T:
        await self._there()
        found = look(self._shown())
        await self._back()
        return found

    def _shown(self) -> float:
        """The time of which this machine sees the store. A kubelet renews a mount at intervals, and from a cache."""
        now = self._shared.loop.time()
        if not self._mounted:
            return now - (self._machine.behind if self._machine.behind and self._rng.random() < 0.2 else 0.0)
        period, lag = self._machine.renewal, self._machine.lag
        return now - (now + self._machine.number * 1.7) % period - lag

    def _written(self) -> Iterator[list[float]]:
        """The times that writers gave to what is shown here."""
        yield [0.0]
        for name in self._shared.documents:
            document = self._shared.at(name, self._shown())
            if document is not None:
                yield [document.content.written if isinstance(document.content, Sealed) else 0.0]

    async def _there(self) -> None:
        self._shared.calls += 1
        if self._mounted:
            return  # a folder
        if self._line.cut or (self._machine.unreliable and self._rng.random() < self._machine.unreliable):
            await self._shared.loop.sleep(1.0)
            raise UnavailableStoreError("lost, by the model")
        if delay := self._delay():
            await self._shared.loop.sleep(delay)

    async def _back(self) -> None:
        if self._mounted:
            return
        if self._line.cut == "reply" or (
            self._machine.unreliable and self._rng.random() < self._machine.unreliable / 4
        ):
            await self._shared.loop.sleep(1.0)
            raise UnavailableStoreError("the reply was lost, by the model")
        if delay := self._delay():
            await self._shared.loop.sleep(delay)

    def _delay(self) -> float:
        """Seconds of one way; mostly too few to matter."""
        draw = self._rng.random()
        if self._line.slow:
            return draw * self._line.slow
        return (
            0.0 if draw < self._machine.prompt else (1.0 - draw) * self._machine.latency / (1.0 - self._machine.prompt)
        )


class _File:
    """Where a machine keeps its pins: stands for the path, and holds what would be in it."""

    def __init__(self) -> None:
        self.content: tuple[str, dict[str, Pin]] | None = None

    def exists(self) -> bool:
        return self.content is not None


class DiskPins(Pins):
    """Pins with a disk that outlives the process; what is merged, and when, is the real thing."""

    def __init__(self, file: _File) -> None:
        super().__init__(None)
        self._path: Any = file

    def _read(self) -> tuple[str, dict[str, Pin]] | None:
        if self._path.content is None:
            raise FileNotFoundError
        store_id, rings = self._path.content
        return store_id, dict(rings)

    def _put(self, store_id: str, rings: Any) -> None:
        self._path.content = (store_id, dict(rings))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        yield


def disk() -> _File:
    """An empty one."""
    return _File()
