"""Destroy: take keys out of the ring that no good token can be under any more. Only the scheduler calls it."""

from __future__ import annotations

from sidecar.audit import Audit
from sidecar.caller import Caller
from sidecar.commits import Commits
from sidecar.failpoints import failpoint
from sidecar.keeper import Changed, Keeper
from sidecar.policy import Policy, Verb
from sidecar.profile import ring_owner


class Destroy:
    """The verb."""

    def __init__(self, keeper: Keeper, policy: Policy, audit: Audit, commits: Commits) -> None:
        self._keeper = keeper
        self._policy = policy
        self._audit = audit
        self._commits = commits

    async def __call__(self, caller: Caller, profile: str, *, request_id: str) -> Changed | None:
        """The ring without the keys that were due; None if there were none after all."""

        async def commit() -> Changed | None:
            ring = self._keeper.ring(profile)
            ids = [key.key_id for key in ring.destroyable(self._keeper.now())]
            with self._audit.decision(caller, Verb.DESTROY, profile, request_id) as decision:
                self._policy.check(caller, Verb.DESTROY, ring_owner(profile))
                await decision.intend(key_ids=ids)
                failpoint("destroy.intended")
                changed = await self._keeper.destroy(profile)
                if changed:
                    decision.facts.update(key_ids=ids, ring_revision=changed.revision)
            failpoint("destroy.recorded")
            return changed

        return await self._commits.run(commit())
