"""Keys of other systems, in the forms in which those hand them out."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jwcrypto.jwk import JWK

from sidecar.jose import imported
from sidecar.jose.suites import KEY_MANAGEMENT, SIGNATURES
from tests.forgeries import encode

P256 = json.loads(JWK.generate(kty="EC", crv="P-256").export_public())
OTHER = json.loads(JWK.generate(kty="EC", crv="P-256").export_public())
RSA = json.loads(JWK.generate(kty="RSA", size=2048).export_public())
SECRET = {"kty": "oct", "k": encode(b"s" * 32)}


def read(found: object, algorithm: str = "ES256", key_id: str = "") -> list[str]:
    data = found if isinstance(found, bytes) else json.dumps(found).encode()
    return list(imported.read(data, algorithm, key_id=key_id))


def refusal(found: object, algorithm: str = "ES256", key_id: str = "") -> str:
    with pytest.raises(ValueError, match=r"\w") as refused:
        read(found, algorithm, key_id)
    assert refused.value.__cause__ is None
    return str(refused.value)


def test_a_jwk_and_a_set_are_read_with_the_ids_that_they_have() -> None:
    assert read(P256 | {"kid": "2024-01 /a"}) == ["2024-01 /a"]
    assert read({"keys": [P256 | {"kid": "a"}, OTHER | {"kid": "b"}]}) == ["a", "b"]


def test_a_key_without_an_id_gets_the_given_one_or_its_thumbprint() -> None:
    bare = {name: value for name, value in P256.items() if name != "kid"}
    assert read(bare) == [JWK(**bare).thumbprint()]
    assert read(bare, key_id="main") == ["main"]
    assert read(SECRET, "HS256", "shared") == ["shared"]


def test_members_that_other_systems_add_are_not_followed() -> None:
    more = {
        "alg": "ES256",
        "use": "sig",
        "key_ops": ["verify"],
        "x5c": ["AAAA"],
        "x5t": "AAAA",
        "x5u": "http://127.0.0.1:9/",
        "ext": True,
    }
    assert read(P256 | more | {"kid": "a"}) == ["a"]


def test_keys_of_another_kind_use_or_algorithm_are_passed_over() -> None:
    keys = [
        RSA | {"kid": "r"},
        P256 | {"kid": "e", "use": "enc"},
        P256 | {"kid": "x", "alg": "ECDH-ES"},
        OTHER | {"kid": "s"},
    ]
    assert read({"keys": keys}) == ["s"]
    assert read({"keys": keys}, "RS256") == ["r"]
    assert "no key for PS256" in refusal({"keys": keys[1:]}, "PS256")


def test_pem_is_read_in_its_usual_forms() -> None:
    pair = ec.generate_private_key(ec.SECP256R1())
    public = pair.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert read(public, key_id="main") == ["main"]
    (material,) = imported.read(b"\n" + public, "ES256").values()
    assert not material.private
    assert material.key_id == JWK.from_pem(public).thumbprint()
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        whole = pair.private_bytes(Encoding.PEM, form, NoEncryption())
        (material,) = imported.read(whole, "ECDH-ES+A256KW", key_id="main").values()
        assert material.private
    public = rsa.generate_private_key(65537, 2048).public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1)
    assert read(public, "RS256", "r") == ["r"]


def test_pem_that_is_no_plain_key_is_refused() -> None:
    pem = b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
    assert "not one key in PEM" in refusal(pem)
    assert "certificate" in refusal(pem.replace(b"PUBLIC KEY", b"CERTIFICATE"))


@pytest.mark.filterwarnings("ignore")
def test_one_unsound_key_refuses_all() -> None:
    small = json.loads(JWK.generate(kty="RSA", size=1024).export_public())
    for bad, algorithm in (
        (P256 | {"x": P256["y"]}, "ES256"),
        (P256 | {"d": encode(b"d" * 32)}, "ES256"),
        (P256 | {"oth": "1"}, "ES256"),
        (P256 | {"kid": ""}, "ES256"),
        (P256 | {"kid": "a\n"}, "ES256"),
        (P256 | {"kid": "é"}, "ES256"),
        (P256 | {"kid": "a" * 257}, "ES256"),
        (P256 | {"kid": 7}, "ES256"),
        (P256 | {"kid": None}, "ES256"),
        (small, "RS256"),
        (RSA | {"e": "Aw"}, "PS256"),
        ({"kty": "oct", "k": encode(b"s" * 31), "kid": "a"}, "HS256"),
        ({"kty": "oct", "k": encode(b"s" * 24), "kid": "a"}, "A256KW"),
        ({"kty": "oct", "k": encode(b"s" * 48), "kid": "a"}, "dir"),
        ({"kty": "oct", "k": "", "kid": "a"}, "dir"),
        (SECRET, "HS256"),  # no id, and a thumbprint would be a hash of the secret
    ):
        good = {"ES256": OTHER, "RS256": RSA, "PS256": RSA}.get(algorithm, SECRET) | {"kid": "good"}
        said = refusal({"keys": [good, bad]}, algorithm)
        assert said.startswith("key 2 is not a sound key for")
        assert encode(b"s" * 31) not in said


def test_what_is_no_set_of_keys_is_refused() -> None:
    for data in (
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"keys":{}}',
        b'{"keys":[]}',
        b'{"keys":[1]}',
        b"\xff",
        b"[" * 100_000,
        b'{"kty":"EC","kty":"EC"}',
        b'"text"',
    ):
        assert refusal(data)
    assert "1 to 100 keys" in refusal({"keys": [P256] * 101})
    assert "kid of another key" in refusal({"keys": [P256 | {"kid": "a"}, OTHER | {"kid": "a"}]})
    assert "have others" in refusal(P256 | {"kid": "a"}, key_id="b")


def test_a_key_for_every_algorithm_is_imported() -> None:
    for algorithm in [*SIGNATURES, *KEY_MANAGEMENT]:
        kty, curves = imported.keys.kinds(algorithm)
        for curve in curves or {""}:
            if "oct" in kty:
                size = (KEY_MANAGEMENT[algorithm].key if algorithm in KEY_MANAGEMENT else 32) or 64
                jwk = {"kty": "oct", "k": encode(b"k" * size)}
            elif "RSA" in kty:
                jwk = RSA
            else:
                jwk = json.loads(
                    JWK.generate(
                        kty=next(iter(k for k in kty if (k == "EC") == curve.startswith("P"))), crv=curve
                    ).export_private()
                )
            (material,) = imported.read(json.dumps(jwk | {"kid": "theirs"}).encode(), algorithm).values()
            assert (material.algorithm, material.key_id, material.curve) == (algorithm, "theirs", curve)
