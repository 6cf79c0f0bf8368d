"""Routes: which requests that a gateway asks about are let through, and on what terms. Pure.

Rules:
 1. A request is judged by the first route that it matches, by host, path, method and the gateway's own context. None: denied.
 2. Paths are matched in normal form: the query is left out and escapes of unreserved characters are undone (RFC 3986 section 6.2.2.2). A path
    that two servers could read differently is refused before any route is looked for: dot segments, empty segments, backslashes, encoded
    slashes, backslashes or percent signs before digits, path parameters (`;`), control and non-ASCII characters, and escapes that are not
    UTF-8 (`%c0%af` is a slash to some).
 3. A pattern is a path, which also matches with a slash at its end, or ends in `/*`, which matches the path before it and all below.
 4. The credential stands in one of the places that the route names, once. Two of them, or one twice, are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import unquote_to_bytes

AUTHORIZATION, DPOP, COOKIE = "authorization", "dpop", "cookie"

REQUEST_HEADERS = {
    "x-original": ("x-original-method", "x-original-url"),
    "x-forwarded": ("x-forwarded-method", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-uri"),
}
"""The headers by which a gateway that asks over HTTP says what was asked of it, by family."""
KEPT_HEADERS = (
    *("authorization", "cookie", "dpop", "host", "connection", "content-length", "content-type", "expect", "keep-alive", "te", "trailer"),
    *("transfer-encoding", "upgrade", "proxy-.*", "x-envoy-.*", "x-forwarded-.*", "forwarded", "sec-.*"),
)  # fmt: skip
"""Patterns of headers that no claim may have: they mean something to the gateway or to HTTP."""

_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PATH = re.compile(r"/[!$&'()*+,\-./0-9:=@A-Z_a-z~%]*").fullmatch
_AMBIGUOUS = re.compile(
    r"//|/\.{1,2}(?:/|$)|%(?:2[fF]|5[cC]|[01][0-9A-Fa-f]|7[fF]|3[bB]|25[0-9A-Fa-f]{2})|%(?![0-9A-Fa-f]{2})"
).search
_HOST = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_.-]{0,252}[a-z0-9_])?|\[[0-9a-f:.]+\])").fullmatch
_CREDENTIAL = re.compile(r"([A-Za-z]+) +([A-Za-z0-9._~+/=-]+)").fullmatch  # RFC 6750 section 2.1
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+").fullmatch


class Upstream(Enum):
    """What goes upstream in place of the credential."""

    STRIP = "strip"
    CLAIMS = "claims"
    PHANTOM = "phantom"
    PASS = "pass"  # noqa: S105 - a word, not a secret


@dataclass(frozen=True, slots=True)
class Place:
    """Where a credential stands: `bearer` and `dpop` in Authorization, `header` and `cookie` under a name of its own."""

    kind: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """What a gateway says of a request. Names of headers are in lower case, repeated ones joined by commas (RFC 9110 section 5.3).

    `target`: path and query, as sent. `extensions`: the gateway's own context of the route. `certificate`: the thumbprint of the client's
    certificate (RFC 8705 section 3.1), where the gateway's own connection showed one; empty otherwise.
    """

    method: str
    scheme: str
    host: str
    target: str
    headers: Mapping[str, str]
    extensions: Mapping[str, str] = field(default_factory=dict)
    certificate: str = ""


@dataclass(frozen=True, slots=True)
class Spoken:
    """How a gateway speaks: the family of headers that say what was asked, and the one with the client's certificate (empty: none)."""

    family: str = "x-original"
    certificate: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """One rule. Empty `hosts`, `paths`, `methods` or `extensions`: any. `open`: no token is asked for."""

    name: str
    hosts: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    methods: frozenset[str] = frozenset()
    extensions: Mapping[str, str] = field(default_factory=dict)
    open: bool = False
    profiles: tuple[str, ...] = ("default",)
    audiences: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    token: tuple[Place, ...] = (Place("bearer"), Place("dpop"))
    upstream: Upstream = Upstream.STRIP
    claims: Mapping[str, str] = field(default_factory=dict)  # header, in lower case, to claim
    phantom: str = ""  # the profile of what goes upstream
    origin: str = ""  # scheme and authority, as clients know them; empty: what the request says
    dpop_nonce: bool = False

    def matches(self, request: Request, host: str, path: str) -> bool:
        """Whether the request, whose host and path are given in normal form, is of this route."""
        return (
            (not self.methods or request.method in self.methods)
            and (not self.paths or any(_fits(pattern, path) for pattern in self.paths))
            and (not self.hosts or any(_of_host(pattern, host) for pattern in self.hosts))
            and all(request.extensions.get(name) == value for name, value in self.extensions.items())
        )


