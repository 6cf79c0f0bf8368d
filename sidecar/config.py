"""The configuration: one frozen tree, read from one TOML file and a few variables, every problem reported at once.

The file is the first of `--config`, TOKENSIDECAR_CONFIG and /etc/tokensidecar/config.toml; without any, the embedded default holds. An
unknown key is an error, and so is a key of a feature that this version lacks: nothing is ignored. Secrets are never in the file.
"""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sidecar import addresses, database, directories, profiles, routing, rules
from sidecar.addresses import Listen
from sidecar.database import Database
from sidecar.fields import Choice, Kind, Section, spell
from sidecar.jose.keys import PREPARED
from sidecar.keyring import Role
from sidecar.policy import Rule
from sidecar.profile import DEFAULT, Profile, refreshing
from sidecar.routes import Route, Spoken
from sidecar.sections import LOG_FORMATS, LOG_LEVELS, TABLES, TABLES_LATER, TABLES_WITHIN
from sidecar.sections_keys import KEYS, MOUNT_SECONDS, ROLES
from sidecar.sections_listen import LISTEN, PLANES, SERVICE_ACCOUNTS

SYSTEM_FILE = Path("/etc/tokensidecar/config.toml")
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
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
        kinds = profiles.read(
            tree.get("profiles", {}),
            tables["keys"],
            keys.store,
            table=self._table,
            problem=self._problem,
            note=self._notes.append,
        )
        level = self._from_env("TOKENSIDECAR_LOG_LEVEL", Choice(LOG_LEVELS), tables["log"].get("level", "info"))
        log_format = self._from_env("TOKENSIDECAR_LOG_FORMAT", Choice(LOG_FORMATS), tables["log"].get("format", "auto"))
        policy = rules.read(
            tree.get("policy", {}), kinds, listen, table=self._table, problem=self._problem, note=self._notes.append
        )
        accounts = self._service_accounts(tree.get("service_accounts"), listen)
        routes = routing.read(
            tree.get("routes", []),
            kinds,
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
            profiles={name: profile for name, profile in kinds.items() if profile.imported is None},
            imported={name: profile for name, profile in kinds.items() if profile.imported is not None},
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


def _mounted(store: str) -> bool:
    """Whether a kubelet stands between who writes the store and who reads it; of a folder, as far as it is there already."""
    scheme, _, place = store.partition(":")
    return scheme == "kubernetes" or (scheme == "file" and Path(place, "..data").is_symlink())
