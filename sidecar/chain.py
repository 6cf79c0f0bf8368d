"""The chain that makes an audit file tamper-evident: how records are linked, and how a reader tells that somebody changed one.

Rules:
 1. Every record ends in its number and in its chain value: SHA-256 of the value before it and of the record's own text up to there.
 2. A checkpoint is a record that also names the value before it and carries an Ed25519 signature (RFC 8032) of its text. One stands at the
    beginning of every file and of every run, at the end of every run and of every file that was renamed away, and at least every
    `CHECKPOINT_EVERY` records.
 3. So a changed, deleted, moved, doubled or inserted record does not fit its neighbours; and whoever makes the chain anew from there on
    cannot sign it.
 4. The chain alone cannot show that records after the last one were cut off, nor that the holder of the signing key made all of it anew.
    An anchor elsewhere can: the number and value of a checkpoint, as the log and the metrics tell them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

CHECKPOINT_EVERY = 1000  # records
ANCHOR_DIGITS = 13  # of the value in hexadecimal: the 52 bits that a metric can hold exactly
START = bytes(32)

_SIGNED = b"tokensidecar audit checkpoint 1\n"
_RECORD = re.compile(rb'(\{.*"seq":([0-9]{1,18}))(,"signature":"([A-Za-z0-9_-]{86})")?,"chain":"([0-9a-f]{64})"\}')
_PREVIOUS = re.compile(rb'"previous":"([0-9a-f]{64})"')
_LOST = re.compile(rb'"lost":([0-9]{1,18})')

Sign = Callable[[bytes], bytes]
"""Gives the signature of a message, 64 bytes."""
Check = Callable[[bytes, bytes], bool]
"""Whether the first is the signature of the second."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain stands: the number of its last record, and the value of that."""

    seq: int = 0
    value: bytes = START


def anchor(head: Head) -> int:
    """A head's value as a metric can hold it: its first `ANCHOR_DIGITS` hexadecimal digits, as a number."""
    return int(head.value.hex()[:ANCHOR_DIGITS], 16)


@dataclass(slots=True)
class Chain:
    """The writing end. `since` counts records after the last checkpoint; `signed` is the head at the last checkpoint."""

    head: Head = field(default_factory=Head)
    since: int = 0
    signed: Head = field(default_factory=Head)

    def copy(self) -> Chain:
        """One to go on with, so that this one still stands if its records do not reach the disk."""
        return Chain(self.head, self.since, self.signed)

    def link(self, line: bytes) -> bytes:
        """The record (a JSON object and a newline) with its number and chain value."""
        self.since += 1
        return self._linked(line[:-2] + b',"seq":%d' % (self.head.seq + 1))

    def checkpoint(self, facts: Mapping[str, object], sign: Sign) -> bytes:
        """A signed record about the chain so far, with further facts."""
        text = {**facts, "previous": self.head.value.hex(), "seq": self.head.seq + 1}
        body = json.dumps(text, separators=(",", ":")).encode()[:-1]
        signature = base64.urlsafe_b64encode(sign(_SIGNED + body)).rstrip(b"=")
        line = self._linked(body + b',"signature":"' + signature + b'"')
        self.since, self.signed = 0, self.head
        return line

    def _linked(self, body: bytes) -> bytes:
        value = hashlib.sha256(self.head.value + body).digest()
        self.head = Head(self.head.seq + 1, value)
        return body + b',"chain":"' + value.hex().encode() + b'"}\n'


def head_of(line: bytes) -> Head | None:
    """The number and value that a record's line claims; None: it is no record of a chain."""
    found = _RECORD.fullmatch(line)
    return Head(int(found[2]), bytes.fromhex(found[5].decode())) if found else None


class BrokenChainError(Exception):
    """The first record that is not as it was written. `line` counts from 1; `seq` None: the line tells no number."""

    def __init__(self, file: str, line: int, seq: int | None, problem: str) -> None:
        named = f"record {seq}" if seq is not None else "no record"
        super().__init__(f"{file}, line {line}, {named}: {problem}")
        self.file = file
        self.line = line
        self.seq = seq
        self.problem = problem


@dataclass(slots=True)
class Report:
    """What was found good. `signed` is the last record that a signature covers; `lost` as the last checkpoint tells it."""

    first: int = 0
    last: int = 0
    head: str = ""
    checkpoints: int = 0
    signed: int = 0
    lost: int = 0


def verify(
    files: Iterable[tuple[str, Iterable[bytes]]], keys: Sequence[Check], anchors: Mapping[int, str] | None = None
) -> Report:
    """Check the lines of files that follow one another.

    Args:
        files: names and lines, newlines included.
        keys: the public keys that may have signed checkpoints.
        anchors: numbers and values (hexadecimal, the first `ANCHOR_DIGITS` or more) known from elsewhere.

    Raises:
        BrokenChainError: names the first bad record.
    """
    anchors = dict(anchors or {})
    report, value, since, name, number = Report(), b"", 0, "", 0
    for name, lines in files:
        for number, line in enumerate(lines, 1):
            found = _RECORD.fullmatch(line.rstrip(b"\n"))
            if found is None:
                why = "the line is cut short" if not line.endswith(b"\n") else "not a record of a chain"
                raise BrokenChainError(name, number, None, f"{why}, after record {report.last}")
            body, seq, signature = found[1], int(found[2]), found[4]

            def bad(problem: str, name: str = name, number: int = number, seq: int = seq) -> BrokenChainError:
                return BrokenChainError(name, number, seq, problem)

            if not report.first:
                begins = _PREVIOUS.search(body)
                if signature is None or begins is None:
                    raise bad("the first record is no checkpoint: what stood before it was cut off")
                report.first, report.last, value = seq, seq - 1, bytes.fromhex(begins[1].decode())
            if seq != report.last + 1:
                after = f"{report.last + 1} should follow {report.last}"
                raise bad(f"{after}: deleted, or moved" if seq > report.last else f"{after}: doubled, or moved")
            said = found[5].decode()
            now = hashlib.sha256(value + body + (found[3] or b"")).digest()
            if now.hex() != said:
                raise bad("its text is not what its chain value was made of: it was changed")
            if signature is not None:
                begins = _PREVIOUS.search(body)
                if begins is None or begins[1].decode() != value.hex():
                    raise bad("the checkpoint does not name the value before it")
                given = base64.urlsafe_b64decode(signature + b"==")
                if not any(check(given, _SIGNED + body) for check in keys):
                    raise bad("the checkpoint is not signed by the key: records since the one before were made anew")
                lost = _LOST.search(body)
                report.checkpoints, report.signed, since = report.checkpoints + 1, seq, 0
                report.lost = int(lost[1]) if lost else 0
            else:
                since += 1
                if since > CHECKPOINT_EVERY:
                    raise bad(f"{CHECKPOINT_EVERY} records without a checkpoint: one was taken out")
            anchor = anchors.pop(seq, None)
            if anchor is not None and not said.startswith(anchor):
                raise bad("its value is not that of the anchor: the chain was made anew")
            report.last, report.head, value = seq, said, now
        # The next file's first record is a checkpoint too; were it not, the numbers would still have to go on.
    if not report.first:
        raise BrokenChainError(name, 0, None, "there are no records")
    if anchors and max(anchors) > report.last:
        raise BrokenChainError(
            name, number, report.last, f"the anchor knows record {max(anchors)}: what stood after this one was cut off"
        )
    return report
