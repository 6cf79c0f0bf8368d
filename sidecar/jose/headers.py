"""The protected headers of the tokens that are made here, as JSON: one text for one key and purpose, whichever engine makes the token."""

from __future__ import annotations

import json
from functools import lru_cache


@lru_cache(maxsize=1024)
def signed(algorithm: str, key_id: str, typ: str) -> str:
    """The header of a JWS (RFC 7515 section 4)."""
    return json.dumps({"alg": algorithm, "kid": key_id, "typ": typ}, separators=(",", ":"))


@lru_cache(maxsize=1024)
def encrypted(algorithm: str, key_id: str, content: str, cty: str, typ: str) -> str:
    """The header of a JWE (RFC 7516 section 4), without the `epk` of an agreement. Empty `cty` and `typ` are left out."""
    members = {"alg": algorithm, "cty": cty, "enc": content, "kid": key_id, "typ": typ}
    return json.dumps({name: value for name, value in members.items() if value}, separators=(",", ":"))


def agreed(header: str, epk: str) -> str:
    """The header of `encrypted` with an `epk`: names in order of the alphabet."""
    return header.replace(',"kid":', f',"epk":{epk},"kid":', 1)


def epk(crv: str, kty: str, *coordinates: str) -> str:
    """An ephemeral public key (RFC 7518 section 4.6.1.1); coordinates are in base64url."""
    values = zip(("x", "y"), coordinates, strict=False)
    return json.dumps({"crv": crv, "kty": kty, **dict(values)}, separators=(",", ":"))
