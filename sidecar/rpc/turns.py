"""Whose turn it is, among batches: one slice of batch work per turn of the event loop, however many batches there are.

If each of them just let go of the loop after its slice, a call beside sixty batches would wait for sixty slices at each of its own few
steps: seconds instead of milliseconds.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """First come, first served. Who waits for something else meanwhile, such as the store, holds nobody up."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._granting = False

    async def next(self) -> None:
        """Return when it is this task's turn."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.append(turn)
        if not self._granting:
            self._granting = True
            loop.call_soon(self._grant, loop)
        await turn

    def _grant(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # a task that was cancelled waits no more
                turn.set_result(None)
                break
        self._granting = bool(self._waiting)
        if self._granting:
            loop.call_soon(self._grant, loop)
