"""The invariants, checked whenever a ring is stored or taken in, a token is made or judged, a key revoked.

 1. Of one use in one ring there is exactly one active key from now on, at every moment: none has two, none has a gap.
 2. An acknowledged token is accepted until `exp` at every sidecar that answers: STATE_STALE and UNAVAILABLE are answers, TOKEN_INVALID is
    not, and too early or too late are not while clocks are as right as is assumed. What has expired is not accepted. A limit: a key that
    stepped in for a revoked one is active at once. Who has looked for an unknown key just before does not look again for a moment, and
    who reads a mount does not know the key before the mount is renewed.
 3. From its `effective_time` on a revoked key neither makes a token nor opens one.
 4. A key stays until the last good token under it has expired.
 5. Revisions, keys and their states never step back: in the store, at any sidecar, over a restart with pins; one revision is one ring.
 6. No token outlives its key.
 7. A sidecar that says it is not stale issues, and none raises an alarm where nothing stepped back.

Times of the store are true here; what a sidecar takes for them may be off by `reckoning`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidecar.keeper import UNKNOWN_SECONDS
from sidecar.keyring import Key, KeyState, KeyUse, Ring, uses_of
from tests.hand_clock import START

if TYPE_CHECKING:
    from sidecar.ports import Document

_RANK = {
    KeyState.PENDING: 0,
    KeyState.ACTIVE: 1,
    KeyState.RETIRING: 2,
    KeyState.DESTROYED: 3,
    KeyState.COMPROMISED: 4,
}


@dataclass(frozen=True, slots=True)
class Token:
    """One that was acknowledged. Times in seconds since the epoch; `keys` are outermost first."""

    text: str
    profile: str
    keys: tuple[str, ...]
    issue_time: int
    expire_time: int
    leeway: int


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that did not hold."""

    time: float
    rule: str
    words: str


