"""Planes and profiles: what is served where, and to whom an answer says nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tokensidecar.v1 import admin_service_pb2 as admin_pb, token_service_pb2 as pb

from tests.e2e.calls import REASON, SECONDS, Plane, failed, refused

if TYPE_CHECKING:
    from tests.running import RunningSidecar

ISSUE = pb.IssueRequest(subject="u", audiences=["orders"])
VALIDATE = pb.ValidateRequest(token="t", audiences=["orders"])


@pytest.mark.parametrize("transport", ["socket", "tcp"])
@pytest.mark.parametrize(
    ("verb", "request_"), [("issue", ISSUE), ("validate", VALIDATE), ("rotate", pb.RotateRequest())]
)
def test_a_verb_on_the_wrong_plane_is_denied_and_the_right_one_is_named(
    sidecar: RunningSidecar, verb: str, request_: Any, transport: str
) -> None:
    wrong, right = ("app", "admin") if verb == "rotate" else ("admin", "app")
    with Plane(getattr(sidecar, f"{wrong}_{transport}")) as plane:
        refusal = refused(getattr(plane, verb), request_)
    assert (refusal.code, refusal.reason) == ("PERMISSION_DENIED", "CALLER_DENIED")
    assert f"the {right} plane" in refusal.message
    assert getattr(sidecar, f"{right}_socket") in refusal.message
    assert getattr(sidecar, f"{right}_tcp") in refusal.message


def test_a_batch_on_the_wrong_plane_is_denied_as_a_whole(admin: Plane) -> None:
    for rpc, request in (
        (admin.batch_issue, pb.BatchIssueRequest(requests=[ISSUE] * 3)),
        (admin.batch_validate, pb.BatchValidateRequest(requests=[VALIDATE] * 3)),
    ):
        refusal = refused(rpc, request)
        assert refusal.reason == "CALLER_DENIED"
        assert "the app plane" in refusal.message


def test_a_verb_on_the_wrong_plane_is_denied_whatever_the_request_says(app: Plane, admin: Plane) -> None:
    """Not a word about what is wrong with it: nobody looked."""
    for rpc, request in (
        (admin.issue, pb.IssueRequest()),
        (admin.validate, pb.ValidateRequest()),
        (admin.batch_issue, pb.BatchIssueRequest()),
        (admin.refresh, pb.RefreshRequest()),
        (admin.revoke, pb.RevokeRequest()),
        (app.rotate, pb.RotateRequest(key_use=99, profile="x" * 70_000)),  # type: ignore[arg-type]
    ):
        refusal = refused(rpc, request)
        assert (refusal.reason, refusal.fields) == ("CALLER_DENIED", {})


@pytest.mark.parametrize("rpc", ["list_keys", "revoke_keys", "revoke_subject", "revoke_token_id"])
def test_the_admin_service_does_not_exist_on_the_app_plane(app: Plane, rpc: str) -> None:
    requests = {
        "list_keys": admin_pb.ListKeysRequest(),
        "revoke_keys": admin_pb.RevokeKeysRequest(profile="default", key_ids=["k"]),
        "revoke_subject": admin_pb.RevokeSubjectRequest(),
        "revoke_token_id": admin_pb.RevokeTokenIdRequest(),
    }
    error = failed(getattr(app, rpc), requests[rpc])
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED
    assert REASON not in dict(error.trailing_metadata() or ())


def test_public_keys_are_on_both_planes(app: Plane, admin: Plane) -> None:
    request = pb.GetJwksRequest()
    assert app.get_jwks(request, timeout=SECONDS) == admin.get_jwks(request, timeout=SECONDS)


def test_no_answer_tells_which_profiles_there_are(web: Plane, web_admin: Plane) -> None:
    """A profile that the caller may not have looks as one that is not there, whatever its name; here nobody may have another."""
    seen = set()
    for name in ("default", "unknown", "WEB", "web ", "a" * 200, "../web", "%s"):
        issue = pb.IssueRequest(profile=name, subject="u", audiences=["orders"])
        check = pb.ValidateRequest(token="t", audiences=["orders"], profiles=["web", name])
        for rpc, request in (
            (web.issue, issue),
            (web.validate, check),
            (web.get_jwks, pb.GetJwksRequest(profile=name)),
            (web_admin.rotate, pb.RotateRequest(profile=name)),
            (web_admin.list_keys, admin_pb.ListKeysRequest(profile=name)),
            (web_admin.revoke_keys, admin_pb.RevokeKeysRequest(profile=name, key_ids=["k"])),
        ):
            refusal = refused(rpc, request)
            assert (refusal.code, refusal.reason) == ("PERMISSION_DENIED", "CALLER_DENIED"), rpc
            seen.add(refusal.message)
    assert seen == {"the profile does not exist or is not for this caller"}


def test_the_default_profile_is_not_there_where_others_are_configured(web: Plane) -> None:
    assert refused(web.issue, ISSUE).reason == "CALLER_DENIED"
    assert refused(web.validate, VALIDATE).reason == "CALLER_DENIED"
