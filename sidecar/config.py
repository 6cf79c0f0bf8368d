"""The configuration: one frozen tree, read from one TOML file and a few variables, every problem reported at once.

The file is the first of `--config`, TOKENSIDECAR_CONFIG and /etc/tokensidecar/config.toml; without any, the embedded default holds. An
unknown key is an error, and so is a key of a feature that this version lacks: nothing is ignored. Secrets are never in the file.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sidecar import addresses, database, directories, routing, rules
from sidecar.addresses import Listen
from sidecar.database import Database
from sidecar.duties import DOCUMENT as DUTIES
from sidecar.fields import Choice, Kind, Section, spell
from sidecar.gate import foreign
from sidecar.jose import imported as imported_keys
from sidecar.jose.imported import Imported
from sidecar.jose.keys import PREPARED
from sidecar.jose.suites import KEY_MANAGEMENT, SIGNATURES
from sidecar.keyring import Role
from sidecar.kinds import PROFILE_NAME
from sidecar.policy import Rule
from sidecar.ports import REVOCATIONS
from sidecar.profile import DEFAULT, ClaimRules, Format, Profile, refreshing
from sidecar.routes import Route, Spoken
from sidecar.sections import LOG_FORMATS, LOG_LEVELS, TABLES, TABLES_LATER, TABLES_WITHIN
from sidecar.sections_keys import KEYS, LEDGERS, MOUNT_SECONDS, ROLES
from sidecar.sections_listen import LISTEN, PLANES, SERVICE_ACCOUNTS
from sidecar.sections_profiles import CLAIMS, IMPORT, PRESETS, PROFILE, PUBLISH_AHEAD, Preset

SYSTEM_FILE = Path("/etc/tokensidecar/config.toml")
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
KEYS_AT_ONCE = 100
REFRESH_MAX_TTL = 30 * 86400  # seconds
_MORE_FILE_BYTES_THAN_ANYONE_NEEDS = 1 << 20


@dataclass(frozen=True, slots=True)
class Keys:
    """Where rings are kept, what seals them, and what this process does with them. `refresh_interval` is in seconds.

    `keks`: the key-encryption key of each role that this process has. `mounted`: readers see the store as the kubelet's mount of a Secret.
    `aws`: region and endpoint of AWS KMS, where they are not the key's own. `database`: of store postgresql.
    """

    store: str
    keks: Mapping[Role, str]
    role: str = "both"
    single_pod: bool = False
    refresh_interval: int = 5
    mounted: bool = False
    in_cluster: bool = False
    service_account: Path = SERVICE_ACCOUNT
    further_keks: Mapping[Role, str] = field(default_factory=dict)
    engine: str = PREPARED
    aws: Mapping[str, str] = field(default_factory=dict)
    database: Database | None = None

    @property
    def scheme(self) -> str:
        """The kind of store: sqlite, file, kubernetes or postgresql."""
        return self.store.partition(":")[0]

    @property
    def store_path(self) -> Path:
        """The database file, or the folder."""
        return Path(self.store.partition(":")[2])

    @property
    def secret(self) -> tuple[str, str]:
        """Namespace and name of the Secret."""
        namespace, _, name = self.store.removeprefix("kubernetes://").partition("/")
        return namespace, name

    @property
    def awaits_keeper(self) -> bool:
        """Whether a sidecar that only reads waits at its start until a keeper has written: others share the store."""
        return self.scheme in ("file", "postgresql")

    @property
    def private(self) -> bool:
        """Whether no other machine, or pod, can read the store."""
        return self.scheme == "sqlite"

    def kek_files(self) -> tuple[Path, ...]:
        """The files of the key-encryption keys that are files, further ones included, each once."""
        named = dict.fromkeys((*self.keks.values(), *self.further_keks.values()))
        return tuple(Path(kek.removeprefix("file:")) for kek in named if kek.startswith("file:"))


@dataclass(frozen=True, slots=True)
class Audit:
    """Where decisions are put on record, whether an answer may go out without its record, and how subjects and token ids are told.

    `salt`: of their hashes; empty: this state directory's own.
    """

    sink: str = "stdout"
    required: bool = False
    names: str = "hashed"
    salt: str = ""

    @property
    def file(self) -> Path | None:
        """The file of records; None: standard output."""
        return Path(self.sink.removeprefix("file:")) if self.sink.startswith("file:") else None

    @property
    def salt_file(self) -> Path | None:
        """The file of the salt; None: the state directory's."""
        return Path(self.salt.removeprefix("file:")) if self.salt else None


