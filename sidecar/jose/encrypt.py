"""JSON Web Encryption, compact (RFC 7516). One key, its one algorithm, one content encryption, exact lengths."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING

from jwcrypto.jwe import JWE

from sidecar.errors import InvalidTokenError
from sidecar.gate import MAX_TOKEN
from sidecar.jose.suites import CONTENT, KEY_MANAGEMENT, encoded

if TYPE_CHECKING:
    from sidecar.gate import Gated
    from sidecar.jose.keys import Material

MAX_PLAINTEXT = MAX_TOKEN
"""Bytes. Nothing is compressed here, so a plaintext is smaller than its token anyway; no library gets to disagree."""

# The library copies its registry of header names, 40 of 80 us, for each object; a copy of a made one shares it.
_BLANK = JWE()


def encrypt(plaintext: bytes, key: Material, *, content: str, cty: str = "", typ: str = "") -> str:
    """A compact JWE over these bytes, with `alg`, `enc` and `kid` in its header, and `cty` and `typ` where given.

    `ValueError`: the key does not encrypt, there is no such content encryption, or there is nothing to encrypt.
    """
    if key.algorithm not in KEY_MANAGEMENT or content not in CONTENT or not plaintext:
        raise ValueError(f"{key!r} does not encrypt {len(plaintext)} bytes with {content}")
    header = {"alg": key.algorithm, "enc": content, "kid": key.key_id}
    if cty:
        header["cty"] = cty
    if typ:
        header["typ"] = typ
    token = copy.copy(_BLANK)
    token.allowed_algs = [key.algorithm, content]
    token.objects = {"protected": json.dumps(header, separators=(",", ":"))}
    token.plaintext = plaintext
    token.add_recipient(key.jwk)
    return str(token.serialize(compact=True))


def decrypt(token: Gated, key: Material, *, content: str) -> bytes:
    """The plaintext, once it is proven that a holder of exactly this key made it.

    `InvalidTokenError`: the header names another key, algorithm or content encryption, a length is not exact, or anything was changed.
    """
    wrap, suite = KEY_MANAGEMENT.get(key.algorithm), CONTENT.get(content)
    if (
        wrap is None
        or suite is None
        or len(token.segments) != 5
        or token.alg != key.algorithm
        or token.enc != content
        or token.kid != key.key_id
    ):
        raise InvalidTokenError("jose.key")
    _, encrypted_key, iv, _, tag = token.segments
    if (
        len(encrypted_key) != encoded(suite.key + wrap.overhead)
        or len(iv) != encoded(suite.iv)
        or len(tag) != encoded(suite.tag)
    ):
        raise InvalidTokenError("jose.length")
    try:
        jwe = copy.copy(_BLANK)
        jwe.allowed_algs = [key.algorithm, content]
        jwe.deserialize(token.text)
        jwe.decrypt(key.jwk, max_plaintext=MAX_PLAINTEXT)
        plaintext = jwe.plaintext
    except Exception:  # noqa: BLE001 # whatever a library raises on a forged token, RecursionError and MemoryError included
        raise InvalidTokenError("jose.decryption") from None
    if type(plaintext) is not bytes or len(plaintext) > MAX_PLAINTEXT:
        raise InvalidTokenError("jose.decryption")
    return plaintext
