"""Commits: work that must not stop half-way because a client went away or its deadline passed (keys.md, rule 12)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from sidecar.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Coroutine

_log = get_logger()

_T = TypeVar("_T")


class Commits:
    """Runs each commit (save, swap in memory, audit outcome) as one task of its own, and knows those that are not done."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, commit: Coroutine[Any, Any, _T]) -> _T:
        """The commit's result. If the caller is cancelled, only its waiting ends: the commit goes on to its end."""
        task = asyncio.create_task(commit)
        self._running.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    async def drain(self) -> None:
        """Wait until no commit is running, those included that start meanwhile."""
        while self._running:
            await asyncio.wait(self._running)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        # The caller may be gone: the error must be fetched, or asyncio complains about it in its own words, text included.
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.debug("commit.failed", error=type(error).__name__)
