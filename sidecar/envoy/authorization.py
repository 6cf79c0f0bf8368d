"""envoy.service.auth.v3.Authorization: unpack what Envoy says of a request, ask `authorize`, pack the answer.

A denial of any kind is a `denied_response`, 503 included: an `error_response`, or a failed call, Envoy may be configured to let through
(`failure_mode_allow`). What fails in here is a failed call all the same, and Envoy's own `status_on_error`.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import grpc
from google.protobuf.struct_pb2 import NullValue, Value
from google.rpc import status_pb2

from sidecar.authorize import Allowed, Authorize
from sidecar.denials import Denied
from sidecar.envoy import ext_authz_pb2 as pb
from sidecar.policy import Verb
from sidecar.possession import forwarded, of_certificate
from sidecar.routes import Request
from sidecar.rpc.boundary import Boundary, Call, Door
from sidecar.rpc.server import Services

AUTHORIZATION_SERVICE = "envoy.service.auth.v3.Authorization"
CHECK_BYTES = 256 * 1024
"""Envoy's own limit for a request's headers is 60 KiB, and some of them come twice."""

_CODES = {
    HTTPStatus.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.UNAUTHORIZED: grpc.StatusCode.UNAUTHENTICATED,
    HTTPStatus.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    HTTPStatus.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}
XFCC = "x-forwarded-client-cert"


def authorization_services(authorize: Authorize, boundary: Boundary, *, proxied: bool = False) -> Services:
    """The service, for the doors of [listen] envoy; `proxied` as for `request`."""

    async def check(call: Call[pb.CheckRequest]) -> pb.CheckResponse:
        answer = await authorize(call.caller, request(call.request, proxied=proxied), call.request_id, call.refused)
        return denied(answer) if isinstance(answer, Denied) else allowed(answer)

    def made(door: Door) -> Mapping[str, grpc.GenericRpcHandler]:
        handler = boundary.wrap(
            AUTHORIZATION_SERVICE, "Check", Verb.VALIDATE, pb.CheckRequest, check, door, limit=CHECK_BYTES
        )
        return {AUTHORIZATION_SERVICE: grpc.method_handlers_generic_handler(AUTHORIZATION_SERVICE, {"Check": handler})}

    return made


def request(message: pb.CheckRequest, *, proxied: bool = False) -> Request:
    """What Envoy says of a request. `proxied`: the client's certificate is what a proxy before it says (X-Forwarded-Client-Cert)."""
    attributes = message.attributes
    http = attributes.request.http
    headers = _headers(http)
    return Request(
        method=http.method,
        scheme=http.scheme,
        host=http.host,
        target=http.path,
        headers=headers,
        extensions=attributes.context_extensions,
        certificate=_certificate(attributes, headers, proxied=proxied),
    )


def _certificate(attributes: pb.AttributeContext, headers: Mapping[str, str], *, proxied: bool) -> str:
    return forwarded(headers.get(XFCC, "")) if proxied else of_certificate(attributes.source.certificate)


def _headers(http: pb.AttributeContext.HttpRequest) -> Mapping[str, str]:
    if not http.HasField("header_map"):
        return dict(http.headers)
    found: dict[str, str] = {}
    for header in http.header_map.headers:
        value = header.raw_value.decode("utf-8", "replace") if header.raw_value else header.value
        found[header.key] = f"{found[header.key]},{value}" if header.key in found else value
    return found


def allowed(answer: Allowed) -> pb.CheckResponse:
    """Let it through, with these headers changed."""
    response = pb.CheckResponse(
        status=status_pb2.Status(code=0),
        ok_response=pb.OkHttpResponse(headers=_options(answer.changes.put), headers_to_remove=answer.changes.out),
    )
    for name, fact in answer.facts.items():
        _fill(response.dynamic_metadata.fields[name], fact)
    return response


def denied(answer: Denied) -> pb.CheckResponse:
    """The answer for the client; the facts are for Envoy's access log."""
    response = pb.CheckResponse(
        status=status_pb2.Status(code=_CODES[HTTPStatus(answer.status)].value[0]),
        denied_response=pb.DeniedHttpResponse(
            status=pb.HttpStatus(code=answer.status), headers=_options(answer.headers), body=answer.body.decode()
        ),
    )
    for name, fact in answer.facts.items():
        _fill(response.dynamic_metadata.fields[name], fact)
    return response


def _fill(target: Value, value: object) -> None:
    """JSON as a Value; half the time of what the library has for it. Numbers are doubles."""
    match value:
        case str():
            target.string_value = value
        case bool():
            target.bool_value = value
        case int() | float():
            target.number_value = value
        case dict():
            target.struct_value.SetInParent()
            for name, one in value.items():
                _fill(target.struct_value.fields[name], one)
        case list():
            target.list_value.SetInParent()
            for one in value:
                _fill(target.list_value.values.add(), one)
        case _:
            target.null_value = NullValue.NULL_VALUE


def _options(headers: Mapping[str, str]) -> list[pb.HeaderValueOption]:
    overwrite = pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    return [
        pb.HeaderValueOption(header=pb.HeaderValue(key=name, value=value), append_action=overwrite)
        for name, value in headers.items()
    ]
