"""Reads the [listen] table of the config file: where each plane is served, and to whom."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sidecar.caller import Identified, Plane
from sidecar.sections_listen import ADDRESS, ADDRESS_TEXT, HTTP_OFF, LISTEN, TLS

SOCKET_PATH_MAX = 107  # bytes: sun_path less its NUL

_NAMED_BY = {Identified.CERTIFICATE: "their certificates", Identified.SERVICE_ACCOUNT: "their service account tokens"}

Table = Callable[..., dict[str, Any]]
Problem = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Tls:
    """The files of a TLS address, and whom client certificates may name. `client_ca` None: no client certificate is asked for."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    trust_domain: str = ""
    dns_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens. `caller` is the name that whoever calls through it has; empty: certificates or service accounts name them.

    `mode` and `group` are a socket file's. `guard`: the metadata key that each call must carry; empty: none.
    """

    kind: Literal["unix", "tcp"]
    path: str = ""
    host: str = ""
    port: int = 0
    caller: str = ""
    mode: int = 0o660
    group: str | None = None
    tls: Tls | None = None
    service_accounts: bool = False
    guard: str = ""

    def __str__(self) -> str:
        """A gRPC target."""
        if self.kind == "unix":
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def local(self) -> bool:
        """Whether only this machine (in a pod: this pod) can reach it."""
        return self.kind == "unix" or ipaddress.ip_address(self.host).is_loopback

    @property
    def identified(self) -> Identified:
        """What tells callers apart here."""
        if self.service_accounts:
            return Identified.SERVICE_ACCOUNT
        return Identified.CERTIFICATE if self.tls else Identified.ADDRESS

    def may_have(self, caller: str) -> bool:
        """Whether somebody of this name, or of this pattern, could call here."""
        scheme, _, rest = caller.partition(":")
        if self.service_accounts:
            return scheme == "k8s"
        if not self.tls:
            return caller == self.caller
        if scheme == "spiffe":
            return bool(self.tls.trust_domain) and rest.split("/")[2] == self.tls.trust_domain
        return scheme == "dns" and rest in self.tls.dns_names


@dataclass(frozen=True, slots=True)
class Listen:
    """The three planes, each a server of its own, and where gateways ask about requests."""

    app: tuple[Address, ...]
    admin: tuple[Address, ...]
    http: Address | None
    envoy: tuple[Address, ...] = ()
    forward_auth: tuple[Address, ...] = ()
    allow_http_beyond_loopback: bool = False
    allow_plaintext_tcp: bool = False

    def planes_of(self, caller: str) -> tuple[Plane, ...]:
        """The planes on which somebody of this name could call; none: nobody has it."""
        planes = ((Plane.APP, (*self.app, *self.envoy, *self.forward_auth)), (Plane.ADMIN, self.admin))
        return tuple(plane for plane, addresses in planes if any(address.may_have(caller) for address in addresses))


def read(
    found: dict[str, Any],
    env: Mapping[str, str],
    runtime_dir: Path,
    *,
    embedded: bool,
    table: Table,
    problem: Problem,
    note: Callable[[str], None],
) -> Listen:
    """The addresses of all planes.

    Args:
        found: the values of [listen], `app` and `admin` as they stand in the file.
        env: the environment.
        runtime_dir: where sockets are by default.
        embedded: there is no file.
        table: reads one table by its section; what is no good becomes a problem.
        problem: takes a key, or a variable, and a sentence.
        note: takes a sentence that serve says at its start.
    """
    return _Reader(table, problem, note).listen(found, env, runtime_dir, embedded=embedded)


class _Reader:
    def __init__(self, table: Table, problem: Problem, note: Callable[[str], None]) -> None:
        self._table = table
        self._problem = problem
        self._note = note

    def listen(self, found: dict[str, Any], env: Mapping[str, str], runtime_dir: Path, *, embedded: bool) -> Listen:
        default_app = [f"unix:{runtime_dir}/app/app.sock", "127.0.0.1:8790"]
        default_admin = [f"unix:{runtime_dir}/admin/admin.sock", *(["127.0.0.1:8791"] if embedded else [])]
        app_key, app_given = _given("app", found, env, default_app)
        app = self._addresses("app", app_key, app_given)
        admin = self._addresses("admin", *_given("admin", found, env, default_admin))
        http_key, http = self._http(found, env)
        listen = Listen(
            app,
            admin,
            http,
            self._addresses("envoy", "listen.envoy", found.get("envoy", [])),
            self._addresses("forward_auth", "listen.forward_auth", found.get("forward_auth", [])),
            found.get("allow_http_beyond_loopback", False),
            found.get("allow_plaintext_tcp", False),
        )
        if app_given == []:
            self._problem("listen.app", "must name at least one address")
        self._check_reach(listen, http_key)
        self._check_different(listen)
        return listen

    def _http(self, found: dict[str, Any], env: Mapping[str, str]) -> tuple[str, Address | None]:
        key, text = "listen.http", found.get("http", "127.0.0.1:8792")
        if given := env.get("TOKENSIDECAR_LISTEN_HTTP"):
            key = "TOKENSIDECAR_LISTEN_HTTP"
            try:
                text = LISTEN.fields["http"].kind.read(given)
            except ValueError as error:
                self._problem(key, str(error))
                return key, None
        return key, None if text == HTTP_OFF else self._address(key, text, "http")

    def _addresses(self, plane: str, key: str, found: object) -> tuple[Address, ...]:
        if not isinstance(found, list):
            self._problem(key, f"must be a list of addresses: {ADDRESS_TEXT.meaning}")
            return ()
        read = (self._address(f"{key}[{i}]", each, plane) for i, each in enumerate(found))
        return tuple(address for address in read if address is not None)

    def _address(self, key: str, found: object, plane: str) -> Address | None:
        if isinstance(found, str):
            try:
                values: dict[str, Any] = {"address": ADDRESS_TEXT.read(found)}
            except ValueError as error:
                self._problem(key, str(error))
                return None
        else:
            values = self._table(key, found, ADDRESS, further=("tls",))
            if "address" not in values:
                return None
        text = values["address"]
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            if len(path.encode()) > SOCKET_PATH_MAX:
                self._problem(
                    key, f"the path of a socket has at most {SOCKET_PATH_MAX} bytes, this one {len(path.encode())}"
                )
                return None
            address = Address("unix", path=path, caller=f"unix:{Path(path).name.removesuffix('.sock')}")
        else:
            host, _, port = text.rpartition(":")
            host = "127.0.0.1" if host == "localhost" else host.strip("[]")
            if problem := _tcp_problem(host, int(port)):
                self._problem(key, problem)
                return None
            if "mode" in values or "group" in values:
                self._problem(key, "mode and group are a socket's; this address is TCP")
            address = Address("tcp", host=host, port=int(port), caller=f"tcp:{plane}")
            if isinstance(found, dict):
                address = self._identifying(key, address, values, found)
        return self._named(key, address, values, found)

    def _named(self, key: str, address: Address, values: dict[str, Any], found: object) -> Address:
        if address.kind == "unix":
            for name in ("tls", "service_accounts", "guard"):
                if isinstance(found, dict) and found.get(name):
                    self._problem(f"{key}.{name}", "is for TCP; a socket is its caller's identity")
        if address.identified is not Identified.ADDRESS:
            if "caller" in values:
                self._problem(
                    f"{key}.caller",
                    f"is not for this address: its callers are named by {_NAMED_BY[address.identified]}",
                )
            return replace(address, caller="")
        caller = values.get("caller", address.caller)
        if not caller.startswith(f"{address.kind}:"):
            self._problem(key, f"the caller's name must begin with {address.kind}:")
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", caller.partition(":")[2]):
            self._problem(
                key,
                "the caller's name, after unix:, must be of A-Z a-z 0-9 . _ - ; name the socket so, or give it a caller",
            )
        address = replace(address, caller=caller, mode=values.get("mode", 0o660), group=values.get("group"))
        if address.kind == "unix" and address.mode & 0o007:
            self._note(
                f"{key}: mode {address.mode:04o} lets every user who can enter the directory of {address.path} call it"
            )
        return address

    def _identifying(self, key: str, address: Address, values: dict[str, Any], found: dict[str, Any]) -> Address:
        """With what tells callers apart on this TCP address."""
        by_token = values.get("service_accounts", False)
        address = replace(address, service_accounts=by_token, guard=values.get("guard", ""))
        if "tls" not in found:
            return address
        table = found["tls"] if isinstance(found["tls"], dict) else {}
        given = self._table(f"{key}.tls", found["tls"], TLS)
        # What could not be read is a problem already; the rest is judged by what the file has.
        files = {name: Path(given.get(name, "/")) for name in ("certificate", "key", "client_ca") if name in table}
        tls = Tls(
            **{"certificate": Path("/"), "key": Path("/"), **files},
            trust_domain=given.get("trust_domain", ""),
            dns_names=given.get("dns_names", ()),
        )
        named = [name for name in ("trust_domain", "dns_names") if name in table]
        if by_token and (tls.client_ca or named):
            self._problem(
                f"{key}.tls.client_ca",
                "and service_accounts would name a caller twice; give each an address of its own",
            )
        elif not by_token and tls.client_ca is None:
            self._problem(
                f"{key}.tls.client_ca",
                "is required, unless service_accounts = true: nothing else tells callers apart here",
            )
        elif not by_token and not named:
            self._problem(
                f"{key}.tls.trust_domain", "is required, unless dns_names says which certificates name a caller"
            )
        return replace(address, tls=tls)

    def _check_reach(self, listen: Listen, http_key: str) -> None:
        for address in listen.app:
            self._check_named("app", address)
            if address.local or address.identified is not Identified.ADDRESS:
                continue
            if not listen.allow_plaintext_tcp:
                self._problem(
                    "listen.app",
                    f"{address} is beyond loopback: tokens would cross the network readable; give it tls, or accept that by "
                    "listen.allow_plaintext_tcp = true",
                )
            else:
                self._note(
                    f"the app plane listens beyond loopback on {address}, in plaintext: who can reach it can issue tokens"
                )
        for plane, addresses in (("envoy", listen.envoy), ("forward_auth", listen.forward_auth)):
            for address in addresses:
                self._check_named(plane, address)
                if plane == "forward_auth" and address.kind == "unix":
                    self._problem("listen.forward_auth", f"{address}: forward auth listens on TCP alone")
                elif plane == "forward_auth" and address.identified is not Identified.ADDRESS:
                    self._problem("listen.forward_auth", f"{address} speaks plain HTTP: no tls, no service accounts")
                elif not address.local and not address.tls and not listen.allow_plaintext_tcp:
                    self._problem(
                        f"listen.{plane}",
                        f"{address} is beyond loopback: tokens would cross the network readable; "
                        "listen.allow_plaintext_tcp = true accepts that",
                    )
        for address in listen.admin:
            self._check_named("admin", address)
            if address.identified is not Identified.ADDRESS:
                continue
            if not address.local:
                self._problem("listen.admin", f"{address} is beyond loopback, where the admin plane needs tls")
            elif address.kind == "tcp":
                self._note(
                    f"the admin plane listens on TCP {address}: every process on this machine (in a pod: every container) can rotate keys"
                )
        if listen.http and not listen.http.local and not listen.allow_http_beyond_loopback:
            self._problem(
                http_key,
                f"{listen.http} is beyond loopback: others could read metrics and readiness; listen.allow_http_beyond_loopback = true accepts that",
            )

    def _check_named(self, plane: str, address: Address) -> None:
        if address.identified is Identified.SERVICE_ACCOUNT:
            self._note(f"{address}, {plane} plane: callers are named by their service account tokens, k8s:…")
        elif address.tls:
            found = ([f"spiffe://{address.tls.trust_domain}/…"] if address.tls.trust_domain else []) + [
                f"dns:{name}" for name in address.tls.dns_names
            ]
            self._note(f"{address}, {plane} plane: callers are named by their certificates, {', '.join(found)}")
        if address.service_accounts and not address.tls and not address.local:
            self._problem(
                f"listen.{plane}",
                f"{address} is beyond loopback: service account tokens would cross the network readable; give it tls",
            )

    def _check_different(self, listen: Listen) -> None:
        taken: dict[str, str] = {}
        named: dict[str, str] = {}
        planes = (
            ("app", listen.app),
            ("admin", listen.admin),
            ("envoy", listen.envoy),
            ("forward_auth", listen.forward_auth),
            ("http", (listen.http,) if listen.http else ()),
        )
        for plane, addresses in planes:
            for address in addresses:
                if str(address) in taken:
                    self._problem(f"listen.{plane}", f"{address} is taken by listen.{taken[str(address)]} already")
                taken[str(address)] = plane
                if address.kind == "unix" and named.setdefault(address.caller, address.path) != address.path:
                    self._problem(
                        f"listen.{plane}",
                        f"{address.path} and {named[address.caller]} both name their caller {address.caller}; give one a caller of its own",
                    )


def _given(plane: str, found: dict[str, Any], env: Mapping[str, str], default: list[str]) -> tuple[str, object]:
    variable = f"TOKENSIDECAR_LISTEN_{plane.upper()}"
    if given := env.get(variable):
        return variable, [part.strip() for part in given.split(",") if part.strip()]
    return f"listen.{plane}", found.get(plane, default)


def _tcp_problem(host: str, port: int) -> str | None:
    try:
        ipaddress.ip_address(host)
    except ValueError as error:
        return str(error)
    return None if 1 <= port <= 65535 else "the port must be from 1 to 65535"
