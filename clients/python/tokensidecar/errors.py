"""What can go wrong with a call: one error for a token that is no good, others for everything else."""
# ruff: noqa: S105 # names of reasons, not passwords

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from tokensidecar.v1 import errors_pb2, token_service_pb2

DOMAIN = "tokensidecar"


class Reason(StrEnum):
    """Why a call did not end well: the names of ErrorReason in the contract, where each is explained."""

    REQUEST_INVALID = "REQUEST_INVALID"
    TOKEN_INVALID = "TOKEN_INVALID"
    TOKEN_NOT_YET_VALID = "TOKEN_NOT_YET_VALID"
    TOKEN_EXPIRED = "TOKEN_EXPIRED"
    TOKEN_AUDIENCE_MISMATCH = "TOKEN_AUDIENCE_MISMATCH"
    TOKEN_REVOKED = "TOKEN_REVOKED"
    TOKEN_POSSESSION_UNPROVEN = "TOKEN_POSSESSION_UNPROVEN"
    TOKEN_SCOPE_MISSING = "TOKEN_SCOPE_MISSING"
    TOKEN_ALREADY_CONSUMED = "TOKEN_ALREADY_CONSUMED"
    REFRESH_REUSED = "REFRESH_REUSED"
    CALLER_UNIDENTIFIED = "CALLER_UNIDENTIFIED"
    CALLER_DENIED = "CALLER_DENIED"
    RING_CHANGED = "RING_CHANGED"
    STATE_STALE = "STATE_STALE"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    KMS_UNAVAILABLE = "KMS_UNAVAILABLE"
    AUDIT_UNAVAILABLE = "AUDIT_UNAVAILABLE"
    SUBJECT_REVOKED = "SUBJECT_REVOKED"
    OVERLOADED = "OVERLOADED"
    NOT_IMPLEMENTED = "NOT_IMPLEMENTED"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True, slots=True)
class Violation:
    """One field of a request that is no good: its path in the contract (`audiences`), and what is wrong with it."""

    field: str
    problem: str


class CallError(Exception):
    """A call that did not end well. Never quotes a token.

    Attributes:
        code: the gRPC status code.
        reason: why; None where gRPC and not the sidecar answered (deadline, no connection), or where the sidecar is newer than this client.
        message: for people.
        violations: the fields at fault, of an invalid request.
        retry_after: how long to wait before the next try; None if the sidecar did not say.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        reason: Reason | None = None,
        violations: tuple[Violation, ...] = (),
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.violations = violations
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.reason or self.code.name}: {self.message}"


class RejectedError(CallError):
    """The token was judged, and it is no good: `reason` says why. Never retry; answer 401."""


class InvalidRequestError(CallError):
    """The request is no good, whoever sends it and whenever: `violations` names the fields. Never retry."""


class DeniedError(CallError):
    """The caller may not do this here. Never retry."""


class ChangedRingError(CallError):
    """Another change of the keys won, or a successor is pending already. Look again, then decide."""


class UnavailableError(CallError):
    """No answer now: the sidecar is down, stale, overloaded or too slow. It says nothing about the token: do not let the request through."""


class ConnectError(UnavailableError):
    """No sidecar was found. `tried` has every address, and what happened there."""

    def __init__(self, tried: tuple[tuple[str, str], ...]) -> None:
        super().__init__(
            "no sidecar answers; tried\n" + "\n".join(f"  {address}: {what}" for address, what in tried),
            code=grpc.StatusCode.UNAVAILABLE,
        )
        self.tried = tried


_KINDS: dict[grpc.StatusCode, type[CallError]] = {
    grpc.StatusCode.UNAUTHENTICATED: RejectedError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.PERMISSION_DENIED: DeniedError,
    grpc.StatusCode.ABORTED: ChangedRingError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: UnavailableError,
    grpc.StatusCode.CANCELLED: UnavailableError,  # by a sidecar that ends: nothing here cancels a call
}

_CODES = {code.value[0]: code for code in grpc.StatusCode}


def refused(field: str, problem: str) -> InvalidRequestError:
    """A request that this client does not even send."""
    return InvalidRequestError(
        f"{field}: {problem}",
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason=Reason.REQUEST_INVALID,
        violations=(Violation(field, problem),),
    )


def from_rpc(error: grpc.RpcError) -> CallError:
    """The error of this package for what a stub raised."""
    if not isinstance(error, grpc.Call):
        return CallError(str(error))
    reason, violations, retry_after = None, (), None
    for detail in _details(error.trailing_metadata() or ()):
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info) and info.domain == DOMAIN and info.reason in Reason.__members__:
                reason = Reason(info.reason)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            violations = tuple(Violation(each.field, each.description) for each in bad.field_violations)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_after = retry.retry_delay.ToTimedelta()
    code = error.code()
    return _kind(code, reason)(
        error.details() or code.name, code=code, reason=reason, violations=violations, retry_after=retry_after
    )


def from_item(item: token_service_pb2.ItemError) -> CallError:
    """What a call of its own would have raised for one item of a batch."""
    code = _CODES.get(item.code, grpc.StatusCode.UNKNOWN)
    name = errors_pb2.ErrorReason.Name(item.reason) if item.reason in errors_pb2.ErrorReason.values() else ""
    reason = Reason(name) if name in Reason.__members__ else None
    violations = (Violation(item.field, item.message.removeprefix(f"{item.field}: ")),) if item.field else ()
    return _kind(code, reason)(item.message, code=code, reason=reason, violations=violations)


def _kind(code: grpc.StatusCode, reason: Reason | None) -> type[CallError]:
    if (
        reason is Reason.OVERLOADED
    ):  # without it, RESOURCE_EXHAUSTED is a message too large, which no later try makes smaller
        return UnavailableError
    return _KINDS.get(code, CallError)


def _details(trailing: Iterable[tuple[str, str | bytes]]) -> list[Any]:
    for name, value in trailing:
        if name == "grpc-status-details-bin" and isinstance(value, bytes):
            try:
                return list(status_pb2.Status.FromString(value).details)
            except DecodeError:
                break
    return []
