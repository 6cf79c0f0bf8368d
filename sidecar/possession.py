"""Possession: whether whoever presents a bound token holds the key that it is bound to (RFC 7800, 9449, 8705). Pure: no memory, no clock.

Rules, for a token with `cnf`:
 1. `cnf` has one member, `jkt` (RFC 9449 section 6.1) or `x5t#S256` (RFC 8705 section 3.1), of 43 characters of base64url. A token that is
    bound in any other way cannot be proven.
 2. The evidence is of that kind. A DPoP proof with a token that is not bound proves nothing: it is refused, or a stolen token would pass
    beside a thief's own proof (RFC 9449 section 4.3, 12). A certificate with such a token is no claim, and ignored: every connection of
    mutual TLS has one.
 3. A certificate's thumbprint is the token's.
 4. A DPoP proof is in the proofs' own form (`gate.DPOP`) and a `dpop+jwt`; its key is sound, is the token's, and made its signature;
    `htm`, `htu`, `iat`, `jti` and `ath` are there and those of this request and token, `nonce` too where one is expected (section 4.3).
 5. Whether a proof came before is for who has a memory (`replay`); `Proven.proof` is what to remember, and until when.

Every failure is an `UnprovenPossessionError`; its stage says which, in the audit log alone. Times are seconds since the epoch.
"""

from __future__ import annotations

import hmac
import json
import re
from base64 import b64decode, urlsafe_b64encode
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote, urlsplit

from sidecar.errors import InvalidTokenError, UnprovenPossessionError
from sidecar.gate import DPOP, JWS, gate
from sidecar.jose.presented import ALGORITHMS, opened, thumbprint

if TYPE_CHECKING:
    from collections.abc import Mapping

TYP = "dpop+jwt"
MAX_PROOF_ID = 255  # characters of `jti`

_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]").fullmatch
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}").fullmatch  # RFC 9110 section 9.1
_URL = re.compile(r"[\x21-\x7e]{1,8192}").fullmatch
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_HASH = re.compile(r"(?:^|;)Hash=([0-9a-f]{64})(?=;|$)", re.IGNORECASE).findall
_PORTS = {"http": 80, "https": 443}


class Method(Enum):
    """How possession is proven; the value is the member of `cnf`."""

    DPOP = "jkt"
    CERTIFICATE = "x5t#S256"


@dataclass(frozen=True, slots=True)
class Bond:
    """What a token is bound to. `thumbprint`: SHA-256 of the JWK (RFC 7638) or of the certificate, in base64url."""

    method: Method
    thumbprint: str

    @property
    def claim(self) -> dict[str, str]:
        """The value of `cnf`."""
        return {self.method.value: self.thumbprint}

    @classmethod
    def read(cls, cnf: object) -> Bond:
        """From a token's `cnf`, by rule 1."""
        if type(cnf) is dict and len(cnf) == 1:
            ((name, value),) = cnf.items()
            for method in Method:
                if name == method.value and type(value) is str and is_thumbprint(value):
                    return cls(method, value)
        raise UnprovenPossessionError(stage="possession.cnf")


@dataclass(frozen=True, slots=True)
class DpopProof:
    """The DPoP header's value, and the request that came with it. `nonces`: one of these is expected; empty: none is."""

    text: str
    method: str
    url: str
    nonces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Certificate:
    """The thumbprint of the certificate that the presenter's connection was authenticated by."""

    thumbprint: str


Evidence = DpopProof | Certificate


@dataclass(frozen=True, slots=True)
class Proven:
    """What was proven. `proof` identifies a DPoP proof that must not be taken again `until` then; empty of a certificate."""

    bond: Bond
    proof: bytes = b""
    until: float = 0.0


def prove(
    cnf: object, evidence: Evidence | None, *, token: str | None, now: float, max_age: float, leeway: float
) -> Proven | None:
    """What was proven of a genuine token with this `cnf` (None: it has none), by rules 1 to 4; None where nothing had to be.

    `token` is its whole text, as it was presented; None of a refresh token, whose proof has no `ath` (RFC 9449, section 5). `max_age` of a proof and `leeway` are in seconds.
    """
    if cnf is None:
        if isinstance(evidence, DpopProof):
            raise UnprovenPossessionError(stage="possession.unbound")
        return None
    bond = Bond.read(cnf)
    match bond.method, evidence:
        case Method.CERTIFICATE, Certificate(seen):
            if not hmac.compare_digest(seen, bond.thumbprint):
                raise UnprovenPossessionError(stage="possession.certificate")
            return Proven(bond)
        case Method.DPOP, DpopProof():
            return _prove(bond, evidence, token, now, max_age, leeway)
        case _, None:
            raise UnprovenPossessionError(stage="possession.absent")
    raise UnprovenPossessionError(stage="possession.kind")


