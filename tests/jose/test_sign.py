"""JWS with ES256: round trips, and everything that is not a signature of this key over this text."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given, settings, strategies as st

from sidecar.errors import InvalidTokenError
from sidecar.gate import JWE, JWS, Gated, gate
from sidecar.jose import keys, prepared, sign as sign_module
from sidecar.jose.encrypt import encrypt
from sidecar.jose.sign import sign, verify
from tests.forgeries import P256_ORDER, decode, encode, with_segment
from tests.jose.engines import reference

KEY = keys.generate("ES256")
REFERENCE = reference(KEY)
OTHER = keys.generate("ES256")
SYMMETRIC = keys.generate("A256KW")


def opened(token: str) -> Gated:
    return gate(token, segments=JWS | JWE)


def refused(token: str | Gated, key: keys.Material = KEY) -> str:
    with pytest.raises(InvalidTokenError) as error:
        verify(opened(token) if isinstance(token, str) else token, key)
    return error.value.stage


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=1, max_size=3000))
def test_what_was_signed_is_verified_to_the_same_bytes(payload: bytes) -> None:
    token = sign(payload, KEY, typ="at+jwt")
    assert verify(opened(token), KEY) == payload
    assert verify(opened(token), KEY.public()) == payload
    assert len(decode(token.split(".")[2])) == 64


def test_the_header_says_alg_kid_and_typ() -> None:
    assert opened(sign(b"{}", KEY, typ="at+jwt")).header == {"alg": "ES256", "kid": KEY.key_id, "typ": "at+jwt"}


def test_an_independent_verifier_agrees() -> None:
    token = sign(b'{"sub":"a"}', KEY, typ="at+jwt")
    protected, payload, signature = token.split(".")
    jwk = json.loads(KEY.public_bytes() or b"")
    public = ec.EllipticCurvePublicNumbers(
        int.from_bytes(decode(jwk["x"]), "big"), int.from_bytes(decode(jwk["y"]), "big"), ec.SECP256R1()
    ).public_key()
    raw = decode(signature)
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    public.verify(der, f"{protected}.{payload}".encode(), ec.ECDSA(hashes.SHA256()))


def test_signatures_with_leading_zeros_keep_their_length() -> None:
    # One in 128 signatures has a zero at the start of R or S; an encoder that drops it makes tokens that fail once a minute.
    seen = 0
    for number in range(3000):
        token = sign(b"%d" % number, KEY, typ="at+jwt")
        raw = decode(token.split(".")[2])
        assert len(raw) == 64
        if raw[0] == 0 or raw[32] == 0:
            assert verify(opened(token), KEY) == b"%d" % number
            assert refused(with_segment(token, 2, encode(raw.lstrip(b"\0")[:63]))) == "jose.length"
            seen += 1
            if seen == 3:
                return
    pytest.fail("no signature with a leading zero in 3,000")


def test_r_and_s_out_of_range_are_refused() -> None:
    token = sign(b"{}", KEY, typ="at+jwt")
    raw = decode(token.split(".")[2])
    zero, order, above = bytes(32), P256_ORDER.to_bytes(32, "big"), (P256_ORDER + 1).to_bytes(32, "big")
    for bad in (zero, order, above, b"\xff" * 32):
        for forged in (bad + raw[32:], raw[:32] + bad, bad + bad):
            assert refused(with_segment(token, 2, encode(forged))) == "jose.signature"


def test_the_psychic_signature_is_refused() -> None:
    # CVE-2022-21449: R and S of 0 verified over any text.
    forged = f"{encode(json.dumps({'alg': 'ES256', 'kid': KEY.key_id}))}.{encode('{}')}.{encode(bytes(64))}"
    assert refused(forged) == "jose.signature"


def test_der_is_not_a_signature_here() -> None:
    token = sign(b"{}", KEY, typ="at+jwt")
    raw = decode(token.split(".")[2])
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    assert decode_dss_signature(der) == (int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    assert refused(with_segment(token, 2, encode(der))) == "jose.length"


@pytest.mark.parametrize("length", [*range(1, 64), 65, 70, 71, 72, 96, 128, 1000])
def test_a_signature_has_64_bytes(length: int) -> None:
    token = sign(b"{}", KEY, typ="at+jwt")
    raw = decode(token.split(".")[2]) * 16
    assert refused(with_segment(token, 2, encode(raw[:length]))) == "jose.length"


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_flipped_bit_is_refused(data: st.DataObject) -> None:
    token = sign(b'{"sub":"user-42","exp":1}', KEY, typ="at+jwt")
    index = data.draw(st.integers(0, 2))
    raw = bytearray(decode(token.split(".")[index]))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(InvalidTokenError):
        verify(opened(with_segment(token, index, encode(bytes(raw)))), KEY)


def test_another_key_does_not_verify() -> None:
    token = opened(sign(b"{}", OTHER, typ="at+jwt"))
    assert refused(token) == "jose.key"
    renamed = Gated(token.text, token.segments, token.header, "ES256", "", KEY.key_id, token.typ, "")
    assert refused(renamed) == "jose.signature"


def test_another_algorithm_is_refused_before_the_library() -> None:
    for alg in ("none", "HS256", "ES384", "ES512", "es256", "RS256", "A256KW"):
        token = f"{encode(json.dumps({'alg': alg, 'kid': KEY.key_id}))}.{encode('{}')}.{encode(bytes(64))}"
        assert refused(token) == "jose.key"


def test_an_encryption_key_neither_signs_nor_verifies() -> None:
    with pytest.raises(ValueError, match="does not sign"):
        sign(b"{}", SYMMETRIC, typ="at+jwt")
    for alg in ("ES256", "HS256", "A256KW"):
        token = f"{encode(json.dumps({'alg': alg, 'kid': SYMMETRIC.key_id}))}.{encode('{}')}.{encode(bytes(64))}"
        assert refused(token, SYMMETRIC) == "jose.key"


def test_five_segments_are_not_a_signed_token_whatever_they_name() -> None:
    token = opened(sign(b"{}", KEY, typ="at+jwt"))
    five = Gated(f"{token.text}.AA.AA", (*token.segments, "AA", "AA"), token.header, "ES256", "", KEY.key_id, "", "")
    assert refused(five) == "jose.key"


def test_a_public_key_does_not_sign() -> None:
    with pytest.raises(ValueError, match="does not sign"):
        sign(b"{}", KEY.public(), typ="at+jwt")


def test_an_encrypted_token_is_not_a_signed_one() -> None:
    assert refused(encrypt(b"{}", SYMMETRIC, content="A256GCM")) == "jose.key"


@pytest.mark.parametrize(
    "error", [RecursionError, MemoryError, OverflowError, TypeError, KeyError, AttributeError, AssertionError]
)
def test_whatever_the_library_raises_is_the_one_rejection(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    token = opened(sign(b"{}", KEY, typ="at+jwt"))

    def fail(*_: object, **__: object) -> None:
        raise error("a secret")

    for owner, method, key in (
        (sign_module.JWS, "deserialize", REFERENCE),
        (sign_module.JWS, "verify", REFERENCE),
        (prepared.Signature, "verify", KEY),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(owner, method, fail)
            with pytest.raises(InvalidTokenError) as refusal:
                verify(token, key)
        assert refusal.value.__cause__ is None
        assert "secret" not in str(refusal.value)
    assert verify(token, KEY) == b"{}"


def test_one_verification_leaves_nothing_to_the_next() -> None:
    good, bad = sign(b"good", KEY, typ="at+jwt"), sign(b"bad", OTHER, typ="at+jwt")
    for _ in range(3):
        assert verify(opened(good), KEY) == b"good"
        token = opened(bad)
        assert (
            refused(Gated(token.text, token.segments, token.header, "ES256", "", KEY.key_id, "", ""))
            == "jose.signature"
        )
