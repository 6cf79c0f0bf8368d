"""JSON Web Encryption, compact (RFC 7516). One key, its one algorithm, one content encryption, exact lengths."""

from __future__ import annotations

import copy
from base64 import urlsafe_b64decode
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from jwcrypto.jwe import JWE

from sidecar.errors import InvalidTokenError
from sidecar.gate import MAX_TOKEN
from sidecar.jose import headers
from sidecar.jose.prepared import CONTENT as PREPARED_CONTENT
from sidecar.jose.sound import x25519_point
from sidecar.jose.suites import CONTENT, CURVES, KEY_MANAGEMENT, Management, encoded, encrypted_key_size

if TYPE_CHECKING:
    from sidecar.gate import Gated
    from sidecar.jose.keys import Material
    from sidecar.jose.prepared import Encryption

MAX_PLAINTEXT = MAX_TOKEN
"""Bytes. Nothing is compressed here, so a plaintext is smaller than its token anyway; no library gets to disagree."""

# The library copies its registry of header names, 40 of 80 us, for each object; a copy of a made one shares it.
_BLANK = JWE()

# y^2 = x^3 - 3x + b mod p (NIST SP 800-186 section 3.2.1.3)
_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B


def encrypt(plaintext: bytes, key: Material, *, content: str, cty: str = "", typ: str = "") -> str:
    """A compact JWE over these bytes, with `alg`, `enc` and `kid` in its header, and `cty` and `typ` where given.

    `ValueError`: the key does not encrypt, there is no such content encryption, or there is nothing to encrypt.
    """
    management = KEY_MANAGEMENT.get(key.algorithm)
    if management is None or not management.makes or content not in CONTENT or not plaintext:
        raise ValueError(f"{key!r} does not encrypt {len(plaintext)} bytes with {content}")
    if key.prepared and content == PREPARED_CONTENT:
        return cast("Encryption", key.prepared).encrypt(plaintext, cty, typ)
    token = copy.copy(_BLANK)
    token.allowed_algs = [key.algorithm, content]
    token.objects = {"protected": headers.encrypted(key.algorithm, key.key_id, content, cty, typ)}
    token.plaintext = plaintext
    token.add_recipient(key.jwk)
    return str(token.serialize(compact=True))


def size(plaintext: int, key: Material, *, content: str, cty: str = "", typ: str = "") -> int:
    """How many characters the token will have for that many bytes, exactly."""
    suite, header = CONTENT[content], headers.encrypted(key.algorithm, key.key_id, content, cty, typ)
    if KEY_MANAGEMENT[key.algorithm].agrees:
        header = headers.agreed(header, _blank_epk(key.curve))
    padded = plaintext if suite.block == 1 else (plaintext // suite.block + 1) * suite.block  # PKCS #7
    return encoded(len(header)) + sum(_lengths(key.algorithm, key.size, content)) + encoded(padded) + 4


def decrypt(token: Gated, key: Material, *, content: str) -> bytes:
    """The plaintext, once it is proven that a holder of exactly this key made it.

    `InvalidTokenError`: the header names another key, algorithm or content encryption, a length is not exact, `epk` is not of the key's
    curve, or anything was changed.
    """
    management, suite = KEY_MANAGEMENT.get(key.algorithm), CONTENT.get(content)
    if (
        management is None
        or suite is None
        or not key.private
        or len(token.segments) != 5
        or token.alg != key.algorithm
        or token.enc != content
        or token.kid != key.key_id
    ):
        raise InvalidTokenError("jose.key")
    _, encrypted_key, iv, ciphertext, tag = token.segments
    if (
        (len(encrypted_key), len(iv), len(tag)) != _lengths(key.algorithm, key.size, content)
        or (management.how is Management.DIRECT and key.size != suite.key)
        or (suite.block > 1 and len(ciphertext) * 3 // 4 % suite.block)
    ):
        raise InvalidTokenError("jose.length")
    if management.agrees:
        check_epk(token.header.get("epk"), key.curve)
    try:
        if key.prepared and content == PREPARED_CONTENT:
            plaintext: object = cast("Encryption", key.prepared).decrypt(token)
        else:
            plaintext = _decrypted(token, key, content)
    except Exception:  # noqa: BLE001 # whatever a library raises on a forged token, RecursionError and MemoryError included
        raise InvalidTokenError("jose.decryption") from None
    if type(plaintext) is not bytes or not 0 < len(plaintext) <= MAX_PLAINTEXT:
        raise InvalidTokenError("jose.decryption")
    return plaintext


def _decrypted(token: Gated, key: Material, content: str) -> object:
    jwe = copy.copy(_BLANK)
    jwe.allowed_algs = [key.algorithm, content]
    jwe.deserialize(token.text)
    jwe.decrypt(key.jwk, max_plaintext=MAX_PLAINTEXT)
    return jwe.plaintext


def check_epk(epk: object, curve: str) -> None:
    """Whether the gate's `epk` is a point of the recipient's curve and of no small order; `InvalidTokenError` if not.

    Of a point off the curve or of small order the agreement tells bits of the private key (RFC 8725 section 2.9).
    """
    if not isinstance(epk, dict) or epk.get("crv") != curve or (curve == "P-256" and not _on_p256(epk)):
        raise InvalidTokenError("jose.epk")
    if curve == "X25519" and not x25519_point(_raw(epk["x"])):
        raise InvalidTokenError("jose.epk")


def _on_p256(epk: dict[str, str]) -> bool:
    x, y = (int.from_bytes(_raw(epk[name]), "big") for name in ("x", "y"))
    return x < _P and y < _P and (y * y - x * x * x + 3 * x - _B) % _P == 0


def _raw(text: str) -> bytes:
    return urlsafe_b64decode(text + "==")


def _blank_epk(curve: str) -> str:
    shape = CURVES[curve]
    blank = "A" * encoded(shape.coordinate)
    return headers.epk(curve, shape.kty, *[blank] * (2 if shape.y else 1))


@lru_cache(maxsize=256)
def _lengths(algorithm: str, size: int, content: str) -> tuple[int, int, int]:
    """Characters of encrypted key, IV and tag under a key of that many bytes."""
    how, suite = KEY_MANAGEMENT[algorithm].how, CONTENT[content]
    encrypted_key = size if how is Management.RSA else encrypted_key_size(how, suite)
    return encoded(encrypted_key), encoded(suite.iv), encoded(suite.tag)
