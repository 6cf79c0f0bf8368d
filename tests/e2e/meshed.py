"""A sidecar with TLS addresses, its certificates, and clients with certificates of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from tests.authority import LOCAL, Authority, Pair, uri
from tests.e2e.calls import Plane
from tests.running import RunningSidecar, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

DOMAIN = "example.org"
PROFILES = """
[profiles.default]
issuer = "urn:test"
audiences = ["orders", "billing"]

[profiles.second]
issuer = "urn:second"
audiences = ["orders"]
"""
POLICY = f"""
[policy.web]
caller = "spiffe://{DOMAIN}/web"
issue = {{ profiles = ["default"], subjects = ["caller", "user-*"], client_ids = ["caller"] }}
validate = {{ profiles = ["default"] }}

[policy.shop]
caller = "spiffe://{DOMAIN}/shop/*"
issue = {{ profiles = ["second"], rate = "20/h" }}
validate = {{ profiles = ["second"] }}

[policy.dns]
caller = "dns:batch.example.org"
validate = {{ profiles = ["default"] }}

[policy.operators]
caller = "spiffe://{DOMAIN}/operator"
rotate = {{ profiles = ["default"] }}
list_keys = {{ profiles = ["default"] }}
"""


class Secured:
    """A sidecar that serves both planes with mutual TLS, beside its Unix socket."""

    def __init__(self) -> None:
        self.running = RunningSidecar("", {"TOKENSIDECAR_LISTEN_APP": None, "TOKENSIDECAR_LISTEN_ADMIN": None})
        self.folder = self.running.directory
        self.authority = Authority()
        self.app, self.admin = free_port(), free_port()
        self.tls = self.folder / "tls"
        self.write(self.authority.issue(*LOCAL))
        (self.folder / "config.toml").write_text(self.config() + PROFILES, encoding="utf-8")

    @property
    def files(self) -> str:
        """The server's own, as TOML."""
        return f'certificate = "{self.tls}/server.crt", key = "{self.tls}/server.key"'

    def config(self) -> str:
        """The config file, but for its profiles."""
        tls = (
            f'{{ {self.files}, client_ca = "{self.tls}/ca.crt", trust_domain = "{DOMAIN}", '
            'dns_names = ["batch.example.org", "jobs.example.org"] }'
        )
        return f"""
[listen]
app = ["{self.running.app_socket}", {{ address = "127.0.0.1:{self.app}", tls = {tls} }}]
admin = [{{ address = "127.0.0.1:{self.admin}", tls = {tls} }}]
{POLICY}
"""

    def write(self, server: Pair, ca: bytes | None = None, folder: Path | None = None) -> None:
        """The server's files."""
        folder = folder or self.tls
        server.write(folder, "server")
        (folder / "ca.crt").write_bytes(self.authority.certificate if ca is None else ca)

    def client(self, pair: Pair | None, *, roots: bytes | None = None, plane: str = "app") -> Plane:
        """A client with this certificate."""
        return Plane(f"localhost:{self.app if plane == 'app' else self.admin}", self.credentials(pair, roots))

    def credentials(self, pair: Pair | None, roots: bytes | None = None) -> grpc.ChannelCredentials:
        """What it connects with; it trusts the authority, or those roots."""
        shown = (pair.key, pair.certificate) if pair else (None, None)
        return grpc.ssl_channel_credentials(roots or self.authority.certificate, *shown)

    def named(self, path: str, **changes: Any) -> Pair:
        """A certificate with a SPIFFE ID of the trust domain."""
        return self.authority.issue(uri(f"spiffe://{DOMAIN}{path}"), **changes)

    def records(self) -> Sequence[dict[str, object]]:
        """The audit so far."""
        return [json.loads(line) for line in self.running.stdout().splitlines()]

    def events(self, name: str) -> list[dict[str, Any]]:
        """Lines of the log."""
        lines = [json.loads(line) for line in self.running.stderr().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]
