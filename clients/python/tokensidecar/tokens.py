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
class IssueRequest:
    """What one token of a batch shall say; the same as the arguments of `Client.issue`."""

    subject: str = field(repr=False)
    audiences: Sequence[str]
    profile: str = ""
    ttl: timedelta | None = None
    client_id: str = ""
    scopes: Sequence[str] = ()
    claims: Claims | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token, and what was granted. Times are UTC."""

    token: str = field(repr=False)
    token_id: str
    key_id: str
    issue_time: datetime
    expire_time: datetime
    audiences: tuple[str, ...]
    scopes: tuple[str, ...]


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
    return request


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
    )


def utc(time: Timestamp) -> datetime:
    """An aware datetime."""
    return time.ToDatetime(tzinfo=UTC)
