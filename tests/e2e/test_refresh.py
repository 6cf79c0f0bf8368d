"""Refresh tokens through the real RPC: pairs, rotation, grace, reuse, narrowing, revocation, keys; on one sidecar and on two."""

from __future__ import annotations

import base64
import json
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from tokensidecar.v1 import admin_service_pb2 as admin_pb, keys_pb2, token_service_pb2 as pb

from sidecar import refresh
from tests.dpop import Presenter
from tests.e2e.calls import SECONDS, Plane, refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import StartSidecar
    from tests.running import RunningSidecar

CONFIG = """
[profiles.default]
issuer = "urn:test"
audiences = ["orders", "billing"]
refresh_ttl = "1h"
refresh_max_ttl = "2h"

[profiles.plain]
issuer = "urn:test"
audiences = ["orders"]

[keys]
max_skew = "1s"
refresh_interval = "1s"
propagation = "2s"
"""
GRANT = {
    "subject": "user-42",
    "audiences": ["orders", "billing"],
    "scopes": ["read", "write"],
    "client_id": "web",
    "claims_json": '{"role": "admin",  "n": 12345678901234567890}',
}


@pytest.fixture
def running(start_sidecar: StartSidecar) -> RunningSidecar:
    return start_sidecar(CONFIG)


@pytest.fixture
def app(running: RunningSidecar) -> Iterator[Plane]:
    with Plane(running.app_socket) as plane:
        yield plane


@pytest.fixture
def admin(running: RunningSidecar) -> Iterator[Plane]:
    with Plane(running.admin_socket) as plane:
        yield plane


def begin(app: Plane, **fields: object) -> pb.IssueResponse:
    request = pb.IssueRequest(**{**GRANT, "with_refresh_token": True, **fields})  # type: ignore[arg-type]
    answer: pb.IssueResponse = app.issue(request, timeout=SECONDS)
    return answer


def trade(app: Plane, token: str, **fields: object) -> pb.IssueResponse:
    request = pb.RefreshRequest(refresh_token=token, **fields)  # type: ignore[arg-type]
    answer: pb.RefreshResponse = app.refresh(request, timeout=SECONDS)
    return answer.tokens


def reason(app: Plane, token: str, **fields: object) -> str:
    """Why it is not traded."""
    return refused(app.refresh, pb.RefreshRequest(refresh_token=token, **fields)).reason  # type: ignore[arg-type]


def rejected(app: Plane, token: str) -> str:
    return refused(app.validate, pb.ValidateRequest(token=token, audiences=["orders"])).reason


def test_pair_carries_the_grant_on(app: Plane) -> None:
    first = begin(app, ttl=Duration(seconds=60))
    said = app.accepts(first.token)
    assert json.loads(said.claims_json)["sid"] == first.token_id
    assert first.refresh_expire_time.seconds == first.issue_time.seconds + 3600
    second = trade(app, first.refresh_token)
    again = app.accepts(second.token)
    assert second.token_id != first.token_id
    assert second.refresh_token != first.refresh_token
    for answer, name in (
        (said, "subject"),
        (said, "client_id"),
        (said, "audiences"),
        (said, "scopes"),
        (said, "issuer"),
    ):
        assert getattr(again, name) == getattr(answer, name)
    assert again.expire_time.seconds - again.issue_time.seconds == 60
    assert '"role": "admin",  "n": 12345678901234567890' in again.claims_json
    assert json.loads(again.claims_json)["sid"] == first.token_id
    third = trade(app, second.refresh_token)
    assert app.accepts(third.token).subject == "user-42"


def test_nothing_of_the_grant_can_be_read_in_the_token_or_the_store(app: Plane, running: RunningSidecar) -> None:
    first = begin(app, subject="user-MARKED")
    trade(app, first.refresh_token)
    header, *rest = first.refresh_token.split(".")
    assert json.loads(base64.urlsafe_b64decode(header + "=="))["typ"] == "rt+jwt"
    held = b"".join(file.read_bytes() for file in running.state_dir.iterdir() if file.is_file())
    assert b"MARKED" not in held
    assert rest[-2].encode() not in held


def test_lost_answer_is_given_again_and_says_the_same(app: Plane) -> None:
    first = begin(app)
    answer = trade(app, first.refresh_token)
    again = trade(app, first.refresh_token)
    assert (again.token_id, again.issue_time, again.expire_time, again.refresh_expire_time) == (
        answer.token_id,
        answer.issue_time,
        answer.expire_time,
        answer.refresh_expire_time,
    )
    trade(app, again.refresh_token)
    app.accepts(answer.token)