def _prove(bond: Bond, evidence: DpopProof, token: str | None, now: float, max_age: float, leeway: float) -> Proven:
    try:
        proof = gate(evidence.text, segments=JWS, form=DPOP)
        jwk = cast("Mapping[str, str]", proof.header["jwk"])
        if proof.typ != TYP or proof.alg not in ALGORITHMS:
            raise UnprovenPossessionError(stage="possession.header")
        # The token's key before anything is computed with it: nobody else's key is worth the work.
        if not hmac.compare_digest(thumbprint(jwk), bond.thumbprint):
            raise UnprovenPossessionError(stage="possession.key")
        claims = _object(opened(proof, jwk, bond.thumbprint))
    except InvalidTokenError as refused:
        raise UnprovenPossessionError(stage=f"possession.{refused.stage}") from None
    method, url, issued, proof_id = (claims.get(name) for name in ("htm", "htu", "iat", "jti"))
    if type(method) is not str or method != evidence.method:
        raise UnprovenPossessionError(stage="possession.htm")
    if type(url) is not str or normal(url) != normal(evidence.url):
        raise UnprovenPossessionError(stage="possession.htu")
    if token is not None and not _equal(claims.get("ath"), _hashed(token)):
        raise UnprovenPossessionError(stage="possession.ath")
    if evidence.nonces and not any(_equal(claims.get("nonce"), nonce) for nonce in evidence.nonces):
        raise UnprovenPossessionError(stage="possession.nonce")
    if type(issued) is not int or not now - max_age - leeway <= issued <= now + leeway:
        raise UnprovenPossessionError(stage="possession.iat")
    if type(proof_id) is not str or not 0 < len(proof_id) <= MAX_PROOF_ID:
        raise UnprovenPossessionError(stage="possession.jti")
    known = sha256(f"{bond.thumbprint}.{proof_id}".encode("utf-8", "surrogatepass")).digest()
    return Proven(bond, known, issued + max_age + leeway)


def is_thumbprint(text: str) -> bool:
    """Whether this is SHA-256 in canonical base64url: 43 characters."""
    return _THUMBPRINT(text) is not None


def of_certificate(text: str) -> str:
    """`x5t#S256` (RFC 8705 section 3.1) of one certificate in PEM, URL-encoded or not; empty where there is none, or it is none."""
    body = unquote(text).strip()
    if not body.startswith(_BEGIN) or _END not in body:
        return ""
    try:
        data = b64decode("".join(body.removeprefix(_BEGIN).partition(_END)[0].split()), validate=True)
    except ValueError:
        return ""
    return urlsafe_b64encode(sha256(data).digest()).rstrip(b"=").decode()


def forwarded(header: str) -> str:
    """The same of Envoy's X-Forwarded-Client-Cert, by its Hash; empty unless exactly one certificate is in it."""
    bare = _QUOTED.sub("", header)  # commas stand between elements, and within quotes anything may
    found = [] if "," in bare or '"' in bare else _HASH(bare)
    return urlsafe_b64encode(bytes.fromhex(found[0])).rstrip(b"=").decode() if len(found) == 1 else ""


def is_method(text: str) -> bool:
    """Whether this is an HTTP method."""
    return _METHOD(text) is not None


def normal(url: str) -> str | None:
    """An http(s) URL without query and fragment, in normal form (RFC 3986 sections 6.2.2 and 6.2.3); None: it is none.

    Dot segments are not resolved: a server and a client that differ about a path differ about the proof.
    """
    try:
        parts = urlsplit(url) if _URL(url) else None
        if parts is None or parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc or "\\" in url:
            return None
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        port = "" if parts.port in (None, _PORTS[parts.scheme]) else f":{parts.port}"
    except ValueError:
        return None
    return f"{parts.scheme}://{host}{port}{_ESCAPE.sub(_unescaped, parts.path) or '/'}"


def _unescaped(escape: re.Match[str]) -> str:
    character = chr(int(escape[1], 16))
    return character if character in _UNRESERVED else escape[0].upper()


def _equal(given: object, expected: str) -> bool:
    return type(given) is str and hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())


def _hashed(token: str) -> str:
    return urlsafe_b64encode(sha256(token.encode()).digest()).rstrip(b"=").decode()


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _object(payload: bytes) -> dict[str, object]:
    try:
        found = json.loads(payload.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        found = None
    if type(found) is not dict:
        raise UnprovenPossessionError(stage="possession.json")
    return found
