"""Words: where a PostgreSQL database is and how it is reached, read from `postgresql://ROLE@HOST/NAME` and the table [keys.postgresql].

The URL never holds a secret: a password is in a file, which is read again for each connection. What only a driver would understand is not
taken from the URL: TLS and time limits are decided here and in the store.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote

PORT = 5432
PATTERN = r"//[^\x00-\x20\x7f/?#@]+@[^\x00-\x20\x7f/?#]*/[^\x00-\x20\x7f/?#]+(?:\?[^\x00-\x20\x7f#]+)?"
MEANING = '"postgresql://ROLE@HOST[:PORT]/DATABASE"'
_SOCKET = "postgresql://ROLE@/DATABASE?host=/run/postgresql"
_PASSWORD = (
    "holds a password, and secrets are in files alone: take it out of the URL, and name its file in keys.postgresql.password_file "  # noqa: S105
    "(it has been in a configuration file: change it)"
)
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?|[A-Za-z0-9]")
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,63}")
"""Of a role or a database: PostgreSQL cuts off what is longer."""

Problem = Callable[[str, str], None]
"""Takes a key of the file, and a sentence."""


@dataclass(frozen=True, slots=True)
class Database:
    """One database. `hosts`: (name, address or directory of a socket; port), tried in this order.

    `plaintext`: without TLS where the server offers none, and without looking at its certificate.
    """

    hosts: tuple[tuple[str, int], ...]
    role: str
    name: str
    password_file: Path | None = None
    passfile: Path | None = None
    root_certificates: Path | None = None
    certificate: Path | None = None
    certificate_key: Path | None = None
    allow_plaintext: bool = False
    listen: bool = False

    def __str__(self) -> str:
        """As the URL, without what is a default."""
        shown = ",".join(_spelled(host, port) for host, port in self.hosts)
        return f"postgresql://{self.role}@{shown}/{self.name}"

    @property
    def local(self) -> bool:
        """Whether no byte of it leaves this machine."""
        return all(host.startswith("/") or _loopback(host) for host, _ in self.hosts)

    @property
    def plaintext(self) -> bool:
        """Whether the server's certificate is not looked at, nor asked for."""
        return self.local or self.allow_plaintext


def read(url: str, table: Mapping[str, object], problem: Problem) -> Database | None:
    """The database of `keys.store`, with what [keys.postgresql] says; None after a problem was told."""
    found: list[str] = []
    rest = url.removeprefix("postgresql://")
    authority, _, tail = rest.partition("/")
    name, _, query = tail.partition("?")
    userinfo, _, where = authority.rpartition("@")
    role, _, password = userinfo.partition(":")
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    role, name = unquote(role), unquote(name)
    if password or "password" in parameters:
        found.append(_PASSWORD)
    elif unknown := sorted(parameters.keys() - {"host", "port"}):
        found.append(
            f"must not have the parameter {unknown[0]!r}: TLS and files are named in [keys.postgresql], limits of time are fixed"
        )
    if not _NAME.fullmatch(role):
        found.append(f"must name a role: {MEANING}")
    if not _NAME.fullmatch(name):
        found.append(f"must name a database: {MEANING}")
    hosts = _hosts(where, parameters)
    if not hosts:
        found.append(f"must name a host, a port from 1 to 65535 if another than {PORT}, or a socket: {_SOCKET}")
    for sentence in found:
        problem("keys.store", sentence)
    if "password_file" in table and "passfile" in table:
        problem("keys.postgresql.passfile", "must not stand beside password_file: one of the two holds the password")
        return None
    for one, other in (("certificate", "certificate_key"), ("certificate_key", "certificate")):
        if one in table and other not in table:
            problem(f"keys.postgresql.{other}", f"is required with {one}")
            return None
    if found:
        return None
    paths = ("password_file", "passfile", "root_certificates", "certificate", "certificate_key")
    return Database(
        hosts=hosts,
        role=role,
        name=name,
        **{key: Path(str(table[key])) for key in paths if key in table},
        allow_plaintext=bool(table.get("allow_plaintext", False)),
        listen=bool(table.get("listen", False)),
    )


def _hosts(where: str, parameters: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    """Empty: there is none, or one of them is none."""
    if not where:
        folder, port = parameters.get("host", ""), _port(parameters.get("port", ""))
        return ((folder, port),) if folder.startswith("/") and port else ()
    if parameters:
        return ()
    hosts = []
    for one in where.split(","):
        found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(?::([0-9]{1,5}))?", one)
        port = _port(found[2] or "") if found else 0
        host = found[1].strip("[]") if found else ""
        if not port or not (_address(host) or _HOST.fullmatch(host)):
            return ()
        hosts.append((host, port))
    return tuple(hosts)


def _port(text: str) -> int:
    if not text:
        return PORT
    return int(text) if re.fullmatch("[0-9]{1,5}", text) and 1 <= int(text) <= 65535 else 0


def _address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _loopback(host: str) -> bool:
    return host == "localhost" or (_address(host) and ipaddress.ip_address(host).is_loopback)


def _spelled(host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    return shown if port == PORT else f"{shown}:{port}"
