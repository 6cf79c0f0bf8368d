"""The audit log: one record per decision, and an intent before anything that cannot be undone.

A record says who, what, on which profile, with which outcome, and under which request id. It never holds a token or a claim; subject
and token id stand as salted hashes, so that records can be joined but not read, unless configured otherwise. Accepted validations are counted in the metrics, and
recorded one by one only where their profile says so.

Writing a record never waits. Where a record is required, or is an intent, whoever acts upon it waits until the sink has kept its
promise: verbs before they act (`intend`), the boundary before it answers (`on_record`).
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from types import TracebackType
from typing import Protocol, Self

from sidecar.caller import Caller, Identified
from sidecar.chain import Head
from sidecar.errors import ExpiredDeadlineError, SidecarError, UnavailableAuditError
from sidecar.policy import Verb
from sidecar.records import lines

FIELDS = {
    "audit": "version of this form: 1",
    "time": "UTC, in microseconds",
    "caller": "name of the caller, as policy spells it",
    "plane": "app or admin",
    "identified": "what named the caller: certificate or service_account; absent: the address that was called",
    "verb": "what was asked for; checkpoint: the audit file's own",
    "profile": "profile asked for; empty: none in particular, or not known",
    "phase": "intent (about to do what cannot be undone) or outcome",
    "outcome": "OK, the reason of the contract, CANCELLED or DEADLINE_EXCEEDED",
    "stage": "where a rejection fell; told to nobody else",
    "request_id": "as in logs, and in the metadata of the answer",
    "key_id": "key that the token was made with or opened by",
    "key_ids": "keys that the change names",
    "ring_revision": "revision of the ring after the change",
    "revocation_revision": "revision at which the revocation is held",
    "issued_before": "of a revoked subject: tokens with `iat` up to then end, in seconds since the epoch",
    "subject_hash": "HMAC-SHA-256 of `sub` under the salt (audit.salt), 32 hexadecimal digits",
    "token_id_hash": "the same of `jti`",
    "subject": "`sub` itself, instead of its hash, where audit.names is clear",
    "token_id": "`jti` itself, instead of its hash, where audit.names is clear",
    "expire_time": "`exp` of the issued token, in seconds since the epoch",
    "items": "how many tokens a refused batch asked for",
    "rolled_back": "by profile, how the store had gone back",
    "config_hash": "SHA-256 of the config file, in hexadecimal",
    "certificates_hash": "SHA-256 of the certificates and CAs that a TLS address serves with from now on, in hexadecimal",
    "why": "reason given by the caller",
    "part": "of a decision that one line cannot hold: which of how many, such as 2/3; the lists in them belong together",
    "instance": "in a checkpoint: which sidecar's key signs, 16 hexadecimal digits of the key's hash",
    "lost": "in a checkpoint: records that this process could not write so far",
    "previous": "in a checkpoint: chain value of the record before",
    "seq": "in a file: number of the record, from 1, through all files of this instance",
    "signature": "in a checkpoint: Ed25519 over what stands before it, base64url",
    "chain": "in a file: SHA-256 of the value before and of this record up to here, in hexadecimal",
}
"""Every field that a record can have, and what it says."""


CLEAR_MAX = 512
"""Bytes of JSON up to which a name may stand in the clear: a record must fit a pipe's atomic write."""

_IDENTIFIED = {each: {"identified": each.value} if each is not Identified.ADDRESS else {} for each in Identified}


