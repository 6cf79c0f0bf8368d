"""Tokens that are taken back, through the real RPC: by the presented token, by id, by subject; when it holds, and what cannot be known."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tokensidecar.v1 import admin_service_pb2 as admin_pb, token_service_pb2 as pb

from sidecar.policy import Verb
from tests.e2e.calls import SECONDS, Plane, metric, refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import StartSidecar
    from tests.running import RunningSidecar

CONFIG = """
[profiles.default]
issuer = "urn:test"
audiences = ["orders"]

[keys]
max_skew = "1s"
refresh_interval = "1s"
propagation = "2s"
"""


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


def rejected(app: Plane, token: str, **fields: int) -> str:
    return refused(app.validate, pb.ValidateRequest(token=token, audiences=["orders"], **fields)).reason


def issue(app: Plane, subject: str = "user-42") -> pb.IssueResponse:
    answer: pb.IssueResponse = app.issue(pb.IssueRequest(subject=subject, audiences=["orders"]), timeout=SECONDS)
    return answer


def by_id(admin: Plane, token_id: str, **fields: object) -> admin_pb.RevokeTokenIdResponse:
    request = admin_pb.RevokeTokenIdRequest(profile="default", token_id=token_id, **fields)  # type: ignore[arg-type]
    answer: admin_pb.RevokeTokenIdResponse = admin.revoke_token_id(request, timeout=SECONDS)
    return answer


def by_subject(admin: Plane, subject: str, **fields: object) -> admin_pb.RevokeSubjectResponse:
    request = admin_pb.RevokeSubjectRequest(profile="default", subject=subject, **fields)  # type: ignore[arg-type]
    answer: admin_pb.RevokeSubjectResponse = admin.revoke_subject(request, timeout=SECONDS)
    return answer


def records(running: RunningSidecar, verb: Verb) -> list[dict[str, object]]:
    lines = (running.directory / "stdout").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["verb"] == verb.value]


def test_presented_token_is_revoked_and_others_are_not(app: Plane) -> None:
    token, other = app.token(), app.token()
    assert app.accepts(token).revocation_revision == 0
    answer = app.revoke(pb.RevokeRequest(token=token, reason="logout"), timeout=SECONDS)
    assert answer.revocation_revision == 1
    assert rejected(app, token) == "TOKEN_REVOKED"
    assert app.accepts(other).revocation_revision in (0, 1)


def test_effective_time_is_when_every_sidecar_obeys_or_is_stale(app: Plane) -> None:
    before = time.time()
    answer = app.revoke(pb.RevokeRequest(token=app.token()), timeout=SECONDS)
    assert before + 900 < answer.effective_time.ToNanoseconds() / 1e9 < time.time() + 900 + 2 * 1 + 1


def test_revoking_again_or_what_is_no_token_is_no_error(app: Plane, running: RunningSidecar) -> None:
    token = app.token()
    first = app.revoke(pb.RevokeRequest(token=token), timeout=SECONDS)
    again = app.revoke(pb.RevokeRequest(token=token), timeout=SECONDS)
    assert again.revocation_revision == first.revocation_revision == 1
    for nothing in ("junk", "a.b.c", token[:-4] + "AAAA", "x" * 20_000):
        answer = app.revoke(pb.RevokeRequest(token=nothing), timeout=SECONDS)
        assert answer.revocation_revision <= 1
    assert metric(running, "tokensidecar_revocations_held") == 1
    assert refused(app.revoke, pb.RevokeRequest()).fields.keys() == {"token"}


def test_token_is_revoked_by_its_id(app: Plane, admin: Plane) -> None:
    one, other = issue(app), issue(app)
    answer = by_id(admin, one.token_id, expire_time=one.expire_time, reason="stolen")
    assert answer.revocation_revision == 1
    assert rejected(app, one.token) == "TOKEN_REVOKED"
    assert by_id(admin, other.token_id).revocation_revision == 2
    assert rejected(app, other.token) == "TOKEN_REVOKED"


def test_revocation_outlives_restarts_and_is_obeyed_by_another_process(
    app: Plane, running: RunningSidecar, start_sidecar: StartSidecar
) -> None:
    token = app.token()
    second = start_sidecar(CONFIG, {"TOKENSIDECAR_STATE_DIR": str(running.state_dir)})
    with Plane(second.app_socket) as other:
        other.accepts(token)
        revision = app.revoke(pb.RevokeRequest(token=token), timeout=SECONDS).revocation_revision
        assert rejected(other, token, min_revocation_revision=revision) == "TOKEN_REVOKED"
    second.kill()
    running.stop()
    running.start()
    running.wait_until_ready()
    with Plane(running.app_socket) as again:
        assert rejected(again, token) == "TOKEN_REVOKED"


def test_revision_that_cannot_be_reached_is_stale_state(app: Plane) -> None:
    token = app.token()
    assert rejected(app, token, min_revocation_revision=1) == "STATE_STALE"
    app.revoke(pb.RevokeRequest(token=app.token()), timeout=SECONDS)
    answer = app.accepts(token, min_revocation_revision=1)
    assert answer.revocation_revision == 1
    assert rejected(app, token, min_revocation_revision=2**63) == "STATE_STALE"


# Subjects


def test_tokens_of_a_subject_end_and_new_ones_wait_until_they_can_be_told_apart(app: Plane, admin: Plane) -> None:
    old, other = issue(app, "user-1"), issue(app, "user-2")
    by_subject(admin, "user-1", reason="laptop lost")
    assert rejected(app, old.token) == "TOKEN_REVOKED"
    app.accepts(other.token)
    refusal = refused(app.issue, pb.IssueRequest(subject="user-1", audiences=["orders"]))
    assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "SUBJECT_REVOKED")
    assert refusal.retry_after is not None
    assert 0 < refusal.retry_after <= 1 + 1 + 1  # rounding up, max_skew, and the second that `iat` is rounded to
    issue(app, "user-2")
    time.sleep(refusal.retry_after)
    new = issue(app, "user-1")
    app.accepts(new.token)
    assert rejected(app, old.token) == "TOKEN_REVOKED"


def test_tokens_issued_later_than_the_given_time_stay_good(app: Plane, admin: Plane) -> None:
    old = issue(app, "user-1")
    before = Timestamp(seconds=old.issue_time.seconds - 2)
    by_subject(admin, "user-1", issued_before=before)
    app.accepts(old.token)
    issue(app, "user-1")  # of the present second: later than the given time and max_skew
    by_subject(admin, "user-1", issued_before=Timestamp(seconds=old.issue_time.seconds - 1))
    assert rejected(app, old.token) == "TOKEN_REVOKED"


def test_time_in_the_future_is_refused(admin: Plane) -> None:
    request = admin_pb.RevokeSubjectRequest(profile="default", subject="user-1")
    request.issued_before.FromSeconds(math.ceil(time.time()) + 2)
    refusal = refused(admin.revoke_subject, request)
    assert (refusal.reason, refusal.fields.keys()) == ("REQUEST_INVALID", {"issued_before"})


@pytest.mark.parametrize("name", ["revoke_subject", "revoke_token_id"])
def test_operator_names_what_is_revoked(admin: Plane, name: str) -> None:
    kind = {"revoke_subject": admin_pb.RevokeSubjectRequest, "revoke_token_id": admin_pb.RevokeTokenIdRequest}[name]
    field = name.removeprefix("revoke_")
    assert refused(getattr(admin, name), kind()).fields.keys() == {"profile", field}
    assert refused(getattr(admin, name), kind(profile="other", **{field: "x"})).reason == "CALLER_DENIED"


# Records


def test_revocations_are_on_record_with_an_intent(app: Plane, admin: Plane, running: RunningSidecar) -> None:
    one = issue(app, "user-1")
    app.revoke(pb.RevokeRequest(token=one.token, reason="logout"), timeout=SECONDS)
    by_id(admin, one.token_id)
    by_subject(admin, "user-1")
    issued = records(running, Verb.ISSUE)[0]
    for verb in (Verb.REVOKE, Verb.REVOKE_TOKEN_ID, Verb.REVOKE_SUBJECT):
        intent, outcome = records(running, verb)
        assert (intent["phase"], outcome["phase"], outcome["outcome"]) == ("intent", "outcome", "OK")
        assert outcome["revocation_revision"] in (1, 2, 3)
        for name in ("token_id_hash", "subject_hash"):
            assert outcome.get(name, issued[name]) == issued[name]
    assert "user-1" not in (running.directory / "stdout").read_text()
    assert one.token_id not in (running.directory / "stdout").read_text()


def test_nothing_that_is_revoked_can_be_read_in_the_store(app: Plane, admin: Plane, running: RunningSidecar) -> None:
    one = issue(app, "user-MARKED")
    by_subject(admin, "user-MARKED")
    by_id(admin, one.token_id)
    held = b"".join(file.read_bytes() for file in Path(running.state_dir).iterdir())
    assert b"MARKED" not in held
    assert one.token_id.encode() not in held
