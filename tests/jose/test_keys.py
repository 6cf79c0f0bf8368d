"""Key material: what is made, what is loaded, and what never shows."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle

import pytest
from hypothesis import given, settings, strategies as st

from sidecar.jose import keys
from sidecar.jose.suites import KEY_MANAGEMENT, SIGNATURES, encoded
from tests.forgeries import decode, encode, unused_bit_flipped

ES256 = keys.generate("ES256")
A256KW = keys.generate("A256KW")
OTHER = keys.generate("ES256")


def members(data: bytes | None) -> dict[str, str]:
    found: dict[str, str] = json.loads(data or b"")
    return found


def dumped(found: object) -> bytes:
    return json.dumps(found).encode()


def test_every_algorithm_of_the_tables_makes_keys() -> None:
    for algorithm, suite in [*SIGNATURES.items(), *KEY_MANAGEMENT.items()]:
        if not suite.makes:
            continue
        key = keys.generate(algorithm)
        again = keys.load(key.private_bytes(), algorithm)
        assert (again.algorithm, again.key_id, again.private) == (algorithm, key.key_id, True)
        assert again.private_bytes() == key.private_bytes()


def test_no_other_algorithm_makes_or_loads_keys() -> None:
    for algorithm in (
        "none",
        "HS384",
        "ES512",
        "RSA1_5",
        "RSA-OAEP",
        "PBES2-HS256+A128KW",
        "dir",
        "EdDSA",
        "A256GCMKW",
        "es256",
        "",
    ):
        with pytest.raises(ValueError, match="no such algorithm"):
            keys.generate(algorithm)
        with pytest.raises(ValueError, match="not a key"):
            keys.load(A256KW.private_bytes(), algorithm)


def test_a_signature_key_is_named_by_its_thumbprint() -> None:
    jwk = members(ES256.public_bytes())
    required = {name: jwk[name] for name in ("crv", "kty", "x", "y")}  # RFC 7638 section 3.2, in lexicographic order
    assert ES256.key_id == encode(hashlib.sha256(json.dumps(required, separators=(",", ":")).encode()).digest())


def test_a_symmetric_key_is_named_at_random() -> None:
    assert len(decode(A256KW.key_id)) == 16
    assert keys.generate("A256KW").key_id != A256KW.key_id
    assert len(decode(members(A256KW.private_bytes())["k"])) == 32


def test_the_public_half_has_nothing_private() -> None:
    jwk = members(ES256.public_bytes())
    assert jwk.keys() == {"kty", "crv", "x", "y", "alg", "kid", "use"}
    assert (jwk["alg"], jwk["use"], jwk["kid"]) == ("ES256", "sig", ES256.key_id)
    public = ES256.public()
    assert not public.private
    assert public.public_bytes() == ES256.public_bytes()
    assert keys.load(ES256.public_bytes() or b"", "ES256").private is False
    with pytest.raises(ValueError, match="no private half"):
        public.private_bytes()


def test_a_symmetric_key_has_no_public_half() -> None:
    assert A256KW.public_bytes() is None
    with pytest.raises(ValueError, match="symmetric"):
        A256KW.public()


def test_no_secret_shows() -> None:
    for key, secret in ((ES256, members(ES256.private_bytes())["d"]), (A256KW, members(A256KW.private_bytes())["k"])):
        for text in (repr(key), str(key), f"{key}", f"{[key]}", repr({"key": key})):
            assert secret not in text
            assert key.key_id in text


def test_material_is_neither_copied_nor_pickled() -> None:
    for key in (ES256, A256KW, ES256.public()):
        for attempt in (pickle.dumps, copy.copy, copy.deepcopy, lambda k: pickle.dumps([k], protocol=0)):
            with pytest.raises(TypeError, match="neither copied nor pickled"):
                attempt(key)
        assert not hasattr(key, "__dict__")


GOOD = members(ES256.private_bytes())
SYMMETRIC = members(A256KW.private_bytes())
PUBLIC = members(ES256.public_bytes())
P256_PRIME = 2**256 - 2**224 + 2**192 + 2**96 - 1


NO_KEYS = {
    "another algorithm": ("ES256", A256KW.private_bytes()),
    "a public key as a secret": ("A256KW", ES256.public_bytes() or b""),
    "alg none": ("ES256", dumped(GOOD | {"alg": "none"})),
    "no alg": ("ES256", dumped({n: v for n, v in GOOD.items() if n != "alg"})),
    "alg of the symmetric one": ("A256KW", dumped(GOOD | {"alg": "A256KW"})),
    "another use": ("ES256", dumped(GOOD | {"use": "enc"})),
    "another curve": ("ES256", dumped(GOOD | {"crv": "P-384"})),
    "the curve of Bitcoin": ("ES256", dumped(GOOD | {"crv": "secp256k1"})),
    "a member more": ("ES256", dumped(GOOD | {"key_ops": ["sign"]})),
    "a private member of another kind": ("A256KW", dumped(SYMMETRIC | {"d": "AAAA"})),
    "no x": ("ES256", dumped({n: v for n, v in GOOD.items() if n != "x"})),
    "no kid": ("ES256", dumped({n: v for n, v in GOOD.items() if n != "kid"})),
    "the kid of another key": ("ES256", dumped(GOOD | {"kid": OTHER.key_id})),
    "the private half of another key": ("ES256", dumped(GOOD | {"d": members(OTHER.private_bytes())["d"]})),
    "a point off the curve": ("ES256", dumped(GOOD | {"y": encode(b"\1" * 32)})),
    "a point beyond the field": ("ES256", dumped(GOOD | {"x": encode((P256_PRIME + 1).to_bytes(32, "big"))})),
    "zero": ("ES256", dumped(GOOD | {"x": encode(bytes(32)), "y": encode(bytes(32))})),
    "a private zero": ("ES256", dumped(GOOD | {"d": encode(bytes(32))})),
    "a short coordinate": ("ES256", dumped(GOOD | {"x": GOOD["x"][:-2]})),
    "an unused bit": ("ES256", dumped(GOOD | {"x": GOOD["x"][:-1] + chr(ord(GOOD["x"][-1]) + 1)})),
    "a number": ("ES256", dumped(GOOD | {"x": 1})),
    "padding": ("ES256", dumped(GOOD | {"x": GOOD["x"] + "="})),
    "a public point off the curve": ("ES256", dumped(PUBLIC | {"y": encode(b"\1" * 32)})),
    "the public zero": ("ES256", dumped(PUBLIC | {"x": encode(bytes(32)), "y": encode(bytes(32))})),
    "a member more, of another kind": ("A256KW", dumped(SYMMETRIC | {"ext": "true"})),
    "a symmetric key to sign with": ("A256KW", dumped(SYMMETRIC | {"use": "sig"})),
    "a symmetric key of no use": ("A256KW", dumped({n: v for n, v in SYMMETRIC.items() if n != "use"})),
    "an unused bit of a secret": ("A256KW", dumped(SYMMETRIC | {"k": unused_bit_flipped(SYMMETRIC["k"])})),
    "an unused bit of a kid": ("A256KW", dumped(SYMMETRIC | {"kid": unused_bit_flipped(SYMMETRIC["kid"])})),
    "a key of 31 bytes": ("A256KW", dumped(SYMMETRIC | {"k": encode(b"k" * 31)})),
    "a key of 33 bytes": ("A256KW", dumped(SYMMETRIC | {"k": encode(b"k" * 33)})),
    "an empty key": ("A256KW", dumped(SYMMETRIC | {"k": ""})),
    "an empty kid": ("A256KW", dumped(SYMMETRIC | {"kid": ""})),
    "a line break for a character": ("A256KW", dumped(SYMMETRIC | {"k": SYMMETRIC["k"][:-1] + "\n"})),
    "a list": ("ES256", b"[]"),
    "nothing": ("ES256", b""),
    "a duplicate": ("A256KW", A256KW.private_bytes()[:-1] + b',"use":"enc"}'),
    "invalid UTF-8": ("A256KW", b"\xff" + A256KW.private_bytes()),
    "deep nesting": ("A256KW", b"[" * 100_000),
}


@pytest.mark.parametrize(("algorithm", "data"), NO_KEYS.values(), ids=NO_KEYS)
def test_nothing_else_is_loaded_and_no_message_quotes_it(algorithm: str, data: bytes) -> None:
    with pytest.raises(ValueError, match=f"^this is not a key for {algorithm} as this version writes them$") as refused:
        keys.load(data, algorithm)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_key_with_any_bit_flipped_is_none(data: st.DataObject) -> None:
    raw = bytearray(ES256.private_bytes())
    index = data.draw(st.integers(0, len(raw) - 1))
    raw[index] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ValueError, match="not a key"):
        keys.load(bytes(raw), "ES256")


@settings(deadline=None)
@given(st.binary(max_size=80))
def test_encoded_is_the_length_of_base64url(raw: bytes) -> None:
    assert encoded(len(raw)) == len(encode(raw))
