"""What a real Envoy answers when the sidecar is gone, slow, or changes its keys: never a wrong yes, and no wrong no that could be helped."""

from __future__ import annotations

import base64
import json
import signal
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tokensidecar.v1 import admin_service_pb2 as admin, keys_pb2, token_service_pb2 as pb

from tests.e2e.calls import SECONDS, Plane
from tests.gateway.app import App
from tests.gateway.asking import Answer, ask, bearer
from tests.gateway.conftest import Stack, config, mutations
from tests.gateway.envoys import BINARY, RunningEnvoy, Tree, endpoint
from tests.running import ROOT, RunningSidecar, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.needs(BINARY)
SOON = '[keys]\npropagation = "2s"\nrefresh_interval = "1s"\nmax_skew = "1s"\n'


@pytest.fixture
def own() -> Iterator[Stack]:
    """A stack of the test's own."""
    with tempfile.TemporaryDirectory(prefix="ts-", dir="/tmp") as folder:
        socket, forward_auth = f"unix:{Path(folder)}/envoy.sock", free_port()
        sidecar = RunningSidecar(config(socket, forward_auth, SOON))
        sidecar.start()
        try:
            sidecar.wait_until_ready()
            with (
                App() as app,
                RunningEnvoy(socket, app.port, app.grpc_port, mutations) as envoy,
                Plane(sidecar.app_socket) as plane,
            ):
                yield Stack(sidecar, app, envoy, plane, socket, forward_auth)
        finally:
            sidecar.kill()
            sidecar.remove()


def until(found: Callable[[], bool], seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_sidecar_that_is_gone_is_503_until_it_is_back(own: Stack) -> None:
    token = own.token()
    assert ask(own.envoy.port, "/claims/a", bearer(token)).status == 200
    own.sidecar.kill()
    seen = own.app.seen
    for headers in ((bearer(token),), (bearer("a.b.c.d.e"),), ()):
        for _ in range(5):
            assert ask(own.envoy.port, "/claims/a", *headers).status == 503
    assert ask(own.envoy.port, "/public/a").status == 503
    assert own.app.seen == seen
    assert ask(own.envoy.port, "/healthz").status == 200
    own.sidecar.start()
    own.sidecar.wait_until_ready()
    until(lambda: ask(own.envoy.port, "/claims/a", bearer(token)).status == 200)


def test_a_sidecar_that_is_slow_is_503_within_the_timeout(own: Stack) -> None:
    token, seen = own.token(), own.app.seen
    own.sidecar.process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert ask(own.envoy.port, "/claims/a", bearer(token)).status == 503
        assert time.monotonic() - began < 5
        assert own.app.seen == seen
    finally:
        own.sidecar.process.send_signal(signal.SIGCONT)
    until(lambda: ask(own.envoy.port, "/claims/a", bearer(token)).status == 200)


def test_keys_that_rotate_and_sidecars_that_restart_under_load_give_no_wrong_answer(own: Stack) -> None:
    """Good tokens pass or get 503, never 401; bad ones never pass. Between the restarts every good one passes."""
    stop, found, restarting = threading.Event(), Counter[tuple[str, int, bool]](), threading.Event()

    def load() -> None:
        tokens = [own.token()]
        while not stop.is_set():
            calm = not restarting.is_set()
            good = ask(own.envoy.port, "/claims/a", bearer(tokens[-1])).status
            bad = ask(own.envoy.port, "/claims/a", bearer(tokens[-1][:-8] + "AAAAAAAA")).status
            calm = calm and not restarting.is_set()
            found["good", good, calm] += 1
            found["bad", bad, calm] += 1
            if calm:
                tokens.append(own.token())

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        with Plane(own.sidecar.admin_socket) as operator:
            request = pb.IssueRequest(subject="u", audiences=["orders"])
            for _ in range(2):
                before = own.plane.issue(request, timeout=SECONDS).key_id
                operator.rotate(pb.RotateRequest(), timeout=SECONDS)
                until(lambda old=before: own.plane.issue(request, timeout=SECONDS).key_id != old)
        time.sleep(0.5)
        restarting.set()
        own.sidecar.stop()
        own.sidecar.start()
        own.sidecar.wait_until_ready()
        until(lambda: ask(own.envoy.port, "/claims/a", bearer(own.token())).status == 200)
        restarting.clear()
        time.sleep(1)
    finally:
        stop.set()
        for thread in threads:
            thread.join(SECONDS)
    assert found["good", 200, True] > 20
    assert found["bad", 401, True] > 20
    assert {one[:2] for one in found if one[2]} == {("good", 200), ("bad", 401)}, found
    assert {one[:2] for one in found} <= {("good", 200), ("good", 503), ("bad", 401), ("bad", 503)}, found


def test_envoys_own_jwt_filter_takes_phantoms_before_during_and_after_a_rotation(own: Stack) -> None:
    """The successor is in the JWKS long before it signs; then the key that signs is compromised, and the successor takes over at once."""

    def changed(tree: Tree) -> None:
        mutations(tree)
        jwt = RunningEnvoy.manager(tree)["http_filters"][1]["typed_config"]
        jwt["providers"]["tokensidecar"]["remote_jwks"]["cache_duration"] = "1s"
        for cluster in tree["static_resources"]["clusters"]:
            if cluster["name"] == "tokensidecar_http":
                host, _, port = own.sidecar.http.rpartition(":")
                endpoint(cluster)["address"] = {"socket_address": {"address": host, "port_value": int(port)}}

    def phantom(answer: Answer) -> str:
        (sent,) = answer.upstream("authorization")
        return str(json.loads(base64.urlsafe_b64decode(sent.split()[1].split(".")[0] + "=="))["kid"])

    checked = ROOT / "deploy/envoy/phantom.yaml"
    with (
        RunningEnvoy(own.socket, own.app.port, own.app.grpc_port, changed, checked) as envoy,
        Plane(own.sidecar.admin_socket) as operator,
    ):
        token = own.token()
        first = phantom(ask(envoy.port, "/phantom/a", bearer(token)))
        assert ask(envoy.port, "/pass/a", bearer(token)).status == 401  # a JWE is none of the filter's
        operator.rotate(pb.RotateRequest(profile="inside"), timeout=SECONDS)
        assert phantom(ask(envoy.port, "/phantom/a", bearer(token))) == first
        time.sleep(1.5)  # the filter's cache
        assert phantom(ask(envoy.port, "/phantom/a", bearer(token))) == first
        operator.revoke_keys(admin.RevokeKeysRequest(profile="inside", key_ids=[first]), timeout=SECONDS)
        until(lambda: ask(envoy.port, "/phantom/a", bearer(token)).status == 200)
        assert phantom(ask(envoy.port, "/phantom/a", bearer(token))) != first
        states = {
            key.key_id: key.state
            for key in operator.list_keys(admin.ListKeysRequest(profile="inside"), timeout=SECONDS).keys
        }
        assert states[first] == keys_pb2.KEY_STATE_COMPROMISED
