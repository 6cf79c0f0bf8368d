"""Duties: what a keeper does by itself when its time has come, and who of several does it.

Rules (keys.md, 11):
 1. Rotation, destruction and new data keys each have a due time. A keeper waits a little longer, each one differently: at most 10 min
    or a tenth of `rotate_every`.
 2. Before a duty it reads the store again: another one may have done it.
 3. Then it claims the duty by compare-and-set, for a minute, in a document of the store; only who has the claim goes to KMS and audit.
 4. Claims save work; they protect nothing. Two keepers at once are told apart by the compare-and-set of the ring. So a claim is not
    sealed, and one that claims to last longer than any does is none.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal

from sidecar.failpoints import failpoint

if TYPE_CHECKING:
    from sidecar.keeper import Keeper
    from sidecar.keyring import KeyUse
    from sidecar.ports import Store

DOCUMENT = "tokensidecar-duties"
"""The document of claims; no profile can have this name."""
CLAIM_SECONDS = 60.0
SPREAD_MAX = 600.0  # seconds
REKEY_EVERY = 30 * 86400.0  # seconds

Kind = Literal["rotate", "destroy", "rekey"]


@dataclass(frozen=True, slots=True)
class Duty:
    """One thing to do. `use` is of a rotation."""

    profile: str
    kind: Kind
    use: KeyUse | None = None


class Claim(Enum):
    """How asking for a duty ended; the value is what the metric says."""

    WON = "WON"
    LOST = "CLAIM_LOST"  # another keeper does it now
    DONE = "DONE_ALREADY"  # another one has done it


class Duties:
    """What is due, and claims on it."""

    def __init__(self, keeper: Keeper, store: Store, *, holder: str, spread: float) -> None:
        """`holder` names this process among keepers; `spread`, from 0 to 1, is its place in the delay of rule 1: both random."""
        self._keeper = keeper
        self._store = store
        self._holder = holder
        self._spread = spread

    def due(self, now: float) -> list[Duty]:
        """What this keeper owes at store time `now`; nothing while stale: a clock that jumped must not start a rotation."""
        owed: list[Duty] = []
        if not self._keeper.writable:
            return owed
        for name, ring in self._keeper.rings().items():
            if self._keeper.stale(name):
                continue
            rotate_every = self._keeper.profiles[name].rotate_every
            then = now - self._spread * min(SPREAD_MAX, rotate_every / 10)
            for use in self._keeper.uses(name):
                due = ring.rotation_due(use, rotate_every, then)
                if due is not None and due <= then:
                    owed.append(Duty(name, "rotate", use))
            if ring.destroyable(then) or self._keeper.scrub_due:
                owed.append(Duty(name, "destroy"))
            if self._keeper.data_keys_time(name) + REKEY_EVERY <= then:
                owed.append(Duty(name, "rekey"))
        return owed

    async def claim(self, duty: Duty) -> Claim:
        """Whether this process is to do it. Raises `UnavailableStoreError`, `UnavailableKmsError`."""
        await self._keeper.refresh()
        now = self._keeper.now()
        if duty not in self.due(now):
            return Claim.DONE
        document = await self._store.load(DOCUMENT)
        claims = {} if document is None else _claims(document.content, now)
        if duty.profile in claims and claims[duty.profile][0] != self._holder:
            return Claim.LOST
        claims[duty.profile] = (self._holder, now + CLAIM_SECONDS)
        content = json.dumps(claims, sort_keys=True).encode()
        failpoint("duty.before_claim")
        if not await self._store.save(DOCUMENT, content, expected=document.revision if document else 0):
            return Claim.LOST
        failpoint("duty.claimed")
        return Claim.WON


def _claims(content: bytes, now: float) -> dict[str, tuple[str, float]]:
    """By profile: holder, and until when. What is over, or no claim of this form, is left out."""
    try:
        found = json.loads(content)
        read = {str(profile): (str(holder), float(until)) for profile, (holder, until) in found.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return {profile: claim for profile, claim in read.items() if now < claim[1] <= now + 2 * CLAIM_SECONDS}
