"""Every suite of the tables: round trips, sizes told beforehand, and all that is not of the key, its curve or its exact lengths."""

from __future__ import annotations

import functools
import json

import pytest
from hypothesis import given, settings, strategies as st

from sidecar.errors import InvalidTokenError
from sidecar.gate import JWE, JWS, Gated, gate
from sidecar.jose import encrypt, keys, sign
from sidecar.jose.suites import AGREEMENT_CURVES, CONTENT, KEY_MANAGEMENT, SIGNATURES, encoded
from tests.forgeries import decode, encode, header_of, with_header, with_segment

MADE_SIGNATURES = [name for name, suite in SIGNATURES.items() if suite.makes]
MADE = [
    (name, curve)
    for name, suite in KEY_MANAGEMENT.items()
    if suite.makes
    for curve in (AGREEMENT_CURVES if suite.agrees else ("",))
]


@functools.cache
def key(algorithm: str, curve: str = "", number: int = 0) -> keys.Material:
    return keys.generate(algorithm, curve=curve)


def opened(token: str) -> Gated:
    return gate(token, segments=JWS | JWE)


def refused(token: str, material: keys.Material, content: str = "") -> str:
    def read() -> bytes:
        if content:
            return encrypt.decrypt(opened(token), material, content=content)
        return sign.verify(opened(token), material)

    with pytest.raises(InvalidTokenError) as error:
        read()
    return error.value.stage


@pytest.mark.parametrize("name", MADE_SIGNATURES)
def test_a_signature_verifies_has_the_size_that_was_told_and_breaks_with_any_bit(name: str) -> None:
    material = key(name)
    for payload in (b"{}", b"a" * 100, b"b" * 999):
        token = sign.sign(payload, material, typ="at+jwt")
        assert sign.size(len(payload), material, typ="at+jwt") == len(token)
        assert sign.verify(opened(token), material) == payload
        if not material.symmetric:
            assert sign.verify(opened(token), material.public()) == payload
    _, payload_text, signature = token.split(".")
    raw = decode(signature)
    assert len(raw) == (SIGNATURES[name].signature or material.size)
    assert refused(with_segment(token, 2, encode(bytes([raw[0] ^ 1]) + raw[1:])), material) == "jose.signature"
    assert refused(with_segment(token, 1, encode(b"c" + decode(payload_text)[1:])), material) == "jose.signature"
    for length in (1, len(raw) - 1, len(raw) + 1, 2 * len(raw)):
        assert refused(with_segment(token, 2, encode((raw * 2 + b"x")[:length])), material) == "jose.length"


@pytest.mark.parametrize(("name", "curve"), MADE)
@pytest.mark.parametrize("content", CONTENT)
def test_an_encrypted_token_opens_has_the_size_that_was_told_and_breaks_with_any_bit(
    name: str, curve: str, content: str
) -> None:
    material = key(name, curve)
    for payload in (b"{}", b"a" * 16, b"b" * 999):
        token = encrypt.encrypt(payload, material, content=content, typ="at+jwt")
        assert encrypt.size(len(payload), material, content=content, typ="at+jwt") == len(token)
        assert encrypt.decrypt(opened(token), material, content=content) == payload
    for index in range(1, 5):
        raw = decode(token.split(".")[index])
        if not raw:
            continue
        flipped = bytes([raw[0] ^ 1]) + raw[1:]
        assert refused(with_segment(token, index, encode(flipped)), material, content) == "jose.decryption"
        for length in (len(raw) - 1, len(raw) + 1):
            stage = refused(with_segment(token, index, encode((raw + b"x")[:length])), material, content)
            assert stage == ("jose.decryption" if index == 3 and CONTENT[content].block == 1 else "jose.length")


@pytest.mark.parametrize(("name", "curve"), MADE)
def test_an_encrypted_key_is_there_exactly_where_the_algorithm_has_one(name: str, curve: str) -> None:
    material = key(name, curve)
    token = encrypt.encrypt(b"{}", material, content="A256GCM")
    wrapped = token.split(".")[1]
    other = "" if wrapped else encode(bytes(40))
    assert refused(with_segment(token, 1, other), material, "A256GCM") == "jose.length"
    assert bool(wrapped) is (name != "ECDH-ES")


@pytest.mark.parametrize("name", ["ECDH-ES", "ECDH-ES+A256KW", "RSA-OAEP-256"])
def test_who_has_the_public_half_encrypts_and_does_not_open(name: str) -> None:
    material = key(name, AGREEMENT_CURVES[0])
    public = material.public()
    assert (public.private, public.key_id) == (False, material.key_id)
    assert b'"d"' not in (public.public_bytes() or b"")
    again = keys.load(public.public_bytes() or b"", name)
    token = encrypt.encrypt(b"{}", again, content="A256GCM")
    assert encrypt.decrypt(opened(token), material, content="A256GCM") == b"{}"
    assert refused(token, again, "A256GCM") == "jose.key"
    with pytest.raises(ValueError, match="no private half"):
        again.private_bytes()


