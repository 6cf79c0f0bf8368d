"""A JWS inside a JWE (RFC 7519 section 5.2 and appendix A.2): signed, then encrypted, exactly once each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import InvalidTokenError
from sidecar.gate import JWS, Gated, gate
from sidecar.jose.encrypt import encrypt
from sidecar.jose.sign import sign

if TYPE_CHECKING:
    from sidecar.jose.keys import Material


def nest(payload: bytes, *, signature: Material, encryption: Material, content: str, typ: str) -> str:
    """A nested token over these bytes; `typ` is that of the inner, signed one, and the outer one says `cty: JWT`."""
    return encrypt(sign(payload, signature, typ=typ).encode(), encryption, content=content, cty="JWT")


def inner(plaintext: bytes, outer: Gated) -> Gated:
    """The signed token in a decrypted one, gated again. Its signature is not checked yet.

    `InvalidTokenError`: the outer token does not announce one (`cty: JWT`, and no `typ` of its own), or what is in it is not a compact JWS
    that ends the nesting.
    """
    if outer.cty != "jwt" or outer.typ:
        raise InvalidTokenError("jose.nesting")
    try:
        text = plaintext.decode("ascii")
    except UnicodeDecodeError:
        raise InvalidTokenError("gate.alphabet") from None
    token = gate(text, segments=JWS)
    if token.cty:
        raise InvalidTokenError("jose.nesting")
    return token
