"""Tokens as this package hands them out. What holds a token or claims prints itself without them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from tokensidecar.errors import refused
from tokensidecar.v1 import token_service_pb2

Claims = Mapping[str, object] | str | bytes
"""Further claims: a mapping, or the text of a JSON object, which is carried over byte for byte."""


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
