"""Is this text a token at all? Strict form, before any cryptography and before any look-up.

Rules, in the order in which they are checked; each has its stage in `RULES`:
 1. Text of at most 16 KiB, of `A-Z a-z 0-9 - _ .` only, in as many segments as the caller's formats have (RFC 7515 section 3.1: three;
    RFC 7516 section 3.1: five).
 2. Every segment is canonical base64url (RFC 7515 section 2): what it decodes to encodes to the same text again.
 3. The header has at most 1 KiB, is strict UTF-8, and a JSON object without nesting or duplicate names (RFC 7515 section 4).
 4. Header names come from a list; values are text. Nothing else is followed, fetched or ignored (RFC 8725 sections 3.1 and 3.10).
 5. `alg`, `enc`, `typ` and `cty` look like names.
 6. `kid` is there and could be one of ours. Whether it is, and whether `alg` and `enc` are those of that key, is for the caller.

Sizes are bytes unless said otherwise. Nothing but `InvalidTokenError` comes out of here, whatever goes in.
"""

from __future__ import annotations

import json
import re
from binascii import a2b_base64
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from sidecar.errors import InvalidTokenError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_TOKEN = 16 * 1024
MAX_HEADER = 1024

JWS = frozenset({3})
"""Segment counts of a compact JWS."""
JWE = frozenset({5})
"""Segment counts of a compact JWE."""

RULES: Mapping[str, str] = MappingProxyType(
    {
        "gate.size": "a token has between 1 and 16,384 characters",
        "gate.alphabet": "a token has only the characters A-Z a-z 0-9 - _ and dots: no spaces, no padding, no JSON serialization",
        "gate.segments": "the number of dot-separated parts is not that of an accepted format: 3 (signed) or 5 (encrypted)",
        "gate.empty": "a part is empty that never is",
        "gate.base64url": "a part is not canonical base64url: cut short, or with unused bits set",
        "gate.header_size": "the header has more than 1,024 bytes",
        "gate.header_json": "the header is not a JSON object in UTF-8",
        "gate.header_duplicate": "a name occurs twice in the header",
        "gate.header_name": "the header has a name that is not on the list: alg, kid, typ, cty, and enc on an encrypted token",
        "gate.header_value": "a value in the header is not text",
        "gate.header_missing": "the header lacks alg, or enc on an encrypted token",
        "gate.header_form": "alg, enc, typ or cty does not look like a name",
        "gate.kid": "kid is missing, or not 1 to 64 characters of A-Z a-z 0-9 - _",
    }
)
"""What each stage means, in words for the owner of the token (`tokensidecar inspect`). Never for a caller of Validate."""

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
_STANDARD = bytes.maketrans(b"-_", b"+/")
# The last character of a segment whose length is 2 or 3 modulo 4 carries 4 or 2 unused bits. They must be zero.
_LAST_OF_2 = frozenset("AQgw")
_LAST_OF_3 = frozenset("AEIMQUYcgkosw048")
_HEADER_TEXT = (4 * MAX_HEADER + 2) // 3
_NAMES = {3: frozenset({"alg", "kid", "typ", "cty"}), 5: frozenset({"alg", "enc", "kid", "typ", "cty"})}
_KID = re.compile(r"[A-Za-z0-9_-]{1,64}").fullmatch
_ALGORITHM = re.compile(r"[A-Za-z0-9_+-]{1,32}").fullmatch
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,64}(/[A-Za-z0-9!#$&^_.+-]{1,64})?").fullmatch  # RFC 6838 section 4.2


@dataclass(frozen=True, slots=True)
class Gated:
    """A text in the form of a token. Nothing in it is trusted yet: anybody can write one.

    `typ` is in lower case without `application/`, `cty` is as it came; both are empty where absent, and `enc` is on a JWS. `header` is all
    of it, as it came.
    """

    text: str
    segments: tuple[str, ...]
    header: Mapping[str, object]
    alg: str
    enc: str
    kid: str
    typ: str
    cty: str


def gate(text: str, *, segments: frozenset[int]) -> Gated:
    """Let a text pass that has the form of one of our tokens; `segments` is how many parts it may have: {3}, {5} or both.

    `InvalidTokenError` with the stage of the first rule that it breaks.
    """
    if not 0 < len(text) <= MAX_TOKEN:
        raise InvalidTokenError("gate.size")
    if not text.isascii() or text.encode().translate(None, _ALPHABET):
        raise InvalidTokenError("gate.alphabet")
    count = text.count(".") + 1
    if count not in segments or count not in _NAMES:
        raise InvalidTokenError("gate.segments")
    parts = tuple(text.split("."))
    for index, part in enumerate(parts):
        rest = len(part) & 3
        if rest == 0:
            if not part and (index, count) != (1, 5):  # the encrypted key is empty under `dir` (RFC 7516 section 5.1)
                raise InvalidTokenError("gate.empty")
        elif rest == 1 or part[-1] not in (_LAST_OF_2 if rest == 2 else _LAST_OF_3):
            raise InvalidTokenError("gate.base64url")

    header = _header(parts[0], _NAMES[count])
    try:
        alg = header["alg"]
        enc = header["enc"] if count == 5 else ""
    except KeyError:
        raise InvalidTokenError("gate.header_missing") from None
    typ, cty = header.get("typ"), header.get("cty")
    if (
        not _ALGORITHM(alg)
        or (count == 5 and not _ALGORITHM(enc))
        or (typ is not None and not _MEDIA_TYPE(typ))
        or (cty is not None and not _MEDIA_TYPE(cty))
    ):
        raise InvalidTokenError("gate.header_form")
    kid = header.get("kid", "")
    if not _KID(kid):
        raise InvalidTokenError("gate.kid")
    return Gated(text, parts, header, alg, enc, kid, _short(typ), cty or "")


def _header(part: str, names: frozenset[str]) -> dict[str, str]:
    if len(part) > _HEADER_TEXT:
        raise InvalidTokenError("gate.header_size")
    try:
        text = a2b_base64(part.encode().translate(_STANDARD) + b"==").decode("utf-8")
        header, end = _decode(text)  # no white space around it: half the time of `json.loads`
    except (ValueError, RecursionError):
        raise InvalidTokenError("gate.header_json") from None
    if end != len(text) or type(header) is not dict:
        raise InvalidTokenError("gate.header_json")
    if not names.issuperset(header):
        raise InvalidTokenError("gate.header_name")
    for value in header.values():
        if type(value) is not str:
            raise InvalidTokenError("gate.header_value")
    return header


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    r"""An object without duplicate names. Escapes are resolved by now, so `"\u0061lg"` is `"alg"`."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise InvalidTokenError("gate.header_duplicate")
    return result


_decode = json.JSONDecoder(object_pairs_hook=_unique).raw_decode


def _short(media_type: str | None) -> str:
    """RFC 7515 section 4.1.9: compared without case, `application/` may be left out."""
    return "" if media_type is None else media_type.lower().removeprefix("application/")
