"""Nothing that was promised is lost while things break; and the checker notices each promise that is not kept."""

from __future__ import annotations

import os
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tokensidecar.v1 import admin_service_pb2 as admin_pb, keys_pb2, token_service_pb2 as pb

from tests.history.checker import Bounds, Checker
from tests.history.record import Call, History
from tests.history.run import STORES, happened, lived, told
from tests.postgres import NEEDS as POSTGRES

BOUNDS = Bounds(max_staleness=30.0, max_skew=5.0)
NOW = 1_000_000.0
SECONDS = 600.0 if os.environ.get("TOKENSIDECAR_TEST_ALL") == "true" else 20.0


def issue(token: str, profile: str = "", *, at: float = NOW, family: int = 0, refresh_token: str = "") -> Call:
    answer = made(token, at, refresh_token)
    return Call("issue", 0, pb.IssueRequest(profile=profile, subject="u"), at, "", family, at + 0.1, "OK", answer)


def made(token: str, at: float, refresh_token: str = "") -> Any:
    return pb.IssueResponse(
        token=token,
        token_id=f"id of {token}",
        issue_time=Timestamp(seconds=int(at)),
        expire_time=Timestamp(seconds=int(at) + 300),
        refresh_token=refresh_token,
    )


def validate(token: str, outcome: str = "OK", *, at: float = NOW + 1, **request: Any) -> Call:
    asked = pb.ValidateRequest(token=token, **request)
    answer = pb.ValidateResponse(token_id=f"id of {token}", claims_json='{"sub":"u"}') if outcome == "OK" else None
    return Call("validate", 0, asked, at, token, 0, at + 0.1, outcome, answer)


def revoke(token: str, outcome: str = "OK", *, at: float = NOW + 1, effective: float = NOW + 40) -> Call:
    answer = pb.RevokeResponse(revocation_revision=7, effective_time=Timestamp(seconds=int(effective)))
    return Call("revoke", 0, pb.RevokeRequest(token=token), at, token, 0, at + 0.1, outcome, answer)


def revoke_subject(before: float, outcome: str = "OK") -> Call:
    request = admin_pb.RevokeSubjectRequest(subject="u", issued_before=Timestamp(seconds=int(before)))
    answer = admin_pb.RevokeSubjectResponse(revocation_revision=7, effective_time=Timestamp(seconds=int(NOW + 40)))
    return Call("revoke_subject", 0, request, NOW + 1, "", 0, NOW + 1.1, outcome, answer)


def refresh(
    token: str, successor: str = "", outcome: str = "OK", *, at: float, family: int = 1, text: str = ""
) -> Call:
    answer = pb.RefreshResponse(tokens=made(f"access {successor}", at, text or successor)) if outcome == "OK" else None
    return Call("refresh", 0, pb.RefreshRequest(refresh_token=token), at, token, family, at + 0.1, outcome, answer)


def rotate(request_id: str, revision: int) -> Call:
    request, answer = pb.RotateRequest(request_id=request_id), pb.RotateResponse(ring_revision=revision)
    return Call("rotate", 0, request, NOW, "", 0, NOW + 0.1, "OK", answer)


def ring(revision: int) -> Call:
    answer = admin_pb.ListKeysResponse(keys=[keys_pb2.Key(ring_revision=revision)])
    return Call("list_keys", 0, admin_pb.ListKeysRequest(), NOW + 9, "", 0, NOW + 9.1, "OK", answer)


def session() -> list[Call]:
    return [
        issue("t", "session", family=1, refresh_token="r0"),
        refresh("r0", "r1", at=NOW + 1),
        refresh("r0", "r1", at=NOW + 2, text="r1 again"),
        refresh("r1", "r2", at=NOW + 3),
    ]


def found(*calls: Call) -> list[str]:
    return Checker(History(list(calls)), BOUNDS).violations()


