"""Ten real processes rotate the same ring, consume or refresh the same token at the same moment, over and over: each time one wins."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from sidecar.backends import open_kms, open_store
from sidecar.clocks import SystemClock
from sidecar.config import load
from sidecar.sealing import open_ring
from tests.fleet.fleet import Fleet
from tests.postgres import NEEDS
from tests.running import ROOT
from tests.stores.clusters import NAMESPACE, RealCluster, StandIn

if TYPE_CHECKING:
    from sidecar.keyring import Ring
    from tests.postgres import Postgres
    from tests.stores.clusters import Cluster

RACERS = 10
ALL = os.environ.get("TOKENSIDECAR_TEST_ALL") == "true"
ROUNDS = 1000 if ALL else 40
API_ROUNDS = 100 if ALL else 10
DAYS = ROUNDS + 1  # for all of them the same time, past all rotations

pytestmark = pytest.mark.timeout(1800 if ALL else 300)


@contextmanager
def racers(config: str, *cluster: str) -> Iterator[list[subprocess.Popen[str]]]:
    """All at the start line."""
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.fleet.racer", config, *cluster],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )
        for _ in range(RACERS)
    ]  # fmt: skip
    try:
        assert [_answer(each) for each in running] == ["ready"] * RACERS
        yield running
        for each in running:
            assert each.stdin is not None
            each.stdin.close()
        assert [each.wait(20) for each in running] == [0] * RACERS
    finally:
        for each in running:
            each.kill()
            each.wait()
            for stream in (each.stdin, each.stdout):
                if stream is not None and not stream.closed:
                    stream.close()


def _tell(racer: subprocess.Popen[str], line: str) -> None:
    assert racer.stdin is not None
    racer.stdin.write(line + "\n")
    racer.stdin.flush()


def _answer(racer: subprocess.Popen[str]) -> str:
    assert racer.stdout is not None
    return racer.stdout.readline().strip()


def _race(running: list[subprocess.Popen[str]], line: str) -> list[str]:
    for each in running:
        _tell(each, line)
    return sorted(_answer(each) for each in running)


def run_round(running: list[subprocess.Popen[str]], profile: str, days: float, revision: int) -> None:
    """One race. AssertionError unless it has one winner."""
    outcomes = _race(running, f"{profile} {days} {revision}")
    assert outcomes == ["OK"] + ["RING_CHANGED"] * (RACERS - 1), f"{profile} at {revision}: {outcomes}"


def run(running: list[subprocess.Popen[str]], rounds: int) -> int:
    """So many races for one ring, a day apart; its revision after them."""
    revision = 1
    for number in range(1, rounds + 1):
        run_round(running, "default", number, revision)
        revision += 1
        if number % 20 == 0:
            _tell(running[0], f"default {number + 0.5} prune")
            assert _answer(running[0]) == "OK"
            revision += 1
    return revision


def run_ledger(running: list[subprocess.Popen[str]], rounds: int) -> None:
    """So many races for one-time tokens, and for refresh tokens. AssertionError unless each has one winner."""
    for number in range(rounds):
        assert _race(running, f"consume {DAYS} token{number}") == ["OK"] + ["TOKEN_ALREADY_CONSUMED"] * (RACERS - 1), (
            number
        )
        spent = _race(running, f"spend {DAYS} family{number}")
        # Who was not first is answered the first one's successor again.
        assert Counter(each.split()[0] for each in spent) == {"ROTATED": 1, "REPEATED": RACERS - 1}, spent
        assert len({each.split()[1] for each in spent}) == 1, spent


def check(ring: Ring, revision: int) -> None:
    """No two keys of one use are ever active at once, and none but the newest is without an end."""
    assert ring.revision == revision
    for use in ring.uses():
        keys = sorted((key for key in ring.keys if key.use is use), key=lambda key: key.activate_time)
        for one, following in pairwise(keys):
            assert one.retire_time == following.activate_time
        assert keys[-1].retire_time is None


async def stored(config_file: str) -> Ring:
    """The ring as it lies there."""
    config = load(config_file, {})
    store = await open_store(config.keys, SystemClock(), keeping=False)
    document = await store.load("default")
    assert document is not None
    kms = await open_kms(config.keys, store)
    opened = await open_ring(document.content, "default", document.revision, store_id=await store.store_id(), kms=kms)
    await store.close()
    return opened.ring


@pytest.mark.parametrize("scheme", ["sqlite", "file"])
def test_of_ten_processes_that_rotate_at_once_one_wins_each_time(fleet: Fleet, scheme: str) -> None:
    place = fleet.rings if scheme == "file" else fleet.directory / "state.db"
    file = fleet.directory / "config.toml"
    file.write_text(fleet.config("both", store=f"{scheme}:{place}"))
    with racers(str(file)) as running:
        revision = run(running, ROUNDS)
        if scheme == "sqlite":
            run_ledger(running, ROUNDS)
    check(asyncio.run(stored(str(file))), revision)


@pytest.mark.needs(NEEDS)
def test_the_same_on_postgresql(fleet: Fleet, postgres: Postgres) -> None:
    name = postgres.emptied()
    file = fleet.directory / "config.toml"
    file.write_text(
        fleet.config("both", store=postgres.url(name))
        + f'[keys.postgresql]\npassword_file = "{postgres.password_file("keeper")}"\n'
    )
    with racers(str(file)) as running:
        revision = run(running, ROUNDS if ALL else API_ROUNDS)
        run_ledger(running, ROUNDS)
    check(asyncio.run(stored(str(file))), revision)


@pytest.mark.parametrize(
    "cluster_type",
    [
        pytest.param(StandIn, id="stand-in"),
        pytest.param(RealCluster, marks=pytest.mark.needs("kube-apiserver", "etcd", ci=False), id="kube-apiserver"),
    ],
)
def test_the_same_through_an_api_server(fleet: Fleet, cluster_type: type[Cluster]) -> None:
    """An API server has a time of its own, so that no day can be skipped: a ring for each race."""
    rings = [f"ring{number}" for number in range(API_ROUNDS)]
    further = "\n".join(f'[profiles.{ring}]\nissuer = "urn:test"\naudiences = ["orders"]' for ring in rings)
    file = fleet.directory / "config.toml"
    store = f"kubernetes://{NAMESPACE}/named"
    file.write_text(fleet.config("both", store=store, further=further, propagation="3m", max_staleness="5m"))
    with cluster_type() as cluster:
        cluster.create("named", {})
        with racers(str(file), cluster.server, str(cluster.token("named")), str(cluster.ca)) as running:
            for ring in rings:
                run_round(running, ring, 0, 1)
