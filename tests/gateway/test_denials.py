"""What a client, and an attacker, is told by a real Envoy in front of the sidecar; and what the app never hears."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from tokensidecar.v1 import token_service_pb2 as pb

from tests.dpop import Presenter
from tests.gateway.app import App
from tests.gateway.asking import Answer, ask, bearer
from tests.gateway.conftest import FILLED, ORIGIN
from tests.gateway.envoys import BINARY, RunningEnvoy, Tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.gateway.conftest import Stack

pytestmark = pytest.mark.needs(BINARY)
CHALLENGE = 'Bearer, DPoP algs="ES256 ES384 Ed25519 EdDSA PS256 RS256"'


@pytest.fixture
def app(stack: Stack) -> Iterator[App]:
    """The app, which must hear nothing of the requests of the test."""
    before = stack.app.seen
    yield stack.app
    assert stack.app.seen == before


@pytest.fixture(scope="module")
def bare(stack: Stack) -> Iterator[RunningEnvoy]:
    """An Envoy that leaves paths and headers as they are: the sidecar alone stands between them and the app."""

    def changed(tree: Tree) -> None:
        manager = RunningEnvoy.manager(tree)
        for name in (
            "normalize_path",
            "merge_slashes",
            "path_with_escaped_slashes_action",
            "early_header_mutation_extensions",
        ):
            del manager[name]
        del manager["common_http_protocol_options"]["headers_with_underscores_action"]

    with RunningEnvoy(stack.socket, stack.app.port, stack.app.grpc_port, changed) as envoy:
        yield envoy


def shown(answer: Answer) -> tuple[int, str, bytes]:
    return answer.status, answer.headers.get("www-authenticate", ""), answer.body


def test_without_a_token_there_is_a_challenge_and_no_error(stack: Stack, app: App) -> None:
    answer = ask(stack.envoy.port, "/claims/a")
    assert shown(answer) == (401, CHALLENGE, b"authentication_required\n")
    assert (answer.headers["cache-control"], answer.headers["content-type"]) == (
        "no-store",
        "text/plain; charset=utf-8",
    )


@pytest.mark.parametrize("token", ["a.b.c.d.e", "x", "eyJhbGciOiJub25lIn0..", "A" * 20000])
def test_a_bad_token_is_invalid_and_nothing_more_is_said(stack: Stack, app: App, token: str) -> None:
    algorithms = CHALLENGE.partition("algs=")[2]
    challenge = f'Bearer error="invalid_token", DPoP error="invalid_token", algs={algorithms}'
    assert shown(ask(stack.envoy.port, "/claims/a", bearer(token))) == (401, challenge, b"invalid_token\n")


def test_expired_and_foreign_tokens_look_like_forged_ones(stack: Stack, app: App) -> None:
    elsewhere = stack.plane.token(audience="billing")
    assert ask(stack.envoy.port, "/claims/a", bearer(elsewhere)).body == b"invalid_token\n"
    signed = stack.plane.token(profile="inside")
    assert ask(stack.envoy.port, "/claims/a", bearer(signed)).status == 401


def test_a_revoked_token_is_401_at_once(stack: Stack) -> None:
    token = stack.token()
    assert ask(stack.envoy.port, "/claims/a", bearer(token)).status == 200
    stack.plane.revoke(pb.RevokeRequest(token=token), timeout=20)
    assert ask(stack.envoy.port, "/claims/a", bearer(token)).body == b"invalid_token\n"


def test_a_missing_scope_is_403_and_named(stack: Stack, app: App) -> None:
    answer = ask(stack.envoy.port, "/admin/a", bearer(stack.token(scopes=["orders.read"])))
    assert answer.status == 403
    assert answer.headers["www-authenticate"].startswith('Bearer error="insufficient_scope", scope="orders.admin"')


def test_a_token_with_the_scope_passes(stack: Stack) -> None:
    assert ask(stack.envoy.port, "/admin/a", bearer(stack.token(scopes=["orders.admin"]))).status == 200


def test_a_request_of_no_route_is_403_whatever_the_token(stack: Stack, app: App) -> None:
    assert shown(ask(stack.envoy.port, "/nowhere", bearer(stack.token()))) == (403, "", b"access_denied\n")


def test_problem_details_where_the_client_takes_json(stack: Stack, app: App) -> None:
    answer = ask(stack.envoy.port, "/claims/a", ("Accept", "application/json"), bearer("a.b.c.d.e"))
    assert answer.headers["content-type"] == "application/problem+json"
    assert json.loads(answer.body) == {
        "type": "about:blank", "title": "Unauthorized", "status": 401, "error": "invalid_token"
    }  # fmt: skip


AUTHORIZATION: dict[str, Any] = {
    "twice": lambda token: [bearer(token), bearer(token)],
    "twice with another": lambda token: [bearer(token), ("Authorization", "Basic eDp5")],
    "joined": lambda token: [("Authorization", f"Bearer {token}, Bearer {token}")],
    "without scheme": lambda token: [("Authorization", token)],
    "another scheme": lambda token: [("Authorization", f"Basic {token}")],
    "scheme alone": lambda _: [("Authorization", "Bearer")],
    "with more words": lambda token: [("Authorization", f"Bearer {token} x")],
    "quoted": lambda token: [("Authorization", f'Bearer "{token}"')],
    "a tab": lambda token: [("Authorization", f"Bearer\t{token}")],
    "not UTF-8": lambda token: [("Authorization", b"Bearer \xff\xfe" + token.encode())],
    "not UTF-8 at the end": lambda token: [("Authorization", f"Bearer {token}".encode() + b"\xff")],
    "not ASCII": lambda token: [("Authorization", f"Bearer {token}\N{LATIN SMALL LETTER E WITH ACUTE}".encode())],
    "oversized": lambda token: [("Authorization", f"Bearer {token}" + "A" * 50_000)],
    "padded": lambda token: [("Authorization", f"Bearer {token}=")],
}


@pytest.mark.parametrize("shape", AUTHORIZATION)
def test_an_authorization_of_another_shape_does_not_pass(
    stack: Stack, bare: RunningEnvoy, app: App, shape: str
) -> None:
    headers = AUTHORIZATION[shape](stack.token())
    for port in (stack.envoy.port, bare.port):
        assert ask(port, "/claims/a", *headers).status in (400, 401)


def test_two_credentials_at_once_are_refused(stack: Stack, app: App) -> None:
    token = stack.token()
    assert ask(stack.envoy.port, "/header/a", bearer(token), ("X-Api-Token", token)).status == 400
    two = ask(stack.envoy.port, "/cookie/a", ("Cookie", f"session={token}; session={token}"))
    assert two.status == 400


SPOOFED = [("X-User", "admin"), ("x-user", "root"), ("X-TENANT", "t-9"), ("x-all", "e30")]
UNDERSCORED = [("X_User", "admin"), ("x_tenant", "t-9")]


@pytest.mark.parametrize("path", ["/claims/a", "/strip/a", "/phantom/a", "/pass/a", "/public/a"])
def test_identity_headers_of_a_client_never_reach_the_app_on_any_route(
    stack: Stack, bare: RunningEnvoy, path: str
) -> None:
    token = stack.plane.token()
    for port, headers in ((stack.envoy.port, SPOOFED), (bare.port, [*SPOOFED, *UNDERSCORED])):
        answer = ask(port, path, bearer(token), *headers)
        names = {name.replace("_", "-") for name, _ in answer.seen["headers"]} & set(FILLED)
        expected = {"x-user", "x-all"} if path == "/claims/a" else set()
        assert names == expected
        if expected:
            assert answer.upstream("x-user") == ["user-42"]
            assert "x_user" not in dict(answer.seen["headers"])


def test_identity_headers_do_not_reach_the_app_where_the_sidecar_is_not_asked(stack: Stack) -> None:
    answer = ask(stack.envoy.port, "/healthz", *SPOOFED)
    assert not {name for name, _ in answer.seen["headers"]} & set(FILLED)
    assert ask(stack.envoy.port, "/healthz", *UNDERSCORED).status == 400


TRICKS = [
    *("/public/../admin/a", "/public/%2e%2e/admin/a", "/public/.%2E/admin/a", "/public/..%2fadmin/a", "/public/..%5cadmin/a"),
    *("/public/..\\admin/a", "//admin/a", "/public//../admin/a", "/./admin/a", "/%61dmin/a", "/admin%2fa", "/admin/%00", "/admin;x/a"),
    *("/public/%252e%252e/admin/a", "/public/..;/admin/a", "/admin/a%", "/admin/a#/public/", "/public/%c0%ae%c0%ae/admin/a"),
]  # fmt: skip


@pytest.mark.parametrize("path", TRICKS)
def test_no_spelling_of_a_path_reaches_what_needs_a_scope(stack: Stack, bare: RunningEnvoy, path: str) -> None:
    """Whatever passes reaches the app under a path that is public to every reader."""
    token = bearer(stack.token(scopes=["orders.read"]))
    for port in (stack.envoy.port, bare.port):
        answer = ask(port, path, token)
        if answer.status == 200:
            target = str(answer.seen["target"])
            assert target.startswith("/public/")
            assert not {"..", "%2"} & {target[at : at + 2] for at in range(len(target))}, target
        else:
            assert answer.status in (307, 400, 403), answer


def proof(stack: Stack, presenter: Presenter, token: str, path: str, **claims: Any) -> list[tuple[str, str]]:
    made = presenter.proof(token, "GET", ORIGIN + path, **claims)
    return [("Authorization", f"DPoP {token}"), ("DPoP", made)]


def test_a_bound_token_needs_its_proof_and_each_proof_is_taken_once(stack: Stack) -> None:
    presenter, thief = Presenter(), Presenter()
    token = stack.token(confirmation=pb.Confirmation(jwk_thumbprint_sha256=presenter.thumbprint))
    good = proof(stack, presenter, token, "/dpop/a")
    answer = ask(stack.envoy.port, "/dpop/a?b=c", *good)
    assert (answer.status, answer.upstream("authorization"), answer.upstream("dpop")) == (200, [], [])
    for wrong in (
        good,
        good[:1],
        [("Authorization", f"Bearer {token}"), good[1]],
        proof(stack, thief, token, "/dpop/a"),
        proof(stack, presenter, token, "/dpop/b"),
        proof(stack, presenter, token, "/dpop/a", ath="A" * 43),
        [*proof(stack, presenter, token, "/dpop/a"), proof(stack, presenter, token, "/dpop/a")[1]],
    ):
        denied = ask(stack.envoy.port, "/dpop/a", *wrong)
        assert denied.status == 401
        assert denied.headers["www-authenticate"].startswith("DPoP ")
    assert ask(stack.envoy.port, "/strip/a", bearer(token)).status == 401


def test_a_proof_without_the_nonce_gets_one_and_passes_with_it(stack: Stack) -> None:
    presenter = Presenter()
    token = stack.token(confirmation=pb.Confirmation(jwk_thumbprint_sha256=presenter.thumbprint))
    first = ask(stack.envoy.port, "/nonce/a", *proof(stack, presenter, token, "/nonce/a"))
    assert first.status == 401
    assert first.headers["www-authenticate"].startswith('DPoP error="use_dpop_nonce"')
    nonce = first.headers["dpop-nonce"]
    assert ask(stack.envoy.port, "/nonce/a", *proof(stack, presenter, token, "/nonce/a", nonce=nonce)).status == 200
    assert ask(stack.envoy.port, "/nonce/a", *proof(stack, presenter, token, "/nonce/a", nonce="other")).status == 401


def test_claims_cannot_break_out_of_a_header(stack: Stack) -> None:
    subject = 'a\N{LATIN SMALL LETTER E WITH ACUTE},b; x-admin: true "%0d%0a'
    answer = ask(stack.envoy.port, "/claims/a", bearer(stack.plane.token(subject=subject)))
    assert answer.upstream("x-user") == ["a%C3%A9%2Cb%3B%20x-admin:%20true%20%22%250d%250a"]
    assert "x-admin" not in dict(answer.seen["headers"])


def test_a_wildcard_of_all_claims_is_base64url(stack: Stack) -> None:
    (value,) = ask(stack.envoy.port, "/claims/a", bearer(stack.plane.token())).upstream("x-all")
    assert json.loads(base64.urlsafe_b64decode(value + "=="))["sub"] == "user-42"
