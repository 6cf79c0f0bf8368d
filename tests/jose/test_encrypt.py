"""JWE with A256KW and A256GCM: round trips, and everything that no holder of this key made."""

from __future__ import annotations

import json
import secrets

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap, aes_key_wrap
from hypothesis import given, settings, strategies as st

from sidecar.errors import InvalidTokenError
from sidecar.gate import JWE, JWS, MAX_TOKEN, Gated, gate
from sidecar.jose import encrypt as encrypt_module, keys, prepared
from sidecar.jose.encrypt import MAX_PLAINTEXT, decrypt, encrypt
from sidecar.jose.sign import sign
from tests.forgeries import decode, encode, with_header, with_segment
from tests.jose.engines import reference

KEY = keys.generate("A256KW")
REFERENCE = reference(KEY)
OTHER = keys.generate("A256KW")
SIGNATURE = keys.generate("ES256")
SECRET = decode(json.loads(KEY.private_bytes())["k"])
TOKEN = encrypt(b'{"sub":"user-42"}', KEY, content="A256GCM", cty="JWT")


def opened(token: str) -> Gated:
    return gate(token, segments=JWS | JWE)


def refused(token: str | Gated, key: keys.Material = KEY, content: str = "A256GCM") -> str:
    with pytest.raises(InvalidTokenError) as error:
        decrypt(opened(token) if isinstance(token, str) else token, key, content=content)
    return error.value.stage


def by_hand(
    plaintext: bytes, *, header: dict[str, object], cek: bytes, iv: bytes | None = None, kek: bytes = SECRET
) -> str:
    """A JWE from primitives, as RFC 7516 section 5.1 spells it, without the library."""
    protected, iv = encode(json.dumps(header)), iv or secrets.token_bytes(12)
    sealed = AESGCM(cek).encrypt(iv, plaintext, protected.encode())
    return ".".join([protected, encode(aes_key_wrap(kek, cek)), encode(iv), encode(sealed[:-16]), encode(sealed[-16:])])


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=1, max_size=3000))
def test_what_was_encrypted_opens_to_the_same_bytes(plaintext: bytes) -> None:
    token = encrypt(plaintext, KEY, content="A256GCM")
    assert decrypt(opened(token), KEY, content="A256GCM") == plaintext


def test_the_header_says_alg_enc_and_kid_and_what_is_given() -> None:
    header = {"alg": "A256KW", "enc": "A256GCM", "kid": KEY.key_id}
    assert opened(encrypt(b"{}", KEY, content="A256GCM")).header == header
    assert opened(encrypt(b"{}", KEY, content="A256GCM", cty="JWT")).header == header | {"cty": "JWT"}
    assert opened(encrypt(b"{}", KEY, content="A256GCM", typ="at+jwt")).header == header | {"typ": "at+jwt"}


def test_an_independent_reader_agrees() -> None:
    protected, encrypted_key, iv, ciphertext, tag = TOKEN.split(".")
    cek = aes_key_unwrap(SECRET, decode(encrypted_key))
    assert AESGCM(cek).decrypt(decode(iv), decode(ciphertext) + decode(tag), protected.encode()) == b'{"sub":"user-42"}'


def test_an_independent_writer_agrees() -> None:
    header: dict[str, object] = {"alg": "A256KW", "enc": "A256GCM", "kid": KEY.key_id}
    assert decrypt(opened(by_hand(b"{}", header=header, cek=secrets.token_bytes(32))), KEY, content="A256GCM") == b"{}"


def test_each_token_has_a_content_key_and_an_iv_of_its_own() -> None:
    tokens = [encrypt(b"{}", KEY, content="A256GCM").split(".") for _ in range(200)]
    assert len({token[1] for token in tokens}) == 200
    assert len({token[2] for token in tokens}) == 200


