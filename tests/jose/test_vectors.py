"""Published examples: those of algorithms that exist here must work, all others must be refused."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

from sidecar import claims
from sidecar.errors import InvalidTokenError
from sidecar.gate import JWE, JWS, Gated, gate
from sidecar.jose import keys
from sidecar.jose.encrypt import decrypt
from sidecar.jose.sign import verify
from tests.forgeries import decode, encode, header_of

# RFC 7515 appendix A.3: ES256.
ES256_X = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"
ES256_Y = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
ES256_D = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"
ES256_PAYLOAD = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
ES256_SIGNATURE = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
ES256_TOKEN = f"eyJhbGciOiJFUzI1NiJ9.{ES256_PAYLOAD}.{ES256_SIGNATURE}"
ES256_KID = "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U"  # by RFC 7638

# RFC 3394 section 4.6: 256 bits of key data under a 256-bit key-encryption key.
KEK = bytes.fromhex("000102030405060708090A0B0C0D0E0F101112131415161718191A1B1C1D1E1F")
KEY_DATA = bytes.fromhex("00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0E0F")
WRAPPED = bytes.fromhex("28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21")


def es256(**members: str) -> keys.Material:
    jwk = {"kty": "EC", "crv": "P-256", "x": ES256_X, "y": ES256_Y, "alg": "ES256", "use": "sig", "kid": ES256_KID}
    return keys.load(json.dumps(jwk | members).encode(), "ES256")


def named(token: str, key: keys.Material) -> Gated:
    """The token as if its header had the kid that our own tokens have, so that the engine alone is tried."""
    header = header_of(token)
    return Gated(
        token, tuple(token.split(".")), header, str(header["alg"]), str(header.get("enc", "")), key.key_id, "", ""
    )


def test_rfc_7515_a_3_verifies_with_es256() -> None:
    expected = b'{"iss":"joe",\r\n "exp":1300819380,\r\n "http://example.com/is_root":true}'
    assert verify(named(ES256_TOKEN, es256()), es256()) == expected
    assert verify(named(ES256_TOKEN, es256()), es256(d=ES256_D)) == expected


def test_rfc_7515_a_3_without_a_kid_stays_outside() -> None:
    with pytest.raises(InvalidTokenError) as refused:
        gate(ES256_TOKEN, segments=JWS)
    assert refused.value.stage == "gate.kid"


def test_rfc_3394_4_6_unwraps_with_a256kw() -> None:
    key = keys.load(
        json.dumps({"kty": "oct", "k": encode(KEK), "alg": "A256KW", "use": "enc", "kid": encode(b"k" * 16)}).encode(),
        "A256KW",
    )
    assert aes_key_wrap(KEK, KEY_DATA) == WRAPPED
    protected = encode(json.dumps({"alg": "A256KW", "enc": "A256GCM", "kid": key.key_id}))
    iv = bytes.fromhex("cafebabefacedbaddecaf888")
    sealed = AESGCM(KEY_DATA).encrypt(iv, b'{"iss":"joe"}', protected.encode())
    token = ".".join([protected, encode(WRAPPED), encode(iv), encode(sealed[:-16]), encode(sealed[-16:])])
    assert decrypt(gate(token, segments=JWE), key, content="A256GCM") == b'{"iss":"joe"}'


# Compact examples of algorithms that do not exist here, and of unsecured tokens.
FOREIGN = {
    "RFC 7515 A.1, HS256": "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9."
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ."
    "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    "RFC 7515 A.5, none": "eyJhbGciOiJub25lIn0."
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.",
    "RFC 7516 A.3, A128KW and A128CBC-HS256": "eyJhbGciOiJBMTI4S1ciLCJlbmMiOiJBMTI4Q0JDLUhTMjU2In0."
    "6KB707dM9YTIgHtLvtgWQ8mKwboJW3of9locizkDTHzBC2IlrT1oOQ.AxY8DCtDaGlsbGljb3RoZQ."
    "KDlTtXchhZTGufMYmOYGS4HffxPSUrfmqCHXaI9wOGY.U0m_YmjN04DJvceFICbCVQ",
}


@pytest.mark.parametrize("token", FOREIGN.values(), ids=FOREIGN)
def test_published_tokens_of_other_kinds_are_refused(token: str) -> None:
    with pytest.raises(InvalidTokenError):
        gate(token, segments=JWS | JWE)
    signature, encryption = keys.generate("ES256"), keys.generate("A256KW")
    with pytest.raises(InvalidTokenError) as refused:
        verify(named(token, signature), signature)
    assert refused.value.stage == "jose.key"
    with pytest.raises(InvalidTokenError) as refused:
        decrypt(named(token, encryption), encryption, content="A256GCM")
    assert refused.value.stage == "jose.key"


def test_rfc_7519_3_1_claims_lack_what_we_require() -> None:
    with pytest.raises(InvalidTokenError):
        claims.parse(decode(ES256_PAYLOAD))


def test_rfc_9068_2_2_claims_are_read() -> None:
    payload = {
        "iss": "https://authorization-server.example.com/",
        "sub": "5ba552d67",
        "aud": "https://rs.example.com/",
        "exp": 1639528912,
        "iat": 1618354090,
        "jti": "dbe39bf3a3ba4238a513f51d6e1691c4",
        "client_id": "s6BhdRkqt3",
        "scope": "openid profile reademail",
    }
    read = claims.parse(json.dumps(payload).encode())
    assert (read.issuer, read.subject, read.client_id) == (payload["iss"], "5ba552d67", "s6BhdRkqt3")
    assert read.audiences == ("https://rs.example.com/",)
    assert read.scopes == ("openid", "profile", "reademail")
    assert (read.issue_time, read.expire_time) == (1618354090, 1639528912)
