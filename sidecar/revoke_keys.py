"""RevokeKeys: named keys are compromised and neither issue nor open; their successor is active in the same step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sidecar.audit import Audit
from sidecar.caller import Caller
from sidecar.commits import Commits
from sidecar.failpoints import failpoint
from sidecar.keeper import Changed, Keeper
from sidecar.policy import Policy, Verb
from sidecar.profile import refresh_ring


@dataclass(frozen=True, slots=True)
class Revoked:
    """The ring after the change, and the store time by which every sidecar that a change can reach obeys or is stale."""

    changed: Changed
    effective_time: float


class RevokeKeys:
    """The verb. `mounted`: sidecars see a change only once their kubelet has renewed a mount, for which `propagation` is allowed.

    One on a node that is cut off from the API server does not see it, and does not know: no time can be told for that one.
    """

    def __init__(
        self, keeper: Keeper, policy: Policy, audit: Audit, commits: Commits, *, mounted: bool = False
    ) -> None:
        self._mounted = mounted
        self._keeper = keeper
        self._policy = policy
        self._audit = audit
        self._commits = commits

    async def __call__(
        self,
        caller: Caller,
        profile: str,
        key_ids: frozenset[str],
        *,
        why: str = "",
        request_id: str,
        alive: Callable[[], None],
    ) -> Revoked:
        """End the named keys. `InvalidRequestError`: the profile has no such key. `alive` as for Rotate."""

        async def commit() -> Revoked:
            with self._audit.decision(caller, Verb.REVOKE_KEYS, profile, request_id) as decision:
                self._policy.check(caller, Verb.REVOKE_KEYS, profile)
                alive()
                facts: dict[str, object] = {"key_ids": sorted(key_ids), **({"why": why} if why else {})}
                await decision.intend(**facts)
                failpoint("revoke_keys.intended")
                changed, obeyed = await self._compromise(profile, key_ids)
                decision.facts.update(facts, ring_revision=changed.revision)
            failpoint("revoke_keys.recorded")
            delay = self._keeper.profiles[profile].propagation if self._mounted else 0
            return Revoked(changed, obeyed + delay)

        return await self._commits.run(commit())

    async def _compromise(self, profile: str, key_ids: frozenset[str]) -> tuple[Changed, float]:
        """The keys may be those of tokens, of refresh tokens, or some of each; the ring that is told of is the one that was changed last."""
        ring = refresh_ring(profile)
        refresh = self._keeper.rings().get(ring)
        of_refresh = key_ids & {key.key_id for key in refresh.keys} if refresh else frozenset[str]()
        obeyed = 0.0
        if key_ids - of_refresh or not of_refresh:
            changed = await self._keeper.compromise(profile, key_ids - of_refresh)
            obeyed = self._keeper.obeyed_by(profile)
        if of_refresh:
            changed = await self._keeper.compromise(ring, of_refresh)
            obeyed = max(obeyed, self._keeper.obeyed_by(ring))
        return changed, obeyed
