"""`check --print` leaves no key out: what it prints has every key of the reference, and reads back to the same."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from sidecar.cli.check import effective
from sidecar.config import load
from sidecar.sections import SECTIONS
from tests.test_cli import FLEET, GATEWAYS, SUITES
from tests.test_config import GOOD, IDENTIFYING

if TYPE_CHECKING:
    from pathlib import Path

FURTHER = """
[keys]
store = "postgresql://tokens@db.example.com/ts"
kek = "awskms:arn:aws:kms:eu-west-1:123456789012:key/0f3d1c5e-1111-2222-3333-444455556666"
further_kek = "file:/srv/ts/kek"
settings_revision = 7
single_pod = true
[keys.aws]
region = "eu-west-1"
endpoint = "https://vpce-1.kms.eu-west-1.vpce.amazonaws.com"
[keys.postgresql]
password_file = "/run/password"
root_certificates = "/run/ca.crt"
certificate = "/run/client.crt"
certificate_key = "/run/client.key"
listen = true
[profiles.default]
issuer = "i"
audiences = ["x"]
report_only = true
refresh_ttl = "2h"
refresh_max_ttl = "3d"
[profiles.once]
issuer = "i"
audiences = ["x"]
one_time = true
[profiles.theirs]
issuer = "them"
audiences = ["x"]
format = "signed"
import = {{ signature = "{folder}/theirs.pem", signature_key_id = "k", typ = ["jwt", ""], tolerate = ["x5t"] }}
[profiles.sealed]
issuer = "them"
audiences = ["x"]
format = "nested"
encrypt = "RSA-OAEP-256"
import = {{ signature = "{folder}/theirs.pem", signature_key_id = "k", encryption = "{folder}/ours.pem", encryption_key_id = "e" }}
[audit]
sink = "file:/var/log/audit"
required = true
names = "clear"
salt = "file:/run/salt"
[traces]
endpoint = "http://127.0.0.1:4317"
ratio = 0.25
"""
OVER_HTTPS = """
[listen]
app = [{ address = "127.0.0.1:8793", service_accounts = true }]
[profiles.default]
issuer = "i"
audiences = ["x"]
[service_accounts]
issuer = "https://cluster.example.org"
audience = "tokensidecar"
keys = "https://kubernetes.default.svc/openid/v1/jwks"
keys_ca = "/ca"
keys_token = "/token"
"""
PASSFILE = """
[keys]
store = "postgresql://tokens@db.example.com/ts"
[keys.postgresql]
passfile = "/run/pgpass"
"""
SHOWN_OTHERWISE = {("profiles.NAME", "preset")}
"""A preset is shown as what it stands for."""


def every_key(tree: dict[str, Any]) -> set[tuple[str, str]]:
    """(section, key) of everything in a file, by the names of `SECTIONS`."""
    found: set[tuple[str, str]] = set()

    def walk(section: str, table: dict[str, Any]) -> None:
        for name, value in table.items():
            if name in SECTIONS[section].fields:
                found.add((section, name))
            if section == "listen" and isinstance(value, list):
                for address in value:
                    walk("listen.app[], listen.admin[]", address)
            elif name == "tls":
                walk("listen.app[].tls, listen.admin[].tls", value)
            elif (inner := f"{section}.{name}") in SECTIONS:
                walk(inner, value)
            elif section == "policy.NAME" and isinstance(value, dict):
                walk("policy.NAME.VERB", value)

    for name, value in tree.items():
        match name:
            case "profiles" | "policy":
                for one in value.values():
                    walk(f"{name}.NAME", one)
            case "routes":
                for one in value:
                    walk("routes[]", one)
            case _:
                walk(name, value)
    return found


def test_every_key_is_shown_and_reads_back(tmp_path: Path) -> None:
    theirs = ec.generate_private_key(ec.SECP256R1()).public_key()
    ours = rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "theirs.pem").write_bytes(theirs.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (tmp_path / "ours.pem").touch(0o600)
    (tmp_path / "ours.pem").write_bytes(ours)
    shown: set[tuple[str, str]] = set()
    first, again = tmp_path / "config.toml", tmp_path / "again.toml"
    for text in (GOOD, IDENTIFYING, FLEET, GATEWAYS, SUITES, FURTHER.format(folder=tmp_path), PASSFILE, OVER_HTTPS):
        first.write_text(text, encoding="utf-8")
        config = load(str(first), {})
        again.write_text(effective(config), encoding="utf-8")
        assert replace(load(str(again), {}), source=None, notes=()) == replace(config, source=None, notes=())
        shown |= every_key(tomllib.loads(again.read_text(encoding="utf-8")))
    known = {(section, name) for section, table in SECTIONS.items() for name in table.fields}
    assert known - shown == SHOWN_OTHERWISE
