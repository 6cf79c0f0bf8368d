"""One ring in memory: a snapshot of a document that was opened, with what a call looks up prepared."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidecar.errors import StaleStateError
from sidecar.keyring import Key, KeyUse, uses_of

if TYPE_CHECKING:
    from sidecar.jose.keys import Material
    from sidecar.profile import Profile
    from sidecar.sealing import Opened


@dataclass(frozen=True, slots=True)
class LiveKey:
    """A key's public facts, and its material in the role that it was asked for."""

    facts: Key
    material: Material


@dataclass(frozen=True, slots=True)
class Issuing:
    """What makes a token now. `signature` is None where the format has no inner layer, `encryption` where it has no other."""

    profile: Profile
    ring_revision: int
    encryption: LiveKey | None
    signature: LiveKey | None

    @property
    def outer(self) -> LiveKey:
        """The key of the outermost layer."""
        key = self.encryption or self.signature
        assert key is not None  # noqa: S101 # made with one
        return key

    @property
    def inner(self) -> LiveKey:
        """The key of the innermost layer, by whose settings claims are judged."""
        key = self.signature or self.encryption
        assert key is not None  # noqa: S101 # made with one
        return key


@dataclass(frozen=True, slots=True)
class Found:
    """A key that opens now, and the profile that it belongs to."""

    profile: Profile
    ring_revision: int
    key: LiveKey


class Live:
    """One profile's ring. `max_staleness` and `max_skew` are in seconds."""

    __slots__ = ("_found", "_issuing", "_since", "_until", "max_skew", "max_staleness", "opened", "profile")

    def __init__(self, opened: Opened, profile: Profile) -> None:
        self.opened = opened
        self.profile = profile
        # A key is destroyed by the settings that were written with it: nobody may serve on state that is older than those allow.
        settings = [key.settings for key in opened.ring.keys]
        self.max_staleness = min([profile.max_staleness, *(s.max_staleness for s in settings)])
        self.max_skew = min([profile.max_skew, *(s.max_skew for s in settings)])
        # Pending, active and retiring keys open; compromised ones have no part. With each, the time from which it opens no more.
        self._found = {
            key.key_id: (
                Found(profile, opened.ring.revision, LiveKey(key, material[key.key_id])),
                math.inf if key.destroy_time is None else key.destroy_time,
            )
            for key in opened.ring.keys
            for material in (opened.issue if key.use is KeyUse.REFRESH else opened.open,)
            if key.key_id in material
        }
        self._issuing: Issuing | None = None
        self._since = self._until = 0.0  # between which that holds

    def issuing(self, now: float) -> Issuing:
        """The active keys at store time `now`. `StaleStateError`: there are none, which only an old state can show."""
        if self._issuing is None or not self._since <= now < self._until:
            format_ = self.opened.ring.format(now)
            uses = uses_of(format_) if format_ else tuple(KeyUse)  # none is whole: what is missing is told
            encryption = self._active(KeyUse.ENCRYPTION, now) if KeyUse.ENCRYPTION in uses else None
            signature = self._active(KeyUse.SIGNATURE, now) if KeyUse.SIGNATURE in uses else None
            changes = (
                t for key in self.opened.ring.keys for t in (key.activate_time, key.retire_time) if t is not None
            )
            self._issuing = Issuing(self.profile, self.opened.ring.revision, encryption, signature)
            self._since, self._until = now, min((t for t in changes if t > now), default=math.inf)
        return self._issuing

    def refreshing(self, now: float) -> LiveKey:
        """The active key of a refresh ring. `StaleStateError` as for `issuing`."""
        return self._active(KeyUse.REFRESH, now)

    def found(self, key_id: str, use: KeyUse, now: float) -> Found | None:
        """The key of that id and use, if it opens at store time `now`."""
        found = self._found.get(key_id)
        return found[0] if found is not None and now < found[1] and found[0].key.facts.use is use else None

    def _active(self, use: KeyUse, now: float) -> LiveKey:
        facts = self.opened.ring.active(use, now)
        if facts is None:
            raise StaleStateError(f"no {use.value} key of profile {self.profile.name!r} is active at this time")
        return LiveKey(facts, self.opened.issue[facts.key_id])
