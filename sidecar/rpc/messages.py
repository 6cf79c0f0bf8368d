"""Between the contract's messages and the values that verbs take and give. Every field is looked at here: none is ignored."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from tokensidecar.v1 import keys_pb2, token_service_pb2 as pb

from sidecar.errors import InvalidRequestError, SidecarError, Violation
from sidecar.issue import Draft, Grant, Issued
from sidecar.keeper import Changed
from sidecar.keyring import KeyUse
from sidecar.keys import Listed
from sidecar.possession import Bond, Certificate, DpopProof, Evidence, Method, is_method, is_thumbprint, normal
from sidecar.refresh import Wish
from sidecar.revoke import Held
from sidecar.validate import Accepted, Demand

EXACT = 2**53
TOKEN_BYTES = 16 * 1024
YEAR_10000 = 253_402_300_800
MOST = 64  # audiences, profiles, scopes of a ValidateRequest
WORDS = 256  # characters of a reason for the audit log

_USES = {
    KeyUse.ENCRYPTION: keys_pb2.KEY_USE_ENCRYPTION,
    KeyUse.SIGNATURE: keys_pb2.KEY_USE_SIGNATURE,
    KeyUse.REFRESH: keys_pb2.KEY_USE_REFRESH,
}


_THUMBPRINT_PROBLEM = "SHA-256 in base64url without padding: 43 characters"
_CONFIRMATIONS = {
    Method.DPOP: lambda text: pb.Confirmation(jwk_thumbprint_sha256=text),
    Method.CERTIFICATE: lambda text: pb.Confirmation(certificate_thumbprint_sha256=text),
}


def later(field: str) -> Violation:
    """A set field whose feature does not exist yet is refused by name, never ignored."""
    return Violation(field, "not in this version; leave it unset")


def grant(request: pb.IssueRequest) -> Grant:
    """An IssueRequest, unpacked."""
    bad: list[Violation] = []
    bond = _bond(request.confirmation, bad) if request.HasField("confirmation") else None
    ttl: int | None = None
    if request.HasField("ttl"):
        ttl = request.ttl.seconds
        if request.ttl.nanos:
            bad.append(Violation("ttl", 'whole seconds only, such as "300s"'))
    further: bytes | None = None
    source = request.WhichOneof("claims_source")
    try:
        if source == "claims":
            further = json.dumps(_object(request.claims), ensure_ascii=False, separators=(",", ":")).encode()
        elif source == "claims_json":
            further = request.claims_json.encode()
    except ValueError as error:
        bad.append(Violation(source or "claims", str(error)))
    if bad:
        raise InvalidRequestError(*bad)
    return Grant(
        profile=request.profile or "default",
        subject=request.subject,
        audiences=tuple(request.audiences),
        ttl=ttl,
        client_id=request.client_id,
        scopes=tuple(request.scopes),
        further=further,
        bond=bond,
        with_refresh=request.with_refresh_token,
    )


def _bond(confirmation: pb.Confirmation, bad: list[Violation]) -> Bond | None:
    method = confirmation.WhichOneof("method")
    if method is None:
        bad.append(Violation("confirmation", "name what the token is bound to: one of its two thumbprints"))
        return None
    thumbprint = getattr(confirmation, method)
    if not is_thumbprint(thumbprint):
        bad.append(Violation(f"confirmation.{method}", _THUMBPRINT_PROBLEM))
    return Bond(Method.DPOP if method == "jwk_thumbprint_sha256" else Method.CERTIFICATE, thumbprint)


def _evidence(possession: pb.Possession, bad: list[Violation]) -> Evidence | None:
    match possession.WhichOneof("proof"):
        case "dpop":
            dpop = possession.dpop
            if not dpop.proof:
                bad.append(Violation("possession.dpop.proof", "required: the value of the DPoP header"))
            if not is_method(dpop.method):
                bad.append(Violation("possession.dpop.method", "required: the method of the HTTP request"))
            if normal(dpop.url) is None:
                bad.append(
                    Violation(
                        "possession.dpop.url", "required: the http or https URL of the request, as its sender wrote it"
                    )
                )
            return DpopProof(dpop.proof, dpop.method, dpop.url, (dpop.nonce,) if dpop.nonce else ())
        case "certificate_thumbprint_sha256":
            if not is_thumbprint(possession.certificate_thumbprint_sha256):
                bad.append(Violation("possession.certificate_thumbprint_sha256", _THUMBPRINT_PROBLEM))
            return Certificate(possession.certificate_thumbprint_sha256)
    bad.append(Violation("possession", "name the proof: dpop, or certificate_thumbprint_sha256"))
    return None


def demand(request: pb.ValidateRequest) -> Demand:
    """A ValidateRequest, unpacked."""
    bad: list[Violation] = []
    token, audiences = request.token, tuple(request.audiences)
    profiles, scopes = tuple(request.profiles), tuple(request.required_scopes)
    if not token:
        bad.append(Violation("token", "required: the token to validate"))
    if not audiences or not all(audiences):
        bad.append(
            Violation(
                "audiences",
                "required: the names of the service that asks, one of which must be in the token's aud; "
                "a token for somebody else must not pass here",
            )
        )
    if not all(profiles):
        bad.append(Violation("profiles", "a profile's name is never empty"))
    evidence = _evidence(request.possession, bad) if request.HasField("possession") else None
    if len(audiences) > MOST:
        bad.append(Violation("audiences", f"at most {MOST}"))
    if len(profiles) > MOST:
        bad.append(Violation("profiles", f"at most {MOST}"))
    if len(scopes) > MOST:
        bad.append(Violation("required_scopes", f"at most {MOST}"))
    if len(request.request_id) > 128:
        bad.append(Violation("request_id", "at most 128 characters"))
    if bad:
        raise InvalidRequestError(*bad)
    return Demand(
        token=token,
        audiences=audiences,
        profiles=profiles or ("default",),
        scopes=scopes,
        evidence=evidence,
        min_revision=request.min_revocation_revision,
        request_id=request.request_id,
    )


def wish(request: pb.RefreshRequest) -> Wish:
    """A RefreshRequest, unpacked."""
    bad: list[Violation] = []
    if not request.refresh_token:
        bad.append(Violation("refresh_token", "required: the refresh token to trade"))
    evidence = _evidence(request.possession, bad) if request.HasField("possession") else None
    if bad:
        raise InvalidRequestError(*bad)
    return Wish(request.refresh_token, tuple(request.audiences), tuple(request.scopes), evidence)


# Set one by one, these fields cost half of what a constructor takes; in place, an item of a batch is not copied twice.


def issued(result: Issued, response: pb.IssueResponse) -> pb.IssueResponse:
    """The answer to Issue, written into an empty response."""
    claims = result.claims
    response.token = result.token
    response.token_id = claims.token_id
    response.key_id = result.key_id
    response.issue_time.seconds = claims.issue_time
    response.expire_time.seconds = claims.expire_time
    response.audiences.extend(claims.audiences)
    response.scopes.extend(claims.scopes)
    if result.refresh_token:
        response.refresh_token = result.refresh_token
        response.refresh_expire_time.seconds = result.refresh_expire_time
    return response


def issued_size(draft: Draft) -> int:
    """Bytes of that answer as an item of a batch, before the token exists; never too few."""
    claims = draft.claims
    rest = pb.IssueResponse(token_id=claims.token_id, audiences=claims.audiences, scopes=claims.scopes).ByteSize()
    refresh = draft.refresh_size + 24 if draft.refresh else 0
    return draft.size + refresh + rest + 64 + 48  # key_id; two times, and the tags and lengths around all


def accepted(result: Accepted, response: pb.ValidateResponse, *, with_claims: bool) -> pb.ValidateResponse:
    """The answer to Validate, written into an empty response."""
    claims = result.claims
    response.profile = result.profile
    response.issuer = claims.issuer
    response.subject = claims.subject
    response.audiences.extend(claims.audiences)
    response.client_id = claims.client_id
    response.scopes.extend(claims.scopes)
    response.token_id = claims.token_id
    response.issue_time.seconds = claims.issue_time
    response.expire_time.seconds = claims.expire_time
    response.claims_json = claims.payload.decode()
    response.key_id = result.key_id
    response.ring_revision = result.ring_revision
    response.revocation_revision = result.revocation_revision
    if result.proven:
        response.confirmation.CopyFrom(_CONFIRMATIONS[result.proven.bond.method](result.proven.bond.thumbprint))
    if with_claims:
        response.claims.CopyFrom(view(claims.values))
    return response


def item_error(error: SidecarError) -> pb.ItemError:
    """One item's error: what a unary call would have answered."""
    return pb.ItemError(
        code=int(error.reason.code),
        reason=error.reason.number,  # type: ignore[arg-type] # same numbers, held by a test
        message=error.message,
        field=error.violations[0].field if error.violations else "",
    )