@dataclass(frozen=True, slots=True)
class Traces:
    """Where spans go (empty: nowhere, and there are none), and how many of those begun here."""

    endpoint: str = ""
    ratio: float = 1.0


@dataclass(frozen=True, slots=True)
class ServiceAccounts:
    """Whose tokens name callers, and where the keys for them are. `max_ttl` in seconds."""

    issuer: str
    audience: str
    keys: str
    keys_ca: str | None = None
    keys_token: str | None = None
    max_ttl: int = 86400


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that a server is built from. `source` None: no file; `notes` are what serve says at its start, a sentence each.

    `imported`: the profiles of other systems' tokens, which have no ring and only validate; `profiles` are the others. `policy` empty: the
    planes decide. `routes`: what gateways may let through. `digest`: SHA-256 of the file, in hexadecimal; empty: no file.
    """

    source: str | None
    listen: Listen
    profiles: Mapping[str, Profile]
    keys: Keys
    audit: Audit
    log_level: str
    log_format: str
    runtime_dir: Path
    state_dir: Path
    notes: tuple[str, ...] = ()
    policy: tuple[Rule, ...] = ()
    service_accounts: ServiceAccounts | None = None
    imported: Mapping[str, Profile] = field(default_factory=dict)
    routes: tuple[Route, ...] = ()
    envoy_certificate: str = "peer"
    forward_auth: Spoken = field(default_factory=Spoken)
    digest: str = field(default="", compare=False)
    traces: Traces = Traces()

    @property
    def rings(self) -> dict[str, Profile]:
        """What has keys of ours: each profile, and its refresh tokens where it has them."""
        refreshed = (refreshing(profile) for profile in self.profiles.values() if profile.refresh_ttl)
        return {**self.profiles, **{profile.name: profile for profile in refreshed}}


class ConfigError(Exception):
    """The configuration is no good. `problems`: (key as in the file, or the variable; a sentence), all that were found."""

    def __init__(self, source: str, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{key}: {problem}" for key, problem in problems))
        self.source = source
        self.problems = problems


def load(path: str | None, env: Mapping[str, str]) -> Config:
    """The effective configuration.

    Args:
        path: what `--config` named; None: not given.
        env: the environment.

    Raises:
        ConfigError: with every problem that was found.
    """
    source = path or env.get("TOKENSIDECAR_CONFIG") or (str(SYSTEM_FILE) if SYSTEM_FILE.exists() else None)
    tree, digest = ({}, "") if source is None else _parsed(source)
    return replace(_Reader(env).config(source, tree), digest=digest)


def _parsed(source: str) -> tuple[dict[str, Any], str]:
    try:
        data = Path(source).read_bytes()
        if len(data) > _MORE_FILE_BYTES_THAN_ANYONE_NEEDS:
            raise ConfigError(source, [(source, "is larger than 1 MiB")])
        return tomllib.loads(data.decode()), hashlib.sha256(data).hexdigest()
    except OSError as error:
        raise ConfigError(source, [(source, f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError(source, [(source, f"is not UTF-8 at byte {error.start}")]) from error
    except (ValueError, RecursionError) as error:  # the former also of a number with too many digits
        raise ConfigError(source, [(source, f"is not TOML: {error}")]) from error


class _Reader:
    """One reading of one file; gathers problems and notes."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._problems: list[tuple[str, str]] = []
        self._notes: list[str] = []

    def config(self, source: str | None, tree: dict[str, Any]) -> Config:
        runtime_dir, state_dir = directories.runtime(self._env), directories.state(self._env)
        for key, directory in (("TOKENSIDECAR_RUNTIME_DIR", runtime_dir), ("TOKENSIDECAR_STATE_DIR", state_dir)):
            if not directory.is_absolute():
                self._problem(key, "must be an absolute path")
        if source is None:
            self._notes.append("no config file: the embedded defaults are in force")
        self._names("", tree, (*TABLES, "profiles", "policy", "routes", "service_accounts"), TABLES_LATER)
        tables = {
            name: self._table(name, tree.get(name, {}), section, further=tuple(TABLES_WITHIN.get(name, ())))
            for name, section in TABLES.items()
        }
        listen = addresses.read(
            tables["listen"],
            self._env,
            runtime_dir,
            embedded=source is None,
            table=self._table,
            problem=self._problem,
            note=self._notes.append,
        )
        keys = self._keys(tables["keys"], state_dir, self._within("keys", tree))
        profiles = self._profiles(tree.get("profiles", {}), tables["keys"], keys.store)
        level = self._from_env("TOKENSIDECAR_LOG_LEVEL", Choice(LOG_LEVELS), tables["log"].get("level", "info"))
        log_format = self._from_env("TOKENSIDECAR_LOG_FORMAT", Choice(LOG_FORMATS), tables["log"].get("format", "auto"))
        policy = rules.read(
            tree.get("policy", {}), profiles, listen, table=self._table, problem=self._problem, note=self._notes.append
        )
        accounts = self._service_accounts(tree.get("service_accounts"), listen)
        routes = routing.read(
            tree.get("routes", []),
            profiles,
            asked=bool(listen.envoy or listen.forward_auth),
            table=self._table,
            problem=self._problem,
            note=self._notes.append,
        )
        if tables["audit"].get("names") == "clear":
            self._notes.append("audit.names is clear: subjects and token ids stand readable in the audit log")
        if self._problems:
            raise ConfigError(source or "the environment", self._problems)
        return Config(
            source=source,
            listen=listen,
            profiles={name: profile for name, profile in profiles.items() if profile.imported is None},
            imported={name: profile for name, profile in profiles.items() if profile.imported is not None},
            keys=keys,
            audit=Audit(**tables["audit"]),
            traces=Traces(**tables["traces"]),
            log_level=level,
            log_format=log_format,
            runtime_dir=runtime_dir,
            state_dir=state_dir,
            notes=tuple(self._notes),
            policy=policy,
            service_accounts=accounts,
            routes=routes,
            envoy_certificate=tables["envoy"].get("certificate", "peer"),
            forward_auth=Spoken(
                tables["forward_auth"].get("request", "x-original"), tables["forward_auth"].get("certificate", "")
            ),
        )

    def _problem(self, key: str, sentence: str) -> None:
        if (key, sentence) not in self._problems:
            self._problems.append((key, sentence))

    def _names(self, at: str, found: Mapping[str, object], known: Iterable[str], later: Mapping[str, str]) -> None:
        for name in found:
            if name in known:
                continue
            key = f"{at}.{name}" if at else name
            if name in later:
                self._problem(key, f"{later[name]}: not in this version")
                continue
            near = difflib.get_close_matches(name, list(known), n=1)
            self._problem(key, f"unknown key{f'; did you mean {near[0]}?' if near else ''}")

    def _table(self, at: str, found: object, section: Section, *, further: tuple[str, ...] = ()) -> dict[str, Any]:
        """The values that the table gives, read; what cannot be read is a problem and left out. `further`: keys read elsewhere."""
        if not isinstance(found, dict):
            self._problem(at, "must be a table")
            return {}
        self._names(at, found, (*section.fields, *further), section.later)
        values = {}
        for name, each in section.fields.items():
            if name not in found:
                if each.required:
                    self._problem(f"{at}.{name}", f"is required: {each.purpose}")
                continue
            if section is LISTEN and name in PLANES:
                values[name] = found[name]  # a string or a table each: read by `addresses`
                continue
            try:
                values[name] = each.kind.read(found[name])
            except ValueError as error:
                self._problem(f"{at}.{name}", str(error))
        return values

    def _within(self, name: str, tree: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """The tables inside a table, read."""
        table = tree.get(name, {})
        found = table if isinstance(table, dict) else {}
        return {
            inner: self._table(f"{name}.{inner}", found.get(inner, {}), section)
            for inner, section in TABLES_WITHIN[name].items()
        }

    def _from_env(self, variable: str, kind: Kind, otherwise: Any) -> Any:
        given = self._env.get(variable)
        if not given:
            return otherwise
        try:
            return kind.read(given)
        except ValueError as error:
            self._problem(variable, str(error))
            return otherwise

    def _service_accounts(self, found: object, listen: Listen) -> ServiceAccounts | None:
        used = any(address.service_accounts for address in (*listen.app, *listen.admin))
        if found is None:
            if used:
                self._problem("service_accounts", "is required: an address of [listen] has service_accounts = true")
            return None
        values = self._table("service_accounts", found, SERVICE_ACCOUNTS)
        if not used:
            self._notes.append("service_accounts: no address of [listen] has service_accounts = true")
        if not {"issuer", "audience", "keys"} <= values.keys():
            return None  # a problem already
        for name in ("keys_ca", "keys_token"):
            if name in values and not values["keys"].startswith("https:"):
                self._problem(f"service_accounts.{name}", "is for keys at an https address")
        return ServiceAccounts(**values)

    # -- keys

    def _keys(self, found: dict[str, Any], state_dir: Path, within: Mapping[str, dict[str, Any]]) -> Keys:
        store = found.get("store", f"sqlite:{state_dir}/state.db")
        kek = self._from_env("TOKENSIDECAR_KEK", KEYS.fields["kek"].kind, found.get("kek", f"file:{state_dir}/kek"))
        role = found.get("role", "both")
        keys = Keys(
            store,
            self._keks(kek, role),
            role=role,
            single_pod=found.get("single_pod", False),
            refresh_interval=found.get("refresh_interval", 5),
            mounted=_mounted(store),
            in_cluster=bool(self._env.get("KUBERNETES_SERVICE_HOST")),
            engine=found.get("engine", PREPARED),
            service_account=Path(found.get("service_account", SERVICE_ACCOUNT)),
            further_keks=self._further_keks(found.get("further_kek", {}), role),
            aws=within["aws"],
            database=self._database(store, within["postgresql"]),
        )
        if keys.in_cluster and keys.private and not keys.single_pod:
            self._notes.append(
                "inside a cluster with a store of its own `serve` does not start: no other pod could validate this one's tokens; "
                "keys.single_pod = true says that this is meant"
            )
        if keys.scheme == "file":
            self._notes.append(
                f"{store} is read here, and written by `tokensidecar keeper` alone, who also serves Rotate and RevokeKeys"
            )
        if keys.scheme == "kubernetes":
            self._notes.append(
                f'{store} is for `tokensidecar keeper`; sidecars read the Secret where it is mounted: store = "file:/path"'
            )
        if keys.mounted:
            found.setdefault("propagation", MOUNT_SECONDS)
            if found["propagation"] < MOUNT_SECONDS:
                self._problem(
                    "keys.propagation",
                    f"must be at least {spell(MOUNT_SECONDS)} with a mounted Secret: a kubelet takes minutes to renew one",
                )
        propagation = found.get("propagation", DEFAULT.propagation)
        if keys.refresh_interval >= propagation:
            self._problem(
                "keys.refresh_interval",
                f"must be less than keys.propagation ({spell(propagation)}): a key would be active before it is seen",
            )
        if found.get("max_staleness", DEFAULT.max_staleness) < propagation:
            self._problem("keys.max_staleness", f"must be at least keys.propagation ({spell(propagation)})")
        return keys

    def _database(self, store: str, table: Mapping[str, object]) -> Database | None:
        if store.startswith("postgresql:"):
            return database.read(store, table, self._problem)
        for name in table:
            self._problem(f"keys.postgresql.{name}", 'is for keys.store = "postgresql://…" alone')
        return None

    def _keks(self, given: str | dict[str, str], role: str) -> dict[Role, str]:
        """The key-encryption keys of this role's part; what a shared file says of the other role is left alone."""
        keks = {}
        for name in ROLES[role]:
            one = given if isinstance(given, str) else given.get(name)
            if one is None:
                self._problem(f"keys.kek.{name}", f"is required: keys.role {role!r} needs it")
            else:
                keks[Role(name)] = one
        return keks

    @staticmethod
    def _further_keks(given: str | dict[str, str], role: str) -> dict[Role, str]:
        named = given if isinstance(given, dict) else dict.fromkeys(ROLES[role], given)
        return {Role(name): named[name] for name in ROLES[role] if name in named}

    # -- profiles

    def _profiles(self, found: object, keys: dict[str, Any], store: str) -> dict[str, Profile]:
        timing: dict[str, Any] = {
            name: keys[name]
            for name in ("rotate_every", "propagation", "max_staleness", "max_skew", "settings_revision")
            if name in keys
        }
        if not isinstance(found, dict):
            self._problem("profiles", "must be a table of profiles: [profiles.default]")
            return {}
        if not found:
            self._notes.append(
                f"no profile is configured: {DEFAULT.name!r} is in force, with issuer {DEFAULT.issuer} and any audience that a caller names"
            )
            profile = replace(DEFAULT, **timing)
            self._check_timing("keys", profile)
            return {profile.name: profile}
        profiles = {}
        for name, table in found.items():
            key = f"profiles.{name}"
            try:
                PROFILE_NAME.read(name)
            except ValueError as error:
                self._problem(key, f"the name of a profile {error}")
                continue
            if name in (DUTIES, REVOCATIONS):
                self._problem(key, "is the name of a document of the store's own; take another one")
                continue
            profiles[name] = self._profile(name, key, table, timing, store)
        return profiles

    def _profile(self, name: str, key: str, table: object, timing: dict[str, Any], store: str) -> Profile:
        values = self._table(key, table, PROFILE, further=("claims", "import"))
        further = table if isinstance(table, dict) else {}
        preset = PRESETS[values.pop("preset", "")]
        given = values.keys()
        values = {**preset.values, **values}
        rules = self._claim_rules(key, self._table(f"{key}.claims", further.get("claims", {}), CLAIMS), preset)
        if ":" in values.get("issuer", "") and not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:\S+$", values["issuer"]):
            self._problem(f"{key}.issuer", "has a colon and is not a URI (RFC 7519, section 4.1.1)")
        if "import" in further:
            values["imported"] = self._imported(f"{key}.import", further["import"], values, given)
        else:
            self._check_makes(key, values)
        if values.get("format") == "signed":
            self._check_signed(key, values, imported="import" in further)
        elif values.get("format") == "encrypted":
            for unused in ("sign", "published", "accept_signed_until", "report_only"):
                if values.get(unused):
                    self._problem(f"{key}.{unused}", "is not for format encrypted, which has symmetric keys alone")
            if (encrypt := values.get("encrypt")) and not KEY_MANAGEMENT[encrypt].symmetric:
                self._problem(
                    f"{key}.encrypt",
                    f"{encrypt} has a public key, and whoever has that could make tokens of format encrypted; take A256KW, or format nested",
                )
            self._notes.append(
                f"{key}: format encrypted is symmetric and not signed: whoever holds the keys to validate can also issue"
            )
            values["sign"] = ""
        values["format"] = Format(values.get("format", "nested"))
        values["claims"] = rules
        profile = Profile(
            **{"name": name, "issuer": "", "audiences": (), **timing, **values}
        )  # the whole is refused if these lack
        if profile.refresh_ttl and not profile.refresh_max_ttl:
            profile = replace(profile, refresh_max_ttl=max(REFRESH_MAX_TTL, profile.refresh_ttl))
        self._check_remembered(key, profile, store)
        self._check_timing(key, profile, ceiling=timing.get("max_staleness", DEFAULT.max_staleness))
        return profile

    def _claim_rules(self, key: str, found: dict[str, Any], preset: Preset) -> ClaimRules:
        allow, forbid = found.get("allow"), frozenset(found.get("forbid", ()))
        require = frozenset(found.get("require", ())) | preset.require
        if allow is not None and (extra := sorted(require - set(allow))):
            self._problem(f"{key}.claims.require", f"names {extra[0]!r}, which claims.allow does not")
        if both := sorted(forbid & (require | set(allow or ()))):
            self._problem(f"{key}.claims.forbid", f"names {both[0]!r}, which claims.allow or claims.require names too")
        return ClaimRules(
            allow=None if allow is None else frozenset(allow),
            require=require,
            forbid=forbid,
            types={**preset.types, **found.get("types", {})},
            max_claims=found.get("max_claims"),
        )

    def _check_remembered(self, key: str, profile: Profile, store: str) -> None:
        """What must be remembered needs a store that every sidecar writes."""
        if profile.one_time and profile.imported is not None:
            self._problem(
                f"{key}.one_time", "is not for imported keys: their tokens may lack the id that is remembered"
            )
        scheme = store.partition(":")[0]
        if profile.proof_replay == "fleet" and scheme not in LEDGERS:
            self._problem(
                f"{key}.proof_replay",
                f'"fleet" needs a store that remembers which proofs were used: {" or ".join(LEDGERS)}; {scheme} (keys.store) keeps keys alone',
            )
        if profile.refresh_ttl:
            for problem, found in (
                (
                    f"needs a store that remembers which were used: {' or '.join(LEDGERS)}; {scheme} (keys.store) keeps keys alone",
                    scheme not in LEDGERS,
                ),
                ("is not for imported keys: such a profile only validates", profile.imported is not None),
                ("is not for a one-time profile: a refresh token makes many tokens", profile.one_time),
                (
                    f"must be at most refresh_max_ttl ({spell(profile.refresh_max_ttl)})",
                    profile.refresh_ttl > profile.refresh_max_ttl,
                ),
            ):
                if found:
                    self._problem(f"{key}.refresh_ttl", problem)
            self._check_timing(f"{key} (refresh tokens)", refreshing(profile))
        elif profile.refresh_max_ttl:
            self._problem(f"{key}.refresh_max_ttl", "says nothing without refresh_ttl")
        if profile.one_time and scheme not in LEDGERS:
            self._problem(
                f"{key}.one_time",
                f"needs a store that remembers which tokens were used: {' or '.join(LEDGERS)}; {scheme} (keys.store) keeps keys alone",
            )

    def _check_makes(self, key: str, values: dict[str, Any]) -> None:
        for name, table in (("sign", SIGNATURES), ("encrypt", KEY_MANAGEMENT)):
            if (algorithm := values.get(name)) and not table[algorithm].makes:
                self._problem(
                    f"{key}.{name}",
                    f"{algorithm} is for imported keys alone (profiles.NAME.import): no tokens are made under it",
                )
        if values.get("published") and values.get("sign") == "HS256":
            self._problem(f"{key}.published", "HS256 has no public key that could be published")

    def _check_signed(self, key: str, values: dict[str, Any], *, imported: bool) -> None:
        for unused in ("encrypt", "curve", "content", "accept_signed_until", "report_only"):
            if unused in values:
                self._problem(f"{key}.{unused}", "is not for format signed, which encrypts nothing")
        if imported:
            return
        if not values.get("published"):
            self._problem(
                f"{key}.published", "must be true for format signed: others verify its tokens, and cache its keys"
            )
        self._notes.append(f"{key}: format signed encrypts nothing: whoever sees a token can read its claims")

    def _imported(self, key: str, found: object, values: dict[str, Any], given: Collection[str]) -> Imported | None:
        """The keys in the files that the table names, and the form of what they open."""
        table, problems, digest = self._table(key, found, IMPORT), len(self._problems), hashlib.sha256()
        layers = {"signed": ("signature",), "encrypted": ("encryption",)}.get(
            values.get("format", "nested"), ("signature", "encryption")
        )
        keys: dict[str, Mapping[str, Any]] = {"signature": {}, "encryption": {}}
        for layer, name, default in (("signature", "sign", DEFAULT.sign), ("encryption", "encrypt", DEFAULT.encrypt)):
            if layer not in layers:
                if layer in table:
                    self._problem(f"{key}.{layer}", f"is not for format {values.get('format', 'nested')}")
            elif layer not in table:
                if isinstance(found, dict) and layer not in found:
                    self._problem(f"{key}.{layer}", "is required for this format: the file of its keys")
            else:
                keys[layer] = self._key_file(
                    f"{key}.{layer}", table[layer], values.get(name, default), table.get(f"{layer}_key_id", ""), digest
                )
                if layer == "encryption" and not all(material.private for material in keys[layer].values()):
                    self._problem(f"{key}.{layer}", "holds a public key, which opens nothing: give the private one")
        for unused in ("published", "accept_signed_until", "report_only", "ttl"):
            if unused in given:
                self._problem(
                    f"{key.removesuffix('.import')}.{unused}", "is not for imported keys: such a profile only validates"
                )
        if len(self._problems) > problems:
            return None
        typs = table.get("typ") or (values.get("typ", DEFAULT.typ),)
        return Imported(
            signature=keys["signature"],
            encryption=keys["encryption"],
            form=foreign(frozenset(table.get("tolerate", ()))),
            typs=frozenset(typs),
            files={name: value for name, value in table.items() if name not in ("typ", "tolerate")},
            digest=digest.hexdigest(),
        )

    def _key_file(self, key: str, path: str, algorithm: str, key_id: str, digest: Any) -> Mapping[str, Any]:
        try:
            with Path(path).open("rb") as file:
                data = file.read(_MORE_FILE_BYTES_THAN_ANYONE_NEEDS)
                open_to_all = os.fstat(file.fileno()).st_mode & 0o007
            digest.update(hashlib.sha256(data).digest())
            found = imported_keys.read(data, algorithm, key_id=key_id)
        except OSError as error:
            self._problem(key, f"{path} cannot be read: {error.strerror}")
        except ValueError as error:
            self._problem(key, f"{path}: {error}")
        else:
            if open_to_all and any(material.private for material in found.values()):
                self._problem(
                    key, f"{path} holds a secret, and every user of this machine may open it: chmod o= {path}"
                )
            return found
        return {}

    def _check_timing(self, key: str, profile: Profile, *, ceiling: int | None = None) -> None:
        if profile.ttl > profile.max_ttl:
            self._problem(f"{key}.ttl", f"must be at most max_ttl ({spell(profile.max_ttl)})")
        if ceiling is not None and profile.max_staleness > ceiling:
            self._problem(f"{key}.max_staleness", f"must be at most keys.max_staleness ({spell(ceiling)})")
        if profile.max_staleness < profile.propagation:
            self._problem(f"{key}.max_staleness", f"must be at least keys.propagation ({spell(profile.propagation)})")
        ahead = (
            max(profile.propagation, PUBLISH_AHEAD) if profile.published else profile.propagation
        ) + 2 * profile.max_skew
        if profile.rotate_every < ahead:
            self._problem(
                "keys.rotate_every", f"must be at least {spell(ahead)}: {key} has its keys prepared that long ahead"
            )
        tail = profile.max_staleness + profile.max_ttl + profile.leeway + 2 * profile.max_skew
        if tail // profile.rotate_every >= KEYS_AT_ONCE:
            least = spell(-(-tail // KEYS_AT_ONCE))
            self._problem(
                "keys.rotate_every",
                f"must be at least {least}: a retired key of {key} is kept for {spell(tail)}, and a ring holds {KEYS_AT_ONCE} of a use",
            )


def _mounted(store: str) -> bool:
    """Whether a kubelet stands between who writes the store and who reads it; of a folder, as far as it is there already."""
    scheme, _, place = store.partition(":")
    return scheme == "kubernetes" or (scheme == "file" and Path(place, "..data").is_symlink())
