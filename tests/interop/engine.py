"""Our side: tokens made and opened by the gate and the engine, as the verbs do it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sidecar.errors import InvalidTokenError
from sidecar.gate import JWE, JWS, gate
from sidecar.jose import keys
from sidecar.jose.encrypt import decrypt, encrypt
from sidecar.jose.sign import sign, verify
from tests.interop.suites import TYP, public_half

if TYPE_CHECKING:
    from tests.interop.suites import Jwk, Keys, Suite


def make(suite: Suite, own: Keys, payload: bytes) -> str:
    """A token of this suite. `ValueError` under an algorithm for opening only."""
    if suite.format == "signed":
        return sign(payload, _material(own["signature"]), typ=TYP)
    encryption = _material(public_half(own["encryption"]))
    if suite.format == "encrypted":
        return encrypt(payload, encryption, content=suite.enc, typ=TYP)
    inner = sign(payload, _material(own["signature"]), typ=TYP)
    return encrypt(inner.encode(), encryption, content=suite.enc, cty="JWT")


def open_token(suite: Suite, own: Keys, token: str) -> bytes:
    """The payload. `InvalidTokenError`: refused."""
    text = token
    if suite.format != "signed":
        outer = gate(token, segments=JWE)
        if (outer.typ, outer.cty) != ((TYP, "") if suite.format == "encrypted" else ("", "JWT")):
            raise InvalidTokenError("header.typ")
        plaintext = decrypt(outer, _material(own["encryption"]), content=suite.enc)
        if suite.format == "encrypted":
            return plaintext
        try:
            text = plaintext.decode("ascii")
        except UnicodeDecodeError:
            raise InvalidTokenError("nested.text") from None
    inner = gate(text, segments=JWS)
    if (inner.typ, inner.cty) != (TYP, ""):
        raise InvalidTokenError("header.typ")
    return verify(inner, _material(public_half(own["signature"])))


def _material(jwk: Jwk) -> keys.Material:
    return keys.load(json.dumps(jwk).encode(), jwk["alg"])
