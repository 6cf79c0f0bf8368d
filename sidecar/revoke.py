"""Revoke: take tokens back. The presented one (logout), one by its id, or all of a subject (keys.md, rule 15).

What is revoked is durable in the ledger before the answer, holds in this sidecar from then on, and everywhere by `effective_time`. To
revoke again changes nothing; what nobody knows is revoked as well as anything (RFC 7009, section 2.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sidecar.audit import Audit, Decision
from sidecar.caller import Caller
from sidecar.commits import Commits
from sidecar.denylist import Denylist, digest_of
from sidecar.errors import InvalidRequestError, InvalidTokenError, Violation
from sidecar.failpoints import failpoint
from sidecar.keeper import Keeper
from sidecar.policy import Policy, Verb
from sidecar.ports import FOREVER, Ended, Ledger, Revocation
from sidecar.refresh import Refresh
from sidecar.refresh_tokens import is_refresh_token
from sidecar.validate import Validate


@dataclass(frozen=True, slots=True)
class Held:
    """A revocation that is held: at which revision, and the store time by which every sidecar obeys or is stale."""

    revision: int
    effective_time: float


class Revoke:
    """The three verbs. Times are seconds since the epoch."""

    def __init__(
        self,
        keeper: Keeper,
        ledger: Ledger,
        denylist: Denylist,
        validate: Validate,
        refresh: Refresh,
        policy: Policy,
        audit: Audit,
        commits: Commits,
    ) -> None:
        self._keeper = keeper
        self._ledger = ledger
        self._denylist = denylist
        self._validate = validate
        self._refresh = refresh
        self._policy = policy
        self._audit = audit
        self._commits = commits

    async def presented(
        self, caller: Caller, token: str, *, why: str, request_id: str, alive: Callable[[], None]
    ) -> Held:
        """End the token that the caller has. OK also for what is no token of ours: it is good for nothing already."""

        async def commit() -> Held:
            with self._audit.decision(caller, Verb.REVOKE, "", request_id) as decision:
                try:
                    decision.profile, names, revocation = await self._named(caller, token)
                except InvalidTokenError as unknown:
                    decision.facts.update(stage=unknown.stage, **_facts(why))
                    return Held(self._denylist.revision, self._keeper.now())
                hashes = self._audit.named(**names)
                held = await self._hold(decision, revocation, {**hashes, **_facts(why)}, alive)
            failpoint("revoke.recorded")
            return held

        return await self._commits.run(commit())

    async def token_id(
        self,
        caller: Caller,
        profile: str,
        token_id: str,
        expire_time: float | None,
        *,
        why: str,
        request_id: str,
        alive: Callable[[], None],
    ) -> Held:
        """End one token by `jti`. `expire_time` None: not known; a time past the profile's longest lifetime is taken for that."""

        async def commit() -> Held:
            with self._audit.decision(caller, Verb.REVOKE_TOKEN_ID, profile, request_id) as decision:
                self._policy.check(caller, Verb.REVOKE_TOKEN_ID, profile)
                longest = self._keeper.now() + self._keeper.lifetime(profile)
                until = longest if expire_time is None else min(longest, expire_time + self._margin(profile))
                revocation = _of(Ended.TOKEN, profile, token_id, until)
                held = await self._hold(
                    decision, revocation, {**self._audit.named(token_id=token_id), **_facts(why)}, alive
                )
            failpoint("revoke.recorded")
            return held

        return await self._commits.run(commit())

    async def subject(
        self,
        caller: Caller,
        profile: str,
        subject: str,
        issued_before: float | None,
        *,
        why: str,
        request_id: str,
        alive: Callable[[], None],
    ) -> Held:
        """End every token of the subject with `iat` up to that time (None: now) and `max_skew`, and every refresh family begun by then.

        Until that moment has passed, no token of the subject is issued where this is known. `InvalidRequestError`: it is in the future.
        """

        async def commit() -> Held:
            with self._audit.decision(caller, Verb.REVOKE_SUBJECT, profile, request_id) as decision:
                self._policy.check(caller, Verb.REVOKE_SUBJECT, profile)
                now = math.ceil(self._keeper.now())
                before = now if issued_before is None else math.ceil(issued_before)
                if before > now:
                    raise InvalidRequestError(
                        Violation("issued_before", "is in the future; leave it unset for all tokens until now")
                    )
                last = before + math.ceil(self._keeper.profiles[profile].max_skew)
                until = last + self._keeper.profiles[profile].refresh_max_ttl + self._keeper.lifetime(profile)
                digest = digest_of(Ended.SUBJECT, profile, subject)
                facts = {**self._audit.named(subject=subject), "issued_before": before, **_facts(why)}
                held = await self._hold(
                    decision, Revocation(Ended.SUBJECT, digest, last, math.ceil(until)), facts, alive
                )
            failpoint("revoke.recorded")
            return held

        return await self._commits.run(commit())

    async def _named(self, caller: Caller, token: str) -> tuple[str, dict[str, str], Revocation]:
        """Profile, ids, and what would end it: of a refresh token its family. `InvalidTokenError`: it is none of ours."""
        profiles = tuple(sorted(self._policy.allowed(caller, Verb.REVOKE)))
        if is_refresh_token(token):
            genuine = await self._refresh.genuine(token, profiles)
            session = genuine.session
            names = {"subject": session.subject, "token_id": session.token_id}
            return genuine.profile, names, self._refresh.family(genuine)
        profile, claims = await self._validate.genuine(caller, token, profiles)
        until = claims.expire_time + self._margin(profile)
        names = {"subject": claims.subject, "token_id": claims.token_id}
        return profile, names, _of(Ended.TOKEN, profile, claims.token_id, until)

    async def _hold(
        self, decision: Decision, revocation: Revocation, facts: Mapping[str, object], alive: Callable[[], None]
    ) -> Held:
        alive()
        await decision.intend(**facts)
        failpoint("revoke.intended")
        revision = await self._ledger.revoke(revocation)
        failpoint("revoke.held")
        self._denylist.add(revocation)
        decision.facts.update(facts, revocation_revision=revision)
        return Held(revision, self._keeper.obeyed_by(decision.profile))

    def _margin(self, profile: str) -> int:
        """Seconds after `exp` for which a token may still be taken somewhere."""
        settings = [key.settings for key in self._keeper.ring(profile).keys]
        return max(math.ceil(s.leeway + 2 * s.max_skew) for s in settings)


def _of(kind: Ended, profile: str, name: str, until: float) -> Revocation:
    return Revocation(kind, digest_of(kind, profile, name), FOREVER, math.ceil(until))


def _facts(why: str) -> dict[str, object]:
    return {"why": why} if why else {}