def uses(key_use: int) -> tuple[KeyUse, ...] | None:
    """Which keys are meant; None: encryption and signature."""
    if key_use == keys_pb2.KEY_USE_UNSPECIFIED:
        return None
    for use, number in _USES.items():
        if number == key_use:
            return (use,)
    raise InvalidRequestError(later("key_use"))


def words(field: str, text: str, most: int = WORDS) -> str:
    """A text for the audit log, or an id: short, without control characters."""
    if len(text) > most or not text.isprintable():
        raise InvalidRequestError(Violation(field, f"at most {most} printable characters"))
    return text


def key(listed: Listed) -> keys_pb2.Key:
    """One key's public facts."""
    facts = listed.key
    message = keys_pb2.Key(
        key_id=facts.key_id,
        profile=listed.profile,
        key_use=_USES[facts.use],
        algorithm=facts.algorithm,
        content_encryption=facts.settings.content,
        state=keys_pb2.KeyState.Value(f"KEY_STATE_{listed.state.name}"),
        ring_revision=listed.ring_revision,
    )
    for name in ("create_time", "activate_time", "retire_time", "destroy_time", "compromise_time"):
        at = getattr(facts, name)
        if at is not None:
            getattr(message, name).CopyFrom(timestamp(at))
    return message


def keys(listed: Iterable[Listed]) -> list[keys_pb2.Key]:
    """Several of them."""
    return [key(one) for one in listed]


