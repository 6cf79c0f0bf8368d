"""The algorithms that exist here, and the exact length of everything they make (RFC 7518, 8037, 9864). Lengths are bytes.

What is not in these tables cannot be configured; what is in them has one kind of key and one set of lengths, checked before a library
sees the token. `makes` False: only tokens of imported keys are opened under it, and none are made.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Curve:
    """An elliptic curve of JWK (RFC 7518 section 6.2, RFC 8037 section 2)."""

    kty: str
    coordinate: int  # each of x, d and, where the curve has one, y
    y: bool


CURVES: Mapping[str, Curve] = MappingProxyType(
    {
        "P-256": Curve("EC", 32, y=True),
        "P-384": Curve("EC", 48, y=True),
        "Ed25519": Curve("OKP", 32, y=False),
        "X25519": Curve("OKP", 32, y=False),
    }
)

RSA_MODULUS = range(256, 513)
"""2048 to 4096 bits: what NIST SP 800-131A allows, and what a token has room for."""
RSA_FRESH = 384
"""3072 bits: as strong as the other suites (NIST SP 800-57 part 1, table 2)."""
AGREEMENT_CURVES = ("P-256", "X25519")


@dataclass(frozen=True, slots=True)
class Signature:
    """A JWS `alg`. `curve` is empty for RSA and HMAC; `signature` is 0 for RSA, where it is as long as the modulus."""

    kty: str
    curve: str
    signature: int
    makes: bool = True


class Management(Enum):
    """How the content encryption key comes to the recipient (RFC 7516 section 2)."""

    WRAPPING = "wrapped by AES Key Wrap"
    GCM_WRAPPING = "wrapped by AES-GCM, whose IV and tag are in the header"
    DIRECT = "the shared key itself"
    AGREEMENT = "agreed upon with an ephemeral key, which is in the header"
    WRAPPING_AGREEMENT = "wrapped by AES Key Wrap under what is agreed upon"
    RSA = "encrypted by RSA"


@dataclass(frozen=True, slots=True)
class KeyManagement:
    """A JWE `alg`. `key` is the length of a symmetric key, 0 where the key is a pair or the content encryption says how long it is."""

    how: Management
    key: int = 0
    makes: bool = True

    @property
    def symmetric(self) -> bool:
        """Whether whoever opens tokens can make them too."""
        return self.how in (Management.WRAPPING, Management.GCM_WRAPPING, Management.DIRECT)

    @property
    def agrees(self) -> bool:
        """Whether there is an `epk`."""
        return self.how in (Management.AGREEMENT, Management.WRAPPING_AGREEMENT)


@dataclass(frozen=True, slots=True)
class Content:
    """A JWE `enc` (RFC 7518 section 5). `block`: the ciphertext is a multiple of that."""

    key: int
    iv: int
    tag: int
    block: int = 1


SIGNATURES: Mapping[str, Signature] = MappingProxyType(
    {
        "ES256": Signature("EC", "P-256", 64),
        "ES384": Signature("EC", "P-384", 96),
        "Ed25519": Signature("OKP", "Ed25519", 64),
        "PS256": Signature("RSA", "", 0),
        "RS256": Signature("RSA", "", 0),
        "HS256": Signature("oct", "", 32),
        "EdDSA": Signature("OKP", "Ed25519", 64, makes=False),
    }
)
KEY_MANAGEMENT: Mapping[str, KeyManagement] = MappingProxyType(
    {
        "A256KW": KeyManagement(Management.WRAPPING, 32),
        "A128KW": KeyManagement(Management.WRAPPING, 16),
        "ECDH-ES": KeyManagement(Management.AGREEMENT),
        "ECDH-ES+A256KW": KeyManagement(Management.WRAPPING_AGREEMENT),
        "RSA-OAEP-256": KeyManagement(Management.RSA),
        "dir": KeyManagement(Management.DIRECT, makes=False),
        "A128GCMKW": KeyManagement(Management.GCM_WRAPPING, 16, makes=False),
        "A256GCMKW": KeyManagement(Management.GCM_WRAPPING, 32, makes=False),
    }
)
CONTENT: Mapping[str, Content] = MappingProxyType(
    {
        "A256GCM": Content(key=32, iv=12, tag=16),
        "A128GCM": Content(key=16, iv=12, tag=16),
        "A256CBC-HS512": Content(key=64, iv=16, tag=32, block=16),
        "A128CBC-HS256": Content(key=32, iv=16, tag=16, block=16),
    }
)


def encrypted_key_size(how: Management, content: Content) -> int:
    """Bytes of the encrypted key (RFC 7516 section 2); of `Management.RSA` those of the modulus, which are not known here."""
    match how:
        case Management.WRAPPING | Management.WRAPPING_AGREEMENT:
            return content.key + 8  # RFC 3394
        case Management.GCM_WRAPPING:
            return content.key
    return 0


def encoded(length: int) -> int:
    """Characters of unpadded base64url (RFC 7515 section 2) for that many bytes."""
    return (4 * length + 2) // 3
