"""The configuration: what is read, what is refused, and in which words."""

from __future__ import annotations

import os
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, strategies as st

from sidecar import config, directories
from sidecar.addresses import Address
from sidecar.cli.check import effective
from sidecar.config import Config, ConfigError, load
from sidecar.fields import Duration, spell
from sidecar.jose import keys
from sidecar.keyring import Role
from sidecar.profile import DEFAULT, Format
from sidecar.sections import SECTIONS, TABLES, json_schema

MUTUAL = '{ certificate = "/c", key = "/k", client_ca = "/a", trust_domain = "example.org" }'
ACCOUNTS = """
[service_accounts]
issuer = "https://cluster.example.org"
audience = "tokensidecar"
keys = "file:/keys"
"""


def listening(fields: str, address: str = "0.0.0.0:8790", *, plane: str = "app") -> str:
    """A [listen] with one address as a table."""
    return f'[listen]\n{plane} = [{{ address = "{address}", {fields} }}]\n'


GOOD = """
[listen]
app   = ["unix:/run/ts/app/app.sock", "127.0.0.1:9790", { address = "unix:/run/ts/web/web.sock", mode = 0o600, group = "mesh" }]
admin = ["unix:/run/ts/admin/admin.sock"]
http  = "127.0.0.1:9792"

[profiles.default]
issuer    = "https://tokens.example.com"
audiences = ["orders", "billing"]
format    = "nested"
sign      = "ES256"
encrypt   = "A256KW"
content   = "A256GCM"
ttl       = "10m"
max_ttl   = "2h"
leeway    = "3s"
max_token_bytes = 8192
max_staleness = "5m"

[profiles.default.claims]
allow = ["role", "tenant"]
require = ["tenant"]

[profiles.unit]
issuer = "unit"
audiences = ["a"]
format = "encrypted"

[keys]
store        = "sqlite:/srv/ts/state.db"
kek          = "file:/srv/ts/kek"
role         = "both"
rotate_every = "12h"
propagation  = "20s"
max_staleness = "10m"
max_skew = "4s"
refresh_interval = "3s"

[policy.web]
caller = "unix:web"
issue = { profiles = ["unit", "default"], audiences = ["a", "or*"], scopes = [], subjects = ["user-*"], client_ids = ["caller"], max_ttl = "90s", claims = ["role"], rate = "10/s" }
validate = { profiles = ["unit"], rate = "600/m" }

[policy.operators]
caller = "unix:admin"
rotate = { profiles = ["unit"] }

[audit]
sink     = "stdout"
required = true

[log]
level = "warning"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def read(file: Path, text: str, **env: str) -> Config:
    file.write_text(text, encoding="utf-8")
    return load(str(file), env)


def problems(file: Path, text: str, **env: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        read(file, text, **env)
    return dict(caught.value.problems)


def test_a_full_file_is_read(file: Path) -> None:
    found = read(file, GOOD)
    assert [str(address) for address in found.listen.app] == [
        "unix:/run/ts/app/app.sock",
        "127.0.0.1:9790",
        "unix:/run/ts/web/web.sock",
    ]
    assert [address.caller for address in found.listen.app] == ["unix:app", "tcp:app", "unix:web"]
    assert found.listen.app[2] == Address(
        "unix", path="/run/ts/web/web.sock", caller="unix:web", mode=0o600, group="mesh"
    )
    assert str(found.listen.http) == "127.0.0.1:9792"
    default = found.profiles["default"]
    assert (default.issuer, default.audiences, default.ttl, default.max_ttl, default.leeway) == (
        "https://tokens.example.com",
        ("orders", "billing"),
        600,
        7200,
        3,
    )
    assert (default.claims.allow, default.claims.require) == (frozenset({"role", "tenant"}), frozenset({"tenant"}))
    assert (default.rotate_every, default.propagation, default.max_staleness, default.max_skew) == (43200, 20, 300, 4)
    unit = found.profiles["unit"]
    assert (unit.format, unit.sign, unit.max_staleness) == (Format.ENCRYPTED, "", 600)
    assert (found.keys.store_path, found.keys.refresh_interval) == (Path("/srv/ts/state.db"), 3)
    assert found.keys.keks == dict.fromkeys(Role, "file:/srv/ts/kek")
    assert found.keys.kek_files() == (Path("/srv/ts/kek"),)
    assert found.audit.required
    assert found.log_level == "warning"


def test_without_a_file_the_built_in_profile_is_in_force_and_said_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(config, "SYSTEM_FILE", tmp_path / "absent.toml")
    found = load(None, {"TOKENSIDECAR_RUNTIME_DIR": "/r", "TOKENSIDECAR_STATE_DIR": "/s"})
    assert found.source is None
    assert found.profiles == {"default": DEFAULT}
    assert list(map(str, found.listen.app)) == ["unix:/r/app/app.sock", "127.0.0.1:8790"]
    assert list(map(str, found.listen.admin)) == ["unix:/r/admin/admin.sock", "127.0.0.1:8791"]
    assert (found.keys.store, found.keys.keks) == ("sqlite:/s/state.db", dict.fromkeys(Role, "file:/s/kek"))
    said = "\n".join(found.notes)
    for fact in ("embedded defaults", "admin plane listens on TCP 127.0.0.1:8791", "any audience", "no policy"):
        assert fact in said


def test_with_a_file_the_admin_plane_is_on_its_socket_alone(file: Path) -> None:
    found = read(file, "", TOKENSIDECAR_RUNTIME_DIR="/r")
    assert list(map(str, found.listen.admin)) == ["unix:/r/admin/admin.sock"]
    assert found.profiles == {"default": DEFAULT}


def test_the_argument_goes_before_the_variable_and_the_variable_before_the_system_file(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = tmp_path / "named.toml"
    named.write_text('[log]\nlevel = "error"\n', encoding="utf-8")
    system = tmp_path / "system.toml"
    system.write_text('[log]\nlevel = "debug"\n', encoding="utf-8")
    monkeypatch.setattr(config, "SYSTEM_FILE", system)
    file.write_text('[log]\nlevel = "warning"\n', encoding="utf-8")
    env = {"TOKENSIDECAR_CONFIG": str(named)}
    assert load(str(file), env).log_level == "warning"
    assert load(None, env).log_level == "error"
    assert load(None, {}).log_level == "debug"


def test_the_environment_overrides_the_file(file: Path) -> None:
    found = read(
        file,
        GOOD,
        TOKENSIDECAR_LISTEN_APP="unix:/tmp/x.sock, [::1]:1234",
        TOKENSIDECAR_LISTEN_ADMIN="localhost:1235",
        TOKENSIDECAR_LISTEN_HTTP="off",
        TOKENSIDECAR_LOG_LEVEL="debug",
        TOKENSIDECAR_KEK="file:/run/secrets/kek",
    )
    assert list(map(str, found.listen.app)) == ["unix:/tmp/x.sock", "[::1]:1234"]
    assert list(map(str, found.listen.admin)) == ["127.0.0.1:1235"]
    assert found.listen.http is None
    assert (found.log_level, set(found.keys.keks.values())) == ("debug", {"file:/run/secrets/kek"})


def test_every_problem_is_reported_at_once(file: Path) -> None:
    found = problems(
        file,
        """
        lisen = 1
        [listen]
        app = ["nonsense", { adress = "127.0.0.1:1" }]
        http = "0.0.0.0:8792"
        [profiles.a]
        issuer = "a:b c"
        format = "phantom"
        ttl = "2h"
        typo = 1
        [profiles."A B"]
        [keys]
        store = "postgresql://db/ts"
        max_skew = 3
        [audit]
        sink = "file:audit"
        required = "yes"
        [policy.web]
        caller = "unix:app"
        """,
    )
    assert set(found) == {
        "lisen",
        "listen.app[0]",
        "listen.app[1].adress",
        "listen.app[1].address",
        "listen.http",
        "profiles.a.issuer",
        "profiles.a.audiences",
        "profiles.a.format",
        "profiles.a.ttl",
        "profiles.a.typo",
        "profiles.A B",
        "keys.store",
        "keys.max_skew",
        "audit.sink",
        "audit.required",
        "policy.web",
    }
    assert "did you mean listen" in found["lisen"]
    assert "not in this version" in found["profiles.a.format"]


@pytest.mark.parametrize(
    ("text", "key", "word"),
    [
        ('[listen]\napp = ["0.0.0.0:8790"]', "listen.app", "allow_plaintext_tcp"),
        ('[listen]\nadmin = ["10.0.0.1:8791"]\nallow_plaintext_tcp = true', "listen.admin", "needs tls"),
        ('[listen]\nhttp = "[::]:8792"', "listen.http", "allow_http_beyond_loopback"),
        ('[listen]\nhttp = "unix:/x.sock"', "listen.http", "TCP address"),
        ("[listen]\napp = []", "listen.app", "at least one"),
        ('[listen]\napp = "127.0.0.1:1"', "listen.app", "list"),
        ('[listen]\napp = ["example.com:1"]', "listen.app[0]", "address"),
        ('[listen]\napp = ["127.0.0.1:0"]', "listen.app[0]", "1 to 65535"),
        ('[listen]\napp = ["unix:relative.sock"]', "listen.app[0]", "absolute"),
        (f'[listen]\napp = ["unix:/{"x" * 107}"]', "listen.app[0]", "107 bytes"),
        ('[listen]\napp = ["unix:/a/app.sock", "unix:/b/app.sock"]', "listen.app", "caller"),
        ('[listen]\napp = ["127.0.0.1:8792"]', "listen.http", "taken"),
        ('[listen]\napp = [{ address = "127.0.0.1:1", mode = 0o600 }]', "listen.app[0]", "socket's"),
        ('[listen]\napp = [{ address = "127.0.0.1:1", caller = "unix:x" }]', "listen.app[0]", "begin with tcp:"),
        ("[listen]\ntls = true", "listen.tls", "unknown"),
        (listening('tls = { certificate = "/c", key = "/k" }'), "listen.app[0].tls.client_ca", "tells callers apart"),
        (listening('tls = { certificate = "/c", key = "/k", client_ca = "/a" }'), "listen.app[0].tls.trust_domain", "dns_names"),
        (listening('tls = { certificate = "/c", key = "/k", client_ca = "/a", trust_domain = "Example.org" }'), "listen.app[0].tls.trust_domain", "SPIFFE"),
        (listening('tls = { certificate = "/c", key = "/k", client_ca = "/a", dns_names = ["*.example.org"] }'), "listen.app[0].tls.dns_names", "without a star"),
        (listening(f"tls = {MUTUAL}".replace('certificate = "/c", ', "")), "listen.app[0].tls.certificate", "required"),
        (listening(f"tls = {MUTUAL}".replace("/c", "c")), "listen.app[0].tls.certificate", "absolute"),
        (listening(f"tls = {MUTUAL}, service_accounts = true") + ACCOUNTS, "listen.app[0].tls.client_ca", "twice"),
        (listening(f'tls = {MUTUAL}, caller = "tcp:web"'), "listen.app[0].caller", "certificates"),
        (listening(f"tls = {MUTUAL}", plane="admin"), "listen.admin", "needs a [policy]"),
        (listening(f"tls = {MUTUAL}", "unix:/r/app.sock"), "listen.app[0].tls", "is for TCP"),
        (listening('guard = "x-guard"', "unix:/r/app.sock"), "listen.app[0].guard", "is for TCP"),
        (listening('guard = "authorization"', "127.0.0.1:1"), "listen.app[0].guard", "metadata key"),
        (listening('guard = "X-Guard"', "127.0.0.1:1"), "listen.app[0].guard", "metadata key"),
        (listening("service_accounts = true", "127.0.0.1:1"), "service_accounts", "required"),
        (listening("service_accounts = true") + ACCOUNTS, "listen.app", "service account tokens would cross"),
        (ACCOUNTS.replace("file:/keys", "http://host/keys"), "service_accounts.keys", "https"),
        (ACCOUNTS + 'keys_ca = "/ca"', "service_accounts.keys_ca", "https"),
        (ACCOUNTS + 'max_ttl = "5m"', "service_accounts.max_ttl", "10m"),
        ('[policy.a]\ncaller = "spiffe://example.org"\nvalidate = { profiles = ["default"] }', "policy.a.caller", "SPIFFE"),
        ('[policy.a]\ncaller = "spiffe://example.org/a/../b"\nvalidate = { profiles = ["default"] }', "policy.a.caller", "SPIFFE"),
        ('[policy.a]\ncaller = "spiffe://example.org/a*"\nvalidate = { profiles = ["default"] }', "policy.a.caller", "/*"),
        ('[policy.a]\ncaller = "k8s:*/web"\nvalidate = { profiles = ["default"] }', "policy.a.caller", "k8s:"),
        ('[keys]\nkek = "awskms:arn:x"', "keys.kek", "awskms:arn:aws:kms:REGION:ACCOUNT:key/ID"),
        ('[keys]\nkek = "awskms:arn:aws:kms:eu-west-1:123456789012:alias/mine"', "keys.kek", "alias can be moved"),
        ('[keys]\nkek = "awskms:alias/mine"', "keys.kek", "alias can be moved"),
        ('[keys]\nkek = "vault:transit/mine"', "keys.kek", "not in this version"),
        ('[keys.aws]\nendpoint = "http://kms.example"', "keys.aws.endpoint", "for loopback alone"),
        ('[keys.aws]\nendpoint = "http://127.0.0.1.example"', "keys.aws.endpoint", "for loopback alone"),
        ('[keys.aws]\nendpoint = "https://user:secret@kms.example"', "keys.aws.endpoint", "an address such as"),
        ('[keys.aws]\nregion = "Frankfurt"', "keys.aws.region", "eu-central-1"),
        ('[keys.aws]\nprofile = "x"', "keys.aws.profile", "unknown key"),
        ('[keys]\naws = "eu-west-1"', "keys.aws", "must be a table"),
        ('[keys]\nkek = { issue = "file:/a", close = "file:/b" }', "keys.kek", "issue and open"),
        ('[keys]\nkek = { issue = "awskms:arn:x" }', "keys.kek", "an alias can be moved"),
        ('[keys]\nkek = { issue = "file:/a" }', "keys.kek.open", "required"),
        ('[keys]\nkek = { issue = "file:/a" }\nrole = "validator"', "keys.kek.open", "required"),
        ("[keys]\nkek = {}", "keys.kek", "issue and open"),
        ('[keys]\nrole = "minter"', "keys.role", "validator"),
        ('[keys]\nstore = "file:rings"', "keys.store", "absolute"),
        ('[keys]\nstore = "kubernetes:tokens/rings"', "keys.store", "kubernetes://namespace/secret"),
        ('[keys]\nstore = "kubernetes://tokens"', "keys.store", "kubernetes://namespace/secret"),
        ('[keys]\nstore = "kubernetes://tokens/rings"\npropagation = "179s"', "keys.propagation", "3m"),
        ('[keys]\nstore = "sqlite:relative.db"', "keys.store", "absolute"),
        ('[keys]\nrotate_every = "40m"\npropagation = "50m"\nmax_staleness = "1h"', "keys.rotate_every", "3010s"),
        ('[keys]\nrotate_every = "40s"', "keys.rotate_every", "ring holds"),
        ('[keys]\nrefresh_interval = "30s"', "keys.refresh_interval", "propagation"),
        ('[keys]\nmax_staleness = "10s"', "keys.max_staleness", "propagation"),
        ('[keys]\nmax_skew = "31s"', "keys.max_skew", "1s to 30s"),
        ('profiles = "x"', "profiles", "table"),
        ('[profiles.a]\naudiences = ["x"]', "profiles.a.issuer", "required"),
        ('[profiles.a]\nissuer = "i"', "profiles.a.audiences", "required"),
        ('[profiles.a]\nissuer = "i"\naudiences = []', "profiles.a.audiences", "at least one"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x", "x"]', "profiles.a.audiences", "twice"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nsign = "none"', "profiles.a.sign", "ES256"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nencrypt = "RSA1_5"', "profiles.a.encrypt", "A256KW"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nleeway = "31s"', "profiles.a.leeway", "0s to 30s"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nmax_staleness = "1h"', "profiles.a.max_staleness", "15m"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nformat = "encrypted"\nsign = "ES256"', "profiles.a.sign", "symmetric"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\npublished = true\n[keys]\nrotate_every = "5m"', "keys.rotate_every", "1810s"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nclaims = { require = ["sub"] }', "profiles.a.claims.require", "registered"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nclaims = { allow = ["a"], require = ["b"] }', "profiles.a.claims.require", "allow"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nrefresh_ttl = "1h"\n[keys]\nstore = "file:/srv/rings"', "profiles.a.refresh_ttl", "remembers"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nrefresh_ttl = "1h"\none_time = true', "profiles.a.refresh_ttl", "one-time"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nrefresh_ttl = "2h"\nrefresh_max_ttl = "1h"', "profiles.a.refresh_ttl", "at most"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nrefresh_max_ttl = "1h"', "profiles.a.refresh_max_ttl", "without refresh_ttl"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\none_time = true\n[keys]\nstore = "kubernetes://a/b"', "profiles.a.one_time", "remembers"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nencrypt = "ECDH-ES"\nformat = "encrypted"', "profiles.a.encrypt", "public key"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nencrypt = "RSA-OAEP-256"\nformat = "encrypted"', "profiles.a.encrypt", "nested"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nencrypt = "dir"', "profiles.a.encrypt", "imported keys alone"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nencrypt = "A256GCMKW"', "profiles.a.encrypt", "imported keys alone"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nsign = "EdDSA"', "profiles.a.sign", "imported keys alone"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\ncurve = "P-384"', "profiles.a.curve", "P-256"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nformat = "signed"', "profiles.a.published", "must be true"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nformat = "signed"\npublished = true\nsign = "HS256"', "profiles.a.published", "no public key"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nformat = "signed"\npublished = true\nencrypt = "A256KW"', "profiles.a.encrypt", "encrypts nothing"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nformat = "signed"\npublished = true\nreport_only = true', "profiles.a.report_only", "encrypts nothing"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nformat = "encrypted"\naccept_signed_until = 2027-01-01', "profiles.a.accept_signed_until", "symmetric"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\naccept_signed_until = "2027-01-01"', "profiles.a.accept_signed_until", "without quotes"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\naccept_signed_until = 2027-01-01T00:00:00', "profiles.a.accept_signed_until", "such as"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\npreset = "idtoken"', "profiles.a.preset", "transaction-token"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nclaims = { forbid = ["a"], require = ["a"] }', "profiles.a.claims.forbid", "names too"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nclaims = { types = { a = "string" } }', "profiles.a.claims.types", "text"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nclaims = { types = { sub = "text" } }', "profiles.a.claims.types", "registered"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nclaims = { max_claims = 7 }', "profiles.a.claims.max_claims", "8 to 512"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nimport = { encryption = "/absent" }', "profiles.a.import.signature", "required"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nformat = "signed"\nimport = { signature = "/absent" }', "profiles.a.import.signature", "cannot be read"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nformat = "signed"\nimport = { signature = "/dev/null" }', "profiles.a.import.signature", "neither PEM nor JSON"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nformat = "signed"\nimport = { signature = "/absent", encryption = "/absent" }', "profiles.a.import.encryption", "not for format signed"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nformat = "signed"\nimport = { signature = "/absent", tolerate = ["crit"] }', "profiles.a.import.tolerate", "changes nothing"),
        ('[profiles.a]\nissuer = "i"\naudiences = ["x"]\nformat = "signed"\nimport = { signature = "relative" }', "profiles.a.import.signature", "absolute"),
        ('[keys]\nengine = "openssl"', "keys.engine", "jwcrypto"),
        ('[log]\nlevel = "loud"', "log.level", "debug"),
    ],
)  # fmt: skip
def test_what_is_no_good_is_refused_by_its_key(file: Path, text: str, key: str, word: str) -> None:
    found = problems(file, text)
    assert key in found
    assert word in found[key]
    assert len(found) == 1 or "/absent" in text


def test_keys_of_another_system_are_read_from_their_files(file: Path, tmp_path: Path) -> None:
    public, secret = tmp_path / "jwks.json", tmp_path / "secret.json"
    public.write_bytes(b'{"keys":[' + (keys.generate("ES256").public_bytes() or b"") + b"]}")
    secret.write_text('{"kty":"oct","kid":"theirs","k":"%s"}' % ("A" * 43), encoding="utf-8")
    secret.chmod(0o640)
    text = f"""
        [profiles.a]
        issuer = "i"
        audiences = ["x"]
        encrypt = "A256GCMKW"
        import = {{ signature = "{public}", encryption = "{secret}", typ = ["", "jwt"], tolerate = ["x5t"] }}
    """
    found = read(file, text)
    assert found.profiles == {}
    imported = found.imported["a"].imported
    assert imported is not None
    assert list(imported.encryption) == ["theirs"]
    assert len(imported.signature) == 1
    assert (imported.typs, imported.form.tolerated) == ({"", "jwt"}, {"x5t"})
    assert "A" * 43 not in repr(found)
    assert replace(found, digest="") == replace(read(file, text), digest="")
    secret.write_text('{"kty":"oct","kid":"theirs","k":"%s"}' % ("B" * 42 + "A"), encoding="utf-8")
    assert replace(found, digest="") != replace(read(file, text), digest="")
    secret.chmod(0o644)
    assert "every user of this machine" in problems(file, text)["profiles.a.import.encryption"]
    secret.write_bytes(keys.generate("RSA-OAEP-256").public_bytes() or b"")
    asymmetric = text.replace("A256GCMKW", "RSA-OAEP-256")
    assert "holds a public key" in problems(file, asymmetric)["profiles.a.import.encryption"]


def test_a_preset_gives_way_to_what_is_written(file: Path) -> None:
    profile = '[profiles.a]\nissuer = "i"\naudiences = ["x"]\npreset = "transaction-token"\n'
    found = read(file, profile).profiles["a"]
    assert (found.typ, found.ttl, found.claims.require) == ("txntoken+jwt", 60, {"txn"})
    changed = read(
        file, profile + 'ttl = "20s"\nclaims = { require = ["purp"], types = { txn = "integer" } }\n'
    ).profiles["a"]
    assert (changed.typ, changed.ttl, changed.claims.require) == ("txntoken+jwt", 20, {"txn", "purp"})
    assert (changed.claims.types["txn"], changed.claims.types["tctx"]) == ("integer", "object")


def test_a_moment_is_a_day_in_utc_or_a_time_with_its_offset(file: Path) -> None:
    for text in ("2027-01-31", "2027-01-31T00:00:00Z", "2027-01-31T01:00:00+01:00"):
        found = read(file, f'[profiles.a]\nissuer = "i"\naudiences = ["x"]\naccept_signed_until = {text}\n')
        assert found.profiles["a"].accept_signed_until == 1801353600


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TOKENSIDECAR_LISTEN_APP", "nowhere"),
        ("TOKENSIDECAR_LISTEN_HTTP", "0.0.0.0:1"),
        ("TOKENSIDECAR_LOG_LEVEL", "loud"),
        ("TOKENSIDECAR_KEK", "plain-secret"),
        ("TOKENSIDECAR_RUNTIME_DIR", "relative"),
    ],
)
def test_a_bad_variable_is_refused_by_its_name_and_not_quoted(file: Path, variable: str, value: str) -> None:
    found = problems(file, "", **{variable: value})
    assert all(key.startswith(variable) for key in found if key.startswith("TOKENSIDECAR"))
    assert any(key.startswith(variable) for key in found)
    assert "plain-secret" not in str(found)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"a = ", "TOML"),
        (b"\xff", "UTF-8"),
        (b"a = " + b"[" * 5000, "TOML"),
        (b"a = " + b"1" * 5000, "TOML"),
        (b" " * (1 << 20) + b" ", "1 MiB"),
    ],
)
def test_what_is_no_toml_is_refused(file: Path, content: bytes, word: str) -> None:
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=word):
        load(str(file), {})


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(str(tmp_path / "absent.toml"), {})


def test_looseness_is_said(file: Path) -> None:
    text = (
        '[listen]\napp = ["0.0.0.0:8790", { address = "unix:/r/app.sock", mode = 0o666 }]\nallow_plaintext_tcp = true\n'
        '[profiles.a]\nissuer = "i"\naudiences = ["x"]\nformat = "encrypted"\n'
    )
    said = "\n".join(read(file, text, KUBERNETES_SERVICE_HOST="10.0.0.1").notes)
    for fact in ("beyond loopback", "0666", "also issue", "no other pod"):
        assert fact in said
    assert "no other pod" not in "\n".join(
        read(file, text + "[keys]\nsingle_pod = true", KUBERNETES_SERVICE_HOST="10.0.0.1").notes
    )


# -- roles and stores


def test_each_role_has_the_keys_of_its_part_alone(file: Path) -> None:
    table = '[keys]\nkek = { issue = "file:/k/issue", open = "file:/k/open" }\nrole = "%s"'
    keks = {role: read(file, table % role).keys.keks for role in ("issuer", "validator", "both")}
    assert keks == {
        "issuer": {Role.ISSUE: "file:/k/issue"},
        "validator": {Role.OPEN: "file:/k/open"},
        "both": {Role.ISSUE: "file:/k/issue", Role.OPEN: "file:/k/open"},
    }
    assert read(file, '[keys]\nkek = { open = "file:/k" }\nrole = "validator"').keys.keks == {Role.OPEN: "file:/k"}


def test_keys_are_prepared_three_minutes_ahead_of_a_mounted_secret(file: Path, tmp_path: Path) -> None:
    secret = read(file, '[keys]\nstore = "kubernetes://tokens/rings"')
    assert secret.keys.secret == ("tokens", "rings")
    assert secret.profiles["default"].propagation == 180
    folder = tmp_path / "rings"
    folder.mkdir()
    text = f'[keys]\nstore = "file:{folder}"'
    assert read(file, text).profiles["default"].propagation == 30
    (folder / "..data").symlink_to("..2026_01")
    assert read(file, text).profiles["default"].propagation == 180
    assert "3m" in problems(file, text + '\npropagation = "2m"')["keys.propagation"]
    assert read(file, text + '\npropagation = "4m"').profiles["default"].propagation == 240


@pytest.mark.parametrize(
    ("store", "word"), [("file:/srv/rings", "tokensidecar keeper"), ("kubernetes://tokens/rings", "mounted")]
)
def test_a_store_that_a_keeper_writes_is_said(file: Path, store: str, word: str) -> None:
    assert word in "\n".join(read(file, f'[keys]\nstore = "{store}"').notes)


# -- schema


def _valid(text: str) -> bool:
    return jsonschema.Draft202012Validator(json_schema()).is_valid(tomllib.loads(text))


def test_the_schema_is_a_schema_and_accepts_what_the_reader_accepts() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert _valid(GOOD)
    assert _valid("")


@pytest.mark.parametrize(
    "text",
    [
        "lisen = 1",
        '[listen]\napp = ["nonsense"]',
        "[listen]\napp = [{ mode = 0o600 }]",
        '[profiles.a]\nissuer = "i"',
        '[profiles."A B"]\nissuer = "i"\naudiences = ["x"]',
        '[profiles.a]\nissuer = "i"\naudiences = ["x"]\nsign = "none"',
        '[profiles.a]\nissuer = "i"\naudiences = ["x"]\nclaims = { require = ["sub"] }',
        '[keys]\nstore = "postgresql://db"',
        "[keys]\nmax_skew = 3",
        '[audit]\nsink = "file:x"',
        '[policy.web]\nvalidate = { profiles = ["default"] }',
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(file: Path, text: str) -> None:
    assert not _valid(text)
    assert problems(file, text)


VALUES: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(
        [
            "5m",
            "127.0.0.1:80",
            "unix:/a.sock",
            "ES256",
            "nested",
            "both",
            "stdout",
            "info",
            "sqlite:/x",
            "file:/x",
            "off",
            "i",
        ]
    ),
    st.integers(-1, 70000),
    st.booleans(),
    st.text(max_size=5),
    st.lists(st.sampled_from(["x", "127.0.0.1:80", "unix:/a.sock", "iss", ""]), max_size=2),
)


@given(st.data())
def test_schema_and_reader_agree_on_every_single_value(data: st.DataObject) -> None:
    section = data.draw(st.sampled_from([s for s in SECTIONS.values() if s is not TABLES["listen"]]))
    name = data.draw(st.sampled_from(sorted(section.fields)))
    value = data.draw(VALUES)
    kind = section.fields[name].kind
    accepted = jsonschema.Draft202012Validator(kind.schema()).is_valid(value)
    try:
        kind.read(value)
    except ValueError:
        # Durations have limits that JSON Schema cannot express.
        assert not accepted or isinstance(kind, Duration)
    else:
        assert accepted


@given(st.integers(0, 10**7 - 1))
def test_a_spelled_duration_is_read_back(seconds: int) -> None:
    assert Duration(0, 10**7).read(spell(seconds)) == seconds


# -- directories


def test_the_runtime_directory_is_the_first_that_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = tmp_path / "run" / "tokensidecar"
    monkeypatch.setattr(directories, "_SYSTEM_RUNTIME", system)
    env = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert directories.runtime(env) == tmp_path / "tokensidecar"
    system.parent.mkdir()
    assert directories.runtime(env) == system
    assert directories.runtime(env | {"TOKENSIDECAR_RUNTIME_DIR": "/elsewhere"}) == Path("/elsewhere")
    system.parent.rmdir()
    assert directories.runtime({}) == Path(f"/tmp/tokensidecar-{os.getuid()}")


def test_a_runtime_directory_that_only_others_may_write_to_is_passed_over_unless_its_app_directory_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, xdg = tmp_path / "system", tmp_path / "xdg"
    monkeypatch.setattr(directories, "_SYSTEM_RUNTIME", system)
    writable = {xdg}
    monkeypatch.setattr(os, "access", lambda path, _mode: path in writable)
    (system / "app").mkdir(parents=True)
    xdg.mkdir()
    assert directories.runtime({"XDG_RUNTIME_DIR": str(xdg)}) == xdg / "tokensidecar"
    writable.add(system / "app")
    assert directories.runtime({"XDG_RUNTIME_DIR": str(xdg)}) == system


def test_the_state_directory_is_the_first_that_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "_SYSTEM_STATE", tmp_path / "absent" / "tokensidecar")
    assert directories.state({"XDG_STATE_HOME": "/x"}) == Path("/x/tokensidecar")
    assert directories.state({"HOME": "/home/u"}) == Path("/home/u/.local/state/tokensidecar")
    monkeypatch.setattr(directories, "_SYSTEM_STATE", tmp_path / "tokensidecar")
    assert directories.state({"HOME": "/home/u"}) == tmp_path / "tokensidecar"


def test_what_is_made_here_is_closed_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        directories.make_private(tmp_path / "a" / "state")
        directories.make_for_socket(tmp_path / "b" / "app")
    finally:
        os.umask(before)
    modes = {name: (tmp_path / name).stat().st_mode & 0o7777 for name in ("a", "a/state", "b", "b/app")}
    assert modes == {"a": 0o700, "a/state": 0o700, "b": 0o700, "b/app": 0o750}


def test_an_existing_directory_is_used_as_it_is_and_its_mode_is_explained(tmp_path: Path) -> None:
    open_to_all = tmp_path / "mounted"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    directories.make_private(open_to_all)
    assert open_to_all.stat().st_mode & 0o777 == 0o777
    (said,) = directories.remarks(open_to_all, "sockets")
    assert "0777" in said
    open_to_all.chmod(0o770)
    assert "group" in directories.remarks(open_to_all, "sockets")[0]
    open_to_all.chmod(0o750)
    assert directories.remarks(open_to_all, "sockets") == ()


@pytest.mark.parametrize("how", ["link", "wide", "file"])
def test_an_unsafe_fallback_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    fallback = tmp_path / "tokensidecar-0"
    monkeypatch.setattr(directories, "fallback_runtime", lambda: fallback)
    if how == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        fallback.symlink_to(tmp_path / "elsewhere")
    elif how == "wide":
        fallback.mkdir()
        fallback.chmod(0o711)
    else:
        fallback.touch()
    with pytest.raises(directories.UnsafeDirectoryError, match=str(fallback)):
        directories.make_private(fallback)


def test_a_fallback_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fallback = tmp_path / "tokensidecar-0"
    monkeypatch.setattr(directories, "fallback_runtime", lambda: fallback)
    fallback.mkdir(mode=0o700)
    directories.make_private(fallback)
    monkeypatch.setattr(os, "getuid", lambda: fallback.stat().st_uid + 1)
    with pytest.raises(directories.UnsafeDirectoryError):
        directories.make_private(fallback)


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(directories.UnsafeDirectoryError, match=r"cannot make|in the way"):
        directories.make_private(tmp_path / "file" / "state")


def test_keys_of_aws_are_read_and_printed_so_that_they_read_back(tmp_path: Path) -> None:
    arn = "arn:aws:kms:eu-west-1:123456789012:key/0f3d1c5e-1111-2222-3333-444455556666"
    text = f"""
