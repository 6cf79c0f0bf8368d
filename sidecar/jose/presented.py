"""Keys that a presenter shows in a proof (RFC 9449 section 4.2): bare public JWKs, used for nothing but the proof that they came in."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import TYPE_CHECKING

from sidecar.errors import InvalidTokenError
from sidecar.jose.keys import Material, imported
from sidecar.jose.sign import verify
from sidecar.jose.suites import SIGNATURES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.gate import Gated

ALGORITHMS = frozenset(name for name, suite in SIGNATURES.items() if suite.kty != "oct")
"""The asymmetric ones."""
KNOWN = 256
"""Keys that are kept parsed: of proofs that were genuine, so that nobody else can fill this memory."""

_known: dict[tuple[str, str], Material] = {}


def thumbprint(jwk: Mapping[str, str]) -> str:
    """RFC 7638, of exactly the members that the gate lets pass: those that the thumbprint is made of."""
    text = json.dumps(dict(jwk), separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    return urlsafe_b64encode(sha256(text.encode()).digest()).rstrip(b"=").decode()


def opened(proof: Gated, jwk: Mapping[str, str], key_id: str) -> bytes:
    """The payload of a proof, once its signature by this key is proven; `key_id` is the key's thumbprint.

    `InvalidTokenError`: the key is not a sound one for the proof's algorithm, or the signature is not its own.
    """
    key = _known.get((proof.alg, key_id))
    if key is None:
        try:
            key = imported({**jwk, "alg": proof.alg, "use": "sig", "kid": key_id}, proof.alg)
        except Exception:  # noqa: BLE001 # whatever the libraries raise on a key that is none
            raise InvalidTokenError("jose.jwk") from None
    payload = verify(proof._replace(kid=key_id), key)
    while len(_known) >= KNOWN:
        del _known[next(iter(_known))]
    _known[proof.alg, key_id] = key
    return payload
