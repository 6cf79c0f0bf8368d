"""Inputs made from others, for hypothesis: where there is no coverage to go by, and in the bounded run."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

WORDS = (
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b".", b"..", b"=", b"\n", b"\r\n", b"\0", b" ", b"\xff", b"\xef\xbb\xbf"),
    *(b"\\u0061", b"\\ud800", b"null", b"true", b"NaN", b"Infinity", b"-0", b"1e400", b"1" * 400, b"1" * 4400, b"18446744073709551616", b"0.1"),
    *(b'{"a":', b"[" * 60, b"{" * 60, b'"alg":"none"', b'"crit":["x"]', b'"zip":"DEF"', b'"epk":{}', b'"kid":"a"', b'"x5c":["a"]'),
    *(b'"exp":', b'"aud":[]', b'"act":{"act":{}}', b'"seq":', b'"signature":', b'"previous":', b"[[a]]", b"'''", b"1979-05-27", b"0x"),
)  # fmt: skip
"""Text that has a meaning to one of the readers, or had one to a reader somewhere."""

_EDITS = ("insert", "replace", "delete", "repeat")


def mutated(kept: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """One of these, after up to eight edits."""
    what = st.sampled_from(WORDS) | st.binary(max_size=6)
    edits = st.tuples(st.sampled_from(_EDITS), st.integers(0, 2**16), what)
    return st.builds(_edited, st.sampled_from(kept), st.lists(edits, max_size=8))


def _edited(data: bytes, edits: Sequence[tuple[str, int, bytes]]) -> bytes:
    for edit, where, what in edits:
        at = where % (len(data) + 1)
        match edit:
            case "insert":
                data = data[:at] + what + data[at:]
            case "replace":
                data = data[:at] + what + data[at + len(what) :]
            case "delete":
                data = data[:at] + data[at + 4 * len(what) :]
            case "repeat":
                data = data[:at] + what * 40 + data[at:]
    return data[: 64 * 1024]
