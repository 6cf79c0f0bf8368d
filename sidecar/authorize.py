"""Authorize: what a gateway asks of each request that it has received. Route, credential, Validate, and what goes upstream.

The door says what came and carries the answer back; nothing here knows which gateway asks. What no route lets through is denied, and so
is whatever this sidecar cannot know. An unexpected exception is the boundary's, and the gateway's to deny.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sidecar import denials
from sidecar.caller import Caller
from sidecar.claims import RESERVED, Claims
from sidecar.denials import Denied
from sidecar.errors import DeniedCallerError, InvalidTokenError, SidecarError
from sidecar.issue import Grant, Issue
from sidecar.possession import Certificate, DpopProof, Evidence
from sidecar.profile import Profile
from sidecar.routes import (
    AUTHORIZATION,
    DPOP,
    AmbiguousRequestError,
    Credential,
    Request,
    Route,
    Upstream,
    credential,
    find,
)
from sidecar.upstream import Changes, Headers, claim_headers
from sidecar.validate import Accepted, Demand, Validate

NONCE_SECONDS = 120
"""How long one nonce is given out; it is taken for as long again."""

Refused = Callable[[SidecarError, str], None]
"""Puts on record that a request was refused before any token was judged."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """Let it through, changed so. `facts` are for the gateway: its metadata, its access log, its own rules."""

    changes: Changes
    facts: Mapping[str, object]


class Authorize:
    """The verb. `profiles`: those of [profiles], of which phantoms are made."""

    def __init__(
        self,
        routes: tuple[Route, ...],
        profiles: Mapping[str, Profile],
        validate: Validate,
        issue: Issue,
        *,
        now: Callable[[], float],
        fresh_id: Callable[[], str],
    ) -> None:
        self._routes = routes
        self._profiles = profiles
        self._validate = validate
        self._issue = issue
        self._now = now
        self._fresh_id = fresh_id
        self._headers = Headers(routes)
        self._secret = secrets.token_bytes(32)

    async def __call__(self, caller: Caller, request: Request, request_id: str, refused: Refused) -> Allowed | Denied:
        """Whether and how the request goes on."""
        try:
            route = find(self._routes, request)
            presented = credential(route, request.headers) if route and not route.open else None
        except AmbiguousRequestError as found:
            refused(InvalidTokenError(str(found)), "")
            return denials.ambiguous(request, str(found))
        if route is None:
            refused(DeniedCallerError("no route is for this request", stage="route.none"), "")
            return denials.unrouted(request)
        if route.open:
            return Allowed(self._headers.changes(request, {}), {"route": route.name})
        if presented is None:
            refused(InvalidTokenError("route.token"), "")
            return denials.unauthenticated(request, route)
        evidence = self._evidence(route, presented, request)
        demand = Demand(presented.token, route.audiences, route.profiles, route.scopes, evidence)
        try:
            accepted = await self._validate(caller, demand, request_id)
            put = self._put(caller, route, accepted, request_id)
        except SidecarError as error:
            refused(error, "")
            return denials.refused(request, route, error, self._nonces()[0] if route.dpop_nonce else "")
        gone = () if route.upstream is Upstream.PASS else route.token
        return Allowed(self._headers.changes(request, put, gone), _facts(route, accepted))

    def _evidence(self, route: Route, presented: Credential, request: Request) -> Evidence | None:
        """What the request shows of a key: with the scheme DPoP a proof, else the certificate of its connection."""
        proof = request.headers.get(DPOP)
        if presented.place.kind == "dpop" or (presented.place.kind in ("header", "cookie") and proof is not None):
            origin = route.origin or f"{request.scheme}://{request.host}"
            nonces = self._nonces() if route.dpop_nonce else ()
            return DpopProof(proof or "", request.method, origin + request.target, nonces)
        return Certificate(request.certificate) if request.certificate else None

    def _put(self, caller: Caller, route: Route, accepted: Accepted, request_id: str) -> dict[str, str]:
        """Headers that go upstream."""
        put = claim_headers(route.claims, accepted.claims)
        if route.upstream is Upstream.PHANTOM:
            grant = self._grant(route, accepted.claims)
            issued = self._issue(caller, grant, request_id, self._fresh_id())
            put[AUTHORIZATION] = f"Bearer {issued.token}"
        return put

    def _grant(self, route: Route, claims: Claims) -> Grant:
        """What a phantom says: the token's own claims, as far as its profile allows them, for this route's audiences and no longer."""
        profile = self._profiles[route.phantom]
        rules = profile.claims
        further = {
            name: value
            for name, value in claims.values.items()
            if name not in RESERVED and name not in rules.forbid and (rules.allow is None or name in rules.allow)
        }
        left = max(1, int(claims.expire_time - self._now()))
        return Grant(
            profile=route.phantom,
            subject=claims.subject,
            audiences=tuple(name for name in claims.audiences if name in route.audiences),
            ttl=min(profile.ttl, left),
            client_id=claims.client_id,
            scopes=claims.scopes,
            further=json.dumps(further, ensure_ascii=False, separators=(",", ":")).encode() if further else None,
        )

    def _nonces(self) -> tuple[str, ...]:
        """The nonce of now, and the one before (RFC 9449 section 9): this process's own, and nothing to remember."""
        window = int(self._now() // NONCE_SECONDS)
        return tuple(
            hmac.new(self._secret, str(one).encode(), hashlib.sha256).hexdigest()[:32] for one in (window, window - 1)
        )


def _facts(route: Route, accepted: Accepted) -> dict[str, object]:
    claims = accepted.claims
    return {
        "route": route.name,
        "profile": accepted.profile,
        "issuer": claims.issuer,
        "subject": claims.subject,
        "audiences": list(claims.audiences),
        "client_id": claims.client_id,
        "scopes": list(claims.scopes),
        "token_id": claims.token_id,
        "claims": {name: claims.values[name] for name in route.claims.values() if name in claims.values},
    }
