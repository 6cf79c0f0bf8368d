"""Is this text a token at all? Strict form, before any cryptography and before any look-up.

Rules, in the order in which they are checked; each has its stage in `RULES`:
 1. Text of at most 16 KiB, of `A-Z a-z 0-9 - _ .` only, in as many segments as the caller's formats have (RFC 7515 section 3.1: three;
    RFC 7516 section 3.1: five).
 2. Every segment is canonical base64url (RFC 7515 section 2): what it decodes to encodes to the same text again.
 3. The header has at most 1 KiB, is strict UTF-8, and a JSON object without duplicate names, nor nesting but for `epk` (RFC 7515 section 4).
 4. Header names come from a list; values are text. Nothing else is followed, fetched or ignored (RFC 8725 sections 3.1 and 3.10).
 5. `alg`, `enc`, `typ` and `cty` look like names. `epk` is there exactly with ECDH-ES, and is a bare public key of P-256 or X25519, every
    value of its exact length (RFC 7518 section 4.6.1.1, RFC 8037); `iv` and `tag` are there exactly with AES-GCM key wrap (RFC 7518
    section 4.7.1).
 6. `kid` is there and could be one of ours. Whether it is, and whether `alg` and `enc` are those of that key, is for the caller.

 7. A DPoP proof has a form of its own: exactly `typ`, `alg` and `jwk`, which is a bare public key (RFC 9449 section 4.2).

Sizes are bytes unless said otherwise. Nothing but `InvalidTokenError` comes out of here, whatever goes in.
"""

from __future__ import annotations

