"""Every error that a caller can see: its gRPC code, its reason and its words.

The names and numbers of `Reason` are those of `tokensidecar.v1.ErrorReason`, and the codes are gRPC's; tests hold both against the
contract. This module knows neither gRPC nor protobuf, so that rules and verbs can raise these errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum


class Code(IntEnum):
    """The gRPC status codes that the sidecar answers (numbers as in gRPC)."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    ABORTED = 10
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class Reason(Enum):
    """Why a call did not end in OK: (number in the contract, gRPC code)."""

    REQUEST_INVALID = (1, Code.INVALID_ARGUMENT)
    TOKEN_INVALID = (2, Code.UNAUTHENTICATED)
    TOKEN_NOT_YET_VALID = (3, Code.UNAUTHENTICATED)
    TOKEN_EXPIRED = (4, Code.UNAUTHENTICATED)
    TOKEN_AUDIENCE_MISMATCH = (5, Code.UNAUTHENTICATED)
    TOKEN_REVOKED = (6, Code.UNAUTHENTICATED)
    TOKEN_POSSESSION_UNPROVEN = (7, Code.UNAUTHENTICATED)
    TOKEN_SCOPE_MISSING = (8, Code.UNAUTHENTICATED)
    TOKEN_ALREADY_CONSUMED = (9, Code.UNAUTHENTICATED)
    REFRESH_REUSED = (10, Code.UNAUTHENTICATED)
    CALLER_UNIDENTIFIED = (11, Code.PERMISSION_DENIED)
    CALLER_DENIED = (12, Code.PERMISSION_DENIED)
    RING_CHANGED = (13, Code.ABORTED)
    STATE_STALE = (14, Code.UNAVAILABLE)
    STORE_UNAVAILABLE = (15, Code.UNAVAILABLE)
    KMS_UNAVAILABLE = (16, Code.UNAVAILABLE)
    AUDIT_UNAVAILABLE = (17, Code.UNAVAILABLE)
    SUBJECT_REVOKED = (18, Code.UNAVAILABLE)
    OVERLOADED = (19, Code.RESOURCE_EXHAUSTED)
    NOT_IMPLEMENTED = (20, Code.UNIMPLEMENTED)
    INTERNAL = (21, Code.INTERNAL)

    def __init__(self, number: int, code: Code) -> None:
        self.number = number
        self.code = code


@dataclass(frozen=True, slots=True)
class Violation:
    """One field of a request that is no good: its proto path (`requests[3].audiences`) and what to do about it."""

    field: str
    problem: str


class SidecarError(Exception):
    """An error that a caller may see, whole: nothing of it is secret.

    `message` is for people; `stage` is for the audit log alone and never leaves the process.
    """

    reason: Reason = Reason.INTERNAL
    message: str = "internal error; the sidecar's log has it under the request id"

    def __init__(self, message: str | None = None, *, stage: str = "", retry_after: float | None = None) -> None:
        super().__init__(message or self.message)
        self.message = message or self.message
        self.stage = stage
        self.retry_after = retry_after  # seconds
        self.recorded = False  # in the audit log already
        self.violations: tuple[Violation, ...] = ()


class ExpiredDeadlineError(Exception):
    """The caller has gone: do no more work for it. gRPC's own status, so without a reason."""

    recorded = False


class InvalidRequestError(SidecarError):
    """The request is no good, whoever sends it and whenever. Names each field at fault."""

    reason = Reason.REQUEST_INVALID

    def __init__(self, *violations: Violation) -> None:
        super().__init__("; ".join(f"{v.field}: {v.problem}" for v in violations), stage="request")
        self.violations = violations


class InvalidTokenError(SidecarError):
    """Not a token of the accepted profiles. One text for every cause: a forger learns nothing from it."""

    reason = Reason.TOKEN_INVALID
    message = "the token is not valid"

    def __init__(self, stage: str) -> None:
        super().__init__(stage=stage)


