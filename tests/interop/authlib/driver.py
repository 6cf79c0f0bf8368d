"""Driver of Authlib: answers the requests of tests/interop/library.py, one line of JSON each."""

from __future__ import annotations

import base64
import json
import sys
import warnings
from typing import Any

with warnings.catch_warnings(record=True):  # that joserfc is its successor, which it says however filters are set
    from authlib.jose import JsonWebEncryption, JsonWebKey, JsonWebSignature


def sign(asked: dict[str, Any], payload: bytes) -> bytes:
    """A compact JWS."""
    key = asked["keys"]["signature"]
    header = {"alg": asked["sign"], "kid": key["kid"], "typ": asked["typ"]}
    return JsonWebSignature([asked["sign"]]).serialize_compact(header, payload, JsonWebKey.import_key(key))


def verify(asked: dict[str, Any], token: str | bytes) -> bytes:
    """The payload of a compact JWS."""
    key = JsonWebKey.import_key(asked["keys"]["signature"])
    return JsonWebSignature([asked["sign"]]).deserialize_compact(token, key)["payload"]


def encrypt(asked: dict[str, Any], plaintext: bytes, more: dict[str, str]) -> bytes:
    """A compact JWE."""
    key = asked["keys"]["encryption"]
    header = {"alg": asked["alg"], "enc": asked["enc"], "kid": key["kid"], **more}
    library = JsonWebEncryption([asked["alg"], asked["enc"]])
    while True:
        token = library.serialize_compact(header, plaintext, JsonWebKey.import_key(key))
        # One epk of 128 on P-256 lacks a leading zero, which RFC 7518 section 6.2.1.2 does not allow: another one, then.
        made = json.loads(base64.urlsafe_b64decode(token.split(b".")[0] + b"=="))
        if {len(made.get("epk", {}).get(name, "x" * 43)) for name in ("x", "y")} == {43}:
            return token


def decrypt(asked: dict[str, Any]) -> bytes:
    """The plaintext of a compact JWE."""
    key = JsonWebKey.import_key(asked["keys"]["encryption"])
    return JsonWebEncryption([asked["alg"], asked["enc"]]).deserialize_compact(asked["token"], key)["payload"]


def make(asked: dict[str, Any]) -> str:
    """A token of the format asked for."""
    payload = base64.urlsafe_b64decode(asked["payload"] + "==")
    if asked["format"] == "signed":
        token = sign(asked, payload)
    elif asked["format"] == "encrypted":
        token = encrypt(asked, payload, {"typ": asked["typ"]})
    else:
        token = encrypt(asked, sign(asked, payload), {"cty": "JWT"})
    return token.decode()


def open_(asked: dict[str, Any]) -> str:
    """The payload of a token, in base64url."""
    if asked["format"] == "signed":
        payload = verify(asked, asked["token"])
    elif asked["format"] == "encrypted":
        payload = decrypt(asked)
    else:
        payload = verify(asked, decrypt(asked))
    return base64.urlsafe_b64encode(payload).rstrip(b"=").decode()


for line in sys.stdin:
    request = json.loads(line)
    try:
        answer = {"ok": make(request) if request["op"] == "make" else open_(request)}
    except Exception as error:  # noqa: BLE001 # whatever the library raises is its answer
        answer = {"error": repr(error)}
    print(json.dumps(answer), flush=True)
