"""The prepared engine: the suites of the default formats straight on `cryptography`, with everything made beforehand that a key allows.

ES256 and Ed25519; A256KW and ECDH-ES+A256KW, each with A256GCM. jwcrypto stays for all else, and as the reference: both engines accept
and refuse the same and, where a suite is deterministic, make the same bytes. `sign` and `encrypt` hold the rules for both, before they
ask either: the header names this key, its algorithm and content encryption; every length is exact; `epk` is a point of the curve.

What is here raises whatever the library raises; the callers make one rejection of it.
"""

from __future__ import annotations

import os
from binascii import a2b_base64, b2a_base64
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap, aes_key_wrap
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sidecar.jose import headers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from sidecar.gate import Gated

CONTENT = "A256GCM"
"""The content encryption of this engine; with another one the reference is asked."""

_KEY, _IV, _TAG = 32, 12, 16  # bytes
_HEADS = 16  # encoded headers that a key remembers; a profile uses one of each key
_URL, _STANDARD = bytes.maketrans(b"+/", b"-_"), bytes.maketrans(b"-_", b"+/")


def _encode(data: bytes) -> bytes:
    return b2a_base64(data, newline=False).translate(_URL, b"=")


def _decode(text: str) -> bytes:
    """The bytes of base64url that the gate has found canonical."""
    return a2b_base64(text.encode().translate(_STANDARD) + b"==")


# Signatures


class Signature:
    """A signature key, ready to make and prove whole tokens. `sign` is None of a public key."""

    __slots__ = ("_algorithm", "_heads", "_key_id", "_sign", "_verify")

    def __init__(
        self,
        algorithm: str,
        key_id: str,
        verify: Callable[[bytes, bytes], object],
        sign: Callable[[bytes], bytes] | None,
    ) -> None:
        self._algorithm, self._key_id = algorithm, key_id
        self._verify, self._sign = verify, sign
        self._heads: dict[str, bytes] = {}

    def sign(self, payload: bytes, typ: str) -> str:
        """A compact JWS."""
        head = self._heads.get(typ)
        if head is None:
            if len(self._heads) >= _HEADS:
                self._heads.clear()
            head = self._heads[typ] = _encode(headers.signed(self._algorithm, self._key_id, typ).encode())
        text = b"%b.%b" % (head, _encode(payload))
        assert self._sign is not None  # noqa: S101 # the caller has asked
        return (b"%b.%b" % (text, _encode(self._sign(text)))).decode()

    def verify(self, token: Gated) -> bytes:
        """The payload."""
        head, payload, signature = token.segments
        self._verify(_decode(signature), f"{head}.{payload}".encode())
        return _decode(payload)


def es256(key_id: str, public: ec.EllipticCurvePublicKey, private: ec.EllipticCurvePrivateKey | None) -> Signature:
    """RFC 7518 section 3.4: R and S, 32 bytes each."""
    hashed = ec.ECDSA(SHA256())

    def verify(signature: bytes, text: bytes) -> None:
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        public.verify(encode_dss_signature(r, s), text, hashed)

    def sign(text: bytes) -> bytes:
        assert private is not None  # noqa: S101 # below
        r, s = decode_dss_signature(private.sign(text, hashed))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    return Signature("ES256", key_id, verify, sign if private else None)


def ed25519(algorithm: str, key_id: str, public: Ed25519PublicKey, private: Ed25519PrivateKey | None) -> Signature:
    """RFC 8037 section 3.1, under the name of RFC 9864 or, of imported keys, `EdDSA`."""
    return Signature(algorithm, key_id, public.verify, private.sign if private else None)


# Encryption


