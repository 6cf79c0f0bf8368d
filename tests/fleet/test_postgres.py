"""Sidecars on one PostgreSQL: a rotation and a revocation at one are known at the other, rights decide roles, and a store that is away harms nobody."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from tokensidecar.v1 import admin_service_pb2 as admin_pb, token_service_pb2 as pb

from tests.e2e.calls import SECONDS, Plane, metric, refused
from tests.faults.waiting import wait_for
from tests.fleet.fleet import KEEPER, Fleet, Load, revision, started
from tests.postgres import NEEDS, Postgres

if TYPE_CHECKING:
    from tests.running import RunningSidecar

ALL = os.environ.get("TOKENSIDECAR_TEST_ALL") == "true"
AWAY = 300 if ALL else 10  # seconds without the store

pytestmark = [pytest.mark.needs(NEEDS), pytest.mark.timeout(AWAY + 240)]


@pytest.fixture(scope="module")
def own() -> Iterator[Postgres]:
    with Postgres() as running:
        yield running


@pytest.fixture
def name(own: Postgres) -> str:
    return own.create()


def _config(fleet: Fleet, own: Postgres, name: str, login: str, role: str = "both", more: str = "", **keys: str) -> str:
    """What a process with that login is given."""
    further = f'[keys.postgresql]\npassword_file = "{own.password_file(login)}"\n{more}'
    return fleet.config(role, store=own.url(name, login), **keys) + further


def _sidecar(
    fleet: Fleet, own: Postgres, name: str, login: str, role: str = "both", more: str = "", **keys: str
) -> RunningSidecar:
    return started(fleet.prepared(_config(fleet, own, name, login, role, more, **keys)))


def test_what_changes_at_one_sidecar_is_known_at_the_other(fleet: Fleet, own: Postgres, name: str) -> None:
    one = _sidecar(fleet, own, name, "keeper")
    two = _sidecar(fleet, own, name, "writer", more="listen = true\n")
    with Plane(one.app_socket) as app, Plane(two.app_socket) as other, Plane(one.admin_socket) as admin:
        before = app.token()
        assert other.accepts(before).subject == "user-42"
        rotated = admin.rotate(pb.RotateRequest(), timeout=SECONDS)
        wait_for(lambda: revision(two) == rotated.ring_revision, 5)
        wait_for(lambda: time.time() > rotated.activate_time.seconds + 1, 20)
        after = app.token()
        assert other.accepts(after).key_id != other.accepts(before).key_id

        revoked = other.revoke(pb.RevokeRequest(token=before), timeout=SECONDS)
        assert refused(other.validate, pb.ValidateRequest(token=before, audiences=["orders"])).reason == "TOKEN_REVOKED"
        # Whoever has not seen it yet is made to look.
        asked = pb.ValidateRequest(
            token=before, audiences=["orders"], min_revocation_revision=revoked.revocation_revision
        )
        assert refused(app.validate, asked).reason == "TOKEN_REVOKED"
        assert app.accepts(after).subject == "user-42"
    assert metric(one, "tokensidecar_members", role="both") >= 1


def test_rights_of_its_role_in_the_database_decide_what_a_sidecar_serves(
    fleet: Fleet, own: Postgres, name: str
) -> None:
    reader = fleet.prepared(_config(fleet, own, name, "reader"))
    reader.start()
    wait_for(lambda: "holds no ring of a configured profile yet" in reader.stderr(), 20)
    keeper = started(fleet.prepared(_config(fleet, own, name, "keeper"), KEEPER))
    reader.wait_until_ready()
    with Plane(reader.app_socket) as app, Plane(reader.admin_socket) as admin:
        token = app.token()
        assert app.accepts(token).subject == "user-42"
        denied = refused(admin.rotate, pb.RotateRequest())
        assert (denied.reason, "on the admin plane of the keeper" in denied.message) == ("CALLER_DENIED", True)
        assert "no write credentials" in refused(app.revoke, pb.RevokeRequest(token=token)).message
    with Plane(keeper.admin_socket) as admin:
        assert admin.rotate(pb.RotateRequest(), timeout=SECONDS).ring_revision == 2
        admin.revoke_subject(admin_pb.RevokeSubjectRequest(profile="default", subject="user-42"), timeout=SECONDS)
    wait_for(lambda: revision(reader) == 2, 10)
    with Plane(reader.app_socket) as app:
        assert refused(app.validate, pb.ValidateRequest(token=token, audiences=["orders"])).reason == "TOKEN_REVOKED"


@pytest.mark.parametrize("how", ["stopped", "paused"])
def test_store_that_is_away_fails_no_validation_and_no_readiness(
    fleet: Fleet, own: Postgres, name: str, how: str
) -> None:
    issuer = _sidecar(fleet, own, name, "keeper", max_staleness="15m")
    validator = _sidecar(fleet, own, name, "writer", max_staleness="15m")
    with Plane(validator.app_socket) as app, Load(issuer.app_socket, validator.app_socket) as load:
        wait_for(lambda: len(load.key_ids) > 20)
        token = app.token()
        if how == "stopped":
            own.stop()
        pause = own.paused() if how == "paused" else None
        if pause:
            pause.__enter__()
        try:
            lost = time.monotonic()
            while time.monotonic() < lost + AWAY:
                assert [each.get("/readyz")[0] for each in (issuer, validator)] == [200, 200]
                time.sleep(0.5)
            asked = time.monotonic()
            assert refused(app.revoke, pb.RevokeRequest(token=token)).reason == "STORE_UNAVAILABLE"
            assert time.monotonic() - asked < 10
            wait_for(lambda: "store.lost" in validator.stderr(), 10)
        finally:
            if pause:
                pause.__exit__(None, None, None)
            else:
                own.start()
        wait_for(lambda: "store.found" in validator.stderr() and "store.found" in issuer.stderr(), 20)
        app.revoke(pb.RevokeRequest(token=token), timeout=SECONDS)
        done = len(load.key_ids)
        wait_for(lambda: len(load.key_ids) > done + 20)
    assert load.failures == []
    assert done > 20 * AWAY  # it was under load
    for running in (issuer, validator):
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(20) == 0


def test_sidecars_that_start_at_once_on_an_empty_database_make_one_ring(fleet: Fleet, own: Postgres) -> None:
    name = own.create(schema=False)
    running = [fleet.prepared(_config(fleet, own, name, "owner")) for _ in range(4)]
    for each in running:
        each.start()
    for each in running:
        each.wait_until_ready()
    assert {revision(each) for each in running} == {1}
    with Plane(running[0].app_socket) as one, Plane(running[-1].app_socket) as other:
        assert other.accepts(one.token()).subject == "user-42"
    told = [each.stderr().count("ring.made") for each in running]
    assert sum(told) == 1
