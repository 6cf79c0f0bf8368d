"""JSON Web Signature, compact (RFC 7515). One key, the one algorithm of that key, exact lengths."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, cast

from jwcrypto.jws import JWS

from sidecar.errors import InvalidTokenError
from sidecar.jose import headers
from sidecar.jose.suites import SIGNATURES, encoded

if TYPE_CHECKING:
    from sidecar.gate import Gated
    from sidecar.jose.keys import Material
    from sidecar.jose.prepared import Signature

# The library copies its registry of header names, 40 us, for each object; a copy of a made one shares it.
_BLANK = JWS()


def sign(payload: bytes, key: Material, *, typ: str) -> str:
    """A compact JWS over these bytes, with `alg`, `kid` and `typ` in its header.

    `ValueError`: the key is not one that signs.
    """
    suite = SIGNATURES.get(key.algorithm)
    if suite is None or not suite.makes or not key.private:
        raise ValueError(f"{key!r} does not sign")
    if key.prepared:
        return cast("Signature", key.prepared).sign(payload, typ)
    token = copy.copy(_BLANK)
    token.objects = {"payload": payload}
    token.allowed_algs = [key.algorithm]
    token.add_signature(key.jwk, alg=key.algorithm, protected=headers.signed(key.algorithm, key.key_id, typ))
    return str(token.serialize(compact=True))


def size(payload: int, key: Material, *, typ: str) -> int:
    """How many characters the token will have for that many bytes, exactly."""
    return (
        encoded(len(headers.signed(key.algorithm, key.key_id, typ)))
        + encoded(payload)
        + encoded(_signature_size(key))
        + 2
    )


def verify(token: Gated, key: Material) -> bytes:
    """The payload, once its signature by exactly this key is proven.

    `InvalidTokenError`: the header names another key or algorithm, a length is not exact, or the signature is not of this key and text.
    """
    suite = SIGNATURES.get(key.algorithm)
    if suite is None or len(token.segments) != 3 or token.alg != key.algorithm or token.kid != key.key_id:
        raise InvalidTokenError("jose.key")
    if len(token.segments[2]) != encoded(_signature_size(key)):
        raise InvalidTokenError("jose.length")
    try:
        payload = cast("Signature", key.prepared).verify(token) if key.prepared else _verified(token, key)
    except Exception:  # noqa: BLE001 # whatever a library raises on a forged token, RecursionError and MemoryError included
        raise InvalidTokenError("jose.signature") from None
    if type(payload) is not bytes:
        raise InvalidTokenError("jose.signature")
    return payload


def _verified(token: Gated, key: Material) -> object:
    jws = copy.copy(_BLANK)
    jws.allowed_algs = [key.algorithm]
    jws.deserialize(token.text)
    jws.verify(key.jwk, alg=key.algorithm)
    return jws.payload


def _signature_size(key: Material) -> int:
    return SIGNATURES[key.algorithm].signature or key.size
