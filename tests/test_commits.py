"""A commit goes on to its end, whatever becomes of who asked for it."""

from __future__ import annotations

import asyncio

import pytest

from sidecar.commits import Commits


async def test_result_and_error_come_back() -> None:
    async def fails() -> None:
        raise LookupError("no")

    async def works() -> int:
        return 7

    commits = Commits()
    assert await commits.run(works()) == 7
    with pytest.raises(LookupError):
        await commits.run(fails())


async def test_cancelled_caller_does_not_cancel_the_commit() -> None:
    commits, done = Commits(), []

    async def commit() -> None:
        await asyncio.sleep(0.05)
        done.append(1)

    caller = asyncio.create_task(commits.run(commit()))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert not done
    await commits.drain()
    assert done


async def test_drain_waits_for_what_starts_meanwhile() -> None:
    commits, done = Commits(), []

    async def second() -> None:
        await asyncio.sleep(0.05)
        done.append(2)

    async def first() -> None:
        await asyncio.sleep(0.01)
        second_task.append(asyncio.create_task(commits.run(second())))
        await asyncio.sleep(0)

    second_task: list[asyncio.Task[None]] = []
    await asyncio.gather(commits.run(first()), commits.drain())
    assert done == [2]
    await second_task[0]


async def test_error_that_nobody_waits_for_any_more_is_not_told_by_asyncio() -> None:
    commits, told = Commits(), []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))

    async def fails() -> None:
        await asyncio.sleep(0.01)
        raise LookupError("marked-secret")

    caller = asyncio.create_task(commits.run(fails()))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    await commits.drain()
    await asyncio.sleep(0)
    assert told == []


async def test_drain_of_nothing_returns() -> None:
    await asyncio.wait_for(Commits().drain(), 1)