class Checker:
    """Knows everything that any sidecar should."""

    def __init__(self, reckoning: float, renewal: float) -> None:
        self.reckoning = reckoning
        self.renewal = renewal  # seconds until a sidecar looks again
        self.violations: list[Violation] = []
        self.stored: dict[str, dict[tuple[int, int], bytes]] = {}  # by profile, then age
        self.newest: dict[str, Ring] = {}
        self.facts: dict[str, Key] = {}
        self.good_until: dict[str, int] = {}  # by key, the last `exp` that was acknowledged
        self.compromised: dict[str, float] = {}  # by key, when it was written
        self.effective: dict[str, float] = {}  # by key, what RevokeKeys answered
        self.stored_at: dict[str, float] = {}  # by key
        self.hurried: set[str] = set()  # keys that stepped in for a revoked one
        self.limits = 0
        self.rings_stored = self.keys_destroyed = 0

    def violate(self, time: float, rule: str, words: str) -> None:
        self.violations.append(Violation(time, rule, words))

    # The store

    def committed(self, name: str, before: Document | None, after: Document, now: float) -> None:
        """A document was stored."""
        new = getattr(after.content, "ring", None)
        if new is None:
            return  # claims of duties
        old: Ring | None = getattr(before.content, "ring", None) if before else None
        self.rings_stored += 1
        self.stored.setdefault(name, {})[new.history, new.revision] = after.content
        self.newest[name] = new
        if old is None:
            if self.stored[name].keys() != {(1, 1)}:
                self.violate(now, "5 made anew", f"the ring of {name} was made a second time")
        else:
            self._check_steps(old, new, now)
            if new.revision != old.revision + 1 or new.history != old.history:
                self.violate(now, "5 revision", f"{name}: revision {new.revision} after {old.revision}")
        self._check_coverage(new, now)
        revoked = any(k.compromise_time is not None and k.key_id not in self.compromised for k in new.keys)
        for key in new.keys:
            self.facts.setdefault(key.key_id, key)
            self.stored_at.setdefault(key.key_id, now)
            was = old.key(key.key_id) if old else None
            if revoked and (was is None or was.activate_time > key.activate_time):
                self.hurried.add(key.key_id)
            if key.compromise_time is not None:
                self.compromised.setdefault(key.key_id, now)
            elif key.destroy_time is not None:
                self._check_end(key, key.destroy_time, now)

    def _check_coverage(self, ring: Ring, now: float) -> None:
        """At every moment from now on: no use has two active keys, and those of the last activated key's format each have one."""
        keys = [key for key in ring.keys if key.compromise_time is None]
        # A little later than now: who changed the ring may have taken it for later than it is.
        moments = {now + 2 * self.reckoning}
        moments.update(
            t for key in keys for t in (key.activate_time, key.retire_time) if t is not None and t > min(moments)
        )
        where = f"{ring.profile} revision {ring.revision}"
        for moment in sorted(moments):
            active: dict[KeyUse, Key] = {}
            for key in keys:
                if key.state(moment) is KeyState.ACTIVE:
                    if other := active.get(key.use):
                        self.violate(
                            now, "1 two active", f"{where}: {other.key_id} and {key.key_id} at {moment - START:.3f}"
                        )
                    active[key.use] = key
            last = max(active.values(), key=lambda key: key.activate_time, default=None)
            if last is None or not active.keys() >= set(uses_of(last.settings.format)):
                self.violate(
                    now,
                    "1 nobody issues",
                    f"{where}: active at {moment - START:.3f} is {[k.key_id for k in active.values()]}",
                )

    def _check_steps(self, old: Ring, new: Ring, now: float) -> None:
        after = {key.key_id: key for key in new.keys}
        for key in old.keys:
            state, following = key.state(now), after.get(key.key_id)
            if following is None:
                self.keys_destroyed += 1
                self._check_destroyed(key, now)
            elif _RANK[following.state(now)] < _RANK[state] and not self._edge(key, now):
                self.violate(now, "5 state", f"{key.key_id} is {following.state(now).value} after {state.value}")
            elif key.compromise_time != following.compromise_time and key.compromise_time is not None:
                self.violate(now, "5 state", f"{key.key_id} is compromised at another time, or no more")

    def _edge(self, key: Key, now: float) -> bool:
        """Whether who changed the ring may have taken the key's last step for still to come."""
        return any(t is not None and t <= now <= t + 2 * self.reckoning for t in (key.activate_time, key.retire_time))

    def _check_destroyed(self, key: Key, now: float) -> None:
        if key.key_id in self.compromised:
            return
        if key.state(now + 2 * self.reckoning) is not KeyState.DESTROYED:
            self.violate(now, "4 destroyed early", f"{key.key_id} was taken out while {key.state(now).value}")
        self._check_end(key, now, now)

    def _check_end(self, key: Key, end: float, now: float) -> None:
        good_until = self.good_until.get(key.key_id, 0)
        if end < good_until:
            self.violate(
                now, "4 destroyed early", f"{key.key_id} goes {good_until - end:.1f} s before a token under it"
            )

    # Sidecars

    def seen(self, who: str, ring: Ring, content: bytes, before: tuple[int, int], now: float) -> None:
        """A sidecar serves on this ring, after one of the age before."""
        if (ring.history, ring.revision) < before:
            self.violate(now, "5 revision", f"{who} serves on revision {ring.revision} after {before[1]}")
        if self.stored[ring.profile].get((ring.history, ring.revision)) is not content:
            self.violate(now, "5 another ring", f"{who} serves on a revision {ring.revision} that is not the store's")

    # Tokens

    def issued(self, who: str, token: Token, now: float, late: float) -> None:
        """A token was acknowledged. `late`: by so much a sidecar may see the store later than others."""
        newest = self.newest[token.profile]
        for key_id in token.keys:
            self.good_until[key_id] = max(self.good_until.get(key_id, 0), token.expire_time)
            if now > self.effective.get(key_id, now) + late:
                self.violate(now, "3 revoked key issues", f"{who} made {token.text} with {key_id}")
            key = newest.key(key_id)
            if key_id in self.compromised:
                continue
            if key is None or (key.destroy_time is not None and token.expire_time > key.destroy_time):
                self.violate(now, "6 outlives its key", f"{who} made {token.text} with {key_id}, which ends before")

    def judged(self, who: str, token: Token, answer: str, began: float, now: float, late: float) -> None:
        """A validator answered: "OK", or the reason."""
        compromised = any(key_id in self.compromised for key_id in token.keys)
        words = f"{who} says {answer} to {token.text}, {token.expire_time - now:.1f} s before exp"
        match answer:
            case "OK":
                for key_id in token.keys:
                    if began > self.effective.get(key_id, began) + late:
                        self.violate(now, "3 revoked key opens", f"{words}; {key_id} is revoked")
                if began > token.expire_time + token.leeway + self.reckoning:
                    self.violate(now, "2 accepted late", words)
            case "TOKEN_INVALID":
                unseen = late + self.renewal if late else UNKNOWN_SECONDS
                if any(k in self.hurried and began < self.stored_at[k] + unseen for k in token.keys):
                    self.limits += 1  # see rule 2
                elif not compromised and now < token.expire_time:
                    self.violate(now, "2 good token refused", words)
            case "TOKEN_EXPIRED":
                if now < token.expire_time + token.leeway - self.reckoning:
                    self.violate(now, "2 good token refused", words)
            case "TOKEN_NOT_YET_VALID":
                if began > token.issue_time - token.leeway + self.reckoning:
                    self.violate(now, "2 good token refused", words)
            case "STATE_STALE" | "STORE_UNAVAILABLE" | "KMS_UNAVAILABLE":
                pass
            case _:
                self.violate(now, "2 strange answer", words)
