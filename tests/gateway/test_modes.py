"""What goes upstream through a real Envoy, by each mode and over each protocol."""

from __future__ import annotations

import base64
import json
import secrets
import socket
import subprocess
import time
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.gateway.app import EVENTS
from tests.gateway.asking import SECONDS, ask, bearer
from tests.gateway.conftest import CLAIMS
from tests.gateway.envoys import BINARY

if TYPE_CHECKING:
    from tests.gateway.conftest import Stack

pytestmark = pytest.mark.needs(BINARY)


def test_strip_sends_no_credential_upstream(stack: Stack) -> None:
    answer = ask(stack.envoy.port, "/strip/a?b=c", bearer(stack.token()), ("DPoP", "x"), ("X-Other", "kept"))
    assert answer.seen["target"] == "/strip/a?b=c"
    assert [answer.upstream(name) for name in ("authorization", "dpop", "x-other")] == [[], [], ["kept"]]


def test_claims_go_upstream_as_headers_that_say_one_thing_each(stack: Stack) -> None:
    answer = ask(stack.envoy.port, "/claims/a", bearer(stack.token()))
    assert answer.upstream("authorization") == []
    found = {name: answer.upstream(name) for name in ("x-user", "x-tenant", "x-roles", "x-limits", "x-vip")}
    assert found == {
        "x-user": ["user-42"],
        "x-tenant": ["t-1"],
        "x-roles": ["a%2Cb,Zo%C3%AB"],
        "x-limits": [base64.urlsafe_b64encode(b'{"n":1}').decode().rstrip("=")],
        "x-vip": ["true"],
    }
    (everything,) = answer.upstream("x-all")
    decoded = json.loads(base64.urlsafe_b64decode(everything + "=="))
    assert {name: decoded[name] for name in json.loads(CLAIMS)} == json.loads(CLAIMS)


def test_a_claim_that_the_token_lacks_has_no_header_even_if_the_client_sent_one(stack: Stack) -> None:
    token = stack.plane.token()
    answer = ask(stack.envoy.port, "/claims/a", bearer(token), ("X-Tenant", "t-2"), ("X-Vip", "true"))
    assert (answer.upstream("x-user"), answer.upstream("x-tenant"), answer.upstream("x-vip")) == (["user-42"], [], [])


def test_pass_sends_the_token_itself(stack: Stack) -> None:
    token = stack.token()
    assert ask(stack.envoy.port, "/pass/a", bearer(token)).upstream("authorization") == [f"Bearer {token}"]


def test_a_phantom_is_a_signed_token_that_says_no_more_than_its_profile_allows(stack: Stack) -> None:
    (sent,) = ask(stack.envoy.port, "/phantom/a", bearer(stack.token(scopes=["read"]))).upstream("authorization")
    scheme, _, phantom = sent.partition(" ")
    claims = json.loads(base64.urlsafe_b64decode(phantom.split(".")[1] + "=="))
    assert (scheme, claims["iss"], claims["sub"], claims["aud"]) == (
        "Bearer", "https://inside.example", "user-42", ["orders"]
    )  # fmt: skip
    assert (claims["scope"], claims["tenant"], claims["exp"] - claims["iat"]) == ("read", "t-1", 60)
    assert not claims.keys() & {"roles", "limits", "vip"}


def test_a_phantom_does_not_outlive_its_token(stack: Stack) -> None:
    token = stack.token(ttl={"seconds": 20})
    (sent,) = ask(stack.envoy.port, "/phantom/a", bearer(token)).upstream("authorization")
    phantom = json.loads(base64.urlsafe_b64decode(sent.split(".")[1] + "=="))
    assert phantom["exp"] <= stack.plane.accepts(token).expire_time.seconds


def test_a_token_in_a_cookie_goes_and_other_cookies_stay(stack: Stack) -> None:
    token = stack.token()
    answer = ask(stack.envoy.port, "/cookie/a", ("Cookie", f"a=1; session={token}; b=2"))
    assert answer.upstream("cookie") == ["a=1; b=2"]
    assert ask(stack.envoy.port, "/cookie/a", ("Cookie", f"session={token}")).upstream("cookie") == []
    assert ask(stack.envoy.port, "/cookie/a", ("Cookie", "a=1"), bearer(token)).status == 401
    beside = ask(stack.envoy.port, "/cookie/a", ("Cookie", f"session={token}"), ("Authorization", "Bearer other"))
    assert beside.upstream("authorization") == []


def test_a_token_in_a_header_of_its_own_is_taken_out(stack: Stack) -> None:
    answer = ask(stack.envoy.port, "/header/a", ("X-Api-Token", stack.token()))
    assert answer.upstream("x-api-token") == []


def test_an_open_route_asks_for_no_token(stack: Stack) -> None:
    answer = ask(stack.envoy.port, "/public/a", ("Authorization", "Basic eDp5"))
    assert answer.upstream("authorization") == ["Basic eDp5"]


