"""Forward auth behind a real nginx, and asked directly in both families of headers."""

from __future__ import annotations

import base64
import json
import secrets
import socket
import time
from typing import TYPE_CHECKING

import pytest
from tokensidecar.v1 import token_service_pb2 as pb

from tests.dpop import Presenter
from tests.gateway.app import EVENTS, App
from tests.gateway.asking import SECONDS, ask, bearer
from tests.gateway.conftest import ORIGIN, config
from tests.gateway.nginxes import RunningNginx
from tests.gateway.test_denials import AUTHORIZATION, SPOOFED, TRICKS, UNDERSCORED
from tests.running import RunningSidecar, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.gateway.conftest import Stack

pytestmark = pytest.mark.needs("nginx")
IDENTITY = {"x-user", "x-tenant"}


@pytest.fixture(scope="module")
def nginx(stack: Stack) -> Iterator[RunningNginx]:
    with RunningNginx(stack.forward_auth, stack.app.port) as running:
        yield running


def test_claims_go_upstream_and_the_token_does_not(stack: Stack, nginx: RunningNginx) -> None:
    answer = ask(nginx.port, "/claims/a?b=%20c", bearer(stack.token()), *SPOOFED)
    assert answer.seen["target"] == "/claims/a?b=%20c"
    assert (answer.upstream("x-user"), answer.upstream("x-tenant")) == (["user-42"], ["t-1"])
    assert answer.upstream("authorization") == []


def test_a_phantom_goes_upstream(stack: Stack, nginx: RunningNginx) -> None:
    (sent,) = ask(nginx.port, "/phantom/a", bearer(stack.token())).upstream("authorization")
    assert json.loads(base64.urlsafe_b64decode(sent.split(".")[1] + "=="))["iss"] == "https://inside.example"


@pytest.mark.parametrize("path", ["/strip/a", "/phantom/a", "/public/a", "/healthz"])
def test_identity_headers_of_a_client_do_not_reach_the_app(stack: Stack, nginx: RunningNginx, path: str) -> None:
    answer = ask(nginx.port, path, bearer(stack.plane.token()), *SPOOFED, *UNDERSCORED)
    assert not {name.replace("_", "-") for name, _ in answer.seen["headers"]} & IDENTITY


def test_denials_reach_the_client_with_their_challenge(stack: Stack, nginx: RunningNginx) -> None:
    seen = stack.app.seen
    for path, headers, status, challenge in (
        ("/claims/a", (), 401, "Bearer, DPoP algs="),
        ("/claims/a", (bearer("a.b.c.d.e"),), 401, 'Bearer error="invalid_token"'),
        ("/admin/a", (bearer(stack.token()),), 403, ""),
        ("/nowhere", (bearer(stack.token()),), 403, ""),
        ("/methods", (bearer(stack.token()),), 200, ""),
    ):
        answer = ask(nginx.port, path, *headers)
        assert answer.status == status
        assert answer.headers.get("www-authenticate", "").startswith(challenge)
    assert ask(nginx.port, "/methods", bearer(stack.token()), method="POST", body=b"x=1").status == 403
    assert stack.app.seen == seen + 1


@pytest.mark.parametrize("shape", AUTHORIZATION)
def test_an_authorization_of_another_shape_does_not_pass(stack: Stack, nginx: RunningNginx, shape: str) -> None:
    seen = stack.app.seen
    assert ask(nginx.port, "/claims/a", *AUTHORIZATION[shape](stack.token())).status in (400, 401, 503)
    assert stack.app.seen == seen


@pytest.mark.parametrize("path", TRICKS)
def test_no_spelling_of_a_path_reaches_what_needs_a_scope(stack: Stack, nginx: RunningNginx, path: str) -> None:
    answer = ask(nginx.port, path, bearer(stack.token()))
    assert answer.status in (400, 403, 503) or str(answer.seen["target"]).startswith("/public/"), answer


def test_what_a_client_says_was_asked_is_not_believed(stack: Stack, nginx: RunningNginx) -> None:
    lies = [
        ("X-Original-URL", "http://orders.example/public/a"),
        ("X-Original-Method", "GET"),
        ("X-Forwarded-Uri", "/public/a"),
    ]
    assert ask(nginx.port, "/admin/a", bearer(stack.token()), *lies).status == 403
    assert ask(nginx.port, "/_tokensidecar").status == 404


