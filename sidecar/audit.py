"""The audit log: one record per decision, and an intent before anything that cannot be undone.

A record says who, what, on which profile, with which outcome, and under which request id. It never holds a token or a claim; subject
and token id stand as salted hashes, so that records can be joined but not read. Accepted validations are counted in the metrics, not
recorded one by one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol, Self

from sidecar.caller import Caller
from sidecar.errors import SidecarError, UnavailableAuditError
from sidecar.policy import Verb

FIELDS = {
    "audit": "version of this form: 1",
    "time": "UTC, in microseconds",
    "caller": "name of the caller, as policy spells it",
    "plane": "app or admin",
    "verb": "what was asked for",
    "profile": "profile asked for; empty: none in particular",
    "phase": "intent (about to do what cannot be undone) or outcome",
    "outcome": "OK, or the reason of the contract",
    "stage": "where a rejection fell; told to nobody else",
    "request_id": "as in logs, and in the metadata of the answer",
    "key_id": "key that the token was made with or opened by",
    "key_ids": "keys that the change names",
    "ring_revision": "revision of the ring after the change",
    "subject_hash": "HMAC-SHA-256 of `sub` under this instance's salt, 32 hexadecimal digits",
    "token_id_hash": "the same of `jti`",
    "expire_time": "`exp` of the issued token, in seconds since the epoch",
    "why": "reason given by the caller",
    "rolled_back": "by profile, how the store had gone back",
}
"""Every field that a record can have, and what it says."""


class Sink(Protocol):
    """Takes one line, newline included; False: not on record."""

    def write(self, line: bytes) -> bool:
        """Whether the line is on record, as far as this sink promises."""
        ...


@dataclass(slots=True)
class Decision:
    """One decision in the making: verbs fill in the facts, leaving the block records the outcome."""

    audit: Audit
    caller: Caller
    verb: Verb
    profile: str
    request_id: str
    quiet: bool  # record only what is not OK
    facts: dict[str, object] = field(default_factory=dict)

    def intend(self, **facts: object) -> None:
        """Record that what follows cannot be undone. `UnavailableAuditError`: it is not on record, so do not do it."""
        self.audit.record(self, "intent", "", {**self.facts, **facts}, must=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            if not self.quiet:
                self.audit.record(self, "outcome", "OK", self.facts)
        elif isinstance(error, SidecarError):
            stage = {"stage": error.stage} if error.stage else {}
            self.audit.record(self, "outcome", error.reason.name, {**self.facts, **stage})
        else:
            # Cancelled, or our fault: either way no answer was given.
            self.audit.record(self, "outcome", type(error).__name__, self.facts)


class Audit:
    """Writes records to one sink. `required`: what is not on record is not answered."""

    def __init__(self, sink: Sink, *, required: bool, salt: bytes, now: Callable[[], float]) -> None:
        self._sink = sink
        self._required = required
        self._salt = salt
        self._now = now
        self.lost = 0

    def decision(self, caller: Caller, verb: Verb, profile: str, request_id: str, *, quiet: bool = False) -> Decision:
        """A block around one decision. `quiet`: an OK is not recorded (it is counted)."""
        return Decision(self, caller, verb, profile, request_id, quiet)

    def hashed(self, value: str) -> str:
        """A salted hash by which records of the same subject or token can be joined."""
        return hmac.new(self._salt, value.encode(), hashlib.sha256).hexdigest()[:32]

    def record(
        self, decision: Decision, phase: str, outcome: str, facts: dict[str, object], *, must: bool = False
    ) -> None:
        """Write one record. `UnavailableAuditError` if it is required, or an intent, and was not written."""
        entry = {
            "audit": 1,
            "time": datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="microseconds"),
            "caller": decision.caller.name,
            "plane": decision.caller.plane.value,
            "verb": decision.verb.value,
            "profile": decision.profile[:64],
            "phase": phase,
            **({"outcome": outcome} if outcome else {}),
            "request_id": decision.request_id,
            **facts,
        }
        if not self._sink.write(json.dumps(entry, separators=(",", ":")).encode() + b"\n"):
            self.lost += 1
            if self._required or must:
                raise UnavailableAuditError