def test_hosts_methods_and_the_gateways_context_are_part_of_a_route(stack: Stack) -> None:
    token = bearer(stack.token())
    asked = {
        ("/methods", "GET", "orders.example"): 200,
        ("/methods", "POST", "orders.example"): 403,
        ("/x", "GET", "a.tenants.example"): 200,
        ("/x", "GET", "One.Example:8443"): 200,
        ("/x", "GET", "tenants.example"): 403,
        ("/x", "GET", "one.example.org"): 403,
        ("/context", "GET", "orders.example"): 200,
        ("/context-of-another", "GET", "orders.example"): 403,
    }
    port = stack.envoy.port
    found = {one: ask(port, one[0], token, method=one[1], host=one[2]).status for one in asked}
    assert found == asked


def test_http2_is_answered_as_http1_is(stack: Stack) -> None:
    done = subprocess.run(
        ["curl", "-sS", "--http2-prior-knowledge", "-w", "\n%{http_version} %{http_code}", "-H", "@-",
         f"http://127.0.0.1:{stack.envoy.port}/claims/a"],
        input=f"Authorization: Bearer {stack.token()}\nX-User: thief\n", capture_output=True, text=True, check=True, timeout=SECONDS,
    )  # fmt: skip
    body, _, last = done.stdout.rpartition("\n")
    assert last == "2 200"
    assert [value for name, value in json.loads(body)["headers"] if name == "x-user"] == ["user-42"]


def test_grpc_calls_and_streams_pass_with_claims_as_metadata(stack: Stack) -> None:
    metadata = (("authorization", f"Bearer {stack.token()}"), ("x-user", "thief"))
    with grpc.insecure_channel(f"127.0.0.1:{stack.envoy.port}") as channel:
        said = channel.unary_unary("/echo.Echo/Say")(b"", metadata=metadata, timeout=SECONDS)
        streamed = list(channel.unary_stream("/echo.Echo/Stream")(b"", metadata=metadata, timeout=SECONDS))
    for one in (said, *streamed):
        found = json.loads(one)
        assert [value for key, value in found if key == "x-user"] == ["user-42"]
        assert "authorization" not in dict(found)
    assert len(streamed) == 3


def test_a_denied_grpc_call_has_a_short_grpc_status(stack: Stack) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{stack.envoy.port}") as channel:
        for metadata, code, words in (
            ((), grpc.StatusCode.UNAUTHENTICATED, "authentication_required"),
            ((("authorization", "Bearer a.b.c.d.e"),), grpc.StatusCode.UNAUTHENTICATED, "invalid_token"),
        ):
            with pytest.raises(grpc.RpcError) as denied:
                channel.unary_unary("/echo.Echo/Say")(b"", metadata=metadata, timeout=SECONDS)
            assert (denied.value.code(), denied.value.details()) == (code, words)


def test_server_sent_events_arrive_one_by_one(stack: Stack) -> None:
    request = f"GET /v1/stream HTTP/1.1\r\nHost: orders.example\r\nAuthorization: Bearer {stack.token()}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", stack.envoy.port), timeout=SECONDS) as client:
        client.sendall(request.encode())
        arrivals, text = [], b""
        while b"data: 4" not in text:
            text += client.recv(4096)
            arrivals.append(time.monotonic())
    assert text.startswith(b"HTTP/1.1 200")
    assert text.count(b"data: ") == EVENTS
    assert len(arrivals) >= EVENTS - 1


def test_a_websocket_opens_with_a_token_and_not_without(stack: Stack) -> None:
    for token, expected in ((stack.token(), b"HTTP/1.1 101"), ("a.b.c.d.e", b"HTTP/1.1 401")):
        seen = stack.app.seen
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        request = (
            "GET /v1/socket HTTP/1.1\r\nHost: orders.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-User: thief\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nAuthorization: Bearer {token}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", stack.envoy.port), timeout=SECONDS) as client:
            client.sendall(request.encode())
            answer = client.makefile("rb")
            assert answer.readline().startswith(expected)
            if expected.endswith(b"401"):
                assert stack.app.seen == seen
                continue
            while answer.readline() != b"\r\n":
                pass
            headers = json.loads(answer.readline())
            assert [value for name, value in headers if name == "x-user"] == ["user-42"]
            client.sendall(b"frame")
            assert answer.read(5) == b"frame"


def test_the_outcome_is_in_envoys_metadata_and_access_log(stack: Stack) -> None:
    ask(stack.envoy.port, "/claims/logged", bearer(stack.token()))
    ask(stack.envoy.port, "/claims/logged", bearer("a.b.c.d.e"))
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        lines = [json.loads(line) for line in stack.envoy.log.splitlines() if line.startswith("{")]
        if any(line["reason"] == "TOKEN_INVALID" for line in lines) and any(
            line["subject"] == "user-42" for line in lines
        ):
            return
        time.sleep(0.1)
    raise AssertionError(stack.envoy.log)
