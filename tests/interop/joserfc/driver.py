"""Driver of joserfc: answers the requests of tests/interop/library.py, one line of JSON each."""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

from joserfc import jwe, jwk, jws


def sign(asked: dict[str, Any], payload: bytes) -> str:
    """A compact JWS."""
    key = asked["keys"]["signature"]
    header = {"alg": asked["sign"], "kid": key["kid"], "typ": asked["typ"]}
    return jws.serialize_compact(header, payload, jwk.import_key(key), algorithms=[asked["sign"]])


def verify(asked: dict[str, Any], token: str | bytes) -> bytes:
    """The payload of a compact JWS."""
    key = jwk.import_key(asked["keys"]["signature"])
    return jws.deserialize_compact(token, key, algorithms=[asked["sign"]]).payload


def encrypt(asked: dict[str, Any], plaintext: bytes, more: dict[str, str]) -> str:
    """A compact JWE."""
    key = asked["keys"]["encryption"]
    header = {"alg": asked["alg"], "enc": asked["enc"], "kid": key["kid"], **more}
    return jwe.encrypt_compact(header, plaintext, jwk.import_key(key), algorithms=[asked["alg"], asked["enc"]])


def decrypt(asked: dict[str, Any]) -> bytes:
    """The plaintext of a compact JWE."""
    key = jwk.import_key(asked["keys"]["encryption"])
    plaintext = jwe.decrypt_compact(asked["token"], key, algorithms=[asked["alg"], asked["enc"]]).plaintext
    if plaintext is None:
        raise ValueError("no plaintext")
    return plaintext


def make(asked: dict[str, Any]) -> str:
    """A token of the format asked for."""
    payload = base64.urlsafe_b64decode(asked["payload"] + "==")
    if asked["format"] == "signed":
        return sign(asked, payload)
    if asked["format"] == "encrypted":
        return encrypt(asked, payload, {"typ": asked["typ"]})
    return encrypt(asked, sign(asked, payload).encode(), {"cty": "JWT"})


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
