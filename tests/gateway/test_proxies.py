"""The client's certificate as a proxy before Envoy tells it (x-forwarded-client-cert): of a trusted one, and of anybody else."""

from __future__ import annotations

import hashlib
import http.client
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tokensidecar.v1 import token_service_pb2 as pb

from tests.authority import LOCAL, Authority, Pair
from tests.e2e.calls import Plane
from tests.gateway.app import App
from tests.gateway.asking import SECONDS, ask, bearer
from tests.gateway.conftest import config, mutations
from tests.gateway.envoys import BINARY, RunningEnvoy, Tree
from tests.gateway.test_certificates import TLS, thumbprint
from tests.running import RunningSidecar, free_port

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.needs(BINARY)


def ending_tls(folder: Path, details: str) -> Callable[[Tree], None]:
    """An Envoy that ends mutual TLS, and treats x-forwarded-client-cert so."""

    def changed(tree: Tree) -> None:
        mutations(tree)
        manager = RunningEnvoy.manager(tree)
        manager["forward_client_cert_details"] = details
        manager["set_current_client_cert_details"] = {"subject": True, "uri": True}
        file = {name: {"filename": f"{folder}/{name}"} for name in ("server.crt", "server.key", "ca.crt")}
        common = {
            "tls_certificates": [{"certificate_chain": file["server.crt"], "private_key": file["server.key"]}],
            "validation_context": {"trusted_ca": file["ca.crt"]},
        }
        RunningEnvoy.listener(tree)["filter_chains"][0]["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {"@type": TLS, "common_tls_context": common, "require_client_certificate": True},
        }

    return changed


def believing(tree: Tree) -> None:
    """The Envoy behind it: reached by that proxy alone, it keeps what that says."""
    mutations(tree)
    RunningEnvoy.manager(tree)["forward_client_cert_details"] = "ALWAYS_FORWARD_ONLY"


def proxying(tree: Tree) -> None:
    """The one in front asks nobody."""
    del RunningEnvoy.manager(tree)["http_filters"][0]
    for route in RunningEnvoy.manager(tree)["route_config"]["virtual_hosts"][0]["routes"]:
        route.pop("typed_per_filter_config", None)


def through(folder: Path, port: int, name: str, token: str, lie: Pair) -> int:
    """The status for the client of that name, which also says that it is another one."""
    context = ssl.create_default_context(cafile=folder / "ca.crt")
    context.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=SECONDS, context=context)
    try:
        headers = {"Host": "orders.example", "Authorization": f"Bearer {token}", "x-forwarded-client-cert": said(lie)}
        connection.request("GET", "/strip/a", headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def said(pair: Pair) -> str:
    return f"Hash={hashlib.sha256(ssl.PEM_cert_to_DER_cert(pair.certificate.decode())).hexdigest()}"


def test_a_certificate_is_believed_of_a_trusted_proxy_and_of_nobody_else(tmp_path: Path) -> None:
    authority = Authority()
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    authority.issue(*LOCAL).write(tmp_path, "server")
    owner, thief = (authority.issue(common_name=name).write(tmp_path, name) for name in ("owner", "thief"))
    bond = pb.Confirmation(certificate_thumbprint_sha256=thumbprint(owner.certificate))
    with tempfile.TemporaryDirectory(prefix="ts-", dir="/tmp") as folder:
        socket = f"unix:{folder}/envoy.sock"
        text = config(socket, free_port(), '[envoy]\ncertificate = "xfcc"\n')

        def front(behind: RunningEnvoy, details: str) -> RunningEnvoy:
            def changed(tree: Tree) -> None:
                ending_tls(tmp_path, details)(tree)
                proxying(tree)

            return RunningEnvoy(socket, behind.port, behind.port, changed)

        with (
            RunningSidecar(text) as sidecar,
            App() as app,
            Plane(sidecar.app_socket) as plane,
            RunningEnvoy(socket, app.port, app.grpc_port, believing) as inner,
            RunningEnvoy(socket, app.port, app.grpc_port, mutations) as exposed,
            front(inner, "SANITIZE_SET") as outer,
            front(inner, "APPEND_FORWARD") as careless,
        ):
            request = pb.IssueRequest(subject="u", audiences=["orders"], confirmation=bond)
            token = plane.issue(request, timeout=SECONDS).token
            assert through(tmp_path, outer.port, "owner", token, thief) == 200
            assert through(tmp_path, outer.port, "thief", token, owner) == 401
            # A proxy that appends lets the client's own word stand: two certificates are none.
            assert through(tmp_path, careless.port, "thief", token, owner) == 401
            assert through(tmp_path, careless.port, "owner", token, owner) == 401
            # Asked directly, Envoy's default takes the header out.
            assert ask(exposed.port, "/strip/a", bearer(token), ("x-forwarded-client-cert", said(owner))).status == 401
            assert app.seen == 1
