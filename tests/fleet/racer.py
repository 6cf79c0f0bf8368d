"""One of many processes that rotate the same ring at the same moment. A program: `python -m tests.fleet.racer CONFIG [SERVER TOKEN CA]`.

Each line on standard input is a round: a profile, days by which to be ahead of the real time (so that the last successor is active), and
the revision that is expected. Each line on standard output is the outcome: OK or the reason. "prune" instead of a revision: destroy what
is due; "consume" or "spend" and a name: the one-time token, or the first refresh token of the family, of that name. Spent: the outcome, and
the successor that was answered.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from sidecar import logs
from sidecar.backends import open_kms, open_store
from sidecar.config import load
from sidecar.errors import SidecarError
from sidecar.keeper import Keeper
from sidecar.ports import FOREVER, Ended, Glance, Ledger, Revocation, Spending, Store


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


async def consume(ledger: Ledger, name: str) -> str:
    consumed = await ledger.consume(sha256(name.encode()).digest()[:16], b"", 2**40)
    return "OK" if consumed else "TOKEN_ALREADY_CONSUMED"


async def spend(ledger: Ledger, name: str) -> str:
    family = Revocation(Ended.FAMILY, sha256(name.encode()).digest()[:16], FOREVER, 2**40)
    spending = Spending(family, name, secrets.token_hex(8), first=True, bars=((family.digest, 0),), grace=60.0)
    spent = await ledger.spend(spending)
    return f"{spent.turn.name} {spent.successor}"


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
    assert isinstance(store, Ledger) or config.keys.scheme in ("file", "kubernetes")
    while line := await asyncio.to_thread(sys.stdin.readline):
        profile, days, expected = line.split()
        clock.days = float(days)
        try:
            if profile in ("consume", "spend"):
                assert isinstance(store, Ledger)
                print(await (consume if profile == "consume" else spend)(store, expected), flush=True)
                continue
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