@pytest.mark.parametrize("name", ["ECDH-ES", "ECDH-ES+A256KW"])
def test_a_point_of_another_curve_is_refused(name: str) -> None:
    ours, other = (key(name, curve) for curve in AGREEMENT_CURVES)
    for one, another in ((ours, other), (other, ours)):
        header = header_of(encrypt.encrypt(b"{}", another, content="A256GCM"))
        token = encrypt.encrypt(b"{}", one, content="A256GCM")
        forged = with_header(token, header_of(token) | {"epk": header["epk"]})
        assert refused(forged, one, "A256GCM") == "jose.epk"


@pytest.mark.parametrize("name", ["ECDH-ES", "ECDH-ES+A256KW"])
def test_points_off_the_curve_and_of_small_order_are_refused(name: str) -> None:
    zero, one = encode(bytes(32)), encode(bytes(31) + b"\1")
    prime = 2**256 - 2**224 + 2**192 + 2**96 - 1
    material = key(name, "P-256")
    token = encrypt.encrypt(b"{}", material, content="A256GCM")
    epk = header_of(token)["epk"]
    assert isinstance(epk, dict)
    past = encode((int.from_bytes(decode(epk["x"]), "big") % (2**256 - prime) + prime).to_bytes(32, "big"))
    for x, y in ((zero, zero), (zero, one), (epk["y"], epk["x"]), (epk["x"], one), (past, epk["y"])):
        forged = with_header(token, header_of(token) | {"epk": epk | {"x": x, "y": y}})
        assert refused(forged, material, "A256GCM") == "jose.epk"
    material = key(name, "X25519")
    token = encrypt.encrypt(b"{}", material, content="A256GCM")
    p = 2**255 - 19
    small = [0, 1, p - 1, p, p + 1, 325606250916557431795983626356110631294008115727848805560023387167927233504]
    for u in [*small, 39382357235489614581723060781553021112529911719440698176882885853963445705823, 2**256 - 1]:
        epk = {"kty": "OKP", "crv": "X25519", "x": encode(u.to_bytes(32, "little"))}
        assert refused(with_header(token, header_of(token) | {"epk": epk}), material, "A256GCM") == "jose.epk"


@pytest.mark.parametrize("name", [name for name, suite in KEY_MANAGEMENT.items() if suite.makes])
def test_content_of_another_algorithm_is_refused(name: str) -> None:
    material = key(name, AGREEMENT_CURVES[0])
    token = encrypt.encrypt(b"{}", material, content="A256GCM")
    for content in CONTENT:
        if content != "A256GCM":
            assert refused(token, material, content) == "jose.key"


def dir_key(length: int) -> keys.Material:
    jwk = {"kty": "oct", "k": encode(b"k" * length), "alg": "dir", "use": "enc", "kid": encode(b"i" * 16)}
    return keys.load(json.dumps(jwk).encode(), "dir")


def test_a_direct_key_serves_only_content_of_its_length() -> None:
    # A 256-bit key as A128CBC-HS256 would be two keys of 128 bits, of which somebody may know one.
    for length in (16, 32, 64):
        for content, suite in CONTENT.items():
            header = {"alg": "dir", "enc": content, "kid": encode(b"i" * 16)}
            parts = (json.dumps(header).encode(), b"", b"i" * suite.iv, b"c" * 16, b"t" * suite.tag)
            stage = refused(".".join(map(encode, parts)), dir_key(length), content)
            assert stage == ("jose.decryption" if length == suite.key else "jose.length")


def test_no_tokens_are_made_under_algorithms_for_imported_keys() -> None:
    for name in ("dir", "A128GCMKW", "A256GCMKW", "EdDSA"):
        with pytest.raises(ValueError, match="no such algorithm to make tokens under"):
            keys.generate(name)
    with pytest.raises(ValueError, match="does not encrypt"):
        encrypt.encrypt(b"{}", dir_key(32), content="A256GCM")


def test_an_agreement_has_a_curve_that_exists_for_it() -> None:
    for curve in ("P-384", "Ed25519", "", "x25519"):
        with pytest.raises(ValueError, match="no such curve"):
            keys.generate("ECDH-ES", curve=curve)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_key_with_any_bit_flipped_is_none(data: st.DataObject) -> None:
    name, curve = data.draw(st.sampled_from([*MADE, *((name, "") for name in MADE_SIGNATURES)]))
    material = key(name, curve)
    whole = data.draw(st.booleans()) or material.symmetric
    raw = bytearray(material.private_bytes() if whole else material.public_bytes() or b"")
    start = raw.index(b'"kid"') if material.symmetric else 0  # any bytes are a symmetric key
    index = data.draw(st.integers(start, len(raw) - 1))
    raw[index] ^= 1 << data.draw(st.integers(0, 7))
    try:
        changed = keys.load(bytes(raw), name)
    except ValueError:
        return
    assert material.symmetric
    assert changed.key_id != material.key_id or bytes(raw) == material.private_bytes()


def test_lengths_of_tables_are_those_of_what_is_made() -> None:
    for content, suite in CONTENT.items():
        parts = encrypt.encrypt(b"{}", key("A256KW"), content=content).split(".")
        assert [len(part) for part in (parts[1], parts[2], parts[4])] == [
            encoded(n) for n in (suite.key + 8, suite.iv, suite.tag)
        ]
