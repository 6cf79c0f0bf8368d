"""`tokensidecar check`: every problem of a configuration with its key, or what it amounts to."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING

from sidecar.addresses import Address
from sidecar.cli import routes, screen
from sidecar.cli.exits import Code
from sidecar.config import Config, ConfigError, load
from sidecar.database import Database
from sidecar.fields import spell
from sidecar.findings_host import certificate_notes, directory_notes
from sidecar.jose.suites import KEY_MANAGEMENT
from sidecar.profile import Format
from sidecar.sections import json_schema
from sidecar.sections_listen import HTTP_OFF

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from sidecar.config import ServiceAccounts
    from sidecar.keyring import Role
    from sidecar.policy import Rule
    from sidecar.profile import Profile


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="default: what `serve` would read")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--print", action="store_true", dest="effective", help="print the effective configuration, as TOML"
    )
    what.add_argument("--schema", action="store_true", help="print the JSON Schema of the file")
    what.add_argument("--json", action="store_true", help="print problems and notes as one JSON document")


def run(args: argparse.Namespace) -> int:
    """Check; 2 if there are problems."""
    if args.schema:
        screen.write_json(json_schema())
        return Code.OK
    try:
        config = load(args.config, os.environ)
    except ConfigError as error:
        _tell_problems(error, as_json=args.json)
        return Code.USAGE
    if args.effective:
        print(effective(config), end="")
        return Code.OK
    notes = [*config.notes, *directory_notes(config), *certificate_notes(config, time.time())]
    if args.json:
        screen.write_json({"source": config.source, "problems": [], "notes": notes})
        return Code.OK
    from rich.text import Text

    out = screen.console()
    out.print(Text("good", style="bold green"), config.source or "(the embedded defaults)", soft_wrap=True)
    for note in notes:
        out.print(Text(f"  note: {screen.clean(note)}"), soft_wrap=not screen.is_terminal())
    return Code.OK


def _tell_problems(error: ConfigError, *, as_json: bool) -> None:
    if as_json:
        problems = [{"key": key, "problem": problem} for key, problem in error.problems]
        screen.write_json({"source": error.source, "problems": problems, "notes": []})
        return
    from rich.text import Text

    out = screen.console()
    count = len(error.problems)
    out.print(Text(f"{count} problem{'s' if count != 1 else ''}", style="bold red"), "in", error.source, soft_wrap=True)
    for key, problem in error.problems:
        out.print(
            Text.assemble("  ", (screen.clean(key), "bold"), f": {screen.clean(problem)}"),
            soft_wrap=not screen.is_terminal(),
        )


def effective(config: Config) -> str:
    """The configuration as a file that reads back to the same, with every default spelled out."""
    listen, keys = config.listen, config.keys
    profiles = [*config.profiles.values(), *config.imported.values()]
    first = profiles[0]
    staleness = max(profile.max_staleness for profile in profiles)
    lines = [
        f"# {config.source or 'the embedded defaults'}, with the environment; runtime {config.runtime_dir}, state {config.state_dir}",
        "[listen]",
        f"app = [{', '.join(map(_address, listen.app))}]",
        f"admin = [{', '.join(map(_address, listen.admin))}]",
        f"http = {_toml(str(listen.http) if listen.http else HTTP_OFF)}",
        *([f"envoy = [{', '.join(map(_address, listen.envoy))}]"] if listen.envoy else []),
        *([f"forward_auth = [{', '.join(map(_address, listen.forward_auth))}]"] if listen.forward_auth else []),
        f"allow_http_beyond_loopback = {_toml(listen.allow_http_beyond_loopback)}",
        f"allow_plaintext_tcp = {_toml(listen.allow_plaintext_tcp)}",
    ]
    for profile in profiles:
        lines += _profile(profile)
    lines += [
        "",
        "[keys]",
        f"store = {_toml(keys.store)}",
        f"kek = {_locations(keys.keks)}",
        *([f"further_kek = {_locations(keys.further_keks)}"] if keys.further_keks else []),
        f"role = {_toml(keys.role)}",
        *([f"service_account = {_toml(str(keys.service_account))}"] if keys.scheme == "kubernetes" else []),
        f"engine = {_toml(keys.engine)}",
        f"single_pod = {_toml(keys.single_pod)}",
        f'rotate_every = "{spell(first.rotate_every)}"',
        f'propagation = "{spell(first.propagation)}"',
        f'max_staleness = "{spell(staleness)}"',
        f'max_skew = "{spell(first.max_skew)}"',
        f'refresh_interval = "{spell(keys.refresh_interval)}"',
        f"settings_revision = {first.settings_revision}",
        *(["", "[keys.aws]", *(f"{name} = {_toml(value)}" for name, value in keys.aws.items())] if keys.aws else []),
        *_service_accounts(config.service_accounts),
        *_database(keys.database),
        *_policy(config.policy),
        *routes.lines(config, _toml),
        "",
        "[audit]",
        f"sink = {_toml(config.audit.sink)}",
        f"required = {_toml(config.audit.required)}",
        f"names = {_toml(config.audit.names)}",
        *([f"salt = {_toml(config.audit.salt)}"] if config.audit.salt else []),
        "",
        "[log]",
        f"level = {_toml(config.log_level)}",
        f"format = {_toml(config.log_format)}",
        *(
            ["", "[traces]", f"endpoint = {_toml(config.traces.endpoint)}", f"ratio = {config.traces.ratio}"]
            if config.traces.endpoint
            else []
        ),
    ]
    return "\n".join(lines) + "\n"


def _encryption(profile: Profile) -> list[str]:
    if profile.format is Format.SIGNED:
        return []
    lines = [f"encrypt = {_toml(profile.encrypt)}", f"content = {_toml(profile.content)}"]
    return [*lines, f"curve = {_toml(profile.curve)}"] if KEY_MANAGEMENT[profile.encrypt].agrees else lines


def _migration(profile: Profile) -> list[str]:
    if profile.format is not Format.NESTED or profile.imported:
        return []
    lines = [f"report_only = {_toml(profile.report_only)}"]
    if profile.accept_signed_until is not None:
        lines.append(f"accept_signed_until = {datetime.fromtimestamp(profile.accept_signed_until, UTC).isoformat()}")
    return lines


def _profile(profile: Profile) -> list[str]:
    lines = [
        "",
        f"[profiles.{profile.name}]",
        f"issuer = {_toml(profile.issuer)}",
        f"audiences = {_toml(profile.audiences)}",
        f"format = {_toml(profile.format.value)}",
        *([f"sign = {_toml(profile.sign)}"] if profile.format is not Format.ENCRYPTED else []),
        *_encryption(profile),
        f"typ = {_toml(profile.typ)}",
        *([] if profile.imported else [f'ttl = "{spell(profile.ttl)}"']),
        f'max_ttl = "{spell(profile.max_ttl)}"',
        f'leeway = "{spell(profile.leeway)}"',
        f"max_token_bytes = {profile.max_token_bytes}",
        f"audit_validations = {_toml(profile.audit_validations)}",
        f'proof_age = "{spell(profile.proof_age)}"',
        f"proof_replay = {_toml(profile.proof_replay)}",
        f'max_staleness = "{spell(profile.max_staleness)}"',
        *([] if profile.imported else [f"one_time = {_toml(profile.one_time)}"]),
        *([f'refresh_ttl = "{spell(profile.refresh_ttl)}"'] if profile.refresh_ttl else []),
        *([f'refresh_max_ttl = "{spell(profile.refresh_max_ttl)}"'] if profile.refresh_ttl else []),
        *([] if profile.imported else [f"published = {_toml(profile.published)}"]),
        *_migration(profile),
    ]
    rules = []
    if profile.claims.allow is not None:
        rules.append(f"allow = {_toml(sorted(profile.claims.allow))}")
    if profile.claims.require:
        rules.append(f"require = {_toml(sorted(profile.claims.require))}")
    if profile.claims.forbid:
        rules.append(f"forbid = {_toml(sorted(profile.claims.forbid))}")
    if profile.claims.types:
        named = ", ".join(f"{_toml(name)} = {_toml(word)}" for name, word in profile.claims.types.items())
        rules.append(f"types = {{ {named} }}")
    if profile.claims.max_claims is not None:
        rules.append(f"max_claims = {profile.claims.max_claims}")
    lines += ["", f"[profiles.{profile.name}.claims]", *rules] if rules else []
    if imported := profile.imported:
        lines += ["", f"[profiles.{profile.name}.import]", *(f"{n} = {_toml(v)}" for n, v in imported.files.items())]
        lines += [f"typ = {_toml(sorted(imported.typs))}", f"tolerate = {_toml(sorted(imported.form.tolerated))}"]
    if profile.audiences:
        return lines
    return [
        "",
        "# Built in, with any audience that a caller names; a profile of a file must name its own:",
        *(f"# {line}" for line in lines[1:]),
    ]


def _database(database: Database | None) -> list[str]:
    if database is None:
        return []
    files = ("password_file", "passfile", "root_certificates", "certificate", "certificate_key")
    named = {name: getattr(database, name) for name in files}
    return [
        "",
        "[keys.postgresql]",
        *(f"{name} = {_toml(str(path))}" for name, path in named.items() if path is not None),
        f"allow_plaintext = {_toml(database.allow_plaintext)}",
        f"listen = {_toml(database.listen)}",
    ]


def _policy(rules: Sequence[Rule]) -> list[str]:
    lines: list[str] = []
    for table, group in groupby(rules, key=lambda rule: rule.key.rpartition(".")[0]):
        of_caller = list(group)
        lines += ["", f"[{table}]", f"caller = {_toml(of_caller[0].caller)}"]
        for rule in of_caller:
            limits = {name: getattr(rule, name) for name in ("audiences", "scopes", "subjects", "client_ids")}
            parts = [f"profiles = {_toml(sorted(rule.profiles))}"]
            parts += [f"{name} = {_toml(names.texts)}" for name, names in limits.items() if names is not None]
            parts += [f'max_ttl = "{spell(rule.max_ttl)}"'] if rule.max_ttl is not None else []
            parts += [f"claims = {_toml(sorted(rule.claims))}"] if rule.claims is not None else []
            parts += [f'rate = "{rule.rate}"'] if rule.rate else []
            lines.append(f"{rule.verb.value} = {{ {', '.join(parts)} }}")
    return lines


def _address(address: Address) -> str:
    parts = [f"address = {_toml(str(address))}"]
    if address.kind == "unix":
        parts.append(f"mode = 0o{address.mode:03o}")
    if address.group:
        parts.append(f"group = {_toml(address.group)}")
    if address.caller:
        parts.append(f"caller = {_toml(address.caller)}")
    if address.service_accounts:
        parts.append("service_accounts = true")
    if address.guard:
        parts.append(f"guard = {_toml(address.guard)}")
    if tls := address.tls:
        given = {name: getattr(tls, name) for name in ("certificate", "key", "client_ca", "trust_domain", "dns_names")}
        told = [f"{n} = {_toml(v if isinstance(v, tuple) else str(v))}" for n, v in given.items() if v]
        parts.append(f"tls = {{ {', '.join(told)} }}")
    return f"{{ {', '.join(parts)} }}"


def _service_accounts(accounts: ServiceAccounts | None) -> list[str]:
    if accounts is None:
        return []
    given = {name: getattr(accounts, name) for name in ("issuer", "audience", "keys", "keys_ca", "keys_token")}
    lines = ["", "[service_accounts]", *(f"{name} = {_toml(value)}" for name, value in given.items() if value)]
    return [*lines, f'max_ttl = "{spell(accounts.max_ttl)}"']


def _locations(keks: Mapping[Role, str]) -> str:
    """One text where one key serves every role of this process."""
    if len(set(keks.values())) == 1:  # also where there is one role
        return _toml(next(iter(keks.values())))
    return f"{{ {', '.join(f'{role.value} = {_toml(kek)}' for role, kek in keks.items())} }}"


def _toml(value: object) -> str:
    """JSON's texts, lists and flags are TOML's too, as long as nothing beyond the basic plane is escaped as two surrogates."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False).replace("\x7f", "\\u007f")