def test_spent_token_whose_successor_is_spent_ends_everything_of_its_login(app: Plane) -> None:
    first, other = begin(app), begin(app)
    second = trade(app, first.refresh_token)
    third = trade(app, second.refresh_token)
    assert reason(app, first.refresh_token) == "REFRESH_REUSED"
    for refresh_token in (first, second, third):
        assert reason(app, refresh_token.refresh_token) == "TOKEN_REVOKED"
        assert rejected(app, refresh_token.token) == "TOKEN_REVOKED"
    app.accepts(other.token)
    trade(app, other.refresh_token)


def test_repeat_after_the_grace_is_reuse(app: Plane) -> None:
    first = begin(app)
    second = trade(app, first.refresh_token)
    time.sleep(refresh.GRACE + 0.5)
    assert reason(app, first.refresh_token) == "REFRESH_REUSED"
    assert reason(app, second.refresh_token) == "TOKEN_REVOKED"


def test_request_may_narrow_and_never_widen(app: Plane) -> None:
    first = begin(app)
    second = trade(app, first.refresh_token, audiences=["orders"], scopes=["read"])
    assert (list(second.audiences), list(second.scopes)) == (["orders"], ["read"])
    refusal = refused(
        app.refresh, pb.RefreshRequest(refresh_token=second.refresh_token, audiences=["mail"], scopes=["admin"])
    )
    assert (refusal.reason, refusal.fields.keys()) == ("REQUEST_INVALID", {"audiences", "scopes"})
    third = trade(app, second.refresh_token)  # the refused request spent nothing, and the grant is as it was
    assert (list(third.audiences), list(third.scopes)) == (["orders", "billing"], ["read", "write"])


def test_each_kind_of_token_is_refused_where_the_other_one_is_due(app: Plane) -> None:
    first = begin(app)
    assert rejected(app, first.refresh_token) == "TOKEN_INVALID"
    assert reason(app, first.token) == "TOKEN_INVALID"
    for junk in ("junk", first.refresh_token[:-2] + "AA", "x" * 20_000):
        assert reason(app, junk) == "TOKEN_INVALID"
    assert refused(app.refresh, pb.RefreshRequest()).fields.keys() == {"refresh_token"}


def test_profile_without_refresh_tokens_says_so(app: Plane, admin: Plane) -> None:
    asked = pb.IssueRequest(profile="plain", subject="u", audiences=["orders"], with_refresh_token=True)
    assert refused(app.issue, asked).fields.keys() == {"with_refresh_token"}
    asked_keys = pb.RotateRequest(profile="plain", key_use=keys_pb2.KEY_USE_REFRESH)
    assert refused(admin.rotate, asked_keys).fields.keys() == {"key_use"}


def test_batch_makes_pairs(app: Plane) -> None:
    requests = [pb.IssueRequest(**GRANT, with_refresh_token=True) for _ in range(3)]
    answer = app.batch_issue(pb.BatchIssueRequest(requests=requests), timeout=SECONDS)
    for result in answer.results:
        trade(app, result.response.refresh_token)


# Taken back


def test_logout_by_refresh_token_ends_the_family(app: Plane) -> None:
    first, other = begin(app), begin(app)
    second = trade(app, first.refresh_token)
    app.revoke(pb.RevokeRequest(token=second.refresh_token), timeout=SECONDS)
    for pair in (first, second):
        assert rejected(app, pair.token) == "TOKEN_REVOKED"
        assert reason(app, pair.refresh_token) == "TOKEN_REVOKED"
    trade(app, other.refresh_token)


def test_revoked_subject_has_no_refresh_token_left(app: Plane, admin: Plane) -> None:
    first, other = begin(app, subject="user-1"), begin(app)
    admin.revoke_subject(admin_pb.RevokeSubjectRequest(profile="default", subject="user-1"), timeout=SECONDS)
    assert reason(app, first.refresh_token) == "TOKEN_REVOKED"
    trade(app, other.refresh_token)


# Races and faults


def test_of_refreshes_at_once_on_two_sidecars_all_get_one_successor(
    running: RunningSidecar, app: Plane, start_sidecar: StartSidecar
) -> None:
    second = start_sidecar(CONFIG, {"TOKENSIDECAR_STATE_DIR": str(running.state_dir)})
    with Plane(second.app_socket) as other, ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            token = begin(app).refresh_token
            pairs = list(pool.map(lambda i, t=token: trade((app, other)[i % 2], t), range(8)))
            assert len({(pair.token_id, pair.issue_time.seconds) for pair in pairs}) == 1
        first = begin(app)
        spent = trade(other, trade(app, first.refresh_token).refresh_token)
        assert reason(other, first.refresh_token) == "REFRESH_REUSED"
        assert reason(app, spent.refresh_token) == "TOKEN_REVOKED"  # the store says so, whatever is in memory