def test_a_proof_and_its_nonce_go_through_nginx(stack: Stack, nginx: RunningNginx) -> None:
    presenter = Presenter()
    token = stack.token(confirmation=pb.Confirmation(jwk_thumbprint_sha256=presenter.thumbprint))

    def asked(**claims: str) -> int:
        proof = presenter.proof(token, "GET", ORIGIN + "/nonce/a", **claims)
        answer = ask(nginx.port, "/nonce/a", ("Authorization", f"DPoP {token}"), ("DPoP", proof))
        nonces.append(answer.headers.get("dpop-nonce", ""))
        return answer.status

    nonces: list[str] = []
    assert asked() == 401
    assert asked(nonce=nonces[0]) == 200
    assert ask(nginx.port, "/nonce/a", bearer(token)).status == 401


def test_events_and_websockets_pass(stack: Stack, nginx: RunningNginx) -> None:
    head = f"Host: orders.example\r\nAuthorization: Bearer {stack.token()}\r\n"
    with socket.create_connection(("127.0.0.1", nginx.port), timeout=SECONDS) as client:
        client.sendall(f"GET /v1/stream HTTP/1.1\r\n{head}\r\n".encode())
        arrivals, text = 0, b""
        while b"data: 4" not in text:
            text += client.recv(4096)
            arrivals += 1
    assert arrivals >= EVENTS - 1
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    upgrade = f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
    with socket.create_connection(("127.0.0.1", nginx.port), timeout=SECONDS) as client:
        client.sendall(f"GET /v1/socket HTTP/1.1\r\n{head}{upgrade}\r\n".encode())
        answer = client.makefile("rb")
        assert answer.readline().startswith(b"HTTP/1.1 101")
        while answer.readline() != b"\r\n":
            pass
        assert [value for name, value in json.loads(answer.readline()) if name == "x-user"] == ["user-42"]
        client.sendall(b"frame")
        assert answer.read(5) == b"frame"


def test_a_sidecar_that_is_gone_is_503() -> None:
    forward_auth = free_port()
    with App() as app, RunningNginx(forward_auth, app.port) as nginx:
        assert ask(nginx.port, "/public/a").status == 503
        assert app.seen == 0
        assert ask(nginx.port, "/healthz").status == 200


# -- asked directly


def test_a_gateway_that_does_not_say_what_was_asked_is_503_and_told_in_the_log(stack: Stack) -> None:
    good = [("X-Original-Method", "GET"), ("X-Original-URL", "https://orders.example/public/a")]
    assert ask(stack.forward_auth, "/auth", *good).status == 200
    for wrong in (
        [],
        good[:1],
        good[1:],
        [*good, good[1]],
        [good[0], ("X-Original-URL", "/public/a")],
        [good[0], ("X-Original-URL", "https:///public/a")],
        [good[0], ("X-Original-URL", "https://orders.example/public/a b")],
        [
            ("X-Forwarded-Method", "GET"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "o"),
            ("X-Forwarded-Uri", "/public/a"),
        ],
    ):
        assert ask(stack.forward_auth, "/auth", *wrong).status == 503
    assert "forward_auth.request_unknown" in stack.sidecar.stderr()
    assert ask(stack.forward_auth, "/other", *good).status == 404
    assert ask(stack.forward_auth, "/auth", *good, method="POST", body=b"x").status in (405, 413)


def test_forwarded_headers_are_believed_where_they_are_configured(tmp_path: object) -> None:
    forward_auth = free_port()
    text = config(f"unix:/tmp/ts-{secrets.token_hex(4)}/envoy.sock", forward_auth).replace(
        "[profiles.default]",
        '[forward_auth]\nrequest = "x-forwarded"\ncertificate = "x-client-cert"\n[profiles.default]',
        1,
    )
    text = text.replace("envoy = [", "# envoy = [", 1)
    said = [("X-Forwarded-Method", "GET"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "orders.example")]
    with RunningSidecar(text):
        assert ask(forward_auth, "/auth", *said, ("X-Forwarded-Uri", "/public/a?b=c")).status == 200
        assert ask(forward_auth, "/auth", *said, ("X-Forwarded-Uri", "/claims/a")).status == 401
        assert ask(forward_auth, "/auth", *said, ("X-Forwarded-Uri", "/public/../claims")).status == 400
        assert ask(forward_auth, "/auth", *said).status == 503
        problem = ask(forward_auth, "/auth", *said, ("X-Forwarded-Uri", "/claims/a"), ("Accept", "application/json"))
        assert json.loads(problem.body)["error"] == "authentication_required"


def test_a_slow_client_of_forward_auth_keeps_nobody_out(stack: Stack) -> None:
    good = [("X-Original-Method", "GET"), ("X-Original-URL", "https://orders.example/public/a")]
    silent = [socket.create_connection(("127.0.0.1", stack.forward_auth)) for _ in range(50)]
    began = time.monotonic()
    assert ask(stack.forward_auth, "/auth", *good).status == 200
    assert time.monotonic() - began < 2
    for one in silent:
        one.close()
