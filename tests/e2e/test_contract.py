"""Errors as the contract has them: codes, reasons, details, trailers; request ids; what is not in this version."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from tokensidecar.v1 import errors_pb2, keys_pb2, token_service_pb2 as pb

from sidecar.errors import Code, Reason
from sidecar.keyring import KeyState, KeyUse
from tests.e2e.calls import REASON, REQUEST_ID, SECONDS, Plane, failed, refused
from tests.e2e.insider import Insider
from tests.running import ROOT

if TYPE_CHECKING:
    from tests.running import RunningSidecar

ISSUE = {"subject": "user-42", "audiences": ["orders"]}
LATER = "not in this version; leave it unset"


# -- code and contract


def test_reasons_in_the_code_are_those_of_the_contract() -> None:
    assert {reason.name: reason.number for reason in Reason} == {
        name: number for name, number in errors_pb2.ErrorReason.items() if number
    }


def test_codes_in_the_code_are_those_of_grpc() -> None:
    assert {code.name: int(code) for code in Code} == {code.name: grpc.StatusCode[code.name].value[0] for code in Code}


def test_each_reason_has_the_code_that_the_contract_says() -> None:
    text = (ROOT / "proto/tokensidecar/v1/errors.proto").read_text()
    readme = (ROOT / "proto/README.md").read_text()
    for reason in Reason:
        assert re.search(rf"  // {reason.code.name}\. .*\n  {reason.name} = {reason.number};", text)
        assert f"| {reason.number} | `{reason.name}` | {reason.code.name} |" in readme


def test_uses_and_states_in_the_code_are_those_of_the_contract() -> None:
    later = {"UNSPECIFIED"}
    assert {use.name for use in KeyUse} == {
        name.removeprefix("KEY_USE_") for name in dict(keys_pb2.KeyUse.items())
    } - later
    assert {state.name for state in KeyState} == {
        name.removeprefix("KEY_STATE_") for name in dict(keys_pb2.KeyState.items())
    } - later


# -- each reason


def test_a_request_that_is_no_good_names_each_field(app: Plane) -> None:
    refusal = refused(app.issue, pb.IssueRequest(ttl=Duration(seconds=3601), scopes=["two words"], client_id="\n"))
    assert (refusal.code, refusal.reason, refusal.domain) == ("INVALID_ARGUMENT", "REQUEST_INVALID", "tokensidecar")
    assert set(refusal.fields) == {"subject", "audiences", "ttl", "client_id", "scopes"}
    assert all(refusal.fields.values())
    assert "3600" in refusal.fields["ttl"]


def test_validate_without_audiences_says_what_to_send(app: Plane) -> None:
    refusal = refused(app.validate, pb.ValidateRequest(token=app.token()))
    assert refusal.reason == "REQUEST_INVALID"
    assert list(refusal.fields) == ["audiences"]
    assert "names of the service that asks" in refusal.message


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.ValidateRequest(audiences=["orders"]), "token"),
        (pb.ValidateRequest(token="t", audiences=[""]), "audiences"),
        (pb.ValidateRequest(token="t", audiences=["orders", ""]), "audiences"),
        (pb.ValidateRequest(token="t", audiences=["orders"] * 65), "audiences"),
        (pb.ValidateRequest(token="t", audiences=["orders"], profiles=["default", ""]), "profiles"),
        (pb.ValidateRequest(token="t", audiences=["orders"], profiles=["default"] * 65), "profiles"),
        (pb.ValidateRequest(token="t", audiences=["orders"], required_scopes=["s"] * 65), "required_scopes"),
        (pb.ValidateRequest(token="t", audiences=["orders"], request_id="r" * 129), "request_id"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_validate_request_that_is_no_good_names_the_field(app: Plane, request_: Any, field: str) -> None:
    assert list(refused(app.validate, request_).fields) == [field]


def test_a_token_that_is_none_is_invalid_without_any_detail(app: Plane) -> None:
    refusal = refused(app.validate, pb.ValidateRequest(token="a.b.c.d.e", audiences=["orders"]))
    assert (refusal.code, refusal.reason, refusal.domain) == ("UNAUTHENTICATED", "TOKEN_INVALID", "tokensidecar")
    assert (refusal.message, refusal.fields) == ("the token is not valid", {})


def test_each_reason_of_a_genuine_token_is_given_in_the_contracts_order(app: Plane, sidecar: RunningSidecar) -> None:
    insider = Insider.read(sidecar.state_dir)
    now = insider.payload
    iat = app.accepts(insider.make(now())).issue_time.seconds
    wrong = {"aud": ["elsewhere"], "cnf": {"jkt": "A" * 43}, "scope": "read"}
    late = {"iat": iat - 1000, "exp": iat - 60}
    early = {"nbf": iat + 200}
    for reason, changes in (
        ("TOKEN_INVALID", {"iss": "urn:other", **early, **wrong}),
        ("TOKEN_INVALID", {**early, **wrong, "exp": iat + 3601}),
        ("TOKEN_NOT_YET_VALID", {**early, **late, **wrong}),
        ("TOKEN_NOT_YET_VALID", {"iat": iat + 60}),
        ("TOKEN_EXPIRED", {**late, **wrong}),
        ("TOKEN_AUDIENCE_MISMATCH", wrong),
        ("TOKEN_POSSESSION_UNPROVEN", {**wrong, "aud": ["orders"]}),
        ("TOKEN_POSSESSION_UNPROVEN", {"cnf": {}}),
        ("TOKEN_SCOPE_MISSING", {"scope": "read"}),
    ):
        request = pb.ValidateRequest(
            token=insider.make(now(**changes)), audiences=["orders"], required_scopes=["read", "write"]
        )
        refusal = refused(app.validate, request)
        assert (refusal.code, refusal.reason, refusal.fields) == ("UNAUTHENTICATED", reason, {}), changes
        assert "elsewhere" not in refusal.message


def test_leeway_is_five_seconds_each_way(app: Plane, sidecar: RunningSidecar) -> None:
    insider = Insider.read(sidecar.state_dir)
    iat = app.accepts(insider.make(insider.payload())).issue_time.seconds
    app.accepts(insider.make(insider.payload(iat=iat - 100, exp=iat - 2)))
    app.accepts(insider.make(insider.payload(iat=iat + 4, nbf=iat + 4)))


def test_a_scope_that_is_there_is_enough_and_none_is_needed(app: Plane) -> None:
    token = app.token(scopes=["read", "write"])
    assert app.accepts(token, required_scopes=["write", "read", "read"]).scopes == ["read", "write"]
    assert app.accepts(token).scopes == ["read", "write"]
    missing = pb.ValidateRequest(token=token, audiences=["orders"], required_scopes=["rea"])
    assert refused(app.validate, missing).reason == "TOKEN_SCOPE_MISSING"


def test_one_audience_in_common_is_enough(app: Plane) -> None:
    token = app.issue(pb.IssueRequest(subject="u", audiences=["orders", "billing"]), timeout=SECONDS).token
    request = pb.ValidateRequest(token=token, audiences=["elsewhere", "billing"])
    assert app.validate(request, timeout=SECONDS).audiences == ["orders", "billing"]
    assert refused(app.validate, pb.ValidateRequest(token=token, audiences=["Orders"])).reason == (
        "TOKEN_AUDIENCE_MISMATCH"
    )


# -- request ids


@pytest.mark.parametrize("given", ["0", "4bf92f3577b34da6a3ce929d0e0e4736", "a/b:c+d=e_f.g-h", "r" * 128])
def test_a_request_id_is_echoed_with_answers_and_errors(app: Plane, given: str) -> None:
    metadata = ((REQUEST_ID, given),)
    _, call = app.issue.with_call(pb.IssueRequest(**ISSUE), timeout=SECONDS, metadata=metadata)
    assert [value for key, value in call.trailing_metadata() if key == REQUEST_ID] == [given]
    assert refused(app.issue, pb.IssueRequest(), metadata).request_id == given


@pytest.mark.parametrize("given", ["", "with space", "r" * 129, "{}", "a;b", '"'])
def test_a_request_id_that_could_do_harm_in_a_log_is_replaced(app: Plane, given: str) -> None:
    metadata = ((REQUEST_ID, given),)
    _, call = app.issue.with_call(pb.IssueRequest(**ISSUE), timeout=SECONDS, metadata=metadata)
    (made,) = (value for key, value in call.trailing_metadata() if key == REQUEST_ID)
    assert made != given
    assert len(made) == 16


def test_each_call_without_a_request_id_gets_one_of_its_own(app: Plane) -> None:
    ids = {refused(app.issue, pb.IssueRequest()).request_id for _ in range(20)}
    assert len(ids) == 20


# -- later work


@pytest.mark.parametrize(
    ("rpc", "request_", "field"),
    [
        ("rotate", pb.RotateRequest(key_use=99), "key_use"),
        ("get_jwks", pb.GetJwksRequest(key_use=99), "key_use"),
    ],
)
def test_a_field_of_later_work_is_refused_by_name_even_if_empty(
    app: Plane, admin: Plane, rpc: str, request_: Any, field: str
) -> None:
    refusal = refused(getattr(admin if rpc == "rotate" else app, rpc), request_)
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "REQUEST_INVALID")
    assert refusal.fields == {field: LATER}


def test_fields_of_later_work_left_at_their_defaults_are_no_demand(app: Plane) -> None:
    request = pb.IssueRequest(**ISSUE, with_refresh_token=False)
    answer = app.issue(request, timeout=SECONDS)
    assert answer.refresh_token == ""
    assert not answer.HasField("refresh_expire_time")
    accepted = app.accepts(answer.token, min_revocation_revision=0, request_id="any")
    assert not accepted.HasField("confirmation")


def test_an_unknown_method_carries_no_reason(app: Plane) -> None:
    unknown = app.channel.unary_unary("/tokensidecar.v1.TokenService/Forge")
    error = failed(unknown, b"")
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED
    assert REASON not in dict(error.trailing_metadata() or ())


def test_unknown_fields_of_a_request_are_ignored_as_protobuf_has_it(app: Plane) -> None:
    raw = app.channel.unary_unary("/tokensidecar.v1.TokenService/Issue")
    further = pb.IssueRequest(**ISSUE).SerializeToString() + bytes([0xFA, 0x3E, 0x01, 0x41])  # field 1007, "A"
    answer = pb.IssueResponse.FromString(raw(further, timeout=SECONDS))
    assert app.accepts(answer.token).subject == "user-42"