@pytest.mark.parametrize("length", range(18))
def test_a_tag_has_16_bytes(length: int) -> None:
    tag = decode(TOKEN.split(".")[4]) + b"\0\0"
    if length == 16:
        assert decrypt(opened(with_segment(TOKEN, 4, encode(tag[:16]))), KEY, content="A256GCM")
    elif length == 0:
        with pytest.raises(InvalidTokenError):
            opened(with_segment(TOKEN, 4, ""))
    else:
        assert refused(with_segment(TOKEN, 4, encode(tag[:length]))) == "jose.length"


@pytest.mark.parametrize(
    ("segment", "lengths"), [(1, [0, 1, 8, 24, 32, 39, 41, 48, 56, 400]), (2, [1, 8, 11, 13, 16, 128])]
)
def test_encrypted_key_and_iv_have_exact_lengths(segment: int, lengths: list[int]) -> None:
    raw = decode(TOKEN.split(".")[segment]) * 20
    for length in lengths:
        assert refused(with_segment(TOKEN, segment, encode(raw[:length]))) == "jose.length"


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_flipped_bit_is_refused(data: st.DataObject) -> None:
    index = data.draw(st.integers(0, 4))
    raw = bytearray(decode(TOKEN.split(".")[index]))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(InvalidTokenError):
        decrypt(opened(with_segment(TOKEN, index, encode(bytes(raw)))), KEY, content="A256GCM")


def test_a_content_key_of_another_length_is_refused() -> None:
    # Wrapped under the right key, and so a holder's doing: 40 bytes on the wire all the same, or refused by length.
    header: dict[str, object] = {"alg": "A256KW", "enc": "A256GCM", "kid": KEY.key_id}
    assert refused(by_hand(b"{}", header=header, cek=secrets.token_bytes(16))) == "jose.length"
    assert refused(by_hand(b"{}", header=header, cek=secrets.token_bytes(24))) == "jose.length"


def test_the_key_opens_nothing_that_names_another_algorithm() -> None:
    header: dict[str, object] = {"alg": "A256KW", "enc": "A256GCM", "kid": KEY.key_id}
    cek = secrets.token_bytes(32)
    for alg in (
        "dir",
        "A128KW",
        "A192KW",
        "A192GCMKW",
        "ECDH-ES+A128KW",
        "RSA1_5",
        "RSA-OAEP",
        "RSA-OAEP-256",
        "PBES2-HS256+A128KW",
        "a256kw",
        "none",
    ):
        assert refused(by_hand(b"{}", header=header | {"alg": alg}, cek=cek)) == "jose.key"
    for enc in ("A128CBC-HS256", "A256CBC-HS512", "A128GCM", "A192GCM", "a256gcm", "none"):
        assert refused(by_hand(b"{}", header=header | {"enc": enc}, cek=cek)) == "jose.key"
    for alg in ("A256GCMKW", "ECDH-ES", "ECDH-ES+A256KW"):
        with pytest.raises(InvalidTokenError) as error:
            opened(by_hand(b"{}", header=header | {"alg": alg}, cek=cek))
        assert error.value.stage == "gate.header_missing"


def test_content_encryption_is_the_keys_own_and_not_the_headers() -> None:
    assert refused(TOKEN, content="A128CBC-HS256") == "jose.key"
    assert refused(TOKEN, content="") == "jose.key"
    for content, stage in (("A128CBC-HS256", "jose.length"), ("A128GCM", "jose.length"), ("none", "jose.key")):
        forged = with_header(TOKEN, {"alg": "A256KW", "enc": content, "kid": KEY.key_id})
        assert refused(forged) == "jose.key"
        assert refused(forged, content=content) == stage


def test_another_key_does_not_open() -> None:
    token = opened(encrypt(b"{}", OTHER, content="A256GCM"))
    assert refused(token) == "jose.key"
    assert refused(with_header(token.text, {"alg": "A256KW", "enc": "A256GCM", "kid": KEY.key_id})) == "jose.decryption"
    assert (
        refused(Gated(token.text, token.segments, token.header, "A256KW", "A256GCM", KEY.key_id, "", ""))
        == "jose.decryption"
    )


