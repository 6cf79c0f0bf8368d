"""A database that was restored from before a revocation is noticed by sidecars that saw it, after a restart too, until that is accepted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from tokensidecar.v1 import token_service_pb2 as pb

from tests.e2e.calls import SECONDS, Plane, metric, refused
from tests.faults.waiting import wait_for
from tests.fleet.fleet import TOOL, Fleet, started
from tests.postgres import NEEDS, Postgres, programs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.running import RunningSidecar

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def own() -> Iterator[Postgres]:
    with Postgres() as running:
        yield running


def _reason(app: Plane, token: str) -> str:
    return refused(app.validate, pb.ValidateRequest(token=token, audiences=["orders"])).reason


def _accept_rollback(running: RunningSidecar, *more: str) -> subprocess.CompletedProcess[str]:
    command = [TOOL, "accept-rollback", "--config", str(running.directory / "config.toml"), *more]
    return subprocess.run(command, env=running.env, capture_output=True, text=True, timeout=60, check=False)


def _revoke(app: Plane, token: str, running: RunningSidecar, revision: int) -> None:
    """And wait until it is pinned."""
    assert app.revoke(pb.RevokeRequest(token=token), timeout=SECONDS).revocation_revision == revision
    pins = running.state_dir / "pins.json"
    wait_for(lambda: json.loads(pins.read_text())["pins"]["rings"]["default"]["revocations"] == revision, 10)


def _check_acceptance(running: RunningSidecar, known: str, lost: str) -> None:
    """That the sidecar is stale, and what an operator is told and can do."""
    assert metric(running, "tokensidecar_ring_rolled_back", profile="default") == 1
    told = _accept_rollback(running)
    assert (told.returncode, "default: revocations 1 after 2" in told.stderr) == (1, True), told.stderr
    done = _accept_rollback(running, "--yes")
    assert done.returncode == 0, done.stderr
    wait_for(lambda: metric(running, "tokensidecar_ring_rolled_back", profile="default") == 0, 10)
    with Plane(running.app_socket) as app:
        assert _reason(app, known) == "TOKEN_REVOKED"
        assert app.accepts(app.token()).subject == "user-42"
        _revoke(app, lost, running, 2)
        assert _reason(app, lost) == "TOKEN_REVOKED"


def test_older_file_of_sqlite_under_a_sidecar_that_starts_later(fleet: Fleet) -> None:
    store, backup = fleet.directory / "state.db", fleet.directory / "backup.db"
    running = started(fleet.prepared(fleet.config("both", store=f"sqlite:{store}")))
    with Plane(running.app_socket) as app:
        known, lost = app.token(), app.token()
        _revoke(app, known, running, 1)
        running.stop()
        shutil.copyfile(store, backup)
        started(running)
        _revoke(app, lost, running, 2)
        running.stop()
    for file in fleet.directory.glob("state.db-[sw]*"):
        file.unlink()
    os.replace(backup, store)  # noqa: PTH105 - as an operator would
    store.chmod(0o600)
    running.start()
    wait_for(lambda: "ring.rolled_back" in running.stderr(), 20)
    running.wait_until_ready()  # a store that went back takes no app down
    with Plane(running.app_socket) as app:
        assert _reason(app, lost) == "STATE_STALE"
    _check_acceptance(running, known, lost)


@pytest.mark.needs(NEEDS)
def test_older_dump_of_postgresql_under_a_running_sidecar(fleet: Fleet, own: Postgres) -> None:
    name = own.create()
    further = f'[keys.postgresql]\npassword_file = "{own.password_file("keeper")}"\n'
    running = started(fleet.prepared(fleet.config("both", store=own.url(name)) + further))
    connection = ["-h", str(own.folder), "-p", str(own.port), "-U", "superuser", "-d", name]
    with Plane(running.app_socket) as app:
        known, lost = app.token(), app.token()
        _revoke(app, known, running, 1)
        dumped = subprocess.run([programs() / "pg_dump", *connection], capture_output=True, check=True, timeout=60)
        _revoke(app, lost, running, 2)
        with own.admin(name) as admin:
            admin.execute("DROP SCHEMA tokensidecar CASCADE")
        script = [programs() / "psql", *connection, "-q", "-1", "-v", "ON_ERROR_STOP=1"]
        subprocess.run(script, input=dumped.stdout, capture_output=True, check=True, timeout=60)
        wait_for(lambda: metric(running, "tokensidecar_ring_rolled_back", profile="default") == 1, 20)
        assert _reason(app, lost) == "STATE_STALE"
    _check_acceptance(running, known, lost)
