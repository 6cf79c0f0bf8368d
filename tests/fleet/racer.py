"""One of many processes that rotate the same ring at the same moment. A program: `python -m tests.fleet.racer CONFIG [SERVER TOKEN CA]`.

Each line on standard input is a round: a profile, days by which to be ahead of the real time (so that the last successor is active), and
the revision that is expected. Each line on standard output is the outcome: OK or the reason. "prune" instead of a revision: destroy what
is due.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from sidecar import logs
from sidecar.backends import open_kms, open_store
from sidecar.config import load
from sidecar.errors import SidecarError
from sidecar.keeper import Keeper
from sidecar.ports import Glance, Store


class FutureClock:
    """This machine's clocks, days ahead."""

    def __init__(self) -> None:
        self.days = 0.0

    def wall(self) -> float:
        return time.time() + self.days * 86400

    def boot(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) + self.days * 86400


def move(store: Any, clock: FutureClock) -> None:
    """A server has a clock of its own, which is not days ahead."""
    now, glance = store.now, store.glance

    async def now_ahead() -> float:
        return float(await now()) + clock.days * 86400

    async def glance_ahead() -> Glance:
        seen = await glance()
        return replace(seen, time=seen.time + clock.days * 86400)

    store.now, store.glance = now_ahead, glance_ahead


async def race(config_file: str, cluster: list[str]) -> None:
    logs.configure("error")
    config, clock = load(config_file, {}), FutureClock()
    store: Store
    if cluster:
        from sidecar.stores.kubernetes import KubernetesStore

        server, token, ca = cluster
        store = await KubernetesStore.open(*config.keys.secret, clock, server=server, token=Path(token), ca=Path(ca))
    else:
        store = await open_store(config.keys, clock, keeping=True)
    if config.keys.scheme == "postgresql":
        move(store, clock)
    keeper = Keeper(config.profiles, store, await open_kms(config.keys, store), clock)
    await keeper.start()
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        profile, days, expected = line.split()
        clock.days = float(days)
        try:
            if expected == "prune":
                await keeper.destroy(profile)
            else:
                await keeper.rotate(profile, None, expected=int(expected), request_id="")
        except SidecarError as error:
            print(error.reason.name, flush=True)
        else:
            print("OK", flush=True)
    await store.close()


if __name__ == "__main__":
    asyncio.run(race(sys.argv[1], sys.argv[2:]))