class EarlyTokenError(SidecarError):
    """`nbf` or `iat` lies in the future, beyond the leeway."""

    reason = Reason.TOKEN_NOT_YET_VALID
    message = "the token is not valid yet"


class ExpiredTokenError(SidecarError):
    """`exp` has passed, beyond the leeway."""

    reason = Reason.TOKEN_EXPIRED
    message = "the token has expired"


class MismatchedAudienceError(SidecarError):
    """The token is genuine, but for other audiences."""

    reason = Reason.TOKEN_AUDIENCE_MISMATCH
    message = "the token is for another audience"


class RevokedTokenError(SidecarError):
    """The token is genuine, and it, its subject or its refresh family has been revoked."""

    reason = Reason.TOKEN_REVOKED
    message = "the token has been revoked"


class UnprovenPossessionError(SidecarError):
    """The token is bound to a key (`cnf`), and possession of it was not proven."""

    reason = Reason.TOKEN_POSSESSION_UNPROVEN
    message = "possession of the key that the token is bound to was not proven"


class MissingScopeError(SidecarError):
    """The token lacks a scope that the caller requires."""

    reason = Reason.TOKEN_SCOPE_MISSING
    message = "the token lacks a required scope"


class ConsumedTokenError(SidecarError):
    """A one-time token that has been used."""

    reason = Reason.TOKEN_ALREADY_CONSUMED
    message = "the token is good once, and has been used"


class ReusedRefreshError(SidecarError):
    """A spent refresh token was presented again: its family is revoked."""

    reason = Reason.REFRESH_REUSED
    message = "the refresh token was used before; all tokens that came from its login are revoked"


class RevokedSubjectError(SidecarError):
    """The subject's tokens have just been revoked: a new one could not be told from an old one yet."""

    reason = Reason.SUBJECT_REVOKED
    message = "the subject's tokens have just been revoked; new ones are issued a moment later"

    def __init__(self, retry_after: float) -> None:
        super().__init__(stage="denylist.subject", retry_after=retry_after)


class UnidentifiedCallerError(SidecarError):
    """Nobody whom this address knows. UNAUTHENTICATED would speak of the token in the request, and this speaks of who sends it."""

    reason = Reason.CALLER_UNIDENTIFIED
    message = "this address does not know who is calling"


class DeniedCallerError(SidecarError):
    """This caller may not do this here."""

    reason = Reason.CALLER_DENIED
    message = "this caller may not do this"


class ChangedRingError(SidecarError):
    """Another change won, or a successor is pending already."""

    reason = Reason.RING_CHANGED
    message = "the ring has changed; look again, then decide"


class StaleStateError(SidecarError):
    """This sidecar has not seen the store for too long to give an answer."""

    reason = Reason.STATE_STALE
    message = "this sidecar has not seen its store for too long to answer"


class UnavailableStoreError(SidecarError):
    """The store does not answer, or answers nonsense."""

    reason = Reason.STORE_UNAVAILABLE
    message = "the store is not available"


class UnavailableKmsError(SidecarError):
    """The key management service does not answer."""

    reason = Reason.KMS_UNAVAILABLE
    message = "the key management service is not available"


class UnavailableAuditError(SidecarError):
    """A required record could not be written."""

    reason = Reason.AUDIT_UNAVAILABLE
    message = "the decision could not be put on record"

    def __init__(self) -> None:
        super().__init__()
        self.recorded = True  # it says that recording is what failed


class OverloadedError(SidecarError):
    """Too much at once; come back after `retry_after` seconds."""

    reason = Reason.OVERLOADED
    message = "too many calls at once"

    def __init__(self, message: str | None = None, *, stage: str = "admission", retry_after: float = 1.0) -> None:
        super().__init__(message, stage=stage, retry_after=retry_after)


class UnimplementedError(SidecarError):
    """Not in this version."""

    reason = Reason.NOT_IMPLEMENTED
    message = "this version does not implement this call"


class InternalError(SidecarError):
    """Our fault. The text says nothing of the cause."""