def test_a_signature_key_neither_encrypts_nor_opens() -> None:
    with pytest.raises(ValueError, match="does not encrypt"):
        encrypt(b"{}", SIGNATURE, content="A256GCM")
    for alg in ("ES256", "ES256K", "A256KW"):
        header: dict[str, object] = {"alg": alg, "enc": "A256GCM", "kid": SIGNATURE.key_id}
        assert refused(by_hand(b"{}", header=header, cek=secrets.token_bytes(32)), SIGNATURE) == "jose.key"


def test_nothing_is_encrypted_with_what_does_not_exist() -> None:
    for content in ("A256CBC", "A192CBC-HS384", "A192GCM", "none", ""):
        with pytest.raises(ValueError, match="does not encrypt"):
            encrypt(b"{}", KEY, content=content)
    with pytest.raises(ValueError, match="does not encrypt 0 bytes"):
        encrypt(b"", KEY, content="A256GCM")


def test_a_signed_token_is_not_an_encrypted_one() -> None:
    assert refused(sign(b"{}", SIGNATURE, typ="at+jwt")) == "jose.key"


def test_three_segments_are_not_an_encrypted_token_whatever_they_name() -> None:
    token = opened(TOKEN)
    three = Gated(token.text, token.segments[:3], token.header, "A256KW", "A256GCM", KEY.key_id, "", "")
    assert refused(three) == "jose.key"


def test_compression_is_not_followed() -> None:
    token = opened(TOKEN)
    header = {**token.header, "zip": "DEF"}
    bomb = by_hand(b"\0" * 100, header=header, cek=secrets.token_bytes(32))
    with pytest.raises(InvalidTokenError) as error:
        opened(bomb)
    assert error.value.stage == "gate.header_name"


def test_the_largest_token_opens() -> None:
    rest = len(encrypt(b"a", KEY, content="A256GCM"))
    plaintext = b"a" * ((MAX_TOKEN - rest) * 3 // 4)
    token = encrypt(plaintext, KEY, content="A256GCM")
    assert MAX_TOKEN - 4 <= len(token) <= MAX_TOKEN
    assert decrypt(opened(token), KEY, content="A256GCM") == plaintext


def test_a_plaintext_above_the_cap_is_refused_even_if_the_library_makes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def inflate(self: object, *_: object, **__: object) -> None:
        self.plaintext = b"a" * (MAX_PLAINTEXT + 1)  # type: ignore[attr-defined]

    monkeypatch.setattr(encrypt_module.JWE, "decrypt", inflate)
    assert refused(TOKEN, REFERENCE) == "jose.decryption"
    for length in (0, MAX_PLAINTEXT + 1):
        monkeypatch.setattr(prepared.Encryption, "decrypt", lambda *_, length=length: b"a" * length)
        assert refused(TOKEN) == "jose.decryption"


@pytest.mark.parametrize(
    "error", [RecursionError, MemoryError, OverflowError, TypeError, KeyError, AttributeError, AssertionError]
)
def test_whatever_the_library_raises_is_the_one_rejection(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error("a secret")

    for owner, method, key in (
        (encrypt_module.JWE, "deserialize", REFERENCE),
        (encrypt_module.JWE, "decrypt", REFERENCE),
        (prepared.Encryption, "decrypt", KEY),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(owner, method, fail)
            with pytest.raises(InvalidTokenError) as refusal:
                decrypt(opened(TOKEN), key, content="A256GCM")
        assert refusal.value.__cause__ is None
        assert "secret" not in str(refusal.value)


def test_one_token_leaves_nothing_to_the_next() -> None:
    foreign = opened(encrypt(b"bad", OTHER, content="A256GCM"))
    renamed = Gated(foreign.text, foreign.segments, foreign.header, "A256KW", "A256GCM", KEY.key_id, "", "")
    for number in range(3):
        token = encrypt(b"good %d" % number, KEY, content="A256GCM")
        assert decrypt(opened(token), KEY, content="A256GCM") == b"good %d" % number
        assert refused(renamed) == "jose.decryption"
