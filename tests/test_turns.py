"""One slice of batch work per turn of the loop."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from sidecar.rpc.turns import Turns


async def test_between_two_slices_everybody_else_has_a_turn() -> None:
    turns, seen = Turns(), list[str]()

    async def batch(name: str) -> None:
        for _ in range(20):
            await turns.next()
            seen.append(name)

    async def other() -> None:
        while len(seen) - seen.count("other") < 200:
            seen.append("other")
            await asyncio.sleep(0)

    await asyncio.gather(*(batch(str(number)) for number in range(10)), other())
    slices = [place for place, name in enumerate(seen) if name != "other"]
    assert all(later - sooner > 1 for sooner, later in pairwise(slices))
    assert [seen[place] for place in slices[:20]] == [
        str(number) for number in range(10)
    ] * 2  # first come, first served


async def test_who_is_cancelled_or_waits_for_something_else_holds_nobody_up() -> None:
    turns, done = Turns(), list[str]()
    never = asyncio.Event()

    async def stuck() -> None:
        await turns.next()
        await never.wait()

    async def quick() -> None:
        await turns.next()
        done.append("quick")

    waiting = [asyncio.create_task(stuck()), asyncio.create_task(turns.next())]
    await asyncio.sleep(0)
    waiting[1].cancel()
    await asyncio.wait_for(asyncio.gather(quick(), quick()), 1)
    assert done == ["quick", "quick"]
    waiting[0].cancel()
