"""The sections of the config file: every key, its kind, its default and its purpose; and what later versions will have.

The reader (`config`), the JSON Schema and the reference table in README.md are all made from these tables. Those of one subject are in the
module of that name (`sections_listen` …); the short ones are here, and all of them together.
"""

from __future__ import annotations

from sidecar.fields import Choice, Field, Flag, JsonSchema, Location, Section, Share, Text
from sidecar.kinds import PATH, PROFILE_NAME
from sidecar.policy import SERVED, Verb
from sidecar.sections_keys import KEYS, KEYS_AWS, KEYS_POSTGRESQL
from sidecar.sections_listen import ADDRESS, ADDRESS_TEXT, LISTEN, PLANES, SERVICE_ACCOUNTS, TLS
from sidecar.sections_policy import POLICY, POLICY_ISSUE, POLICY_VERB
from sidecar.sections_profiles import CLAIMS, IMPORT, PROFILE
from sidecar.sections_routes import ENVOY, FORWARD_AUTH, ROUTE, ROUTES_MOST

LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("auto", "json", "text")
AUDIT = Section(
    {
        "sink": Field(
            Text('"stdout" or "file:/absolute/path"', rf"stdout|file:{PATH}"),
            "Where decisions are put on record. stdout: the pipe took it. file: it is on the disk, chained and signed.",
            '"stdout"',
        ),
        "required": Field(Flag(), "No record, no answer: AUDIT_UNAVAILABLE.", "false"),
        "names": Field(
            Choice(("hashed", "clear")),
            "How subjects and token ids are told: as salted hashes, by which records can be joined, or themselves.",
            '"hashed"',
        ),
        "salt": Field(
            Location({"file": PATH}, '"file:/absolute/path"'),
            "Of the hashes: 64 hexadecimal digits, as `openssl rand -hex 32` makes them. Sidecars with the same one can be joined.",
            '"file:<state>/audit-salt", made there at the first start',
        ),
    }
)
LOG = Section(
    {
        "level": Field(Choice(LOG_LEVELS), "The least severe log line that is written.", '"info"'),
        "format": Field(Choice(LOG_FORMATS), "auto: text on a terminal, else json.", '"auto"'),
    }
)
TRACES = Section(
    {
        "endpoint": Field(
            Text(
                "a collector such as http://127.0.0.1:4317, or https://…",
                r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}",
            ),
            "Where spans are sent: OTLP over gRPC. Needs the extra `otel`.",
            "no traces",
        ),
        "ratio": Field(
            Share(), "The share of traces begun here that is recorded. Whoever began another has decided.", "1.0"
        ),
    }
)
TABLES: dict[str, Section] = {
    "listen": LISTEN,
    "envoy": ENVOY,
    "forward_auth": FORWARD_AUTH,
    "keys": KEYS,
    "audit": AUDIT,
    "log": LOG,
    "traces": TRACES,
}
TABLES_WITHIN: dict[str, dict[str, Section]] = {"keys": {"aws": KEYS_AWS, "postgresql": KEYS_POSTGRESQL}}
TABLES_LATER: dict[str, str] = {}
SECTIONS: dict[str, Section] = {
    "listen": LISTEN,
    "listen.app[], listen.admin[]": ADDRESS,
    "listen.app[].tls, listen.admin[].tls": TLS,
    "service_accounts": SERVICE_ACCOUNTS,
    "profiles.NAME": PROFILE,
    "profiles.NAME.claims": CLAIMS,
    "profiles.NAME.import": IMPORT,
    "keys": KEYS,
    "keys.aws": KEYS_AWS,
    "keys.postgresql": KEYS_POSTGRESQL,
    "policy.NAME": POLICY,
    "policy.NAME.issue": POLICY_ISSUE,
    "policy.NAME.VERB": POLICY_VERB,
    "routes[]": ROUTE,
    "envoy": ENVOY,
    "forward_auth": FORWARD_AUTH,
    "audit": AUDIT,
    "log": LOG,
    "traces": TRACES,
}
"""Every section, by the name that the reference table gives it."""
VARIABLES = {
    "TOKENSIDECAR_CONFIG": "the file, unless --config names one",
    "TOKENSIDECAR_LISTEN_APP": "listen.app, separated by commas",
    "TOKENSIDECAR_LISTEN_ADMIN": "listen.admin, separated by commas",
    "TOKENSIDECAR_LISTEN_HTTP": "listen.http",
    "TOKENSIDECAR_LOG_LEVEL": "log.level",
    "TOKENSIDECAR_LOG_FORMAT": "log.format",
    "TOKENSIDECAR_KEK": "keys.kek",
    "TOKENSIDECAR_RUNTIME_DIR": "the directory of sockets (<runtime>)",
    "TOKENSIDECAR_STATE_DIR": "the directory of database and key-encryption key (<state>)",
}
"""The variables that the server reads, and what each sets."""


def json_schema() -> JsonSchema:
    """JSON Schema (draft 2020-12) of the file. What needs more than one key to judge is left to `load`."""
    one: JsonSchema = {"anyOf": [ADDRESS_TEXT.schema(), ADDRESS.schema({"tls": TLS.schema()})]}
    planes: dict[str, JsonSchema] = {
        name: {"type": "array", "items": one, "description": LISTEN.fields[name].purpose} for name in PLANES
    }
    listen, profile = LISTEN.schema(planes), PROFILE.schema({"claims": CLAIMS.schema(), "import": IMPORT.schema()})
    profiles = {
        "type": "object",
        "propertyNames": {"pattern": f"^(?:{PROFILE_NAME.pattern})$"},
        "additionalProperties": profile,
    }
    verbs: dict[str, JsonSchema] = {
        verb.value: (POLICY_ISSUE if verb is Verb.ISSUE else POLICY_VERB).schema() for verb in SERVED
    }
    policies: JsonSchema = {
        "type": "object",
        "propertyNames": {"pattern": f"^(?:{PROFILE_NAME.pattern})$"},
        "additionalProperties": POLICY.schema(verbs),
    }
    tables: JsonSchema = {name: section.schema() for name, section in TABLES.items()}
    for name, within in TABLES_WITHIN.items():
        tables[name] = TABLES[name].schema({inner: section.schema() for inner, section in within.items()})
    tables |= {
        "listen": listen,
        "profiles": profiles,
        "policy": policies,
        "service_accounts": SERVICE_ACCOUNTS.schema(),
        "routes": {"type": "array", "items": ROUTE.schema(), "maxItems": ROUTES_MOST},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Token Sidecar configuration",
        "type": "object",
        "properties": tables,
        "additionalProperties": False,
    }