@dataclass(frozen=True, slots=True)
class Credential:
    """A token as it was presented, and where."""

    token: str
    place: Place


class AmbiguousRequestError(Exception):
    """The request could be read in two ways. The text is a stage for the audit log."""


def normal_path(target: str) -> str:
    """The path of a request target in normal form; `AmbiguousRequestError` by rule 2."""
    path = target.partition("?")[0]
    if not _PATH(path) or _AMBIGUOUS(path):
        raise AmbiguousRequestError("route.path")
    path = _ESCAPE.sub(lambda found: _plain(found[1]), path)
    if _AMBIGUOUS(path) or not _is_utf8(path):  # the former: %2e%2e
        raise AmbiguousRequestError("route.path")
    return path


def normal_host(host: str) -> str:
    """The host of an authority, in lower case, without port and the dot at its end; `AmbiguousRequestError`: it is none."""
    name = re.sub(r":[0-9]{1,5}$", "", host.lower()).removesuffix(".")
    if not host.isascii() or not _HOST(name):  # the Kelvin sign is k in lower case
        raise AmbiguousRequestError("route.host")
    return name


def find(routes: Iterable[Route], request: Request) -> Route | None:
    """The first route that the request matches."""
    host, path = normal_host(request.host), normal_path(request.target)
    return next((route for route in routes if route.matches(request, host, path)), None)


def credential(route: Route, headers: Mapping[str, str]) -> Credential | None:
    """The one credential of the request; None: there is none. `AmbiguousRequestError`: there are two, or it has not the form of one."""
    found: list[Credential] = []
    for place in route.token:
        match place.kind:
            case "bearer" | "dpop":
                value = headers.get(AUTHORIZATION)
                if value is not None and value.partition(" ")[0].lower() == place.kind:
                    parts = _CREDENTIAL(value)
                    if parts is None:
                        raise AmbiguousRequestError("route.authorization")
                    found.append(Credential(parts[2], place))
            case "header":
                value = headers.get(place.name)
                if value is not None:
                    if not _TOKEN(value):
                        raise AmbiguousRequestError("route.header")
                    found.append(Credential(value, place))
            case _:
                for value in cookies(headers.get(COOKIE, ""), place.name):
                    if not _TOKEN(value):
                        raise AmbiguousRequestError("route.cookie")
                    found.append(Credential(value, place))
    if len(found) > 1:
        raise AmbiguousRequestError("route.credentials")
    return found[0] if found else None


def cookies(header: str, name: str) -> list[str]:
    """The values of the cookies of that name (RFC 6265 section 4.2.1)."""
    pairs = (pair.strip().partition("=") for pair in header.split(";"))
    return [value.strip('"') for key, _, value in pairs if key.strip() == name]


def without_cookie(header: str, names: Iterable[str]) -> str:
    """The header without the cookies of these names; empty if none is left."""
    gone = set(names)
    return "; ".join(
        pair.strip() for pair in header.split(";") if pair.strip() and pair.partition("=")[0].strip() not in gone
    )


def is_pattern(text: str) -> bool:
    """Whether this can be a path of a route."""
    try:
        return (
            normal_path(text.removesuffix("*") if text.endswith("/*") else text) + ("*" if text.endswith("/*") else "")
            == text
        )
    except AmbiguousRequestError:
        return False


def _is_utf8(path: str) -> bool:
    try:
        unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        return False
    return True


def _plain(digits: str) -> str:
    character = chr(int(digits, 16))
    return character if character in _UNRESERVED else f"%{digits.upper()}"


def _fits(pattern: str, path: str) -> bool:
    if pattern.endswith("/*"):
        return path.startswith(pattern[:-1]) or path == pattern[:-2]
    return path == pattern or path == pattern + "/"


def _of_host(pattern: str, host: str) -> bool:
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern
