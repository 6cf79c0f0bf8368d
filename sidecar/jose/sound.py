"""Whether the numbers of a key are those of a sound key, as far as the libraries do not ask.

RSA: 2048 to 4096 bits, not of the weak generator that CVE-2017-15361 names (ROCA), factors and exponents that belong together.
Ed25519 and X25519: canonical, not of small order, the public half that of the private one.
"""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sidecar.jose.suites import RSA_MODULUS

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIELD = 2**255 - 19
_D = -121665 * pow(121666, -1, _FIELD) % _FIELD
_SMALL_ORDER = (
    frozenset(  # of order 1, 2, 4 and 8, on the curve and on its twist: an agreement with these ends in zeros
        {
            0,
            1,
            325606250916557431795983626356110631294008115727848805560023387167927233504,
            39382357235489614581723060781553021112529911719440698176882885853963445705823,
            _FIELD - 1,
        }
    )
)
_SMALL_PRIMES = (
    *(3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109, 113, 127, 131, 137),
    *(139, 149, 151, 157, 163, 167),
)  # fmt: skip


def rsa(raw: Mapping[str, bytes]) -> None:
    """Refuse an unsound RSA key with `ValueError`; its values are those of the JWK, decoded (RFC 7518 section 6.3)."""
    if any(not value or value[0] == 0 for value in raw.values()):
        raise ValueError("not the shortest form of a number")
    number = {name: int.from_bytes(value, "big") for name, value in raw.items()}
    n, e = number["n"], number["e"]
    if len(raw["n"]) not in RSA_MODULUS or n.bit_length() % 8 or not n & 1:
        raise ValueError("modulus")
    if not 65537 <= e < 2**32 or not e & 1:  # the lower bound of FIPS 186-5 section 5.4
        raise ValueError("exponent")
    if _is_roca(n):
        raise ValueError("CVE-2017-15361")
    if "d" in number:
        d, p, q = (number[name] for name in ("d", "p", "q"))
        least = (p - 1) * (q - 1) // gcd(p - 1, q - 1)
        sizes = {p.bit_length(), q.bit_length()}
        if sizes != {n.bit_length() // 2} or p * q != n or p == q or not d < n or e * d % least != 1:
            raise ValueError("factors")
        if (number["dp"], number["dq"]) != (d % (p - 1), d % (q - 1)) or number["qi"] * q % p != 1 or number["qi"] >= p:
            raise ValueError("exponents")


def _is_roca(n: int) -> bool:
    """Whether the modulus has the fingerprint of CVE-2017-15361: it is a power of 65537 modulo every small prime.

    Nemec et al., The Return of Coppersmith's Attack, 2017, section 2. One sound modulus in 2^27 has it too.
    """
    return all(_is_power(n % prime, prime) for prime in _SMALL_PRIMES)


def _is_power(residue: int, prime: int) -> bool:
    power = 1
    for _ in range(prime):
        if power == residue:
            return True
        power = power * 65537 % prime
    return False


def okp(curve: str, x: bytes, d: bytes | None) -> None:
    """Refuse an unsound Ed25519 or X25519 key with `ValueError` (RFC 8032 section 5.1, RFC 7748 section 6.1)."""
    if curve == "Ed25519":
        y = int.from_bytes(x, "little") % 2**255
        if y >= _FIELD or _order_divides_8(y):
            raise ValueError("public key")
        if (
            d is not None
            and Ed25519PrivateKey.from_private_bytes(d).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw) != x
        ):
            raise ValueError("halves")
        return
    if not x25519_point(x):
        raise ValueError("public key")
    if (
        d is not None
        and X25519PrivateKey.from_private_bytes(d).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw) != x
    ):
        raise ValueError("halves")


def _order_divides_8(y: int) -> bool:
    """Whether eight times the point of this y on Ed25519 is nothing: by such a key anybody has signed anything.

    The points of order 1, 2 and 4 have y of 1, -1 and 0. Those of order 8 double to order 4: x^2 = -y^2, with the curve's equation
    -x^2 + y^2 = 1 + d x^2 y^2 it follows that d y^4 + 2 y^2 = 1.
    """
    return y in (0, 1, _FIELD - 1) or (_D * pow(y, 4, _FIELD) + 2 * y * y - 1) % _FIELD == 0


def x25519_point(x: bytes) -> bool:
    """Whether this is the canonical u-coordinate of a point of large order (RFC 7748 sections 5 and 6.1)."""
    u = int.from_bytes(x, "little")
    return u < _FIELD and u not in _SMALL_ORDER
