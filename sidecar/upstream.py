"""What goes upstream of a request that was let through: the credential taken out, claims as headers that nobody else can set. Pure.

A header's value is what it says of the claim and nothing else can be read into it: text is percent-encoded UTF-8 (RFC 3986), all but
unreserved characters, `:`, `/` and `@`; texts of a list stand between commas, which within a text are encoded; numbers, true and false are
JSON; objects, lists of other things, and `*`, the claims as a whole, are base64url of their JSON.

Headers that any route fills are taken out of every request, also spelled with `_` for `-`, which some servers take for the same.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from sidecar.claims import Claims
from sidecar.routes import AUTHORIZATION, COOKIE, DPOP, Place, Request, Route, without_cookie

ALL = "*"
"""In place of a claim's name: all of them."""

_SAFE = ":/@"


@dataclass(frozen=True, slots=True)
class Changes:
    """Headers to set, whatever they were, and to take out. Names are in lower case, and none is in both."""

    put: Mapping[str, str]
    out: tuple[str, ...]


class Headers:
    """The headers that routes fill."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._names = frozenset(name for route in routes for name in route.claims)
        self._spelled = {_spelled(name) for name in self._names}

    def changes(self, request: Request, put: Mapping[str, str], gone: Iterable[Place] = ()) -> Changes:
        """What to change of the request: `put` is set, the credentials of the places `gone` and every other header of ours taken out."""
        out = set(self._names) | {name for name in request.headers if _spelled(name) in self._spelled}
        put, lost = dict(put), list(gone)
        if lost:  # wherever the token stood: nobody has looked at what else is in these
            out |= {AUTHORIZATION, DPOP}
        out |= {place.name for place in lost if place.kind == "header"}
        if names := [place.name for place in lost if place.kind == "cookie"]:
            before = request.headers.get(COOKIE, "")
            left = without_cookie(before, names)
            if left and left != before:
                put[COOKIE] = left
            elif not left:
                out.add(COOKIE)
        return Changes(put, tuple(sorted(out - put.keys())))


def claim_headers(wanted: Mapping[str, str], claims: Claims) -> dict[str, str]:
    """The headers for these claims; one that the token lacks has none."""
    found = {}
    for header, name in wanted.items():
        if name == ALL:
            found[header] = _encoded(claims.payload)
        elif name in claims.values:
            found[header] = text(claims.values[name])
    return found


def text(value: object) -> str:
    """One claim as a header's value."""
    match value:
        case str():
            return quote(value, safe=_SAFE)
        case bool() | int() | float() | None:
            return json.dumps(value)
        case list() if all(type(item) is str for item in value):
            return ",".join(quote(item, safe=_SAFE) for item in value)
    return _encoded(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _spelled(name: str) -> str:
    return name.replace("_", "-")
