"""The HTTP answer to a request that is not let through: status, challenge, and a body that says no more than they do. Pure.

401 with the challenges of RFC 6750 section 3 and RFC 9449 section 7.1, 403 `insufficient_scope` or without a route, 400 for what could be
read in two ways, 503 where this sidecar cannot know. Why is in the facts, for the gateway's metadata and access log, never for the client.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from sidecar.errors import Code, Reason, SidecarError
from sidecar.jose.presented import ALGORITHMS
from sidecar.routes import Request, Route

PROBLEM = "application/problem+json"

_NONCE_STAGE = "possession.nonce"
_PROOF_ALGORITHMS = " ".join(sorted(ALGORITHMS))


@dataclass(frozen=True, slots=True)
class Denied:
    """An answer for the client; `facts` are for the gateway alone."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    facts: Mapping[str, object]


def unrouted(request: Request) -> Denied:
    """No route is for this request."""
    return _denied(request, 403, {}, "access_denied", {"reason": "NO_ROUTE"})


def ambiguous(request: Request, stage: str) -> Denied:
    """The request could be read in two ways (RFC 6750 section 3.1, `invalid_request`)."""
    return _denied(request, 400, {}, "invalid_request", {"reason": "AMBIGUOUS_REQUEST", "stage": stage})


def unauthenticated(request: Request, route: Route) -> Denied:
    """There is no token: the challenge alone, without an error (RFC 6750 section 3)."""
    headers = {"www-authenticate": _challenges(route)}
    return _denied(request, 401, headers, "authentication_required", {"route": route.name, "reason": "NO_TOKEN"})


def refused(request: Request, route: Route, error: SidecarError, nonce: str) -> Denied:
    """The token was judged and is no good, or could not be judged. `nonce`: one for the client's next proof; empty: none are asked for."""
    facts: dict[str, object] = {"route": route.name, "reason": error.reason.name}
    headers: dict[str, str] = {}
    if error.reason is Reason.TOKEN_SCOPE_MISSING:
        headers["www-authenticate"] = _challenges(route, "insufficient_scope", scope=" ".join(route.scopes))
        return _denied(request, 403, headers, "insufficient_scope", facts)
    if error.reason.code is Code.UNAUTHENTICATED:
        words = "invalid_token"
        if error.reason is Reason.TOKEN_POSSESSION_UNPROVEN and "dpop" in {place.kind for place in route.token}:
            words = "use_dpop_nonce" if error.stage == _NONCE_STAGE else "invalid_dpop_proof"
        headers["www-authenticate"] = _challenges(route, words)
        if nonce and words != "invalid_token":
            headers["dpop-nonce"] = nonce
        return _denied(request, 401, headers, words, facts)
    if error.retry_after is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after))
    return _denied(request, 503, headers, "temporarily_unavailable", facts)


def _challenges(route: Route, error: str = "", scope: str = "") -> str:
    """Both schemes in one field, where the route takes both (RFC 9110 section 11.6.1)."""
    kinds = {place.kind for place in route.token}
    common = ([f'error="{error}"'] if error else []) + ([f'scope="{scope}"'] if scope else [])
    found = []
    if kinds != {"dpop"}:
        of_bearer = [
            part.replace("invalid_dpop_proof", "invalid_token") for part in common if "use_dpop_nonce" not in part
        ]
        found.append(" ".join(["Bearer", ", ".join(of_bearer)]).strip())
    if "dpop" in kinds:
        found.append("DPoP " + ", ".join([*common, f'algs="{_PROOF_ALGORITHMS}"']))
    return ", ".join(found)


def _denied(
    request: Request, status: int, headers: Mapping[str, str], words: str, facts: Mapping[str, object]
) -> Denied:
    accept = request.headers.get("accept", "")
    if request.headers.get("content-type", "").startswith("application/grpc"):
        body, media_type = words.encode(), "text/plain"  # becomes grpc-message
    elif "json" in accept:
        problem = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "error": words}
        body, media_type = json.dumps(problem, separators=(",", ":")).encode(), PROBLEM
    else:
        body, media_type = words.encode() + b"\n", "text/plain; charset=utf-8"
    return Denied(status, {**headers, "content-type": media_type, "cache-control": "no-store"}, body, facts)
