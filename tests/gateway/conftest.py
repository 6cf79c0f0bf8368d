"""One sidecar with routes, one app and one Envoy between, shared by all tests that change nothing another one relies on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tokensidecar.v1 import token_service_pb2 as pb

from tests.e2e.calls import Plane
from tests.gateway.app import App
from tests.gateway.envoys import RunningEnvoy, Tree
from tests.running import RunningSidecar, free_port

ORIGIN = "https://orders.example"
PROFILES = """
[profiles.default]
issuer = "https://tokens.example"
audiences = ["orders", "billing"]

[profiles.inside]
issuer = "https://inside.example"
audiences = ["orders"]
format = "signed"
published = true
ttl = "60s"
claims = { allow = ["tenant"] }
"""
ROUTES = """
[[routes]]
name = "public"
paths = ["/public/*"]
open = true

[[routes]]
name = "strip"
paths = ["/strip/*"]
audiences = ["orders"]

[[routes]]
name = "claims"
paths = ["/claims/*", "/v1/*", "/echo.Echo/*"]
audiences = ["orders"]
upstream = "claims"
claims = { x-user = "sub", x-tenant = "tenant", x-roles = "roles", x-all = "*", x-limits = "limits", x-vip = "vip" }

[[routes]]
name = "phantom"
paths = ["/phantom/*"]
audiences = ["orders"]
upstream = "phantom"
phantom = "inside"

[[routes]]
name = "pass"
paths = ["/pass/*"]
audiences = ["orders"]
upstream = "pass"

[[routes]]
name = "admin"
paths = ["/admin/*"]
audiences = ["orders"]
scopes = ["orders.admin"]

[[routes]]
name = "cookie"
paths = ["/cookie/*"]
audiences = ["orders"]
token = ["cookie:session"]

[[routes]]
name = "header"
paths = ["/header/*"]
audiences = ["orders"]
token = ["bearer", "header:x-api-token"]

[[routes]]
name = "dpop"
paths = ["/dpop/*"]
audiences = ["orders"]
token = ["dpop"]
origin = "https://orders.example"

[[routes]]
name = "nonce"
paths = ["/nonce/*"]
audiences = ["orders"]
token = ["dpop"]
origin = "https://orders.example"
dpop_nonce = true

[[routes]]
name = "read"
paths = ["/methods"]
methods = ["GET"]
audiences = ["orders"]

[[routes]]
name = "host"
hosts = ["*.tenants.example", "one.example"]
audiences = ["orders"]

[[routes]]
name = "context"
paths = ["/context"]
extensions = { app = "orders" }
audiences = ["orders"]

[[routes]]
name = "other-context"
paths = ["/context-of-another"]
extensions = { app = "billing" }
open = true
"""
FILLED = ("x-user", "x-tenant", "x-roles", "x-all", "x-limits", "x-vip")
CLAIMS = '{"tenant": "t-1", "roles": ["a,b", "Zoë"], "limits": {"n": 1}, "vip": true}'


@dataclass(frozen=True)
class Stack:
    """What a request passes."""

    sidecar: RunningSidecar
    app: App
    envoy: RunningEnvoy
    plane: Plane
    socket: str
    forward_auth: int

    def token(self, **fields: object) -> str:
        """A good token with `CLAIMS`."""
        request = pb.IssueRequest(subject="user-42", audiences=["orders"], claims_json=CLAIMS, **fields)
        return str(self.plane.issue(request, timeout=20).token)


def config(socket: str, forward_auth: int, further: str = "") -> str:
    """A sidecar that gateways ask."""
    listen = f'[listen]\nenvoy = ["{socket}"]\nforward_auth = ["127.0.0.1:{forward_auth}"]\n'
    return listen + further + PROFILES + ROUTES


def mutations(tree: Tree) -> None:
    """Takes out early what this sidecar's routes fill."""
    early = RunningEnvoy.manager(tree)["early_header_mutation_extensions"][0]["typed_config"]
    early["mutations"] = [{"remove": name} for name in FILLED]


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """All of it."""
    with tempfile.TemporaryDirectory(prefix="ts-", dir="/tmp") as folder:
        socket, forward_auth = f"unix:{Path(folder)}/envoy.sock", free_port()
        with (
            RunningSidecar(config(socket, forward_auth)) as sidecar,
            App() as app,
            RunningEnvoy(socket, app.port, app.grpc_port, mutations) as envoy,
            Plane(sidecar.app_socket) as plane,
        ):
            yield Stack(sidecar, app, envoy, plane, socket, forward_auth)