class Promise(Enum):
    """What a sink promises of a record that it has on record."""

    ACCEPTED = "the pipe has taken it"
    DURABLE = "it is on the disk"


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a file still has to do: records that are not on the disk, the age of the oldest in seconds; and its last checkpoint."""

    records: int = 0
    seconds: float = 0.0
    head: Head = field(default_factory=Head)


class Sink(Protocol):
    """Where records go."""

    promise: Promise

    @property
    def lost(self) -> int:
        """Records that could not be kept."""
        ...

    def write(self, line: bytes) -> bool:
        """Take one line, newline included, without waiting; False: it is lost."""
        ...

    def pending(self) -> Awaitable[bool] | None:
        """None: all that was taken is as promised. Else, to wait for: whether all that was taken so far is."""
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

    async def intend(self, **facts: object) -> None:
        """Put on record that what follows cannot be undone. `UnavailableAuditError`: it is not, so do not do it."""
        self.audit.record(self, "intent", "", {**self.facts, **facts}, must=True)
        await self.audit.on_record()

    async def intend_to_spend(self) -> None:
        """The same for a token that can be used once: only where records are required, for it costs each call a wait for the sink."""
        if self.audit.required:
            await self.intend()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.failed(error)
        elif not self.quiet:
            self.audit.record(self, "outcome", "OK", self.facts)

    def failed(self, error: BaseException) -> None:
        """Record that it ended so, once."""
        if getattr(error, "recorded", False):
            return
        error.recorded = True  # type: ignore[attr-defined] # on whatever exception it is
        facts = self.facts
        if isinstance(error, SidecarError):
            outcome = error.reason.name
            if error.stage:
                facts = {**facts, "stage": error.stage}
        elif isinstance(error, ExpiredDeadlineError):
            outcome = "DEADLINE_EXCEEDED"
        elif isinstance(error, Exception):
            outcome, facts = "INTERNAL", {**facts, "stage": type(error).__name__}
        else:
            outcome = "CANCELLED"
        self.audit.record(self, "outcome", outcome, facts)


class Audit:
    """Writes records to one sink. `required`: what is not on record is not answered. `clear`: subjects and token ids are told, not hashed.

    `taken` counts records, for the boundary.
    """

    def __init__(
        self, sink: Sink, *, required: bool, salt: bytes, now: Callable[[], float], clear: bool = False
    ) -> None:
        self.required = required
        self._clear = clear
        self.taken = 0
        self._sink = sink
        self._salt = salt
        self._now = now

    @property
    def lost(self) -> int:
        """Records that could not be kept."""
        return self._sink.lost

    def decision(self, caller: Caller, verb: Verb, profile: str, request_id: str, *, quiet: bool = False) -> Decision:
        """A block around one decision. `quiet`: an OK is not recorded (it is counted)."""
        return Decision(self, caller, verb, profile, request_id, quiet)

    def hashed(self, value: str) -> str:
        """A salted hash by which records of the same subject or token can be joined."""
        return hmac.digest(self._salt, value.encode(), "sha256").hex()[:32]

    def named(self, **values: str) -> dict[str, object]:
        """The facts of `subject` and `token_id`: hashes, or where the configuration says so themselves, unless they are long."""
        facts: dict[str, object] = {}
        for name, value in values.items():
            if self._clear and len(json.dumps(value)) <= CLEAR_MAX:
                facts[name] = value
            else:
                facts[f"{name}_hash"] = self.hashed(value)
        return facts

    async def on_record(self) -> None:
        """Wait until what was written so far is as the sink promises. `UnavailableAuditError`: it is not."""
        pending = self._sink.pending()
        if pending is not None and not await pending:
            raise UnavailableAuditError

    def record(
        self, decision: Decision, phase: str, outcome: str, facts: dict[str, object], *, must: bool = False
    ) -> None:
        """Write one record. `UnavailableAuditError` if it is required, or an intent, and was not taken."""
        entry = {
            "audit": 1,
            "time": datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="microseconds"),
            "caller": decision.caller.name,
            "plane": decision.caller.plane.value,
            **(_IDENTIFIED[decision.caller.identified]),
            "verb": decision.verb.value,
            "profile": decision.profile[:64],
            "phase": phase,
            **({"outcome": outcome} if outcome else {}),
            "request_id": decision.request_id,
            **facts,
        }
        self.taken += 1
        kept = True
        for line in lines(entry):
            kept &= self._sink.write(line)
        if not kept and (self.required or must):
            raise UnavailableAuditError
