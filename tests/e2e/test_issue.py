"""Issue and Validate: what goes in comes out, exactly; and what is refused."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct, Value
from tokensidecar.v1 import token_service_pb2 as pb

from sidecar.claims import RESERVED
from tests.e2e.calls import SECONDS, Plane, refused
from tests.forgeries import decode, header_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.e2e.calls import Refusal

OWN = ["iss", "sub", "aud", "client_id", "jti", "iat", "exp"]


def issue(plane: Plane, **fields: Any) -> pb.IssueResponse:
    answer: pb.IssueResponse = plane.issue(request(**fields), timeout=SECONDS)
    return answer


def request(*, subject: str = "user-42", audiences: Sequence[str] = ("orders",), **fields: Any) -> pb.IssueRequest:
    return pb.IssueRequest(subject=subject, audiences=audiences, **fields)


def refusal(plane: Plane, **fields: Any) -> Refusal:
    found = refused(plane.issue, request(**fields))
    assert found.reason == "REQUEST_INVALID"
    return found


# -- the token


def test_the_default_token_is_nested_and_lasts_five_minutes(app: Plane) -> None:
    before = int(time.time())
    issued = issue(app, scopes=["read"])
    header = header_of(issued.token)
    assert header == {"alg": "A256KW", "enc": "A256GCM", "kid": issued.key_id, "cty": "JWT"}
    assert issued.token.count(".") == 4
    assert before <= issued.issue_time.seconds <= time.time() + 1
    assert issued.expire_time.seconds - issued.issue_time.seconds == 300
    assert (issued.audiences, issued.scopes) == (["orders"], ["read"])
    assert len(decode(issued.token_id)) == 16


def test_validate_tells_what_issue_granted(app: Plane) -> None:
    issued = issue(app, audiences=["orders", "billing"], scopes=["read", "write"], client_id="cart")
    accepted = app.accepts(issued.token)
    claims = json.loads(accepted.claims_json)
    assert list(claims) == ["iss", "sub", "aud", "client_id", "scope", "jti", "iat", "exp"]
    assert claims == {
        "iss": accepted.issuer, "sub": accepted.subject, "aud": list(accepted.audiences), "client_id": accepted.client_id, "scope": "read write",
        "jti": accepted.token_id, "iat": accepted.issue_time.seconds, "exp": accepted.expire_time.seconds,
    }  # fmt: skip
    assert (accepted.profile, accepted.issuer, accepted.subject) == ("default", "urn:tokensidecar:local", "user-42")
    assert (accepted.client_id, list(accepted.scopes)) == ("cart", ["read", "write"])
    assert (accepted.token_id, accepted.key_id) == (issued.token_id, issued.key_id)
    assert (accepted.issue_time, accepted.expire_time) == (issued.issue_time, issued.expire_time)
    assert accepted.ring_revision >= 1
    assert not accepted.HasField("claims")


def test_the_client_id_is_the_callers_name_unless_given(app: Plane) -> None:
    assert app.accepts(app.token()).client_id == "unix:app"


def test_over_tcp_the_caller_has_another_name(sidecar: Any) -> None:
    with Plane(sidecar.app_tcp) as tcp:
        assert tcp.accepts(tcp.token()).client_id == "tcp:app"


def test_no_two_tokens_are_alike(app: Plane) -> None:
    issued = [issue(app) for _ in range(20)]
    assert len({one.token_id for one in issued}) == 20
    assert len({one.token for one in issued}) == 20


# -- claims, exactly

EXACT = [
    "{}",
    ' {\t"a" : 1 }\r\n',
    '{"max":9223372036854775807,"min":-9223372036854775808,"unsigned":18446744073709551615}',
    '{"n":1.10,"e":1E5,"z":-0,"big":9007199254740993}',
    '{"escaped":"\\u0041\\/\\ud83d\\ude00","plain":"Zoë 漢字 😀 \u202e"}',
    '{"":1,"a b":2,"\\u0000":3}',
    '{"b":{"y":[1,null,true,{"x":""}],"x":{}},"a":[]}',
    '{"a":1,"A":2,"role":"admin","exp ":1}',
    '{"c":' * 8 + "1" + "}" * 8,
    json.dumps({"list": [0] * 490}),
]


@pytest.mark.parametrize("claims", EXACT)
def test_members_of_claims_json_are_carried_over_byte_for_byte(app: Plane, claims: str) -> None:
    accepted = app.accepts(app.token(claims_json=claims))
    inside = claims.strip()[1:-1].strip()
    own, _, further = accepted.claims_json.partition(f',"exp":{accepted.expire_time.seconds}')
    assert list(json.loads(own + "}"))[:2] == ["iss", "sub"]
    assert further == (f",{inside}}}" if inside else "}")


def test_a_struct_of_whole_numbers_becomes_integers(app: Plane) -> None:
    claims = Struct()
    claims.update({"count": 42, "edge": 2**53, "below": -(2**53), "part": 0.5, "tiny": 1e-7, "yes": True, "no": None})
    claims.update({"list": [1, "a", [], {}], "name": "Zoë 漢字 😀", "object": {"n": 7}})
    text = app.accepts(app.token(claims=claims)).claims_json
    found = json.loads(text)
    assert found["count"] == 42
    for written in (
        '"count":42',
        '"edge":9007199254740992',
        '"below":-9007199254740992',
        '"part":0.5',
        '"tiny":1e-07',
        '"name":"Zoë 漢字 😀"',
        '"no":null',
        '"yes":true',
        '"list":[1,"a",[],{}]',
        '"object":{"n":7}',
    ):
        assert written in text


@pytest.mark.parametrize("number", [2.0**53 + 2, -(2.0**53) - 2, 1e300, float("nan"), float("inf"), float("-inf")])
def test_a_number_that_a_struct_cannot_hold_exactly_is_refused(app: Plane, number: float) -> None:
    claims = Struct(fields={"a": Value(list_value={"values": [Value(number_value=number)]})})
    found = refusal(app, claims=claims)
    assert list(found.fields) == ["claims"]


def test_the_view_for_people_comes_only_when_asked_for(app: Plane) -> None:
    token = app.token(claims_json='{"n":9223372036854775807,"deep":{"a":[null,true,"x"]},"f":1.5}')
    view = app.accepts(token, with_claims=True).claims
    assert view["n"] == float(2**63)
    assert view["deep"]["a"][2] == "x"
    assert view["f"] == 1.5
    assert view["sub"] == "user-42"


# -- what is refused

BAD_JSON = [
    "", " ", "[]", "null", "1", '"a"', "{", "{}{}", '{"a":1,}', '{"a":1,"a":1}', '{"a":1,"\\u0061":1}', '{"o":{"a":1,"a":1}}', "{'a':1}", '{"a":NaN}', '{"a":Infinity}',
    '{"a":-Infinity}', '{"a":1e400}', '{"a":18446744073709551616}', '{"a":-9223372036854775809}', '{"a":"\\ud800"}', '{"a":"\\udc00\\ud800"}', '{"a":01}', '{"a":+1}',
    '{"a":"\t"}', '{"a":1}//', "\ufeff{}", '{"a":0.' + "1" * 40 + "}", '{"a":' * 9 + "1" + "}" * 9, '{"a":' + "[" * 30000, json.dumps({"l": list(range(520))}), "NaN", '{"a":\u0661}',
]  # fmt: skip


@pytest.mark.parametrize("claims", BAD_JSON, ids=lambda text: repr(text[:16]))
def test_claims_json_in_bad_form_is_refused(app: Plane, claims: str) -> None:
    assert list(refusal(app, claims_json=claims).fields) == ["claims_json"]


def test_a_struct_nested_deeper_than_claims_may_be_is_refused(app: Plane) -> None:
    value = Value(number_value=1)
    for _ in range(30):
        value = Value(struct_value=Struct(fields={"a": value}))
    refusal(app, claims=Struct(fields={"a": value}))


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_registered_name_is_refused_in_every_spelling(app: Plane, name: str) -> None:
    for spelled in (name, name.upper(), name.title(), f"\\u{ord(name[0]):04x}{name[1:]}"):
        found = refusal(app, claims_json=f'{{"tenant":"t","{spelled}":"x"}}')
        assert list(found.fields) == ["claims_json"]
    claims = Struct()
    claims.update({name: 1})
    assert f'"{name}"' in refusal(app, claims=claims).message


@pytest.mark.parametrize(
    "ttl",
    [
        Duration(),
        Duration(seconds=-1),
        Duration(seconds=3601),
        Duration(seconds=2**62),
        Duration(seconds=-(2**62)),
        Duration(seconds=60, nanos=1),
        Duration(nanos=999_999_999),
        Duration(nanos=-1),
    ],
    ids=lambda ttl: f"{ttl.seconds}s{ttl.nanos}",
)
def test_a_ttl_outside_of_the_profiles_is_refused_and_never_clamped(app: Plane, ttl: Duration) -> None:
    assert list(refusal(app, ttl=ttl).fields) == ["ttl"]


@pytest.mark.parametrize("seconds", [1, 299, 3600])
def test_a_ttl_within_the_profiles_is_granted_to_the_second(app: Plane, seconds: int) -> None:
    issued = issue(app, ttl=Duration(seconds=seconds))
    assert issued.expire_time.seconds - issued.issue_time.seconds == seconds


@pytest.mark.parametrize(
    "audiences",
    [[], [""], ["orders", ""], ["a" * 256], ["a"] * 17, ["a\n"], ["a\u2028"], ["\x00"]],
    ids=lambda value: repr(value)[:20],
)
def test_audiences_in_bad_form_are_refused(app: Plane, audiences: list[str]) -> None:
    assert list(refusal(app, audiences=audiences).fields) == ["audiences"]


def test_sixteen_audiences_of_any_name_are_granted_without_configuration(app: Plane) -> None:
    audiences = [f"service-{number}/漢" for number in range(16)]
    issued = issue(app, audiences=audiences)
    assert app.accepts(issued.token, audiences[15]).audiences == audiences


@pytest.mark.parametrize("subject", ["", "a" * 256, "a\r\n", "\x7f", "\u0085"])
def test_a_subject_in_bad_form_is_refused(app: Plane, subject: str) -> None:
    assert list(refusal(app, subject=subject).fields) == ["subject"]


@pytest.mark.parametrize("scope", ["", " ", "a b", 'a"', "a\\", "é", "a\t"])
def test_a_scope_in_bad_form_is_refused(app: Plane, scope: str) -> None:
    assert list(refusal(app, scopes=["read", scope]).fields) == ["scopes"]


def test_a_token_over_the_profiles_size_is_refused_with_both_figures(app: Plane) -> None:
    found = refusal(app, claims_json=json.dumps({"a": "x" * 3000}))
    assert list(found.fields) == ["claims"]
    assert re.search(r"would have [0-9]+ bytes, and profile 'default' allows 4096", found.message)


def test_what_a_caller_sent_does_not_come_back_in_an_error(app: Plane) -> None:
    for fields in (
        {"subject": "MARKED\n"},
        {"audiences": ["MARKED\n"]},
        {"scopes": ["MARKED "]},
        {"client_id": "MARKED\n"},
        {"claims_json": '{"a":"MARKED","a":1}'},
        {"claims_json": '{"a":"' + "MARKED" * 1000 + '"}'},
    ):
        assert "MARKED" not in repr(refusal(app, **fields).trailers)


# -- configured profiles


def test_a_configured_profile_grants_its_audiences_only(web: Plane) -> None:
    fields = {"profile": "web", "claims_json": '{"tenant":"t"}'}
    issued = issue(web, audiences=["billing", "orders"], **fields)
    assert issued.expire_time.seconds - issued.issue_time.seconds == 120
    assert web.accepts(issued.token, "billing", profiles=["web"]).issuer == "https://tokens.example.com"
    for audiences in (["elsewhere"], ["orders", "elsewhere"], ["Orders"]):
        assert list(refusal(web, audiences=audiences, **fields).fields) == ["audiences"]
    assert list(refusal(web, ttl=Duration(seconds=601), **fields).fields) == ["ttl"]


def test_a_configured_profile_demands_and_allows_claims_by_name(web: Plane) -> None:
    issue(web, profile="web", claims_json='{"tenant":"t","role":"r"}')
    for claims, words in (
        ('{"role":"r"}', 'requires "tenant"'),
        ("{}", 'requires "tenant"'),
        ('{"tenant":"t","e-mail":"x"}', 'does not allow "e-mail"'),
        ('{"tenant":"t","Role":"x"}', 'does not allow "Role"'),
    ):
        found = refusal(web, profile="web", claims_json=claims)
        assert words in found.fields["claims_json"]
    assert "requires" in refusal(web, profile="web").message


def test_the_encrypted_format_has_one_layer_and_goes_round(web: Plane) -> None:
    issued = issue(web, profile="inside", claims_json='{"n":18446744073709551615}')
    assert header_of(issued.token) == {"alg": "A256KW", "enc": "A256GCM", "kid": issued.key_id, "typ": "at+jwt"}
    accepted = web.accepts(issued.token, profiles=["inside"])
    assert (accepted.profile, accepted.issuer) == ("inside", "https://inside.example.com")
    assert accepted.claims_json.endswith(',"n":18446744073709551615}')
    assert list(json.loads(accepted.claims_json)) == [*OWN, "n"]


def test_a_token_is_good_only_where_its_profile_is_asked_for(web: Plane) -> None:
    issued = issue(web, profile="inside")
    for profiles in (["web"], ["outside"], ["web", "outside"]):
        wanted = pb.ValidateRequest(token=issued.token, audiences=["orders"], profiles=profiles)
        assert refused(web.validate, wanted).reason == "TOKEN_INVALID"
    assert web.accepts(issued.token, profiles=["web", "outside", "inside"]).profile == "inside"
