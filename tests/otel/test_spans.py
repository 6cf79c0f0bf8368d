"""Traces, as a real receiver of OTLP gets them from a running sidecar; and that there are none without [traces]."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from tokensidecar.v1 import token_service_pb2 as pb

from sidecar import backends
from sidecar.config import Traces
from sidecar.traces import UnavailableTracesError
from tests.e2e.calls import REQUEST_ID, SECONDS, Plane, refused
from tests.otel.collector import Collector
from tests.running import ROOT, RunningSidecar, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import StartSidecar

SERVICE = "tokensidecar.v1.TokenService"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ISSUE = pb.IssueRequest(profile="default", subject="user-42", audiences=["orders"])
CONFIG = """
[profiles.default]
issuer = "urn:tokensidecar:local"
audiences = ["orders"]

[traces]
endpoint = "{endpoint}"
ratio = {ratio}
"""
ROUTES = """
[[routes]]
name = "all"
paths = ["/*"]
audiences = ["orders"]
"""
ASKED = {"x-original-method": "GET", "x-original-url": "https://orders.example.com/orders"}
SERVER, CLIENT, UNSET, ERROR = 2, 3, 0, 2  # as OTLP numbers them


def traced(endpoint: str, ratio: float = 1.0) -> RunningSidecar:
    return RunningSidecar(CONFIG.format(endpoint=endpoint, ratio=ratio))


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as one:
        yield one


@pytest.fixture(scope="module")
def running(collector: Collector) -> Iterator[RunningSidecar]:
    with traced(collector.endpoint) as one:
        yield one


@pytest.fixture(scope="module")
def app_plane(running: RunningSidecar) -> Iterator[Plane]:
    with Plane(running.app_socket) as plane:
        yield plane


def called(app_plane: Plane, rpc: str, request: Any, request_id: str, *more: tuple[str, str]) -> Any:
    return getattr(app_plane, rpc)(request, timeout=SECONDS, metadata=((REQUEST_ID, request_id), *more))


def of(collector: Collector, method: str, request_id: str) -> Any:
    """The one span of that call."""
    end = time.monotonic() + SECONDS
    while True:
        spans = collector.named(f"{SERVICE}/{method}")
        found = [span for span in spans if span.facts.get("tokensidecar.request_id") == request_id]
        if found:
            (one,) = found
            return one
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_call_is_a_span_with_its_outcome(collector: Collector, app_plane: Plane) -> None:
    called(app_plane, "issue", ISSUE, "good")
    span = of(collector, "Issue", "good")
    assert (span.kind, span.status[0], span.parent, span.events) == (SERVER, UNSET, "", 0)
    assert 0 < span.seconds < SECONDS
    assert span.facts == {
        "rpc.system": "grpc",
        "rpc.service": SERVICE,
        "rpc.method": "Issue",
        "rpc.grpc.status_code": 0,
        "tokensidecar.caller": "unix:app",
        "tokensidecar.profile": "default",
        "tokensidecar.request_id": "good",
    }
    assert collector.resource["service.name"] == "tokensidecar"
    assert collector.resource["service.version"]


def test_a_rejection_is_the_callers_doing_and_no_error_of_the_server(collector: Collector, app_plane: Plane) -> None:
    refused(app_plane.validate, pb.ValidateRequest(token="x", audiences=["orders"]), ((REQUEST_ID, "bad"),))
    span = of(collector, "Validate", "bad")
    assert (span.status[0], span.events) == (UNSET, 0)
    assert (span.facts["rpc.grpc.status_code"], span.facts["tokensidecar.reason"]) == (16, "TOKEN_INVALID")


def test_a_call_of_a_verb_that_is_not_there_is_an_error(collector: Collector, app_plane: Plane) -> None:
    refusal = refused(app_plane.refresh, pb.RefreshRequest(refresh_token="x"), ((REQUEST_ID, "none"),))
    span = of(collector, "Refresh", "none")
    assert span.facts["tokensidecar.reason"] == refusal.reason
    assert (span.status[0] == ERROR) == (refusal.code in {"UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE"})


def test_the_callers_trace_goes_on(collector: Collector, app_plane: Plane) -> None:
    called(app_plane, "issue", ISSUE, "traced", ("traceparent", f"00-{TRACE}-{PARENT}-01"))
    span = of(collector, "Issue", "traced")
    assert (span.trace_id, span.parent) == (TRACE, PARENT)


@pytest.mark.parametrize("header", [f"00-{TRACE}-{PARENT}-0", "nonsense", f"00-{'0' * 32}-{PARENT}-01", "~" * 40])
def test_a_trace_context_that_is_none_begins_a_new_trace(collector: Collector, app_plane: Plane, header: str) -> None:
    name = f"odd-{len(header)}-{ord(header[3])}"
    called(app_plane, "issue", ISSUE, name, ("traceparent", header), ("tracestate", ",=,;" * 50))
    span = of(collector, "Issue", name)
    assert span.parent == ""
    assert span.trace_id not in {TRACE, "0" * 32}


def test_who_began_a_trace_decides_whether_it_is_recorded(collector: Collector) -> None:
    with traced(collector.endpoint, ratio=0.0) as running, Plane(running.app_socket) as plane:
        called(plane, "issue", ISSUE, "not sampled here".replace(" ", "-"))
        called(plane, "issue", ISSUE, "not-there", ("traceparent", f"00-{TRACE}-{PARENT}-00"))
        called(plane, "issue", ISSUE, "there", ("traceparent", f"00-{TRACE}-{PARENT}-01"))
    of(collector, "Issue", "there")
    ids = {span.facts.get("tokensidecar.request_id") for span in collector.spans}
    assert ids.isdisjoint({"not-sampled-here", "not-there"})


def test_what_the_store_and_the_kms_are_asked_is_within_the_call(collector: Collector, running: RunningSidecar) -> None:
    with Plane(running.admin_socket) as admin:
        called(admin, "rotate", pb.RotateRequest(reason="a test"), "rotation")
    span = of(collector, "Rotate", "rotation")
    steps = [one for one in collector.named("store save") if one.parent == span.span_id]
    assert steps
    assert {one.trace_id for one in steps} == {span.trace_id}
    assert {one.kind for one in steps} == {CLIENT}
    assert sum(one.seconds for one in steps) < span.seconds
    assert [one for one in collector.spans if one.name.startswith(("store", "kms")) and not one.parent] == []


def test_a_profile_that_is_not_configured_is_no_attribute(collector: Collector, app_plane: Plane) -> None:
    refused(app_plane.issue, pb.IssueRequest(subject="u", audiences=["orders"], profile="mine"), ((REQUEST_ID, "odd"),))
    assert "tokensidecar.profile" not in of(collector, "Issue", "odd").facts


def test_what_a_gateway_asks_is_a_span_too(collector: Collector) -> None:
    port = free_port()
    text = f'[listen]\nforward_auth = ["127.0.0.1:{port}"]\n' + CONFIG.format(endpoint=collector.endpoint, ratio=1.0)
    with RunningSidecar(text + ROUTES):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        connection.request("GET", "/auth", headers=ASKED | {"traceparent": f"00-{TRACE}-{PARENT}-01"})
        assert connection.getresponse().status == 401
        connection.close()
    (span,) = collector.named("forward_auth")
    assert (span.trace_id, span.parent, span.facts["tokensidecar.caller"]) == (TRACE, PARENT, "tcp:forward_auth")


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
def test_a_collector_that_is_away_costs_no_call_and_no_end(start_sidecar: StartSidecar, silent: bool) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        if silent:
            taken.listen()
        running = start_sidecar(CONFIG.format(endpoint=f"http://127.0.0.1:{taken.getsockname()[1]}", ratio=1.0))
        with Plane(running.app_socket) as plane:
            started = time.monotonic()
            for _ in range(50):
                plane.token()
            assert time.monotonic() - started < 5
        time.sleep(1.1)  # past the first try to send
        started = time.monotonic()
        running.stop()
        assert time.monotonic() - started < 5


def test_without_traces_nothing_of_it_is_imported() -> None:
    code = (
        "import sys, asyncio; from sidecar import backends, config; c = config.load(None, {}); "
        "assert backends.open_traces(c.traces) is None; print([m for m in sys.modules if 'opentelemetry' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_without_the_extra_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    for name in [name for name in sys.modules if name.startswith(("opentelemetry.", "sidecar.otel"))]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UnavailableTracesError, match="tokensidecar-server\\[otel\\]"):
        backends.open_traces(Traces("http://127.0.0.1:4317"))
