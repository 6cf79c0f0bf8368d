"""An event loop of virtual time: what asyncio needs of one, and nothing that waits. Same seed, same order, whatever the machine."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any


class VirtualLoop(asyncio.AbstractEventLoop):
    """Time stands still while anything is ready, then jumps to the next timer. Threads are not used: their work is done at once."""

    def __init__(self, start: float) -> None:
        self._now = start
        self._ready: deque[tuple[Callable[..., object], tuple[Any, ...], Context | None]] = deque()
        self._timers: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._order = itertools.count()
        self.steps = 0
        self.stopped = False
        self.errors: list[str] = []  # what asyncio complains about: a task that died unseen

    def drive(self, until: float) -> None:
        """Run whatever is due up to that time, and be there then; or until `stopped`."""
        ready, timers = self._ready, self._timers
        asyncio._set_running_loop(self)
        try:
            while not self.stopped:
                while ready:
                    callback, args, context = ready.popleft()
                    self.steps += 1
                    if context is None:
                        callback(*args)
                    else:
                        context.run(callback, *args)
                if not timers or timers[0][0] > until:
                    self._now = max(self._now, until)
                    return
                when, _, callback, args = heapq.heappop(timers)
                self._now = max(self._now, when)
                callback(*args)
        finally:
            asyncio._set_running_loop(None)

    def sleep(self, seconds: float) -> asyncio.Future[None]:
        """A future that is done then."""
        future: asyncio.Future[None] = asyncio.Future(loop=self)
        self.at(self._now + seconds, _wake, future)
        return future

    def at(self, when: float, callback: Callable[..., object], *args: Any) -> None:
        """Call at that time, in the order of asking where several are due."""
        heapq.heappush(self._timers, (when, next(self._order), callback, args))

    # What asyncio asks a loop for

    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Any:
        self._ready.append((callback, args, context))

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self, name=name or "task", context=context)

    def run_in_executor(self, _: Any, func: Callable[..., Any], *args: Any) -> Any:
        future: asyncio.Future[Any] = asyncio.Future(loop=self)
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - carried to who awaits it, as a thread would
            future.set_exception(error)
        return future

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(f"{context.get('message')}: {context.get('exception')!r}")


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
