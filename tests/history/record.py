"""What clients asked, and what they were answered."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

from tokensidecar.v1 import errors_pb2

REASONS = frozenset(errors_pb2.ErrorReason.keys())
ENDED_HERE = frozenset(
    {"REQUEST_INVALID", "CALLER_UNIDENTIFIED", "CALLER_DENIED", "OVERLOADED", "NOT_IMPLEMENTED", "RING_CHANGED"}
)
"""Refusals before any effect: what was asked for did not happen."""


@dataclass(slots=True)
class Call:
    """One call. Times are seconds since the epoch, by the clients' clock. `outcome`: OK, a reason of the contract, or gRPC's own code.

    `token`: the text that it is about. `family`: of refresh tokens, by the client's own count; 0: none.
    """

    verb: str
    sidecar: int
    request: Any
    began: float
    token: str = ""
    family: int = 0
    ended: float = math.inf
    outcome: str = ""
    answer: Any = None

    @property
    def ok(self) -> bool:
        return self.outcome == "OK"

    @property
    def maybe(self) -> bool:
        """Whether it may have had its effect: it did, or nobody knows."""
        return self.outcome not in ENDED_HERE

    def __str__(self) -> str:
        about = f" of {self.token[-12:]}" if self.token else ""
        return f"{self.verb} at {self.sidecar}{about} [{self.began:.3f}, {self.ended:.3f}]: {self.outcome}"


@dataclass(frozen=True, slots=True)
class Issued:
    """An access token that a client holds."""

    token_id: str
    subject: str
    profile: str
    issue_time: float
    expire_time: float
    family: int


@dataclass
class History:
    """All calls. Appended to by many threads."""

    calls: list[Call] = field(default_factory=list)

    def of(self, *verbs: str) -> list[Call]:
        return [call for call in self.calls if call.verb in verbs]

    def issued(self) -> dict[str, Issued]:
        """Every access token that was handed out, by its text."""
        found = {}
        for call in self.of("issue", "refresh"):
            if call.ok:
                made = call.answer.tokens if call.verb == "refresh" else call.answer
                subject = call.request.subject if call.verb == "issue" else ""
                profile = call.request.profile or "default" if call.verb == "issue" else "session"
                times = made.issue_time.seconds, made.expire_time.seconds
                found[made.token] = Issued(made.token_id, subject, profile, *times, call.family)
        return found


def claims_of(answer: Any) -> dict[str, Any]:
    """What a good token says."""
    claims: dict[str, Any] = json.loads(answer.claims_json)
    return claims
