"""Certificates that change under load: the client's and Envoy's own on one side, those between Envoy and the sidecar on the other."""

from __future__ import annotations

import hashlib
import http.client
import json
import ssl
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tokensidecar.v1 import token_service_pb2 as pb

from tests.authority import LOCAL, Authority, Pair, uri
from tests.e2e.calls import Plane
from tests.gateway.app import App
from tests.gateway.asking import SECONDS
from tests.gateway.conftest import config, mutations
from tests.gateway.envoys import BINARY, RunningEnvoy, Tree, endpoint
from tests.gateway.test_certificates import thumbprint
from tests.running import RunningSidecar, free_port

pytestmark = pytest.mark.needs(BINARY)
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


def renewed(folder: Path, name: str, pair: Pair) -> None:
    """Puts a new pair where Envoy and the sidecar look for it: each file is whole at any time."""
    pair.write(folder / "new", name)
    for file in (f"{name}.key", f"{name}.crt"):
        (folder / "new" / file).rename(folder / file)


def watched(folder: Path, name: str) -> Tree:
    """A certificate that Envoy reads again when its file is moved into place (SDS from a file)."""
    files = {
        "certificate_chain": {"filename": f"{folder}/{name}.crt"},
        "private_key": {"filename": f"{folder}/{name}.key"},
    }
    source = folder / f"{name}.sds.json"
    resource = {"@type": SECRET, "name": name, "tls_certificate": {**files, "watched_directory": {"path": str(folder)}}}
    source.write_text(json.dumps({"resources": [resource]}))
    return {"name": name, "sds_config": {"path_config_source": {"path": str(source)}, "resource_api_version": "V3"}}


def test_certificates_renewed_under_load_give_no_wrong_answer(tmp_path: Path) -> None:
    authority = Authority()
    gateway = uri("spiffe://example.org/gateway")
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    authority.issue(*LOCAL).write(tmp_path, "server")
    authority.issue(*LOCAL).write(tmp_path, "sidecar")
    authority.issue(gateway).write(tmp_path, "gateway")
    owners = [authority.issue(common_name="owner").write(tmp_path, f"owner{n}") for n in range(3)]
    authority.issue(common_name="thief").write(tmp_path, "thief")
    port = free_port()
    tls = f'{{ certificate = "{tmp_path}/sidecar.crt", key = "{tmp_path}/sidecar.key", client_ca = "{tmp_path}/ca.crt", trust_domain = "example.org" }}'
    text = config("SOCKET", free_port()).replace('["SOCKET"]', f'[{{ address = "127.0.0.1:{port}", tls = {tls} }}]')

    def changed(tree: Tree) -> None:
        mutations(tree)
        tree["node"] = {"id": "test", "cluster": "test"}
        ca = {"trusted_ca": {"filename": f"{tmp_path}/ca.crt"}}
        RunningEnvoy.listener(tree)["filter_chains"][0]["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": TLS + "DownstreamTlsContext", "require_client_certificate": True,
                "common_tls_context": {"tls_certificate_sds_secret_configs": [watched(tmp_path, "server")], "validation_context": ca},
            },
        }  # fmt: skip
        for cluster in tree["static_resources"]["clusters"]:
            if cluster["name"] == "tokensidecar":
                endpoint(cluster)["address"] = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
                cluster["transport_socket"] = {
                    "name": "envoy.transport_sockets.tls",
                    "typed_config": {
                        "@type": TLS + "UpstreamTlsContext", "sni": "localhost",
                        "common_tls_context": {
                            "alpn_protocols": ["h2"], "validation_context": ca,
                            "tls_certificate_sds_secret_configs": [watched(tmp_path, "gateway")],
                        },
                    },
                }  # fmt: skip

    with (
        RunningSidecar(text) as sidecar,
        App() as app,
        RunningEnvoy("unix:/unused", app.port, app.grpc_port, changed) as envoy,
        Plane(sidecar.app_socket) as plane,
    ):
        stop, found, served = threading.Event(), Counter[tuple[str, int]](), set[str]()
        now = [0]

        def token(owner: Pair) -> str:
            bond = pb.Confirmation(certificate_thumbprint_sha256=thumbprint(owner.certificate))
            return str(
                plane.issue(
                    pb.IssueRequest(subject="u", audiences=["orders"], confirmation=bond), timeout=SECONDS
                ).token
            )

        tokens = [token(owner) for owner in owners]

        def status(name: str, bearer: str) -> int:
            context = ssl.create_default_context(cafile=tmp_path / "ca.crt")
            context.load_cert_chain(tmp_path / f"{name}.crt", tmp_path / f"{name}.key")
            connection = http.client.HTTPSConnection("127.0.0.1", envoy.port, timeout=SECONDS, context=context)
            try:
                connection.request(
                    "GET", "/strip/a", headers={"Host": "orders.example", "Authorization": f"Bearer {bearer}"}
                )
                served.add(hashlib.sha256(connection.sock.getpeercert(binary_form=True) or b"").hexdigest())
                return connection.getresponse().status
            finally:
                connection.close()

        def load() -> None:
            while not stop.is_set():
                n = now[0]
                found["owner", status(f"owner{n}", tokens[n])] += 1
                found["thief", status("thief", tokens[n])] += 1
                found["former", status(f"owner{n}", tokens[(n + 1) % 3])] += 1

        until = time.monotonic() + SECONDS
        while status("owner0", tokens[0]) != 200:  # Envoy's first health check
            assert time.monotonic() < until
            time.sleep(0.1)
        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for n in (1, 2):
                time.sleep(0.7)
                pair = authority.issue(*LOCAL)
                renewed(tmp_path, "server", pair)
                renewed(tmp_path, "sidecar", authority.issue(*LOCAL))
                renewed(tmp_path, "gateway", authority.issue(gateway))
                now[0] = n
                der = x509.load_pem_x509_certificate(pair.certificate).public_bytes(Encoding.DER)
                while hashlib.sha256(der).hexdigest() not in served:
                    assert time.monotonic() < until
                    time.sleep(0.05)
        finally:
            stop.set()
            for thread in threads:
                thread.join(SECONDS)
        assert not any(thread.is_alive() for thread in threads)
        assert found["owner", 200] > 10
        assert set(found) <= {
            ("owner", 200),
            ("owner", 503),
            ("thief", 401),
            ("thief", 503),
            ("former", 401),
            ("former", 503),
        }, found
        assert found["owner", 200] + found["thief", 401] + found["former", 401] > 0.9 * sum(found.values()), found
        assert app.seen == found["owner", 200] + 1
