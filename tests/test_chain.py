"""The chain of an audit file: whatever somebody does to it is noticed, and the first bad record is named."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings, strategies as st

from sidecar.chain import CHECKPOINT_EVERY, BrokenChainError, Chain, Report, head_of, verify
from sidecar.sinks.signing import Signer, checker

SIGNER = Signer(Ed25519PrivateKey.generate())
THIEF = Signer(Ed25519PrivateKey.generate())
KEYS = [checker(SIGNER.public_pem)]
Lines = list[bytes]


def record(number: int) -> bytes:
    return json.dumps({"audit": 1, "verb": "issue", "why": f'n{number} "previous":"{"0" * 64}"'}).encode() + b"\n"


def chained(records: int, *, every: int = 5, chain: Chain | None = None, signer: Signer = SIGNER) -> Lines:
    """A file: a checkpoint, records, a checkpoint after so many of them, and one at the end."""
    chain = chain or Chain()
    lines = [chain.checkpoint({"audit": 1, "verb": "checkpoint", "lost": 0}, signer.sign)]
    for number in range(1, records + 1):
        lines.append(chain.link(record(number)))
        if number % every == 0:
            lines.append(chain.checkpoint({"audit": 1, "verb": "checkpoint", "lost": number}, signer.sign))
    return lines


def check(*files: Lines, anchors: dict[int, str] | None = None) -> Report:
    return verify([(f"file{i}", lines) for i, lines in enumerate(files)], KEYS, anchors)


def broken(*files: Lines, anchors: dict[int, str] | None = None) -> BrokenChainError:
    with pytest.raises(BrokenChainError) as caught:
        check(*files, anchors=anchors)
    return caught.value


def value(line: bytes) -> str:
    head = head_of(line.rstrip(b"\n"))
    assert head
    return head.value.hex()


def test_a_chain_as_it_was_written_is_good() -> None:
    report = check(chained(12))
    assert (report.first, report.last, report.checkpoints, report.signed, report.lost) == (1, 15, 3, 13, 10)


def test_a_record_stays_the_json_that_it_was_with_number_and_value() -> None:
    line = json.loads(chained(1)[1])
    assert line.pop("seq") == 2
    assert len(line.pop("chain")) == 64
    assert line == json.loads(record(1))


@pytest.mark.parametrize(
    ("change", "seq", "words"),
    [
        (lambda x: [*x[:4], x[4].replace(b"issue", b"rotate"), *x[5:]], 5, "was changed"),
        (lambda x: [*x[:4], *x[5:]], 6, "5 should follow 4: deleted, or moved"),
        (lambda x: [*x[:4], x[5], x[4], *x[6:]], 6, "deleted, or moved"),
        (lambda x: [*x[:5], x[4], *x[5:]], 5, "doubled, or moved"),
        (lambda x: [*x[:5], x[4].replace(b'"seq":5', b'"seq":6'), *x[5:]], 6, "was changed"),
        (lambda x: x[1:], 2, "cut off"),
        (lambda x: [*x[:4], record(4), *x[4:]], None, "not a record of a chain"),
        (lambda x: [*x[:4], b"\n", *x[4:]], None, "not a record of a chain"),
        (lambda x: [*x[:-1], x[-1][:40]], None, "cut short"),
        (lambda x: [*x[:6], x[6].replace(b'"lost":5', b'"lost":0'), *x[7:]], 7, "was changed"),
        (lambda _: [], None, "no records"),
    ],
    ids=[
        "edit",
        "delete",
        "reorder",
        "duplicate",
        "renumber",
        "behead",
        "insert",
        "blank",
        "truncate",
        "checkpoint",
        "empty",
    ],
)
def test_the_first_bad_record_is_named(change: Callable[[Lines], Lines], seq: int | None, words: str) -> None:
    error = broken(change(chained(12)))
    assert error.seq == seq
    assert words in error.problem


def remade(lines: Lines, start: int, edit: Callable[[bytes], bytes], signer: Signer | None) -> Lines:
    """Somebody changes records from `start` on and makes the chain anew, the checkpoints by a key of their own or without any."""
    head = head_of(lines[start - 1].rstrip(b"\n"))
    assert head
    chain, made = Chain(head), lines[:start]
    for line in lines[start:]:
        fields = json.loads(line)
        for name in ("seq", "chain", "signature", "previous"):
            fields.pop(name, None)
        if fields["verb"] != "checkpoint":
            made.append(chain.link(edit(json.dumps(fields).encode() + b"\n")))
        elif signer:
            made.append(chain.checkpoint(fields, signer.sign))
    return made


def test_a_chain_made_anew_fails_at_its_first_checkpoint() -> None:
    lines = chained(12)
    forged = remade(lines, 3, lambda line: line.replace(b"issue", b"rotate"), THIEF)
    error = broken(forged)
    assert error.seq == 7
    assert "not signed by the key" in error.problem


def test_the_old_signature_does_not_fit_a_chain_made_anew() -> None:
    lines = chained(12)
    forged = remade(lines[:6], 3, lambda line: line.replace(b"issue", b"rotate"), None)
    head = head_of(forged[-1].rstrip(b"\n"))
    assert head
    chain = Chain(head)
    signature = json.loads(lines[6])["signature"]
    stolen = base64.urlsafe_b64decode(signature + "==")
    forged.append(chain.checkpoint({"audit": 1, "verb": "checkpoint", "lost": 5}, lambda _: stolen))
    assert broken(forged).seq == 7


def test_a_chain_made_anew_without_its_checkpoints_is_too_long_without_one() -> None:
    lines = chained(CHECKPOINT_EVERY + 10, every=CHECKPOINT_EVERY)
    check(lines)
    error = broken(remade(lines, 1, lambda line: line, None))
    assert error.seq == CHECKPOINT_EVERY + 2
    assert "without a checkpoint" in error.problem


def test_a_tail_that_was_cut_off_or_made_anew_needs_an_anchor() -> None:
    lines = chained(13)
    check(lines[:-1])
    check(remade(lines, 14, lambda line: line.replace(b"issue", b"rotate"), None))
    anchors = {16: value(lines[15])[:13]}
    check(lines, anchors=anchors)
    assert "cut off" in broken(lines[:-1], anchors=anchors).problem
    forged = remade(lines, 14, lambda line: line.replace(b"issue", b"rotate"), None)
    assert "not that of the anchor" in broken(forged, anchors=anchors).problem


def test_a_chain_that_the_key_holder_made_anew_needs_an_anchor() -> None:
    lines = chained(12)
    forged = remade(lines, 3, lambda line: line.replace(b"issue", b"rotate"), SIGNER)
    check(forged)
    assert broken(forged, anchors={13: value(lines[12])}).seq == 13


def test_files_follow_one_another() -> None:
    chain = Chain()
    first, second, third = (chained(7, chain=chain) for _ in range(3))
    assert check(first, second, third).last == 27
    assert check(second, third).first == 10
    error = broken(first, third)
    assert (error.file, error.line, error.seq) == ("file1", 1, 19)


def test_another_instance_s_key_does_not_sign_here() -> None:
    assert broken(chained(3, signer=THIEF)).seq == 1
    verify([("f", chained(3, signer=THIEF))], [*KEYS, checker(THIEF.public_pem)])


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_any_changed_byte_is_noticed(data: st.DataObject) -> None:
    lines = GOOD
    number = data.draw(st.integers(0, len(lines) - 1))
    line = bytearray(lines[number])
    place = data.draw(st.integers(0, len(line) - 2))
    line[place] ^= data.draw(st.integers(1, 255))
    changed = [*lines[:number], bytes(line), *lines[number + 1 :]]
    with pytest.raises(BrokenChainError):
        check(changed)


GOOD = chained(12)
