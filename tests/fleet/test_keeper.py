"""The keeper: running, killed, away for long, and once for a CronJob."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from tokensidecar.v1 import token_service_pb2 as pb

from tests.e2e.calls import SECONDS, Plane
from tests.faults.waiting import wait_for
from tests.fleet.fleet import KEEPER, QUICK, Fleet, Load, revision, started

if TYPE_CHECKING:
    from tests.fleet.conftest import NewFleet

SHORT_LIVES = {"propagation": "2s", "max_skew": "1s", "refresh_interval": "1s", "max_staleness": "2s"}
SHORT = {"ttl": "1s", "max_ttl": "1s", "leeway": "0s"}


def _silence(text: str) -> float:
    (line,) = [line for line in text.splitlines() if line.startswith("tokensidecar_keeper_silence_seconds ")]
    return float(line.split()[1])


def test_a_keeper_that_is_away_stops_rotation_and_nothing_else(new_fleet: NewFleet) -> None:
    """For longer than any time of the configuration; days are no different."""
    fleet = new_fleet(QUICK | {"max_staleness": "2s", "rotate_every": "5s"})
    keeper, issuer, validator = fleet.keeper(), fleet.sidecar("issuer"), fleet.sidecar("validator")
    keeper.kill()
    before = revision(issuer)
    with Load(issuer.app_socket, validator.app_socket, threads=1) as load:
        time.sleep(8)
        assert revision(issuer) == revision(validator) == before
        assert _silence(validator.get("/metrics")[1]) > 7
        started(keeper)
        wait_for(lambda: revision(issuer) > before and revision(validator) > before, 20)
        time.sleep(5)
    assert load.failures == []
    assert len(set(load.key_ids)) > 1


@pytest.mark.parametrize("step", ["rotate.before_save", "rotate.saved"])
def test_a_keeper_that_is_killed_while_it_rotates_is_followed_by_one_that_goes_on(fleet: Fleet, step: str) -> None:
    fleet.once()
    issuer, validator = fleet.sidecar("issuer"), fleet.sidecar("validator")
    dying = started(fleet.prepared(fleet.config("both"), KEEPER, {"TOKENSIDECAR_FAILPOINT": step}))
    with Load(issuer.app_socket, validator.app_socket, threads=1) as load:
        with Plane(dying.admin_socket) as plane, pytest.raises(Exception, match="UNAVAILABLE"):
            plane.rotate(pb.RotateRequest(request_id="one"), timeout=SECONDS)
        keeper = fleet.keeper()
        with Plane(keeper.admin_socket) as plane:
            rotated = plane.rotate(pb.RotateRequest(request_id="one"), timeout=SECONDS)
        assert rotated.ring_revision == 2
        wait_for(lambda: revision(validator) == revision(issuer) == 2)
        wait_for(lambda: time.time() > rotated.activate_time.seconds + 1, 20)
    assert load.failures == []


def test_once_makes_rotates_and_destroys_what_is_due_and_then_has_nothing_to_do(new_fleet: NewFleet) -> None:
    fleet = new_fleet(SHORT_LIVES | {"rotate_every": "5s"}, SHORT)
    assert [(line["duty"], line["outcome"]) for line in fleet.once()] == [("make", "done")]
    assert fleet.once() == []
    seen = set()
    until = time.monotonic() + 30
    while time.monotonic() < until and "destroy" not in seen:
        for line in fleet.once():
            assert line["outcome"] == "done", line
            seen.add(line["duty"])
        time.sleep(0.5)
    assert seen == {"rotate encryption", "rotate signature", "destroy"}


def test_once_rotates_what_is_asked_for_and_says_from_when(fleet: Fleet) -> None:
    fleet.once()
    (line,) = fleet.once("--rotate", "default")
    assert (line["profile"], line["duty"], line["outcome"], line["ring_revision"]) == ("default", "rotate", "done", 2)
    assert line["activate_time"].endswith("Z")
    (again,) = fleet.once("--rotate", "default", code=1)
    assert again["outcome"] == "failed"
    assert "pending" in again["problem"]


def test_once_without_a_key_makes_nothing(fleet: Fleet) -> None:
    (fleet.directory / "open").unlink()
    assert fleet.once(code=1) == []
    assert not list(fleet.rings.glob("*.ring"))


@pytest.mark.parametrize(("args", "code"), [(["--rotate", "absent"], 2), (["--config", "/nonexistent.toml"], 2)])
def test_wrong_usage_is_told_apart(fleet: Fleet, args: list[str], code: int) -> None:
    assert fleet.once(*args, code=code) == []


def test_a_keeper_needs_both_roles(fleet: Fleet) -> None:
    assert fleet.once(config=fleet.config("validator"), code=1) == []
