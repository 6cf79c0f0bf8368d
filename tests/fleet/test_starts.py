"""Starts that wait for a keeper, and starts that are refused."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from sidecar import app
from sidecar.config import load
from sidecar.errors import UnavailableStoreError
from tests.e2e.calls import Plane
from tests.faults.waiting import wait_for
from tests.fleet.fleet import KEEPER, Fleet
from tests.running import RunningSidecar

if TYPE_CHECKING:
    from pathlib import Path

IN_CLUSTER = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}


def _waits(running: RunningSidecar) -> bool:
    try:
        status, body = running.get("/readyz")
    except OSError:
        return False
    assert (status, "waiting for a keeper" in body) == (503, True), body
    return True


def test_a_sidecar_waits_for_its_keeper_and_says_so(fleet: Fleet) -> None:
    running = fleet.prepared(fleet.config("both"))
    running.start()
    wait_for(lambda: _waits(running))
    assert "holds no store" in running.get("/readyz")[1]
    assert running.get("/livez")[0] == 200
    assert running.get("/.well-known/jwks.json")[0] == 503
    assert "tokensidecar_build_info" in running.get("/metrics")[1]
    fleet.once()
    running.wait_until_ready()
    with Plane(running.app_socket) as plane:
        assert plane.accepts(plane.token()).subject == "user-42"


def test_a_sidecar_that_waits_ends_at_once_when_told_to(fleet: Fleet) -> None:
    running = fleet.prepared(fleet.config("both"))
    running.start()
    wait_for(lambda: _waits(running))
    begun = time.monotonic()
    running.stop()
    assert time.monotonic() - begun < 3


def test_waiting_has_an_end(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(app, "KEEPER_WAIT", 0.3)
    monkeypatch.setattr(app, "KEEPER_WAIT_STEP", 0.1)
    file = tmp_path / "config.toml"
    file.write_text(fleet.config("both") + '[listen]\nhttp = "off"\n')
    config = load(str(file), {"TOKENSIDECAR_STATE_DIR": str(tmp_path / "s"), "TOKENSIDECAR_RUNTIME_DIR": str(tmp_path)})

    async def start() -> None:
        waiting = app.App(config)
        try:
            await waiting.start()
        finally:
            await waiting.stop()

    with pytest.raises(UnavailableStoreError, match=r"holds no store.*No keeper wrote one"):
        asyncio.run(start())


def test_a_store_of_ones_own_does_not_start_in_a_cluster_unless_that_is_meant(fleet: Fleet) -> None:
    config = f'[keys]\nstore = "sqlite:{fleet.directory}/state.db"\nkek = "file:{fleet.directory}/kek"\n'
    refused = fleet.prepared(config, env=IN_CLUSTER)
    refused.start()
    assert refused.process.wait(20) == 1
    (line,) = refused.stderr().splitlines()
    assert "keys.single_pod = true" in line
    assert not (fleet.directory / "state.db").exists()
    meant = fleet.prepared(config + "single_pod = true\n", env=IN_CLUSTER)
    meant.start()
    meant.wait_until_ready()


@pytest.mark.parametrize("command", ["serve", "keeper"])
def test_a_secret_is_for_keepers_and_needs_a_cluster(fleet: Fleet, command: str) -> None:
    running = fleet.prepared(
        fleet.config("both", store="kubernetes://tokens/rings", propagation="3m", max_staleness="5m"),
        (KEEPER[0], command),
    )
    running.start()
    assert running.process.wait(20) == 1
    word = "is for `tokensidecar keeper`" if command == "serve" else "inside a cluster only"
    assert word in running.stderr()
