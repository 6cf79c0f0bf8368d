"""What Envoy says and hears, as messages."""

from __future__ import annotations

from google.protobuf import json_format

from sidecar.authorize import Allowed
from sidecar.denials import Denied
from sidecar.envoy import ext_authz_pb2 as pb
from sidecar.envoy.authorization import allowed, denied, request
from sidecar.upstream import Changes

FACTS = {
    "route": "a",
    "claims": {"n": 1, "x": 1.5, "yes": True, "no": None, "list": ["a", 1, {}], "empty": {}, "none": []},
}


def test_facts_become_metadata_as_they_are() -> None:
    found = allowed(Allowed(Changes({"x-user": "u"}, ("authorization",)), FACTS))
    assert json_format.MessageToDict(found.dynamic_metadata) == FACTS
    assert [(one.header.key, one.header.value) for one in found.ok_response.headers] == [("x-user", "u")]
    assert [one.append_action for one in found.ok_response.headers] == [pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD]
    assert list(found.ok_response.headers_to_remove) == ["authorization"]
    assert found.status.code == 0


def test_a_denial_of_any_kind_is_a_denied_response() -> None:
    for status, code in ((400, 3), (401, 16), (403, 7), (503, 14)):
        found = denied(Denied(status, {"a": "b"}, b"word", {"reason": "R"}))
        assert found.WhichOneof("http_response") == "denied_response"
        assert (found.status.code, found.denied_response.status.code, found.denied_response.body) == (
            code,
            status,
            "word",
        )
        assert found.dynamic_metadata.fields["reason"].string_value == "R"


def test_raw_headers_are_read_like_others_and_repeated_ones_joined() -> None:
    message = pb.CheckRequest()
    http = message.attributes.request.http
    for key, value in (("authorization", b"Bearer a"), ("authorization", b"Bearer b"), ("x", b"\xff")):
        http.header_map.headers.add(key=key, raw_value=value)
    http.header_map.headers.add(key="y", value="plain")
    assert request(message).headers == {
        "authorization": "Bearer a,Bearer b",
        "x": "\N{REPLACEMENT CHARACTER}",
        "y": "plain",
    }


def test_a_certificate_is_the_peers_or_that_of_a_trusted_proxy_and_never_both() -> None:
    message = pb.CheckRequest()
    message.attributes.request.http.headers["x-forwarded-client-cert"] = "Hash=" + "0" * 64
    assert request(message).certificate == ""
    assert request(message, proxied=True).certificate == "A" * 43
    message.attributes.source.certificate = "-----BEGIN%20CERTIFICATE-----%0AAAAA%0A-----END%20CERTIFICATE-----"
    assert len(request(message).certificate) == 43
    assert request(message, proxied=True).certificate == "A" * 43
