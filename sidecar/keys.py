"""ListKeys and GetJwks: what is public about the keys."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sidecar.audit import Audit
from sidecar.caller import Caller
from sidecar.keeper import Keeper
from sidecar.keyring import Key, KeyState, KeyUse
from sidecar.policy import Policy, Verb
from sidecar.profile import refresh_ring


@dataclass(frozen=True, slots=True)
class Listed:
    """One key's public facts and its state now."""

    profile: str
    ring_revision: int
    key: Key
    state: KeyState


class Keys:
    """The two verbs that read."""

    def __init__(self, keeper: Keeper, policy: Policy, audit: Audit) -> None:
        self._keeper = keeper
        self._policy = policy
        self._audit = audit

    def listed(self, caller: Caller, profile: str, request_id: str) -> list[Listed]:
        """The keys of one profile, or of all (empty name), ordered by profile, use and creation; destroyed ones left out."""
        with self._audit.decision(caller, Verb.LIST_KEYS, profile, request_id, quiet=True):
            self._policy.check(caller, Verb.LIST_KEYS, profile or None)
            rings = self._keeper.rings()
            names = [profile] if profile else sorted(self._policy.allowed(caller, Verb.LIST_KEYS) & rings.keys())
            return [listed for name in names for listed in self.of(name)]

    def of(self, profile: str) -> list[Listed]:
        """The same without asking, for answers about a change that was allowed. `StaleStateError`: there is no ring yet."""
        now, rings = self._keeper.now(), [self._keeper.ring(profile)]
        if refresh_ring(profile) in self._keeper.profiles:
            rings.append(self._keeper.ring(refresh_ring(profile)))
        listed = [Listed(profile, ring.revision, key, key.state(now)) for ring in rings for key in ring.keys]
        return sorted(
            (one for one in listed if one.state is not KeyState.DESTROYED),
            key=lambda one: (one.key.use.value, one.key.create_time, one.key.key_id),
        )

    def jwks(self, caller: Caller, profile: str, uses: tuple[KeyUse, ...], request_id: str) -> tuple[str, int]:
        """The public halves as a JWK Set (RFC 7517, section 5), and the ring's revision."""
        with self._audit.decision(caller, Verb.GET_JWKS, profile, request_id, quiet=True):
            self._policy.check(caller, Verb.GET_JWKS, profile)
            return self.jwks_of(profile, uses)

    def jwks_of(self, profile: str, uses: tuple[KeyUse, ...]) -> tuple[str, int]:
        """The same without asking, for what is published anyway."""
        keys, revision = self._keeper.public_jwks(profile, uses)
        return json.dumps({"keys": keys}, separators=(",", ":")), revision
