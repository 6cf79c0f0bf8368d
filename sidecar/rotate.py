"""Rotate: prepare the successor of a profile's keys. The scheduler calls the same verb, as caller `sidecar`."""

from __future__ import annotations

from collections.abc import Callable

from sidecar.audit import Audit
from sidecar.caller import Caller
from sidecar.commits import Commits
from sidecar.errors import InvalidRequestError, Violation
from sidecar.failpoints import failpoint
from sidecar.keeper import Changed, Keeper
from sidecar.keyring import KeyUse
from sidecar.policy import Policy, Verb
from sidecar.profile import refresh_ring


class Rotate:
    """The verb."""

    def __init__(self, keeper: Keeper, policy: Policy, audit: Audit, commits: Commits) -> None:
        self._keeper = keeper
        self._policy = policy
        self._audit = audit
        self._commits = commits

    async def __call__(
        self,
        caller: Caller,
        profile: str,
        uses: tuple[KeyUse, ...] | None,
        *,
        expected: int = 0,
        rotation_id: str = "",
        why: str = "",
        request_id: str,
        alive: Callable[[], None],
    ) -> Changed:
        """The ring with its successors. `uses` None: all that the profile's tokens have; REFRESH alone: its refresh tokens' key. `rotation_id`: the same one gets the first answer.

        `alive` raises when the call's deadline has passed: asked last before the commit, which nothing can split from there on.
        """
        ring = refresh_ring(profile) if uses == (KeyUse.REFRESH,) else profile

        async def commit() -> Changed:
            with self._audit.decision(caller, Verb.ROTATE, profile, request_id) as decision:
                self._policy.check(caller, Verb.ROTATE, profile)
                if ring not in self._keeper.profiles:
                    raise InvalidRequestError(
                        Violation("key_use", f"profile {profile!r} has no refresh tokens (profiles.NAME.refresh_ttl)")
                    )
                alive()
                facts: dict[str, object] = {"why": why} if why else {}
                await decision.intend(**facts)
                failpoint("rotate.intended")
                changed = await self._keeper.rotate(ring, uses, expected=expected, request_id=rotation_id)
                decision.facts.update(facts, ring_revision=changed.revision)
            failpoint("rotate.recorded")
            return changed

        return await self._commits.run(commit())
