"""Refresh: trade a refresh token for a new pair (RFC 6749, section 6), once (RFC 9700, section 4.14).

Rules (keys.md, 17):
 1. Each refresh token is spent once. Its repeat within the grace, while its successor is unspent, is answered again with the same ids
    and times: a lost reply costs nothing.
 2. Any other repeat revokes the family, access tokens included: somebody has a copy.
 3. Spending is one transaction of the store, which also looks whether the family or the subject has been revoked. Without the store
    there is no answer.
 4. A request may narrow what the access token gets. The refresh token carries the grant on as it was.
 5. A family ends at `refresh_max_ttl` after its first token, however often it is refreshed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256

from sidecar import claims as claims_, possession, refresh_tokens
from sidecar.audit import Audit
from sidecar.caller import Caller
from sidecar.commits import Commits
from sidecar.denylist import Denylist, digest_of
from sidecar.errors import (
    EarlyTokenError,
    ExpiredTokenError,
    InvalidRequestError,
    InvalidTokenError,
    ReusedRefreshError,
    RevokedTokenError,
    UnprovenPossessionError,
    Violation,
)
from sidecar.failpoints import failpoint
from sidecar.gate import Gated
from sidecar.issue import Draft, Issue, Issued
from sidecar.keeper import Keeper
from sidecar.keyring import KeyUse
from sidecar.live import Found
from sidecar.metrics import Metrics
from sidecar.policy import Policy, Verb
from sidecar.ports import FOREVER, Ended, Ledger, Revocation, Spending, Turn
from sidecar.possession import Evidence, Proven
from sidecar.profile import refresh_ring, ring_owner
from sidecar.refresh_tokens import Session
from sidecar.replay import Replay

GRACE = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Wish:
    """A refresh token, and what the new access token is to have of its grant; empty: all. `evidence` as for Validate."""

    token: str
    audiences: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True)
class Genuine:
    """A refresh token that was opened."""

    profile: str
    found: Found
    session: Session


class Refresh:
    """The verb."""

    def __init__(
        self,
        keeper: Keeper,
        ledger: Ledger,
        denylist: Denylist,
        issue: Issue,
        policy: Policy,
        audit: Audit,
        metrics: Metrics,
        commits: Commits,
    ) -> None:
        self._keeper = keeper
        self._ledger = ledger
        self._denylist = denylist
        self._issue = issue
        self._policy = policy
        self._audit = audit
        self._metrics = metrics
        self._commits = commits
        self._replay = Replay()

    async def __call__(
        self, caller: Caller, wish: Wish, request_id: str, token_id: str, alive: Callable[[], None]
    ) -> Issued:
        """The new pair. `token_id` must be fresh and random. `alive` as for Rotate."""

        async def commit() -> Issued:
            with (
                self._audit.decision(caller, Verb.REFRESH, "", request_id) as decision,
                self._metrics.token(Verb.REFRESH, "") as counted,
            ):
                genuine = await self.genuine(wish.token, self._policy.allowed(caller, Verb.REFRESH))
                decision.profile = counted.profile = genuine.profile
                session = genuine.session
                decision.facts = self._audit.named(subject=session.subject, token_id=session.token_id)
                await self._check(genuine, wish)
                self._draft(genuine, wish, token_id, self._keeper.now())  # what is refused must spend nothing
                alive()
                await decision.intend_to_spend()
                failpoint("refresh.judged")
                issued = await self._spend(genuine, wish, token_id)
                decision.facts = self._issue.facts(issued)
            failpoint("refresh.recorded")
            return issued

        return await self._commits.run(commit())

    async def genuine(self, token: str, profiles: Iterable[str]) -> Genuine:
        """What the token says. `InvalidTokenError`: it is no refresh token of these profiles."""
        layer = refresh_tokens.gated(token)
        rings = tuple(ring for ring in sorted(map(refresh_ring, profiles)) if ring in self._keeper.profiles)
        found = await self._found(rings, layer)
        session, _ = refresh_tokens.opened(layer, found.key, found.profile)
        return Genuine(ring_owner(found.profile.name), found, session)

    async def _found(self, rings: tuple[str, ...], layer: Gated) -> Found:
        found = await self._keeper.find_or_refresh(rings, layer.kid, KeyUse.REFRESH) if rings else None
        if found is None:
            raise InvalidTokenError("key.unknown")
        return found

    def family(self, genuine: Genuine) -> Revocation:
        """What ends the family: remembered until the last access token that can come of it has expired."""
        profile, session = self._keeper.profiles[genuine.profile], genuine.session
        longest = max(profile.refresh_max_ttl, session.expire_time - session.began)
        until = session.began + longest + self._keeper.lifetime(genuine.profile)
        return Revocation(
            Ended.FAMILY, digest_of(Ended.FAMILY, genuine.profile, session.family), FOREVER, math.ceil(until)
        )

    async def _check(self, genuine: Genuine, wish: Wish) -> None:
        session, settings, now = genuine.session, genuine.found.key.facts.settings, self._keeper.now()
        if session.issue_time > now + settings.leeway:
            raise EarlyTokenError
        if now >= session.expire_time:  # no leeway: what was spent is remembered until then
            raise ExpiredTokenError
        denylist = self._denylist
        if (
            denylist.before(Ended.FAMILY, genuine.profile, session.family) >= 0
            or denylist.before(Ended.SUBJECT, genuine.profile, session.subject) >= session.began
        ):
            raise RevokedTokenError
        cnf = session.bond.claim if session.bond else None
        proven = possession.prove(
            cnf,
            wish.evidence,
            token=None,
            now=now,
            max_age=genuine.found.profile.proof_age,
            leeway=settings.leeway,
        )
        bad = [
            Violation(field, f"may narrow what was granted, never widen it: {', '.join(granted) or 'nothing'}")
            for field, asked, granted in (
                ("audiences", wish.audiences, session.audiences),
                ("scopes", wish.scopes, session.scopes),
            )
            if not set(asked) <= set(granted)
        ]
        if bad:
            raise InvalidRequestError(*bad)
        if proven and proven.proof:
            await self._take(genuine, proven, now)

    async def _take(self, genuine: Genuine, proven: Proven, now: float) -> None:
        """Take the proof once, here or for all of the store's sidecars, as the profile says."""
        if genuine.found.profile.proof_replay != "fleet":
            self._replay.take(genuine.profile, proven.proof, proven.until, now)
            return
        known = sha256(b"dpop." + refresh_ring(genuine.profile).encode() + b"." + proven.proof).digest()[:16]
        until = math.ceil(proven.until + 2 * genuine.found.key.facts.settings.max_skew)
        if not await self._ledger.consume(known, b"", until):
            raise UnprovenPossessionError(stage="possession.replayed")

    async def _spend(self, genuine: Genuine, wish: Wish, token_id: str) -> Issued:
        session, family = genuine.session, self.family(genuine)
        subject = digest_of(Ended.SUBJECT, genuine.profile, session.subject)
        spent = await self._ledger.spend(
            Spending(
                family,
                session.token_id,
                token_id,
                first=session.token_id == session.family,
                bars=((family.digest, 0), (subject, session.began)),
                grace=GRACE,
            )
        )
        failpoint("refresh.spent")
        if spent.turn is Turn.REVOKED:
            raise RevokedTokenError
        if spent.turn is Turn.REUSED:
            self._denylist.add(family)
            raise ReusedRefreshError
        return self._issue.made(self._draft(genuine, wish, spent.successor, spent.time))

    def _draft(self, genuine: Genuine, wish: Wish, token_id: str, now: float) -> Draft:
        """The new pair, as of that time: of a repeat it is the first answer's, so that both answers say the same."""
        session, keys = genuine.session, self._keeper.issuing(genuine.profile)
        settings = self._issue.settings(keys)
        claims = claims_.build(
            profile=keys.profile,
            settings=settings,
            subject=session.subject,
            audiences=wish.audiences or session.audiences,
            ttl=min(session.ttl, settings.max_ttl),
            client_id=session.client_id,
            scopes=wish.scopes or session.scopes,
            further=session.further,
            token_id=token_id,
            now=now,
            bond=session.bond,
            family=session.family,
        )
        return self._issue.with_refresh(Draft(claims, keys), session, now)
