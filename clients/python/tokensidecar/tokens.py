"""Tokens as this package hands them out. What holds a token or claims prints itself without them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from tokensidecar.errors import refused
from tokensidecar.v1 import token_service_pb2

Claims = Mapping[str, object] | str | bytes
"""Further claims: a mapping, or the text of a JSON object, which is carried over byte for byte."""


@dataclass(frozen=True, slots=True)
class JwkThumbprint:
    """Of the presenter's public key, 43 characters of base64url: `cnf.jkt` (RFC 9449). Proven by a `DpopProof`."""

    sha256: str


@dataclass(frozen=True, slots=True)
class CertificateThumbprint:
    """Of the presenter's TLS certificate, 43 characters of base64url: `cnf.x5t#S256` (RFC 8705). As a proof: of the one that was seen."""

    sha256: str


@dataclass(frozen=True, slots=True)
class DpopProof:
    """The DPoP header of a request (RFC 9449), and the request's method and URL, without query and fragment."""

    proof: str = field(repr=False)
    method: str
    url: str
    nonce: str = ""


Confirmation = JwkThumbprint | CertificateThumbprint
"""Who may present a token (RFC 7800)."""
Possession = DpopProof | CertificateThumbprint
"""How a presenter proves that it may."""


@dataclass(frozen=True, slots=True)
class IssueRequest:
    """What one token of a batch shall say; the same as the arguments of `Client.issue`."""

    subject: str = field(repr=False)
    audiences: Sequence[str]
    profile: str = ""
    ttl: timedelta | None = None
    client_id: str = ""
    scopes: Sequence[str] = ()
    claims: Claims | None = field(default=None, repr=False)
    confirmation: Confirmation | None = None
    with_refresh_token: bool = False


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token, and what was granted. Times are UTC. `refresh_token` and its time are there only where one was asked for."""

    token: str = field(repr=False)
    token_id: str
    key_id: str
    issue_time: datetime
    expire_time: datetime
    audiences: tuple[str, ...]
    scopes: tuple[str, ...]
    refresh_token: str | None = field(default=None, repr=False)
    refresh_expire_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class Revocation:
    """By `effective_time` (UTC) every sidecar obeys, usually within seconds; this one does already.

    `revision` as `min_revocation_revision` of a validate makes sure.
    """

    revision: int
    effective_time: datetime


@dataclass(frozen=True, slots=True)
class ValidatedToken:
    """What a good token says. Times are UTC; `claims_json` is the very text that was signed or sealed."""

    profile: str
    issuer: str
    subject: str = field(repr=False)
    audiences: tuple[str, ...]
    client_id: str
    scopes: tuple[str, ...]
    token_id: str
    issue_time: datetime
    expire_time: datetime
    claims_json: str = field(repr=False)
    key_id: str
    ring_revision: int
    revocation_revision: int
    confirmation: Confirmation | None = None

    @property
    def claims(self) -> dict[str, Any]:
        """All claims, parsed at each use. Integers are exact."""
        parsed: dict[str, Any] = json.loads(self.claims_json)
        return parsed


def to_claims_json(claims: Claims) -> str:
    """The text of the object; InvalidRequestError if it cannot be one."""
    if isinstance(claims, str):
        return claims
    try:
        if isinstance(claims, bytes):
            return claims.decode()
        return json.dumps(dict(claims), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise refused("claims_json", f"cannot be written as JSON: {error}") from error


def issue_request(wanted: IssueRequest) -> token_service_pb2.IssueRequest:
    """The contract's message; InvalidRequestError for what cannot be sent."""
    request = token_service_pb2.IssueRequest(
        profile=wanted.profile,
        subject=one_text("subject", wanted.subject),
        audiences=texts("audiences", wanted.audiences),
        client_id=one_text("client_id", wanted.client_id),
        scopes=texts("scopes", wanted.scopes),
    )
    if wanted.ttl is not None:
        request.ttl.FromTimedelta(wanted.ttl)
    if wanted.claims is not None:
        request.claims_json = one_text("claims_json", to_claims_json(wanted.claims))
    if isinstance(wanted.confirmation, JwkThumbprint):
        request.confirmation.jwk_thumbprint_sha256 = wanted.confirmation.sha256
    elif wanted.confirmation is not None:
        request.confirmation.certificate_thumbprint_sha256 = wanted.confirmation.sha256
    request.with_refresh_token = wanted.with_refresh_token
    return request


def possession(proof: Possession) -> token_service_pb2.Possession:
    """The contract's message; InvalidRequestError for what cannot be sent."""
    if isinstance(proof, CertificateThumbprint):
        return token_service_pb2.Possession(certificate_thumbprint_sha256=proof.sha256)
    dpop = token_service_pb2.DpopProof(
        proof=one_text("proof", proof.proof), method=proof.method, url=one_text("url", proof.url), nonce=proof.nonce
    )
    return token_service_pb2.Possession(dpop=dpop)


def one_text(name: str, text: str) -> str:
    """The same text; InvalidRequestError where it cannot be sent. Never says what is in it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise refused(name, "has a lone surrogate, which UTF-8 cannot carry") from error
    return text


def texts(name: str, given: Iterable[str]) -> list[str]:
    """The same texts; TypeError for one text, which is a list of its letters otherwise."""
    if isinstance(given, str):
        raise TypeError(f"{name} is a list of texts, not one text")
    return [one_text(name, each) for each in given]


def issued(answer: token_service_pb2.IssueResponse) -> IssuedToken:
    """From the contract's message."""
    return IssuedToken(
        token=answer.token,
        token_id=answer.token_id,
        key_id=answer.key_id,
        issue_time=utc(answer.issue_time),
        expire_time=utc(answer.expire_time),
        audiences=tuple(answer.audiences),
        scopes=tuple(answer.scopes),
        refresh_token=answer.refresh_token or None,
        refresh_expire_time=utc(answer.refresh_expire_time) if answer.HasField("refresh_expire_time") else None,
    )


def validated(answer: token_service_pb2.ValidateResponse) -> ValidatedToken:
    """From the contract's message."""
    return ValidatedToken(
        profile=answer.profile,
        issuer=answer.issuer,
        subject=answer.subject,
        audiences=tuple(answer.audiences),
        client_id=answer.client_id,
        scopes=tuple(answer.scopes),
        token_id=answer.token_id,
        issue_time=utc(answer.issue_time),
        expire_time=utc(answer.expire_time),
        claims_json=answer.claims_json,
        key_id=answer.key_id,
        ring_revision=answer.ring_revision,
        revocation_revision=answer.revocation_revision,
        confirmation=_confirmation(answer.confirmation),
    )


def _confirmation(proven: token_service_pb2.Confirmation) -> Confirmation | None:
    if proven.WhichOneof("method") == "jwk_thumbprint_sha256":
        return JwkThumbprint(proven.jwk_thumbprint_sha256)
    if proven.WhichOneof("method") == "certificate_thumbprint_sha256":
        return CertificateThumbprint(proven.certificate_thumbprint_sha256)
    return None


def utc(time: Timestamp) -> datetime:
    """An aware datetime."""
    return time.ToDatetime(tzinfo=UTC)