def held(held_: Held) -> dict[str, Any]:
    """The answer to each kind of revocation."""
    return {"revocation_revision": held_.revision, "effective_time": timestamp(held_.effective_time)}


def moment(field: str, request: Message) -> float | None:
    """A time of a request, in seconds since the epoch; None: it is unset."""
    if not request.HasField(field):
        return None
    given: Timestamp = getattr(request, field)
    if not (0 <= given.seconds < YEAR_10000 and 0 <= given.nanos < 1_000_000_000):
        raise InvalidRequestError(Violation(field, "must be a time from 1970 to 9999"))
    return given.seconds + given.nanos / 1e9


def rotated(changed: Changed, listed: Iterable[Listed]) -> pb.RotateResponse:
    """The answer to Rotate."""
    return pb.RotateResponse(
        keys=keys(listed), activate_time=timestamp(changed.activate_time), ring_revision=changed.revision
    )


def timestamp(seconds: float) -> Timestamp:
    """Seconds since the epoch, to the millisecond."""
    millis = round(seconds * 1000)
    return Timestamp(seconds=millis // 1000, nanos=millis % 1000 * 1_000_000)


def _object(struct: Struct) -> dict[str, object]:
    return {name: _json(value) for name, value in struct.fields.items()}


def _json(value: Value) -> object:
    # Struct knows doubles only: an integral number becomes a JSON integer where the double is sure to be the number that was meant.
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            if not isfinite(number):
                raise ValueError("NaN and Infinity are not JSON")
            if not number.is_integer():
                return number
            if abs(number) > EXACT:
                raise ValueError("a whole number beyond 2^53 is not exact here; send claims_json")
            return int(number)
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return _object(value.struct_value)
        case "list_value":
            return [_json(item) for item in value.list_value.values]
        case _:
            return None


def view(values: Mapping[str, object]) -> Struct:
    """Claims for people; numbers are doubles."""
    struct = Struct()
    json_format.ParseDict(dict(values), struct)
    return struct
