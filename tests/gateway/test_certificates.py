"""Tokens that are bound to a client certificate (RFC 8705), through a real Envoy that ends mutual TLS."""

from __future__ import annotations

import hashlib
import http.client
import ssl
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tokensidecar.v1 import token_service_pb2 as pb

from tests.authority import LOCAL, Authority
from tests.gateway.asking import SECONDS
from tests.gateway.conftest import mutations
from tests.gateway.envoys import BINARY, RunningEnvoy, Tree

if TYPE_CHECKING:
    from pathlib import Path

    from tests.gateway.conftest import Stack

pytestmark = pytest.mark.needs(BINARY)
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"


def thumbprint(pem: bytes) -> str:
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    return urlsafe_b64encode(hashlib.sha256(der).digest()).decode().rstrip("=")


def test_a_token_bound_to_a_certificate_passes_with_it_alone(stack: Stack, tmp_path: Path) -> None:
    authority = Authority()
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    authority.issue(*LOCAL).write(tmp_path, "server")
    owner, thief = (authority.issue(common_name=name).write(tmp_path, name) for name in ("owner", "thief"))

    def changed(tree: Tree) -> None:
        mutations(tree)
        file = {name: {"filename": f"{tmp_path}/{name}"} for name in ("server.crt", "server.key", "ca.crt")}
        common = {
            "tls_certificates": [{"certificate_chain": file["server.crt"], "private_key": file["server.key"]}],
            "validation_context": {"trusted_ca": file["ca.crt"]},
        }
        RunningEnvoy.listener(tree)["filter_chains"][0]["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {"@type": TLS, "common_tls_context": common, "require_client_certificate": True},
        }

    with RunningEnvoy(stack.socket, stack.app.port, stack.app.grpc_port, changed) as envoy:

        def status(name: str, token: str, path: str = "/strip/a") -> int:
            context = ssl.create_default_context(cafile=tmp_path / "ca.crt")
            context.load_cert_chain(tmp_path / f"{name}.crt", tmp_path / f"{name}.key")
            connection = http.client.HTTPSConnection("127.0.0.1", envoy.port, timeout=SECONDS, context=context)
            try:
                lie = f"Hash={hashlib.sha256(ssl.PEM_cert_to_DER_cert(owner.certificate.decode())).hexdigest()}"
                headers = {"Host": "orders.example", "Authorization": f"Bearer {token}", "x-forwarded-client-cert": lie}
                connection.request("GET", path, headers=headers)
                return connection.getresponse().status
            finally:
                connection.close()

        bond = pb.Confirmation(certificate_thumbprint_sha256=thumbprint(owner.certificate))
        token = stack.token(confirmation=bond)
        assert status("owner", token) == 200
        assert status("owner", token) == 200
        assert status("thief", token) == 401
        other = pb.Confirmation(certificate_thumbprint_sha256=thumbprint(thief.certificate))
        assert status("owner", stack.token(confirmation=other)) == 401
        assert status("thief", stack.token()) == 200  # a token that is bound to nothing
        assert status("owner", token, "/dpop/a") == 401