KEPT = {
    "validated": [issue("t"), validate("t")],
    "forged": [issue("t"), validate("x", "TOKEN_INVALID")],
    "expired": [issue("t"), validate("t", "TOKEN_EXPIRED", at=NOW + 301)],
    "cannot know": [issue("t"), validate("t", "STATE_STALE"), validate("t", "UNAVAILABLE"), issue("v")],
    "revoked": [issue("t"), revoke("t"), validate("t", "TOKEN_REVOKED", at=NOW + 2), validate("t", at=NOW + 39)],
    "perhaps revoked": [issue("t"), revoke("t", "DEADLINE_EXCEEDED"), validate("t", "TOKEN_REVOKED", at=NOW + 2)],
    "subject": [issue("t"), revoke_subject(NOW), validate("t", "TOKEN_REVOKED", at=NOW + 2)],
    "later token of a subject": [issue("t", at=NOW + 10), revoke_subject(NOW), validate("t", at=NOW + 60)],
    "once": [
        issue("t", "once"),
        validate("t", request_id="a"),
        validate("t", request_id="a"),
        validate("t", "TOKEN_ALREADY_CONSUMED", at=NOW + 2, request_id="b"),
    ],
    "lost answer of one time": [
        issue("t", "once"),
        validate("t", "DEADLINE_EXCEEDED", request_id="a"),
        validate("t", "TOKEN_ALREADY_CONSUMED", at=NOW + 2, request_id="b"),
    ],
    "refreshed": session(),
    "stolen": [
        *session(),
        refresh("r0", outcome="REFRESH_REUSED", at=NOW + 4),
        refresh("r2", outcome="TOKEN_REVOKED", at=NOW + 5),
    ],
    "spent too long ago": [*session(), refresh("r2", outcome="UNAVAILABLE", at=NOW + 4), refresh("r2", outcome="REFRESH_REUSED", at=NOW + 20)],
    "rotated": [rotate("a", 2), rotate("a", 2), ring(2)],
}  # fmt: skip

BROKEN = {
    "1 never issued": [issue("t"), validate("x")],
    "1 says something else": [issue("t"), validate("t"), Call("validate", 0, pb.ValidateRequest(), NOW, "t", 0, NOW, "OK", pb.ValidateResponse(token_id="other", claims_json='{"sub":"u"}'))],
    "2 invalid": [issue("t"), validate("t", "TOKEN_INVALID")],
    "2 expired too early": [issue("t"), validate("t", "TOKEN_EXPIRED", at=NOW + 200)],
    "2 revoked by nobody": [issue("t"), issue("v"), revoke("v"), validate("t", "TOKEN_REVOKED", at=NOW + 2)],
    "2 revoked by who was refused": [issue("t"), revoke("t", "CALLER_DENIED"), validate("t", "TOKEN_REVOKED", at=NOW + 2)],
    "2 consumed by nobody": [issue("t", "once"), validate("t", "TOKEN_ALREADY_CONSUMED", request_id="a")],
    "2 repeat refused": [issue("t", "once"), validate("t", request_id="a"), validate("t", "TOKEN_ALREADY_CONSUMED", at=NOW + 2, request_id="a")],
    "3 accepted after": [issue("t"), revoke("t"), validate("t", at=NOW + 41)],
    "3 accepted at the demanded": [issue("t"), revoke("t"), validate("t", at=NOW + 2, min_revocation_revision=7)],
    "3 accepted after effective_time of the subject": [issue("t"), revoke_subject(NOW), validate("t", at=NOW + 41)],
    "3 refreshed after": [*session(), revoke("r1", at=NOW + 4), refresh("r2", "r3", at=NOW + 5)],
    "4 accepted 2 times": [issue("t", "once"), validate("t", request_id="a"), validate("t", request_id="b")],
    "5 family 1, refresh 0: 2 successors": [*session(), refresh("r0", "another", at=NOW + 2.5)],
    "5 a refresh token that is good": [*session(), refresh("r2", outcome="REFRESH_REUSED", at=NOW + 4)],
    "5 a refresh token that is good was lost": [*session(), refresh("r2", outcome="TOKEN_INVALID", at=NOW + 4)],
    "5 refreshed after a reuse": [*session(), refresh("r0", outcome="REFRESH_REUSED", at=NOW + 4), refresh("r2", "r3", at=NOW + 5)],
    "6 one request": [rotate("a", 2), rotate("a", 3), ring(3)],
    "6 rotation lost": [rotate("a", 2), ring(1)],
    "7 answer": [issue("t"), validate("t", "INTERNAL")],
    "7 answer outside the contract": [issue("t"), validate("t", "UNKNOWN")],
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_a_history_in_which_all_promises_are_kept_is_good(name: str) -> None:
    assert found(*KEPT[name]) == []


@pytest.mark.parametrize("name", BROKEN)
def test_each_promise_that_is_not_kept_is_found(name: str) -> None:
    assert [words.partition(" ")[0] for words in found(*BROKEN[name])][:1] == [name.partition(" ")[0]]


@pytest.mark.timeout(900)
@pytest.mark.needs("faketime")
@pytest.mark.parametrize("store", ["sqlite", pytest.param("postgres", marks=pytest.mark.needs(POSTGRES))])
def test_nothing_is_lost_while_things_break(store: str) -> None:
    with STORES[store](3) as (stage, faults):
        history, violations = lived(stage, SECONDS, 1, faults)
    assert violations == []
    assert happened(history), told(history)
    assert len(stage.done) >= 3
