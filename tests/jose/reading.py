"""A reader of nested tokens made of the rules and the engine alone, in the order of the Validate verb: what the unit tests attack."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from sidecar import claims
from sidecar.errors import InvalidTokenError, UnprovenPossessionError
from sidecar.gate import JWE, JWS, Gated, gate
from sidecar.jose import keys
from sidecar.jose.encrypt import decrypt, encrypt
from sidecar.jose.sign import sign, verify
from sidecar.keyring import KeyUse, Settings
from sidecar.profile import DEFAULT

NOW = 1_700_000_001
PAYLOAD = (
    b'{"iss":"urn:tokensidecar:local","sub":"user-42","aud":["orders"],"client_id":"unix:app","scope":"read write",'
    b'"jti":"Q2hhbmdlIG1lIG5vdCE","iat":1700000000,"exp":1700000300,"role":"admin","tenant":"bl\xc3\xa5"}'
)
SETTINGS = Settings.of(DEFAULT, KeyUse.SIGNATURE)


@dataclass(frozen=True)
class Reader:
    """The two keys of a profile, and what is done with them."""

    signature: keys.Material = field(default_factory=lambda: keys.generate("ES256"))
    encryption: keys.Material = field(default_factory=lambda: keys.generate("A256KW"))

    @property
    def public_jwk(self) -> dict[str, object]:
        jwk: dict[str, object] = json.loads(self.signature.public_bytes() or b"")
        return jwk

    def wrap(self, plaintext: bytes) -> str:
        return encrypt(plaintext, self.encryption, content="A256GCM", cty="JWT")

    def make(self, payload: bytes) -> str:
        return self.wrap(sign(payload, self.signature, typ="at+jwt").encode())

    def unwrap(self, token: str) -> bytes:
        outer = gate(token, segments=JWE)
        known(outer, self.encryption)
        if (outer.typ, outer.cty) != ("", "JWT"):
            raise InvalidTokenError("header.typ")
        return decrypt(outer, self.encryption, content="A256GCM")

    def read(self, token: str) -> claims.Claims:
        try:
            inner = gate(self.unwrap(token).decode("ascii"), segments=JWS)
        except UnicodeDecodeError:
            raise InvalidTokenError("nested.text") from None
        known(inner, self.signature)
        if (inner.typ, inner.cty) != ("at+jwt", ""):
            raise InvalidTokenError("header.typ")
        found = claims.parse(verify(inner, self.signature.public()))
        claims.check(found, issuer=DEFAULT.issuer, settings=SETTINGS, audiences=["orders"], now=NOW)
        if found.bound:
            raise UnprovenPossessionError
        claims.check_scopes(found, ["read"])
        return found


def known(token: Gated, key: keys.Material) -> None:
    """The look-up by kid, of one key."""
    if token.kid != key.key_id:
        raise InvalidTokenError("key.unknown")
