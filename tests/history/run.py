"""One run: clients live while things break, then look back; what was promised and not kept, in words."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tests.history.checker import Checker
from tests.history.postgres import Cutter, ServerFaults
from tests.history.record import History
from tests.history.stage import BOUNDS, Stage
from tests.history.workload import Clients
from tests.kms.aws_servers import Aws
from tests.postgres import Postgres

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    Faults = list[Callable[[random.Random], None]]

THREADS = 12


@contextlib.contextmanager
def on_one_machine(count: int) -> Iterator[tuple[Stage, Faults]]:
    """Sidecars on one SQLite file, and what breaks there."""
    with tempfile.TemporaryDirectory(prefix="ts-history-", dir="/tmp") as directory:
        path = Path(directory)
        with Stage(path, f"sqlite:{path / 'state.db'}", count) as stage:
            yield stage, stage.everything()


class _Kms(Aws):
    """It runs until it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.start()

    close = Aws.stop


@contextlib.contextmanager
def on_a_server(count: int) -> Iterator[tuple[Stage, Faults]]:
    """Sidecars on one PostgreSQL server, through a proxy that can cut, with a key of AWS KMS, and what breaks there."""
    with (
        tempfile.TemporaryDirectory(prefix="ts-history-", dir="/tmp") as directory,
        Postgres({"fsync": "on"}) as server,
        Cutter(server.port) as cutter,
        contextlib.closing(_Kms()) as aws,
    ):
        faults = ServerFaults(server, cutter)
        with Stage(Path(directory), faults.store, count, faults.further, 3, aws) as stage:
            yield stage, [*stage.everything(), *faults.everything(), *faults.everything()]


STORES = {"sqlite": on_one_machine, "postgres": on_a_server}


def lived(stage: Stage, seconds: float, seed: int, faults: Faults, threads: int = THREADS) -> tuple[History, list[str]]:
    """The history, and its violations."""
    history = History()
    clients = Clients(stage, history, threads, seed)
    clients.start()
    try:
        stage.break_for(seconds, seed, faults, lambda: happened(history))
        for each in stage.sidecars:
            each.wait_until_ready(60)
    finally:
        clients.stop()
    if clients.errors:
        raise clients.errors[0]
    time.sleep(3.0)  # everybody has looked at the store again
    clients.look_back(seed)
    return history, Checker(history, BOUNDS).violations()


def happened(history: History) -> bool:
    """Whether there was much to be wrong about: that nothing was violated says little where nothing happened."""
    counts = told(history)
    done = (counts.get(verb, {}).get("OK", 0) for verb in ("issue", "refresh", "revoke", "revoke_subject", "rotate"))
    reasons = ("OK", "TOKEN_REVOKED", "TOKEN_ALREADY_CONSUMED", "TOKEN_INVALID")
    judged = (counts.get("validate", {}).get(outcome, 0) for outcome in reasons)
    return min(done) > 0 and min(judged) > 2 and counts.get("refresh", {}).get("REFRESH_REUSED", 0) > 0


def told(history: History) -> dict[str, dict[str, int]]:
    """How many calls of each verb ended how."""
    found: dict[str, Counter[str]] = {}
    for call in tuple(history.calls):
        found.setdefault(call.verb, Counter())[call.outcome] += 1
    return {verb: dict(counts.most_common()) for verb, counts in sorted(found.items())}