class Encryption:
    """An encryption key, ready to make and open whole tokens.

    `wrap` gives the encrypted key and the `epk`, empty where there is none; `unwrap` takes the encrypted key and the header.
    """

    __slots__ = ("_algorithm", "_heads", "_key_id", "_unwrap", "_wrap")

    def __init__(
        self,
        algorithm: str,
        key_id: str,
        wrap: Callable[[bytes], tuple[bytes, str]],
        unwrap: Callable[[bytes, Mapping[str, Any]], bytes],
    ) -> None:
        self._algorithm, self._key_id = algorithm, key_id
        self._wrap, self._unwrap = wrap, unwrap
        self._heads: dict[tuple[str, str], bytes] = {}

    def encrypt(self, plaintext: bytes, cty: str, typ: str) -> str:
        """A compact JWE, with a content encryption key and an IV of its own."""
        key = os.urandom(_KEY)
        wrapped, epk = self._wrap(key)
        iv = os.urandom(_IV)
        head = self._head(cty, typ, epk)
        sealed = AESGCM(key).encrypt(iv, plaintext, head)
        parts = (head, _encode(wrapped), _encode(iv), _encode(sealed[:-_TAG]), _encode(sealed[-_TAG:]))
        return b".".join(parts).decode()

    def _head(self, cty: str, typ: str, epk: str) -> bytes:
        if epk:
            header = headers.encrypted(self._algorithm, self._key_id, CONTENT, cty, typ)
            return _encode(headers.agreed(header, epk).encode())
        head = self._heads.get((cty, typ))
        if head is None:
            if len(self._heads) >= _HEADS:
                self._heads.clear()
            header = headers.encrypted(self._algorithm, self._key_id, CONTENT, cty, typ)
            head = self._heads[cty, typ] = _encode(header.encode())
        return head

    def decrypt(self, token: Gated) -> bytes:
        """The plaintext."""
        _, wrapped, iv, ciphertext, tag = token.text.encode().translate(_STANDARD).split(b".")
        key = self._unwrap(a2b_base64(wrapped + b"=="), token.header)
        sealed = a2b_base64(ciphertext + b"==") + a2b_base64(tag + b"==")
        return AESGCM(key).decrypt(a2b_base64(iv + b"=="), sealed, token.segments[0].encode())


def a256kw(key_id: str, key: bytes) -> Encryption:
    """RFC 7518 section 4.4."""
    return Encryption(
        "A256KW", key_id, lambda fresh: (aes_key_wrap(key, fresh), ""), lambda wrapped, _: aes_key_unwrap(key, wrapped)
    )


# RFC 7518 section 4.6.2: the algorithm's name with its length, no PartyUInfo, no PartyVInfo, 256 bits.
_OTHER_INFO = b"\0\0\0\x0eECDH-ES+A256KW" + bytes(8) + (256).to_bytes(4, "big")


def _derived(agreed: bytes) -> bytes:
    """Concat KDF (NIST SP 800-56A section 5.8.1) to 256 bits: one round of SHA-256."""
    return sha256(b"\0\0\0\1" + agreed + _OTHER_INFO).digest()


def p256(key_id: str, public: ec.EllipticCurvePublicKey, private: ec.EllipticCurvePrivateKey | None) -> Encryption:
    """ECDH-ES+A256KW over P-256 (RFC 7518 section 4.6)."""
    curve, exchange = ec.SECP256R1(), ec.ECDH()

    def wrap(key: bytes) -> tuple[bytes, str]:
        fresh = ec.generate_private_key(curve)
        point = fresh.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        epk = headers.epk("P-256", "EC", _encode(point[1:33]).decode(), _encode(point[33:]).decode())
        return aes_key_wrap(_derived(fresh.exchange(exchange, public)), key), epk

    def unwrap(wrapped: bytes, header: Mapping[str, Any]) -> bytes:
        assert private is not None  # noqa: S101 # the caller has asked
        point = b"\4" + _decode(header["epk"]["x"]) + _decode(header["epk"]["y"])
        sender = ec.EllipticCurvePublicKey.from_encoded_point(curve, point)
        return aes_key_unwrap(_derived(private.exchange(exchange, sender)), wrapped)

    return Encryption("ECDH-ES+A256KW", key_id, wrap, unwrap)


def x25519(key_id: str, public: X25519PublicKey, private: X25519PrivateKey | None) -> Encryption:
    """ECDH-ES+A256KW over X25519 (RFC 8037 section 3.2)."""

    def wrap(key: bytes) -> tuple[bytes, str]:
        fresh = X25519PrivateKey.generate()
        epk = headers.epk("X25519", "OKP", _encode(fresh.public_key().public_bytes_raw()).decode())
        return aes_key_wrap(_derived(fresh.exchange(public)), key), epk

    def unwrap(wrapped: bytes, header: Mapping[str, Any]) -> bytes:
        assert private is not None  # noqa: S101 # the caller has asked
        agreed = private.exchange(X25519PublicKey.from_public_bytes(_decode(header["epk"]["x"])))
        return aes_key_unwrap(_derived(agreed), wrapped)

    return Encryption("ECDH-ES+A256KW", key_id, wrap, unwrap)
