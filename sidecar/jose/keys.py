"""Key material: made, loaded and written out here and nowhere else, as JWKs (RFC 7517). One key, one algorithm (RFC 8725 section 3.1).

A JWK is parsed once, when it is loaded. A `Material` cannot be printed, copied or pickled; the memory it was in is not wiped.
"""

from __future__ import annotations

import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import NoReturn

from jwcrypto.jwk import JWK

from sidecar.jose.suites import KEY_MANAGEMENT, SIGNATURES, encoded


class Material:
    """One key and its one algorithm; made by `generate` and `load` only.

    `key_id` is the RFC 7638 thumbprint of an asymmetric key, and random for a symmetric one, where a thumbprint would be a hash of the
    secret. `private` says whether it can sign, or open and make encrypted tokens. `jwk` is for this package alone.
    """

    __slots__ = ("_members", "algorithm", "jwk", "key_id", "private")

    def __init__(self, members: dict[str, str]) -> None:
        self._members = members
        self.algorithm = members["alg"]
        self.key_id = members["kid"]
        self.private = "d" in members or "k" in members
        self.jwk = JWK(**members)
        if self.algorithm in SIGNATURES:
            # Parses and keeps the library's key now: on the curve, and the private half is that of the public one.
            self.jwk.get_op_key("verify")
            if self.private:
                self.jwk.get_op_key("sign")
            if self.jwk.thumbprint() != self.key_id:
                raise ValueError("kid is not the thumbprint")

    def private_bytes(self) -> bytes:
        """The whole key as a JSON Web Key, secret included, for sealing. `ValueError` where there is only a public half."""
        if not self.private:
            raise ValueError(f"{self!r} has no private half")
        return _json(self._members)

    def public_bytes(self) -> bytes | None:
        """The public JWK, with `alg`, `kid` and `use`; None for a symmetric key, which has nothing public."""
        return None if "k" in self._members else _json(self._public_members())

    def public(self) -> Material:
        """The same key, able to verify only. `ValueError` for a symmetric key."""
        if "k" in self._members:
            raise ValueError(f"{self!r} is symmetric: it has no public half")
        return Material(self._public_members())

    def _public_members(self) -> dict[str, str]:
        return {name: value for name, value in self._members.items() if name != "d"}

    def __repr__(self) -> str:
        return f"Material({self.algorithm} {self.key_id})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("key material is neither copied nor pickled")


def generate(algorithm: str) -> Material:
    """A fresh key. `ValueError`: no such algorithm."""
    if suite := SIGNATURES.get(algorithm):
        jwk = JWK.generate(kty="EC", crv=suite.curve)
        return Material({**json.loads(jwk.export_private()), "alg": algorithm, "kid": jwk.thumbprint(), "use": "sig"})
    if wrap := KEY_MANAGEMENT.get(algorithm):
        members = {"kty": "oct", "k": _random(wrap.key), "alg": algorithm, "kid": _random(16), "use": "enc"}
        return Material(members)
    raise ValueError(f"no such algorithm: {algorithm}")


def load(data: bytes, algorithm: str) -> Material:
    """A key from what `private_bytes` or `public_bytes` wrote, and from nothing else.

    `ValueError` if it has other members, another algorithm, other lengths, a point off its curve, halves that do not belong together, or
    an id that is not its own. The message never quotes the data.
    """
    try:
        members = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
        return Material(_checked(members, algorithm))
    except Exception:  # noqa: BLE001 # whatever the libraries raise on nonsense; their words may quote a secret
        raise ValueError(f"this is not a key for {algorithm} as this version writes them") from None


def _checked(members: object, algorithm: str) -> dict[str, str]:
    if not isinstance(members, dict) or members.get("alg") != algorithm:
        raise ValueError("alg")
    if suite := SIGNATURES.get(algorithm):
        fixed = {"kty": "EC", "crv": suite.curve, "use": "sig"}
        lengths = {"x": suite.coordinate, "y": suite.coordinate, "kid": 32, "d": suite.coordinate}
        optional = {"d"}
    else:
        fixed = {"kty": "oct", "use": "enc"}
        lengths = {"k": KEY_MANAGEMENT[algorithm].key, "kid": 16}
        optional = set()
    if any(members.get(name) != value for name, value in fixed.items()):
        raise ValueError("kty, crv or use")
    if not fixed.keys() | lengths.keys() - optional <= members.keys() - {"alg"} <= fixed.keys() | lengths.keys():
        raise ValueError("members")
    for name in lengths.keys() & members.keys():
        value = members[name]
        if type(value) is not str or len(value) != encoded(lengths[name]) or not _canonical(value):
            raise ValueError("a value")
    return members


def _canonical(value: str) -> bool:
    """Strict base64url: what it decodes to encodes to the same text."""
    return _encode(urlsafe_b64decode(value + "==")) == value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _random(length: int) -> str:
    return _encode(secrets.token_bytes(length))


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _json(members: dict[str, str]) -> bytes:
    return json.dumps(members, separators=(",", ":"), sort_keys=True).encode()