import json
import re
from binascii import a2b_base64
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from sidecar.errors import InvalidTokenError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_TOKEN = 16 * 1024
MAX_HEADER = 1024
MAX_KNOWN = 512
"""Headers that are remembered: of an own token there are as many as live keys."""

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
        "gate.header_name": "the header has a name that is not on the list: alg, kid, typ, cty; on an encrypted token also enc, with ECDH-ES epk, "
        "and with AES-GCM key wrap iv and tag",
        "gate.header_value": "a value in the header is not text",
        "gate.header_missing": "the header lacks alg; or on an encrypted token enc, with ECDH-ES epk, or with AES-GCM key wrap iv or tag",
        "gate.header_form": "alg, enc, typ or cty does not look like a name",
        "gate.epk": "epk is not a bare public key of P-256 or X25519: kty, crv, x and, of P-256, y, each of its exact length and nothing more",
        "gate.wrapping": "iv or tag of AES-GCM key wrap has not its exact length: 12 and 16 bytes",
        "gate.kid": "kid is missing, or not 1 to 64 characters of A-Z a-z 0-9 - _",
    }
)
"""What each stage means, in words for the owner of the token (`tokensidecar inspect`). Never for a caller of Validate."""

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
_STANDARD = bytes.maketrans(b"-_", b"+/")
# The last character of a segment whose length is 2 or 3 modulo 4 carries 4 or 2 unused bits. They must be zero.
_LAST_OF_2 = frozenset("AQgw")
_LAST_OF_3 = frozenset("AEIMQUYcgkosw048")
_SIGNED = frozenset({"alg", "kid", "typ", "cty"})
_ENCRYPTED = _SIGNED | {"enc"}
_AGREED = frozenset({"epk"})
_WRAPPED = frozenset({"iv", "tag"})
_FURTHER = {
    "ECDH-ES": _AGREED,
    "ECDH-ES+A256KW": _AGREED,
    "A128GCMKW": _WRAPPED,
    "A256GCMKW": _WRAPPED,
}
_EPK = {  # by crv: kty, and the other members
    "P-256": ("EC", frozenset({"x", "y"})),
    "X25519": ("OKP", frozenset({"x"})),
}
_PROOF = frozenset({"typ", "alg", "jwk"})
_PUBLIC = {  # by kty: the members of a bare public key (RFC 7638 section 3.2, RFC 8037)
    "EC": frozenset({"kty", "crv", "x", "y"}),
    "OKP": frozenset({"kty", "crv", "x"}),
    "RSA": frozenset({"kty", "n", "e"}),
}
_ENCODED = re.compile(r"[A-Za-z0-9_-]*").fullmatch
_ALGORITHM = re.compile(r"[A-Za-z0-9_+-]{1,32}").fullmatch
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,64}(/[A-Za-z0-9!#$&^_.+-]{1,64})?").fullmatch  # RFC 6838 section 4.2


@dataclass(frozen=True, slots=True)
class Form:
    """What headers may look like. `tolerated`: further names whose values may be anything, and are never looked at or followed."""

    tolerated: frozenset[str] = frozenset()
    header: int = MAX_HEADER  # bytes at most
    kid: re.Pattern[str] = re.compile(r"[A-Za-z0-9_-]{1,64}")
    proof: bool = False  # names are exactly those of a DPoP proof, which has no `kid`
    signed: frozenset[str] = _SIGNED  # names in the header of a JWS


OWN = Form()
"""Tokens that this project makes."""

DPOP = Form(header=2 * MAX_HEADER, proof=True)
"""DPoP proofs (RFC 9449 section 4.2): `typ`, `alg` and a bare public `jwk`, and nothing else."""
SERVICE_ACCOUNT = Form(kid=re.compile(r"[\x20-\x7e]{1,256}"), signed=frozenset({"alg", "kid", "typ"}))
"""Tokens that a Kubernetes cluster makes for its service accounts."""

INTOLERABLE = frozenset({"crit", "b64", "zip", "apu", "apv", "p2s", "p2c"}) | _ENCRYPTED | _AGREED | _WRAPPED
"""Names that a foreign form cannot tolerate: they change what a token means, or have a meaning here."""


def foreign(tolerated: frozenset[str] = frozenset()) -> Form:
    """The form of tokens that another system makes: up to 4 KiB of header, and a `kid` of any 1 to 256 printable ASCII characters.

    `ValueError`: one of the names cannot be tolerated.
    """
    if bad := tolerated & INTOLERABLE:
        raise ValueError(f"cannot be tolerated: {', '.join(sorted(bad))}")
    return Form(tolerated, 4 * MAX_HEADER, re.compile(r"[\x20-\x7e]{1,256}"))


class Gated(NamedTuple):
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


class _Header(NamedTuple):
    members: Mapping[str, object]
    alg: str
    enc: str
    kid: str
    typ: str
    cty: str
    segments: int


_known: dict[str, _Header] = {}


def gate(text: str, *, segments: frozenset[int], form: Form = OWN) -> Gated:
    """Let a text pass that has the form of a token; `segments` is how many parts it may have: {3}, {5} or both.

    `InvalidTokenError` with the stage of the first rule that it breaks.
    """
    if not 0 < len(text) <= MAX_TOKEN:
        raise InvalidTokenError("gate.size")
    if not text.isascii() or text.encode().translate(None, _ALPHABET):
        raise InvalidTokenError("gate.alphabet")
    parts = tuple(text.split(".", 5))
    count = text.count(".") + 1
    if count not in segments or count not in (3, 5):
        raise InvalidTokenError("gate.segments")
    for index, part in enumerate(parts):
        rest = len(part) & 3
        if rest == 0:
            if not part and (index, count) != (1, 5):  # the encrypted key is empty under `dir` (RFC 7516 section 5.1)
                raise InvalidTokenError("gate.empty")
        elif rest == 1 or part[-1] not in (_LAST_OF_2 if rest == 2 else _LAST_OF_3):
            raise InvalidTokenError("gate.base64url")
    header = _known.get(parts[0])
    if header is None or header.segments != count or form.proof:
        header = _header(parts[0], count, form)
    members, alg, enc, kid, typ, cty, _ = header
    return Gated(text, parts, members, alg, enc, kid, typ, cty)


def remember(token: Gated) -> None:
    """Read the header of such tokens only once. For tokens of our own that are proven genuine: nobody else can fill this memory."""
    part = token.segments[0]
    if part not in _known and token.alg not in _FURTHER:
        header = _header(part, len(token.segments), OWN)
        while len(_known) >= MAX_KNOWN:
            del _known[next(iter(_known))]
        _known[part] = header


def _header(part: str, count: int, form: Form) -> _Header:
    members = _parsed(part, form)
    if form.proof:
        return _proof_header(members)
    alg, enc = members.get("alg"), members.get("enc") if count == 5 else ""
    names, further = _ENCRYPTED if count == 5 else form.signed, frozenset[str]()
    if count == 5 and type(alg) is str:
        further = _FURTHER.get(alg, further)
    if not (names | further | form.tolerated).issuperset(members):
        raise InvalidTokenError("gate.header_name")
    for name, value in members.items():
        if type(value) is not str and name != "epk" and name not in form.tolerated:
            raise InvalidTokenError("gate.header_value")
    if alg is None or enc is None or not further <= members.keys():
        raise InvalidTokenError("gate.header_missing")
    typ, cty = members.get("typ"), members.get("cty")
    if (
        not _ALGORITHM(alg)
        or (count == 5 and not _ALGORITHM(enc))
        or (typ is not None and not _MEDIA_TYPE(typ))
        or (cty is not None and not _MEDIA_TYPE(cty))
    ):
        raise InvalidTokenError("gate.header_form")
    if further == _AGREED:
        _check_epk(members["epk"])
    elif further and not (_is_encoded(members["iv"], 16) and _is_encoded(members["tag"], 22)):
        raise InvalidTokenError("gate.wrapping")
    kid = members.get("kid", "")
    if not form.kid.fullmatch(kid):
        raise InvalidTokenError("gate.kid")
    return _Header(MappingProxyType(members), alg, enc, kid, _short(typ), cty or "", count)


def _parsed(part: str, form: Form) -> dict[str, Any]:
    if len(part) > (4 * form.header + 2) // 3:
        raise InvalidTokenError("gate.header_size")
    try:
        text = a2b_base64(part.encode().translate(_STANDARD) + b"==").decode("utf-8")
        members, end = _decode(text)  # no white space around it: half the time of `json.loads`
    except (ValueError, RecursionError):
        raise InvalidTokenError("gate.header_json") from None
    if end != len(text) or type(members) is not dict:
        raise InvalidTokenError("gate.header_json")
    return members


def _proof_header(members: dict[str, Any]) -> _Header:
    if members.keys() != _PROOF:
        raise InvalidTokenError("gate.header_name")
    alg, typ, jwk = members["alg"], members["typ"], members["jwk"]
    if type(alg) is not str or not _ALGORITHM(alg) or type(typ) is not str or not _MEDIA_TYPE(typ):
        raise InvalidTokenError("gate.header_form")
    kty = jwk.get("kty") if type(jwk) is dict else None
    if type(kty) is not str or jwk.keys() != _PUBLIC.get(kty):
        raise InvalidTokenError("gate.header_value")
    if not all(type(value) is str and value and _ENCODED(value) for name, value in jwk.items() if name != "crv"):
        raise InvalidTokenError("gate.header_value")
    return _Header(MappingProxyType(members), alg, "", "", _short(typ), "", 3)


def _check_epk(epk: object) -> None:
    """Exactly the members of a public key; whether it is a point of the recipient's curve is for who knows the recipient."""
    if type(epk) is not dict or type(epk.get("crv")) is not str or epk["crv"] not in _EPK:
        raise InvalidTokenError("gate.epk")
    kty, coordinates = _EPK[epk["crv"]]
    if epk.get("kty") != kty or epk.keys() != coordinates | {"kty", "crv"}:
        raise InvalidTokenError("gate.epk")
    if not all(_is_encoded(epk[name], 43) for name in coordinates):
        raise InvalidTokenError("gate.epk")


def _is_encoded(value: object, characters: int) -> bool:
    """Whether this is canonical base64url of so many characters; 43 are 32 bytes, 22 are 16 and 16 are 12."""
    if type(value) is not str or len(value) != characters or not _ENCODED(value):
        return False
    rest = characters & 3
    return rest == 0 or value[-1] in (_LAST_OF_2 if rest == 2 else _LAST_OF_3)


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
