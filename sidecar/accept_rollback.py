"""AcceptRollback: what the store has now is the truth, although this sidecar has seen newer. Only the command line calls it."""

from __future__ import annotations

from collections.abc import Mapping

from sidecar.audit import Audit
from sidecar.caller import Caller
from sidecar.commits import Commits
from sidecar.failpoints import failpoint
from sidecar.keeper import Keeper
from sidecar.policy import Verb


class AcceptRollback:
    """The verb. No plane serves it, so no policy is asked: who runs the command holds the keys."""

    def __init__(self, keeper: Keeper, audit: Audit, commits: Commits) -> None:
        self._keeper = keeper
        self._audit = audit
        self._commits = commits

    async def __call__(self, caller: Caller, *, why: str = "", request_id: str) -> Mapping[str, str]:
        """By profile, what had gone back and is accepted; empty: nothing had, and nothing is recorded."""

        async def commit() -> Mapping[str, str]:
            with self._audit.decision(caller, Verb.ACCEPT_ROLLBACK, "", request_id) as decision:
                facts: dict[str, object] = {"rolled_back": dict(self._keeper.alarms()), **({"why": why} if why else {})}
                await decision.intend(**facts)
                failpoint("accept_rollback.intended")
                accepted = await self._keeper.accept_rollback()
                decision.facts.update(facts)
            failpoint("accept_rollback.recorded")
            return accepted

        return await self._commits.run(commit()) if self._keeper.alarms() else {}
