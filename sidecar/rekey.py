"""Rekey: fresh data keys for a profile's ring, under the key-encryption keys of now. Token keys stay as they are."""

from __future__ import annotations

from sidecar.audit import Audit
from sidecar.caller import Caller
from sidecar.commits import Commits
from sidecar.failpoints import failpoint
from sidecar.keeper import Changed, Keeper
from sidecar.policy import Verb


class Rekey:
    """The verb. The scheduler and the command line call it; no plane serves it, so no policy is asked."""

    def __init__(self, keeper: Keeper, audit: Audit, commits: Commits) -> None:
        self._keeper = keeper
        self._audit = audit
        self._commits = commits

    async def __call__(self, caller: Caller, profile: str, *, request_id: str) -> Changed:
        """The same ring at its next revision, with everything in it sealed anew."""

        async def commit() -> Changed:
            with self._audit.decision(caller, Verb.REKEY, profile, request_id) as decision:
                await decision.intend()
                failpoint("rekey.intended")
                changed = await self._keeper.rekey(profile)
                decision.facts.update(ring_revision=changed.revision)
            failpoint("rekey.recorded")
            return changed

        return await self._commits.run(commit())