def test_without_the_store_nothing_is_refreshed_or_revoked(app: Plane, running: RunningSidecar) -> None:
    first = begin(app)
    with closing(sqlite3.connect(running.state_dir / "state.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # nobody else can write now
        assert reason(app, first.refresh_token) == "STORE_UNAVAILABLE"
        assert refused(app.revoke, pb.RevokeRequest(token=first.token)).reason == "STORE_UNAVAILABLE"
        app.accepts(first.token)
        begin(app)
        other.execute("ROLLBACK")
    trade(app, first.refresh_token)


# Keys


def test_refresh_keys_are_listed_rotated_and_revoked(app: Plane, admin: Plane) -> None:
    def keys() -> list[keys_pb2.Key]:
        listed = admin.list_keys(admin_pb.ListKeysRequest(profile="default"), timeout=SECONDS).keys
        return [key for key in listed if key.key_use == keys_pb2.KEY_USE_REFRESH]

    first = begin(app)
    (before,) = keys()
    assert (before.profile, before.algorithm, before.content_encryption) == ("default", "A256KW", "A256GCM")
    rotated = admin.rotate(pb.RotateRequest(key_use=keys_pb2.KEY_USE_REFRESH), timeout=SECONDS)
    assert len(keys()) == 2
    assert rotated.ring_revision == 2
    second = trade(app, first.refresh_token)  # under the retiring key; its successor is sealed under the fresh one
    fresh = next(key for key in keys() if key.key_id != before.key_id)
    header = json.loads(base64.urlsafe_b64decode(second.refresh_token.split(".")[0] + "=="))
    assert header["kid"] == fresh.key_id
    admin.revoke_keys(admin_pb.RevokeKeysRequest(profile="default", key_ids=[fresh.key_id]), timeout=SECONDS)
    assert reason(app, second.refresh_token) == "TOKEN_INVALID"
    app.accepts(second.token)
    assert app.get_jwks(pb.GetJwksRequest(key_use=keys_pb2.KEY_USE_REFRESH), timeout=SECONDS).jwks_json == '{"keys":[]}'


# Bound grants


def test_bound_grant_is_traded_to_who_holds_its_key(app: Plane) -> None:
    thumbprint = base64.urlsafe_b64encode(b"t" * 32).rstrip(b"=").decode()
    first = begin(app, confirmation=pb.Confirmation(certificate_thumbprint_sha256=thumbprint))
    assert reason(app, first.refresh_token) == "TOKEN_POSSESSION_UNPROVEN"
    held = pb.Possession(certificate_thumbprint_sha256=thumbprint)
    second = trade(app, first.refresh_token, possession=held)
    app.accepts(second.token, possession=held)
    assert rejected(app, second.token) == "TOKEN_POSSESSION_UNPROVEN"


@pytest.mark.parametrize("replay", ["local", "fleet"])
def test_grant_bound_to_a_proof_key_is_traded_with_a_fresh_proof(start_sidecar: StartSidecar, replay: str) -> None:
    running = start_sidecar(CONFIG.replace("refresh_ttl", f'proof_replay = "{replay}"\nrefresh_ttl', 1))
    presenter, url = Presenter(), "https://orders.example/refresh"

    def proven(**claims: object) -> pb.Possession:
        text = presenter.proof("", "POST", url, ath=None, **claims)
        return pb.Possession(dpop=pb.DpopProof(proof=text, method="POST", url=url))

    with Plane(running.app_socket) as app:
        first = begin(app, confirmation=pb.Confirmation(jwk_thumbprint_sha256=presenter.thumbprint))
        used = proven()
        second = trade(app, first.refresh_token, possession=used)
        assert reason(app, second.refresh_token, possession=used) == "TOKEN_POSSESSION_UNPROVEN"
        thief = Presenter().proof("", "POST", url, ath=None)
        stolen = pb.Possession(dpop=pb.DpopProof(proof=thief, method="POST", url=url))
        assert reason(app, second.refresh_token, possession=stolen) == "TOKEN_POSSESSION_UNPROVEN"
        trade(app, second.refresh_token, possession=proven())


def test_login_lasts_no_longer_than_its_longest_time(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(CONFIG.replace('refresh_max_ttl = "2h"', 'refresh_max_ttl = "1h"'))
    with Plane(running.app_socket) as app:
        first = begin(app)
        time.sleep(1.1)
        second = trade(app, first.refresh_token)
        assert second.refresh_expire_time == first.refresh_expire_time
        assert second.issue_time.seconds > first.issue_time.seconds


def test_calls_fail_with_a_status_and_not_with_an_internal_error(app: Plane) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        app.refresh(pb.RefreshRequest(refresh_token=app.token()), timeout=SECONDS)
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