[keys]
kek = {{ issue = "awskms:{arn}", open = "awskms:{arn[:-1]}7" }}
further_kek = "file:/srv/ts/kek"
[keys.aws]
region = "eu-west-1"
endpoint = "https://vpce-1.kms.eu-west-1.vpce.amazonaws.com"
"""
    (tmp_path / "config.toml").write_text(text)
    found = load(str(tmp_path / "config.toml"), {}).keys
    assert found.keks == {Role.ISSUE: f"awskms:{arn}", Role.OPEN: f"awskms:{arn[:-1]}7"}
    assert found.kek_files() == (Path("/srv/ts/kek"),)
    assert found.aws == {"region": "eu-west-1", "endpoint": "https://vpce-1.kms.eu-west-1.vpce.amazonaws.com"}
    (tmp_path / "again.toml").write_text(effective(load(str(tmp_path / "config.toml"), {})))
    assert load(str(tmp_path / "again.toml"), {}).keys == found


# -- who calls through a TCP address

IDENTIFYING = f"""
[listen]
app = [
  {{ address = "0.0.0.0:8790", tls = {MUTUAL}, guard = "x-tokensidecar-guard" }},
  {{ address = "[::]:8791", tls = {{ certificate = "/c", key = "/k", client_ca = "/a", dns_names = ["web.example.org"] }} }},
  {{ address = "127.0.0.1:8793", service_accounts = true }},
]
admin = [{{ address = "0.0.0.0:8794", tls = {{ certificate = "/c", key = "/k" }}, service_accounts = true }}]
{ACCOUNTS}
max_ttl = "1h"
[policy.shop]
caller = "spiffe://example.org/shop/*"
validate = {{ profiles = ["default"] }}
[policy.web]
caller = "dns:web.example.org"
validate = {{ profiles = ["default"] }}
[policy.operators]
caller = "k8s:operators/*"
rotate = {{ profiles = ["default"] }}
validate = {{ profiles = ["default"] }}
[policy.elsewhere]
caller = "spiffe://other.example.org/web"
validate = {{ profiles = ["default"] }}
"""


def test_certificates_and_service_accounts_name_callers(file: Path) -> None:
    found = read(file, IDENTIFYING)
    assert [(address.identified.value, address.caller, address.guard) for address in found.listen.app] == [
        ("certificate", "", "x-tokensidecar-guard"),
        ("certificate", "", ""),
        ("service_account", "", ""),
    ]
    said = "\n".join(found.notes)
    assert "policy.elsewhere.caller: no address of [listen] has the caller spiffe://other.example.org/web" in said
    assert "0.0.0.0:8790, app plane: callers are named by their certificates, spiffe://example.org/…" in said
    assert "[::]:8791, app plane: callers are named by their certificates, dns:web.example.org" in said
    assert "0.0.0.0:8794, admin plane: callers are named by their service account tokens, k8s:…" in said
    assert "beyond loopback" not in said
    assert "policy.operators" not in said
    again = file.with_name("again.toml")
    again.write_text(effective(found), encoding="utf-8")
    assert replace(load(str(again), {}), source=None, notes=()) == replace(found, source=None, notes=())


def test_a_verb_that_is_not_served_where_a_caller_can_be_is_refused(file: Path) -> None:
    text = IDENTIFYING + '[policy.x]\ncaller = "dns:web.example.org"\nrotate = { profiles = ["default"] }\n'
    assert "admin plane alone" in problems(file, text)["policy.x.rotate"]


def test_an_address_whose_callers_no_policy_names_is_told(file: Path) -> None:
    text = IDENTIFYING.replace('"dns:web.example.org"', '"spiffe://example.org/web"')
    assert "no policy names anybody of [::]:8791: whoever calls there may do nothing" in read(file, text).notes
