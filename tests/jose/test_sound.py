"""Keys whose numbers are not sound: the libraries would take many of them."""

from __future__ import annotations

import functools
import json
from math import prod

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from jwcrypto.jwk import JWK

from sidecar.jose import keys, sound
from tests.forgeries import decode, encode

SMALL_PRIMES = [n for n in range(3, 168) if all(n % d for d in range(2, n))]


@functools.cache
def private(bits: int = 2048) -> dict[str, str]:
    members: dict[str, str] = json.loads(JWK.generate(kty="RSA", size=bits).export_private())
    return {name: value for name, value in members.items() if name != "kid"}


def raw(members: dict[str, str]) -> dict[str, bytes]:
    return {name: decode(value) for name, value in members.items() if name != "kty"}


def number(value: str) -> int:
    return int.from_bytes(decode(value), "big")


def text(value: int) -> str:
    return encode(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def load(members: dict[str, str], algorithm: str) -> keys.Material:
    public = {name: members[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in members}
    use = "enc" if algorithm.startswith(("RSA-", "ECDH")) else "sig"
    return keys.load(
        json.dumps(members | {"alg": algorithm, "use": use, "kid": JWK(**public).thumbprint()}).encode(), algorithm
    )


def test_a_good_key_is_sound_in_every_size() -> None:
    for bits in (2048, 3072, 4096):
        sound.rsa(raw(private(bits)))
    assert load(private(), "PS256").size == 256


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bits", [1024, 1536, 2040, 2056 - 4, 4104])
def test_rsa_of_another_size_is_refused(bits: int) -> None:
    key = rsa.generate_private_key(65537, bits).public_key().public_numbers()
    with pytest.raises(ValueError, match="modulus"):
        sound.rsa({"n": decode(text(key.n)), "e": decode("AQAB")})


def test_rsa_with_a_small_even_or_huge_exponent_is_refused() -> None:
    for exponent in (1, 2, 3, 17, 65535, 65538, 2**32 + 1):
        with pytest.raises(ValueError, match="exponent"):
            sound.rsa({"n": decode(private()["n"]), "e": decode(text(exponent))})


def test_rsa_whose_parts_do_not_belong_together_is_refused() -> None:
    good, other = private(), private(3072)
    for name in ("n", "d", "p", "q", "dp", "dq", "qi"):
        changed = good | {name: text(number(good[name]) ^ 2)}
        with pytest.raises(ValueError, match=r"factors|exponents|modulus"):
            sound.rsa(raw(changed))
        if name != "n":
            with pytest.raises(ValueError, match=r"factors|exponents"):
                sound.rsa(raw(good | {name: other[name]}))
    with pytest.raises(ValueError, match="shortest form"):
        sound.rsa(raw(good) | {"e": b"\0\1\0\1"})
    for lacking in ("p", "d", "qi"):
        with pytest.raises(ValueError, match="not a key"):
            load({n: v for n, v in good.items() if n != lacking}, "RS256")
    with pytest.raises(ValueError, match="not a key"):
        load(good | {"oth": "AAAA"}, "RS256")


def test_the_fingerprint_of_roca_is_known() -> None:
    # A modulus as the weak generator makes it: a power of 65537 modulo the product of small primes, and anything above.
    primorial = 2 * prod(SMALL_PRIMES)
    for power in (1, 2, 99, 2**70):
        n = pow(65537, power, primorial) + primorial * ((2**2047 // primorial) + power * 2)
        assert n.bit_length() == 2048
        with pytest.raises(ValueError, match="CVE-2017-15361"):
            sound.rsa({"n": n.to_bytes(256, "big"), "e": b"\1\0\1"})
        sound.rsa({"n": (n + 2).to_bytes(256, "big"), "e": b"\1\0\1"})  # the fingerprint was all that was wrong


def test_no_generated_modulus_has_the_fingerprint() -> None:
    assert not any(sound._is_roca(number(private(bits)["n"])) for bits in (2048, 3072, 4096))


P = 2**255 - 19


def test_ed25519_keys_of_small_order_are_refused() -> None:
    # y of 1, -1 and 0: order 1, 2 and 4. The two others are of order 8; each with either sign of x, and unreduced.
    eighth = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
    for y in (0, 1, P - 1, eighth, P - eighth, P, P + 1):
        for sign in (0, 2**255):
            x = (y + sign).to_bytes(32, "little")
            with pytest.raises(ValueError, match="public key"):
                sound.okp("Ed25519", x, None)
            with pytest.raises(ValueError, match="not a key"):
                load({"kty": "OKP", "crv": "Ed25519", "x": encode(x)}, "Ed25519")


def test_x25519_points_with_which_all_agreements_are_zero_are_refused() -> None:
    mine = X25519PrivateKey.generate()
    for u in sound._SMALL_ORDER:
        x = u.to_bytes(32, "little")
        assert not sound.x25519_point(x)
        with pytest.raises(ValueError, match="shared key"):
            mine.exchange(X25519PublicKey.from_public_bytes(x))
        with pytest.raises(ValueError, match="not a key"):
            load({"kty": "OKP", "crv": "X25519", "x": encode(x)}, "ECDH-ES")
    for u in range(P, 2**255):
        assert not sound.x25519_point(u.to_bytes(32, "little"))
    assert sound.x25519_point((9).to_bytes(32, "little"))


def test_halves_of_two_keys_are_refused() -> None:
    for curve, kind, algorithm in (("Ed25519", Ed25519PrivateKey, "Ed25519"), ("X25519", X25519PrivateKey, "ECDH-ES")):
        first, second = kind.generate(), kind.generate()
        members = {"kty": "OKP", "crv": curve, "x": encode(first.public_key().public_bytes_raw())}
        assert load(members | {"d": encode(first.private_bytes_raw())}, algorithm).private
        with pytest.raises(ValueError, match="not a key"):
            load(members | {"d": encode(second.private_bytes_raw())}, algorithm)
