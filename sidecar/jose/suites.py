"""The algorithms that exist here, and the exact length of everything they make (RFC 7518). Lengths are bytes.

What is not in these tables cannot be configured; what is in them has one key type and one set of lengths, checked before a library
sees the token.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Signature:
    """A JWS `alg` over an elliptic curve (RFC 7518 section 3.4): R and S, each as long as the curve's order."""

    curve: str  # JWK `crv`
    coordinate: int  # each of x, y and d
    signature: int


@dataclass(frozen=True, slots=True)
class KeyManagement:
    """A JWE `alg` with a symmetric key (RFC 7518 section 4.4)."""

    key: int
    overhead: int  # what wrapping adds to the content encryption key


@dataclass(frozen=True, slots=True)
class Content:
    """A JWE `enc` (RFC 7518 section 5.3)."""

    key: int
    iv: int
    tag: int


SIGNATURES: Mapping[str, Signature] = MappingProxyType({"ES256": Signature(curve="P-256", coordinate=32, signature=64)})
KEY_MANAGEMENT: Mapping[str, KeyManagement] = MappingProxyType({"A256KW": KeyManagement(key=32, overhead=8)})
CONTENT: Mapping[str, Content] = MappingProxyType({"A256GCM": Content(key=32, iv=12, tag=16)})


def encoded(length: int) -> int:
    """Characters of unpadded base64url (RFC 7515 section 2) for that many bytes."""
    return (4 * length + 2) // 3
