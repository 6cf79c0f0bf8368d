"""Sidecars on a Secret as the kubelet mounts it: renewed late, all at once, and noticed at once."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

import pytest
from tokensidecar.v1 import admin_service_pb2 as admin_pb, token_service_pb2 as pb

from tests.e2e.calls import SECONDS, Plane, refused
from tests.faults.waiting import wait_for
from tests.fleet.fleet import KEEPER, Fleet, Load, revision, started
from tests.stores.clusters import NAMESPACE, RealCluster, StandIn
from tests.stores.kubelet import mount

if TYPE_CHECKING:
    from pathlib import Path

    from tests.running import RunningSidecar
    from tests.stores.clusters import Cluster

READER = {"propagation": "3m", "max_staleness": "15m", "rotate_every": "1h", "max_skew": "5s"}
NOTICED_SECONDS = 3.0


def _files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.startswith(".")}


def _reader(fleet: Fleet, role: str, mounted: Path) -> RunningSidecar:
    """One that would look by itself once a minute only."""
    return started(fleet.prepared(fleet.config(role, store=f"file:{mounted}", **READER, refresh_interval="1m")))


def test_a_renewed_mount_is_noticed_at_once_and_no_call_fails_over_it(fleet: Fleet) -> None:
    fleet.once()
    mounted = fleet.directory / "mounted"
    mount(mounted, _files(fleet.rings))
    issuer, validator = _reader(fleet, "issuer", mounted), _reader(fleet, "validator", mounted)
    times = []
    with Load(issuer.app_socket, validator.app_tcp) as load:
        wait_for(lambda: len(load.key_ids) > 20)
        for number in range(2, 5):
            (line,) = fleet.once("--rotate", "default")
            assert line["ring_revision"] == number
            assert revision(issuer) == revision(validator) == number - 1, "the kubelet has not come by yet"
            mount(mounted, _files(fleet.rings))
            begun = time.monotonic()
            wait_for(lambda number=number: revision(issuer) == revision(validator) == number)  # type: ignore[misc]
            times.append(time.monotonic() - begun)
            time.sleep(4.5)  # until the successor is active, so that the next rotation may be
        for _ in range(20):  # renewed for other reasons
            mount(mounted, _files(fleet.rings))
            time.sleep(0.02)
    assert load.failures == []
    assert len(set(load.key_ids)) == 4
    assert max(times) < NOTICED_SECONDS, times


def test_a_mount_that_vanished_is_served_from_memory_until_it_is_back(fleet: Fleet) -> None:
    fleet.once()
    mounted = fleet.directory / "mounted"
    mount(mounted, _files(fleet.rings))
    both = _reader(fleet, "both", mounted)
    with Plane(both.app_socket) as plane:
        token = plane.token()
        shutil.rmtree(mounted)
        time.sleep(1.5)
        assert plane.accepts(token).subject == "user-42"
        assert both.get("/readyz")[0] == 200
        (line,) = fleet.once("--rotate", "default")
        mount(mounted, _files(fleet.rings))
        wait_for(lambda: revision(both) == line["ring_revision"], 90)
        assert plane.accepts(token).subject == "user-42"


@pytest.mark.parametrize(
    "cluster_type",
    [
        pytest.param(StandIn, id="stand-in"),
        pytest.param(RealCluster, marks=pytest.mark.needs("kube-apiserver", "etcd", ci=False), id="kube-apiserver"),
    ],
)
def test_a_keeper_writes_the_secret_that_sidecars_have_mounted(fleet: Fleet, cluster_type: type[Cluster]) -> None:
    """The whole way: a CronJob's run, the API server, the kubelet's mount, two sidecars; then a keeper that stays."""
    with cluster_type() as cluster:
        cluster.create("named", {})  # as it is deployed: the account may read and update this one alone
        account = fleet.directory / "account"
        account.mkdir()
        shutil.copy(cluster.token("named"), account / "token")
        shutil.copy(cluster.ca, account / "ca.crt")
        env = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(cluster.port)}
        secret = fleet.config("both", store=f"kubernetes://{NAMESPACE}/named", **READER, service_account=str(account))
        mounted = fleet.directory / "mounted"

        assert [line["duty"] for line in fleet.once(config=secret, env=env)] == ["make"]
        mount(mounted, cluster.data("named"))
        issuer, validator = _reader(fleet, "issuer", mounted), _reader(fleet, "validator", mounted)
        with Plane(issuer.app_socket) as issuing, Plane(validator.app_socket) as validating:
            token = issuing.token()
            assert validating.accepts(token).subject == "user-42"

            keeper = started(fleet.prepared(secret, KEEPER, env))
            with Plane(keeper.admin_socket) as plane:
                rotated = plane.rotate(pb.RotateRequest(), timeout=SECONDS)
                assert rotated.activate_time.seconds - time.time() > 180, "a kubelet may take three minutes"
                mount(mounted, cluster.data("named"))
                wait_for(lambda: revision(issuer) == revision(validator) == rotated.ring_revision)
                assert validating.accepts(token).subject == "user-42"

                key_id = validating.accepts(token).key_id
                revoked = plane.revoke_keys(
                    admin_pb.RevokeKeysRequest(profile="default", key_ids=[key_id]), timeout=SECONDS
                )
            honest = 180 + 900 + 2 * 5  # the kubelet, max_staleness, twice max_skew
            assert honest - 5 < revoked.effective_time.seconds - time.time() < honest + 5
            assert validating.accepts(token).key_id == key_id, "not mounted yet"
            mount(mounted, cluster.data("named"))
            wait_for(lambda: revision(validator) == revoked.ring_revision)
            check = pb.ValidateRequest(token=token, audiences=["orders"])
            assert refused(validating.validate, check).reason == "TOKEN_INVALID"
            with Plane(validator.admin_socket) as readers:
                assert f"the Secret that is mounted at {mounted}" in refused(readers.rotate, pb.RotateRequest()).message
        keeper.stop()
