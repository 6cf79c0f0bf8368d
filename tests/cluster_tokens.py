"""Service account tokens as a Kubernetes cluster makes them, and what is nearly one; and its JWK Set, served over https."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from tests.authority import Authority

ISSUER = "https://kubernetes.default.svc.cluster.local"
AUDIENCE = "tokensidecar"


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Signer:
    """One key of a cluster; `key_id` as kube-apiserver names it: SHA-256 of the public key in DER."""

    def __init__(self, algorithm: str = "RS256") -> None:
        self.algorithm = algorithm
        self._key: Any = (
            rsa.generate_private_key(65537, 2048) if algorithm == "RS256" else ec.generate_private_key(ec.SECP256R1())
        )
        self.public_pem = self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        der = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.key_id = encode(hashlib.sha256(der).digest())

    def jwk(self) -> dict[str, str]:
        numbers = self._key.public_key().public_numbers()
        own = {"use": "sig", "alg": self.algorithm, "kid": self.key_id}
        if self.algorithm == "RS256":
            return {"kty": "RSA", "n": encode(numbers.n.to_bytes(256, "big")), "e": encode(b"\x01\x00\x01"), **own}
        coordinates = {name: encode(getattr(numbers, name).to_bytes(32, "big")) for name in ("x", "y")}
        return {"kty": "EC", "crv": "P-256", **coordinates, **own}

    def signed(self, claims: dict[str, object], **header: object) -> str:
        """A compact JWS; what `header` has as None is left out of it."""
        members = {"alg": self.algorithm, "kid": self.key_id, **header}
        kept = {name: value for name, value in members.items() if value is not None}
        text = f"{encode(json.dumps(kept).encode())}.{encode(json.dumps(claims).encode())}"
        return f"{text}.{encode(self._signature(text.encode()))}"

    def token(
        self, namespace: str = "shop", name: str = "web", *, header: dict[str, object] | None = None, **changes: object
    ) -> str:
        """A good token of that service account, but for these claims; None leaves one out."""
        return self.signed(claims(namespace, name, **changes), **(header or {}))

    def _signature(self, text: bytes) -> bytes:
        if self.algorithm == "RS256":
            return bytes(self._key.sign(text, padding.PKCS1v15(), hashes.SHA256()))
        r, s = decode_dss_signature(self._key.sign(text, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def claims(namespace: str = "shop", name: str = "web", **changes: object) -> dict[str, object]:
    now = int(time.time())
    found: dict[str, object] = {
        "aud": [AUDIENCE],
        "exp": now + 3607,
        "iat": now,
        "iss": ISSUER,
        "jti": "0b5ee2c4-6a0e-4d0e-9a1b-6d0e9a1b6d0e",
        "kubernetes.io": {
            "namespace": namespace,
            "node": {"name": "node-1", "uid": "7c2b5a0e-0000-4d0e-9a1b-6d0e9a1b6d0e"},
            "pod": {"name": f"{name}-6d5f", "uid": "7c2b5a0e-1111-4d0e-9a1b-6d0e9a1b6d0e"},
            "serviceaccount": {"name": name, "uid": "7c2b5a0e-2222-4d0e-9a1b-6d0e9a1b6d0e"},
            "warnafter": now + 3000,
        },
        "nbf": now,
        "sub": f"system:serviceaccount:{namespace}:{name}",
        **changes,
    }
    return {name: value for name, value in found.items() if value is not None}


def key_set(*signers: Signer) -> bytes:
    return json.dumps({"keys": [signer.jwk() for signer in signers]}).encode()


class KeySetServer:
    """An https server of one JWK Set. `body` may be changed at any time; `gets` counts requests; `slow` is seconds before the body."""

    def __init__(self, authority: Authority, folder: Path, body: bytes, *, port: int = 0) -> None:
        from tests.authority import LOCAL

        self.body, self.gets, self.status, self.slow, self.shown = body, 0, 200, 0.0, ""
        outer = self

        class Answering(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.gets += 1
                outer.shown = self.headers.get("Authorization", "")
                self.send_response(outer.status)
                if outer.status == 302:
                    self.send_header("Location", outer.address)
                self.send_header("Content-Length", str(len(outer.body)))
                self.end_headers()
                outer.released.wait(outer.slow)
                self.wfile.write(outer.body)

            def log_message(self, *_: object) -> None: ...

        self.released = threading.Event()
        authority.issue(*LOCAL).write(folder, "keys")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "keys.crt", folder / "keys.key")
        self._server = ThreadingHTTPServer(("127.0.0.1", port), Answering)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign] # a client that has gone is no matter
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.address = f"https://127.0.0.1:{self._server.server_address[1]}/openid/v1/jwks"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()
