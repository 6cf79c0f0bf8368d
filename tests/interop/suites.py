"""The suites that tokens are exchanged in: everything that the tables of `sidecar.jose.suites` have, so the matrix grows with them."""

from __future__ import annotations

import functools
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jwcrypto.jwk import JWK

from sidecar.jose.suites import CONTENT, KEY_MANAGEMENT, SIGNATURES
from tests.forgeries import encode

if TYPE_CHECKING:
    from collections.abc import Iterator

OPENED_ONLY = frozenset({"dir", "A128GCMKW", "A256GCMKW", "EdDSA"})
"""Imported keys' tokens are opened under these, none are made."""

TYP = "at+jwt"

Jwk = dict[str, str]
Keys = dict[str, Jwk]
"""Private JWKs under `signature` and `encryption`, as far as the format has them."""

_CURVES = {"ES256": ("P-256",), "ES384": ("P-384",), "Ed25519": ("Ed25519",), "EdDSA": ("Ed25519",)} | dict.fromkeys(
    ("ECDH-ES", "ECDH-ES+A256KW"), ("P-256", "X25519")
)
_SYMMETRIC = {"HS256": 32, "A128KW": 16, "A256KW": 32, "A128GCMKW": 16, "A256GCMKW": 32}
_DIRECT = {"A128GCM": 16, "A256GCM": 32, "A128CBC-HS256": 32, "A256CBC-HS512": 64}


@dataclass(frozen=True)
class Suite:
    """A format and its algorithms; `curve` is that of the encryption key where the algorithm leaves the choice."""

    format: str
    sign: str = ""
    alg: str = ""
    enc: str = ""
    curve: str = ""

    def __str__(self) -> str:
        """What the matrix calls it."""
        encryption = f"{self.alg}{f' ({self.curve})' if self.curve else ''}, {self.enc}"
        return {"signed": self.sign, "encrypted": encryption, "nested": f"{self.sign} in {encryption}"}[self.format]

    @property
    def opened_only(self) -> bool:
        """The engine makes no such tokens."""
        return not OPENED_ONLY.isdisjoint((self.sign, self.alg))

    def keys(self) -> Keys:
        """Both keys as private JWKs, the same in every call; one that the format does not have is not there."""
        keys = {}
        if self.sign:
            keys["signature"] = _key(self.sign, next(iter(_curves(self.sign))))
        if self.alg:
            keys["encryption"] = _key(self.alg, self.curve, _DIRECT[self.enc] if self.alg == "dir" else 0)
        return keys

    def request(self, op: str, keys: Keys, **more: str) -> dict[str, object]:
        """For a driver: it gets the public half of a key where that is enough."""
        public = "signature" if op == "open" else "encryption"
        keys = {role: public_half(key) if role == public else key for role, key in keys.items()}
        algorithms = {"sign": self.sign, "alg": self.alg, "enc": self.enc}
        return {"op": op, "format": self.format, "typ": TYP, "keys": keys, **algorithms, **more}


def suites() -> Iterator[Suite]:
    """Every signature, every key management with every content encryption, and nested tokens: as the layers know nothing of each other,
    each signature in the default encryption and the default signature in each key management."""
    for sign in SIGNATURES:
        yield Suite("signed", sign)
    pairs = [(alg, curve) for alg in KEY_MANAGEMENT for curve in _curves(alg)]
    for alg, curve in pairs:
        for enc in CONTENT:
            yield Suite("encrypted", "", alg, enc, curve if len(_curves(alg)) > 1 else "")
    for sign in SIGNATURES:
        yield Suite("nested", sign, "A256KW", "A256GCM")
    for alg, curve in pairs:
        if alg != "A256KW":
            yield Suite("nested", "ES256", alg, "A256GCM", curve if len(_curves(alg)) > 1 else "")


def public_half(jwk: Jwk) -> Jwk:
    """A JWK without its private members; a symmetric one as it is (RFC 7518 section 6)."""
    return {name: value for name, value in jwk.items() if name not in {"d", "p", "q", "dp", "dq", "qi"}}


def _curves(algorithm: str) -> tuple[str, ...]:
    return _CURVES.get(algorithm, ("",))


@functools.cache
def _key(algorithm: str, curve: str, size: int = 0) -> Jwk:
    """A fresh private JWK with `alg`, `kid` and `use`; `size` is that of a `dir` key in bytes."""
    use = "sig" if algorithm in _SIGNS else "enc"
    if curve:
        key = JWK.generate(kty="EC" if curve.startswith("P-") else "OKP", crv=curve)
    elif algorithm in _RSA:
        key = JWK.generate(kty="RSA", size=2048)
    else:
        k = encode(secrets.token_bytes(size or _SYMMETRIC[algorithm]))
        return {"kty": "oct", "k": k, "alg": algorithm, "kid": encode(secrets.token_bytes(16)), "use": use}
    members: Jwk = json.loads(key.export_private())
    return members | {"alg": algorithm, "kid": key.thumbprint(), "use": use}


_SIGNS = frozenset({"ES256", "ES384", "Ed25519", "EdDSA", "PS256", "RS256", "HS256"})
_RSA = frozenset({"PS256", "RS256", "RSA-OAEP-256"})
