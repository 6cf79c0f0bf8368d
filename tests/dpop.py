"""A client that proves possession by DPoP (RFC 9449), made with another library than the sidecar's."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
import warnings
from base64 import urlsafe_b64encode
from typing import Any

from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

KINDS = {
    "ES256": lambda: ECKey.generate_key("P-256"),
    "ES384": lambda: ECKey.generate_key("P-384"),
    "Ed25519": lambda: OKPKey.generate_key("Ed25519"),
    "EdDSA": lambda: OKPKey.generate_key("Ed25519"),
    "PS256": lambda: RSAKey.generate_key(2048),
    "RS256": lambda: RSAKey.generate_key(2048),
}


class Presenter:
    """Holds one key. `thumbprint` is what a token is bound to."""

    def __init__(self, algorithm: str = "ES256") -> None:
        self.algorithm = algorithm
        self.key = KINDS[algorithm]()
        public = self.key.as_dict(private=False)
        self.jwk = {name: value for name, value in public.items() if name in ("kty", "crv", "x", "y", "n", "e")}
        self.thumbprint = str(self.key.thumbprint())

    def proof(
        self,
        token: str,
        method: str = "GET",
        url: str = "https://orders.example/v1/orders",
        *,
        header: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """A good proof, changed: None takes a claim, or a header parameter, away."""
        made = {
            "jti": secrets.token_urlsafe(12),
            "htm": method,
            "htu": url,
            "iat": int(time.time()),
            "ath": ath(token),
            **claims,
        }
        head = {"typ": "dpop+jwt", "alg": self.algorithm, "jwk": self.jwk, **(header or {})}
        return self.signed(kept(head), kept(made))

    def signed(self, header: dict[str, Any], claims: dict[str, Any]) -> str:
        """Any header and claims, signed by this key."""
        registry = jws.JWSRegistry(algorithms=[self.algorithm])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # EdDSA has been renamed (RFC 9864), and clients use it all the same
            algorithm = registry.get_alg(self.algorithm)
        text = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
        return f"{text}.{_encoded(algorithm.sign(text.encode(), self.key))}"


def kept(members: dict[str, Any]) -> dict[str, Any]:
    """Without those that are None."""
    return {name: value for name, value in members.items() if value is not None}


def ath(token: str) -> str:
    """RFC 9449 section 4.2."""
    return _encoded(hashlib.sha256(token.encode()).digest())


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
