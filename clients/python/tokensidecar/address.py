"""Where a sidecar is looked for."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Address:
    """One place to dial. `found`: nobody named it; then what is there must belong to root or this user."""

    path: str = ""  # of a Unix socket; empty: TCP
    host: str = ""
    port: int = 0
    found: bool = False

    def __str__(self) -> str:
        """What `parse` reads, and a gRPC target."""
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def problem(self) -> str | None:
        """Why a socket that nobody named is not to be trusted, or is not there; None if nothing speaks against it."""
        if not self.found or not self.path:
            return None
        path = Path(self.path)
        try:
            entries = [path.lstat(), path.parent.stat(), path.parent.parent.stat()]
        except OSError as error:
            return error.strerror
        if not stat.S_ISSOCK(entries[0].st_mode):
            return "not a socket"
        if any(entry.st_uid not in (0, os.getuid()) for entry in entries):
            return "belongs to another user: name it if that is right"
        return None


@dataclass(frozen=True, slots=True)
class Plane:
    """One of the two sides of a sidecar: the variable that names it, its socket below a runtime directory, its TCP port."""

    variable: str
    socket: str
    port: int


APP = Plane("TOKENSIDECAR_ADDRESS", "app/app.sock", 8790)
ADMIN = Plane("TOKENSIDECAR_ADMIN_ADDRESS", "admin/admin.sock", 8791)


def parse(text: str) -> Address:
    """`unix:/path`, `unix:///path` or `host:port`; ValueError for anything else."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        path = path.removeprefix("//")
        if not path.startswith("/"):
            raise ValueError(f"{text!r}: the path of a socket starts with /")
        return Address(path=path)
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", text)
    if not found or not 1 <= int(found[3]) <= 65535:
        raise ValueError(f"{text!r} is none of unix:/path, unix:///path, host:port")
    host = found[1] or found[2]
    return Address(host=host, port=int(found[3]))


def addresses(plane: Plane, given: str | None, env: Mapping[str, str]) -> tuple[Address, ...]:
    """Where to try, in order: what was given or the environment names and nothing else, or else every default.

    Raises:
        ValueError: what was named is no address.
    """
    if named := given or env.get(plane.variable):
        return (parse(named),)
    sockets = (Address(path=f"{directory}/{plane.socket}", found=True) for directory in _runtime_directories(env))
    return (*sockets, Address(host="127.0.0.1", port=plane.port))


def _runtime_directories(env: Mapping[str, str]) -> tuple[str, ...]:
    """Where a sidecar may have put its sockets, in the order in which it chooses."""
    if configured := env.get("TOKENSIDECAR_RUNTIME_DIR"):
        return (configured,)
    xdg = env.get("XDG_RUNTIME_DIR")
    fallback = f"/tmp/tokensidecar-{os.getuid()}"  # noqa: S108 # whose it is, is checked before it is used
    return ("/run/tokensidecar", *((f"{xdg}/tokensidecar",) if xdg else ()), fallback)
