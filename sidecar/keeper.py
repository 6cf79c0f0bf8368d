"""The live rings: loaded, refreshed and changed by compare-and-set. Whatever a call needs is in memory.

Rules (keys.md):
 1. Store time goes on by the boot-time clock from the last successful read. A wall clock that is further from it than `max_skew` makes
    the sidecar stale, and it changes nothing but what is compromised.
 2. State age counts from the start of the last successful read, by both clocks, whichever says older.
 3. A revision that steps back, of a ring or of the revocations, a ring that vanishes or a store of another id is a rollback (see `pins`):
    stale, also from the start on, until the newest state is back or the rollback is accepted.
 4. A change is: reload, apply the rule, make keys, seal, save with the expected revision, swap in memory. Never the other way round.
 5. A successor is active at once only where nobody else could miss it: this process alone at the store, and nothing published.
 6. A ring is made only by a keeper and where there is none and was none, create-if-absent; who loses loads the winner's. Whoever makes
    none is stale until there is one.
 7. An unknown kid costs at most one refresh for everybody, and none for a moment after one began.
 8. A process has the roles that it has key-encryption keys for. Only one with both, and with write credentials, changes rings.
 9. The ring decides: what the next key is (see `keyring`), and configuration that differs is told, and rotates nothing.

A change is cut in half if its task is cancelled: callers run it under `commits`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sidecar.data_keys import DamagedRingError, DataKeys, fresh_data_keys
from sidecar.errors import (
    ChangedRingError,
    DeniedCallerError,
    InvalidRequestError,
    SidecarError,
    StaleStateError,
    UnavailableStoreError,
    Violation,
)
from sidecar.failpoints import failpoint
from sidecar.jose import keys as jose_keys
from sidecar.keyring import PUBLISH_AHEAD, Key, KeyState, KeyUse, Proposal, Ring, Role, uses_of
from sidecar.live import Found, Issuing, Live, LiveKey
from sidecar.logs import get_logger
from sidecar.pins import Pin, Pins
from sidecar.ports import REVOCATIONS, Document, Glancing, Ledger
from sidecar.profile import refresh_ring
from sidecar.sealing import Opened, open_ring, seal_ring

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from sidecar.denylist import Denylist
    from sidecar.jose.keys import Material
    from sidecar.ports import Clock, Kms, Store
    from sidecar.profile import Profile

UNKNOWN_SECONDS = 0.25  # how long one refresh answers for every unknown kid
WHOLE_SECONDS = 60.0  # how long a revision that is the same is taken for the same document
ATTEMPTS = 5  # at a compare-and-set that others keep winning

_log = get_logger()


@dataclass(frozen=True, slots=True)
class Changed:
    """The ring after a change. `revision` and `activate_time` are those of the first answer where a request is repeated."""

    ring: Ring
    activate_time: float
    revision: int


@dataclass(frozen=True, slots=True)
class _Reading:
    """This machine's clocks when a read began."""

    boot: float
    wall: float


@dataclass(frozen=True, slots=True)
class _Plan:
    """A change that a rule allows: the ring to save, and the keys that are fresh in it."""

    ring: Ring
    fresh: tuple[Material, ...]
    activate: float


class Keeper:
    """Keeps the rings of all profiles. Every method may be called from any task of one event loop."""

    def __init__(
        self,
        profiles: Mapping[str, Profile],
        store: Store,
        kms: Mapping[Role, Kms],
        clock: Clock,
        *,
        further_kms: Mapping[Role, Kms] | None = None,
        pins: Pins | None = None,
        denylist: Denylist | None = None,
        allow_bootstrap: bool = True,
    ) -> None:
        """Touches nothing; `start` does.

        `kms` wraps each role's data keys; a process has the roles that are named there and no other. `further_kms` opens what `kms` does
        not: the former key-encryption keys, or the next ones, while `rekey` goes from one to the other. `pins` None: in memory only.
        `denylist` is kept as new as the rings; None: the store has no ledger.
        Without `allow_bootstrap` not even a keeper makes a ring where there is none.
        """
        self.profiles = profiles
        self._store = store
        self._kms = kms
        self._further_kms = further_kms or {}
        self._clock = clock
        self._allow_bootstrap = allow_bootstrap
        self._store_id = ""
        self._pins = pins or Pins(None)
        self.denylist = denylist
        self._listed: _Reading | None = None  # when the read began that the denylist is as new as
        self._revocations = 0  # the revocation revision that the store had when it was last asked
        self._live: dict[str, Live] = {}
        self._read: dict[str, _Reading] = {}
        self._loaded: dict[str, float] = {}  # by profile: when the whole document was looked at, by the boot-time clock
        self._offset = math.nan  # store time less boot time; unknown until the store was asked
        self._alarms: dict[str, str] = {}  # by profile: why its ring is taken for rolled back
        self._differing: dict[str, tuple[str, ...]] = {}
        self._changing = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed = -math.inf  # when the last refresh began, by the boot-time clock
        self._pins_lost = False
        self.scrub_due = False

    async def start(self) -> None:
        """Load every profile's ring; a keeper makes it where there is none. What was rolled back is loaded and stale.

        Raises `DamagedRingError`, `UnavailableStoreError` or `UnavailableKmsError`; each says what to do, and nothing was overwritten.
        """
        self._store_id = await self._store.store_id()
        await self._load_pins()
        await self._take_in_revocations(await self._reading())
        self._revocations = (await self._store.revisions()).get(REVOCATIONS, 0)
        for name in self.profiles:
            reading = await self._reading()
            opened, pin = await self._load(name), self._pins.rings.get(name)
            if opened is None and pin is None and self.writable and self._allow_bootstrap and not self._foreign():
                opened = await self._make(name)
            if problem := await self._gone_back(name, opened, pin):
                self._alarm(name, problem)
            if opened is not None:
                self._swap(name, opened, reading)
            elif not problem:
                _log.warning("ring.missing", profile=name)
        self._pin_revocations()
        await self._write_pins()

    # Roles

    def holds(self, role: Role) -> bool:
        """Whether this process has the role: ISSUE to make tokens, OPEN to validate them."""
        return role in self._kms

    @property
    def writable(self) -> bool:
        """Whether this process is a keeper: it has both roles and write credentials, and so changes rings."""
        return self._store.writable and all(self.holds(role) for role in Role)

    def _demand(self, *roles: Role) -> None:
        """What nobody should get as far as: doors and policy have refused it before, and know where it is served."""
        if lacking := [role for role in roles if role not in self._kms]:
            raise DeniedCallerError(f"this sidecar does not have the role {lacking[0].value!r}", stage="keeper.role")

    def _demand_writable(self) -> None:
        if not self.writable:
            raise DeniedCallerError("this sidecar changes no keys: a keeper does", stage="keeper.role")

    def _demand_clock(self, profile: str, what: str) -> None:
        """Where the store's time is a keeper's, one that starts with its clock behind reckons with the time of the last write."""
        if abs(self.skew()) > self._live[profile].max_skew:
            raise StaleStateError(
                f"this machine's clock is {abs(self.skew()):.0f} s {'ahead of' if self.skew() > 0 else 'behind'} the store's, too far to {what}"
            )

    # Time

    def now(self) -> float:
        """Store time, in seconds since the epoch."""
        return self._offset + self._clock.boot()

    def skew(self) -> float:
        """How far this machine's wall clock is ahead of store time, in seconds."""
        return self._clock.wall() - self.now()

    def staleness(self, profile: str) -> float:
        """Seconds since the start of the last successful read of this profile's ring, and of the revocations."""
        if (reading := self._read_of(profile)) is None:
            return math.inf
        return max(self._clock.boot() - reading.boot, self._clock.wall() - reading.wall, 0.0)

    def stale(self, profile: str) -> bool:
        """Whether this sidecar may not answer for the profile now."""
        try:
            self._fresh_now(profile)
        except StaleStateError:
            return True
        return False

    def _fresh_now(self, profile: str) -> float:
        """Store time, if this sidecar may answer for the profile now; each clock is read once. Raises `StaleStateError`."""
        live, reading = self._live.get(profile), self._read_of(profile)
        boot, wall = self._clock.boot(), self._clock.wall()
        now = self._offset + boot
        if profile in self._alarms:
            raise StaleStateError(
                "the store has gone back to an older state; this sidecar answers again once the newest is back, or the rollback is accepted"
            )
        if live is None or reading is None:
            raise StaleStateError(_no_ring(profile))
        if not abs(wall - now) <= live.max_skew:
            raise StaleStateError(
                f"this machine's clock and the store's time are {abs(wall - now):.0f} s apart; set the clock right, "
                "or start again if it is right now"
            )
        if not max(boot - reading.boot, wall - reading.wall) <= live.max_staleness:
            raise StaleStateError
        return now

    def _read_of(self, profile: str) -> _Reading | None:
        """The older of what the ring and the revocations were read by."""
        reading, listed = self._read.get(profile), self._listed
        return listed if reading and listed and listed.boot < reading.boot else reading

    # Reading: memory only

    def rings(self) -> Mapping[str, Ring]:
        """The public facts of every profile."""
        return {name: live.opened.ring for name, live in self._live.items()}

    def ring(self, profile: str) -> Ring:
        """The same of one profile. `StaleStateError`: there is no ring yet."""
        return self._opened(profile).ring

    def issuing(self, profile: str) -> Issuing:
        """The active keys. Raises `StaleStateError`, `DeniedCallerError` (no issuer)."""
        self._demand(Role.ISSUE)
        now = self._fresh_now(profile)
        return self._live[profile].issuing(now)

    def refreshing(self, profile: str) -> LiveKey | None:
        """The active key for the profile's refresh tokens; None: it has none. Raises `StaleStateError`, `DeniedCallerError` (no issuer)."""
        ring = refresh_ring(profile)
        if ring not in self.profiles:
            return None
        self._demand(Role.ISSUE)
        now = self._fresh_now(ring)
        return self._live[ring].refreshing(now)

    def find(self, profiles: Sequence[str], key_id: str, use: KeyUse) -> Found | None:
        """The one key of that id and use that opens now, among these profiles. Raises `StaleStateError` if one of them is stale.

        `DeniedCallerError`: not a validator; for refresh keys, not an issuer.
        """
        self._demand(Role.ISSUE if use is KeyUse.REFRESH else Role.OPEN)
        result: Found | None = None
        for name in profiles:
            now = self._fresh_now(name)
            result = result or self._live[name].found(key_id, use, now)
        return result

    async def find_or_refresh(self, profiles: Sequence[str], key_id: str, use: KeyUse) -> Found | None:
        """As `find`, but None only if a refresh that began at most a moment before did not know the key either.

        Raises `StaleStateError` if that failed.
        """
        came = self._clock.boot()
        # Twice at most: the one under way may have begun before the key was made, and a slow store may have it take long.
        for _ in range(2):
            if found := self.find(profiles, key_id, use):
                return found
            if self._refreshed >= came:
                break
            if self._refreshing is None and self._clock.boot() - self._refreshed < UNKNOWN_SECONDS:
                break
            with contextlib.suppress(SidecarError):
                await self._refresh_once()
        if found := self.find(profiles, key_id, use):
            return found
        if any(self._read[name].boot < self._refreshed for name in profiles):
            raise StaleStateError("this sidecar does not know the token's key and cannot ask its store")
        return None

    def public_jwks(self, profile: str, uses: Collection[KeyUse]) -> tuple[list[dict[str, str]], int]:
        """The public JWKs that outside readers need (RFC 7517), and the ring's revision. Symmetric keys have none.

        `StaleStateError`: there is no ring yet. Signature keys that are pending, active or retiring; of encryption keys the active one.
        """
        opened, now = self._opened(profile), self.now()
        listed = {
            KeyUse.SIGNATURE: (KeyState.PENDING, KeyState.ACTIVE, KeyState.RETIRING),
            KeyUse.ENCRYPTION: (KeyState.ACTIVE,),
        }
        wanted = [key for key in opened.ring.keys if key.use in uses and key.state(now) in listed[key.use]]
        public = [opened.public(key.key_id) for key in wanted]
        return [json.loads(jwk) for jwk in public if jwk is not None], opened.ring.revision

    def uses(self, profile: str) -> tuple[KeyUse, ...]:
        """The uses that the profile's ring has keys for now, by the format of its newest key."""
        latest = self._opened(profile).ring.latest()
        return uses_of(latest.settings.format if latest else self.profiles[profile].format)

    def data_keys_time(self, profile: str) -> float:
        """When the ring's data keys were made, in store time."""
        return self._opened(profile).data_keys.create_time

    def further(self, profile: str) -> bool:
        """Whether the ring is sealed under a further key-encryption key, not the one that wraps now."""
        return self._opened(profile).data_keys.further

    def differing(self) -> Mapping[str, tuple[str, ...]]:
        """By profile, what this configuration says otherwise than the newest keys; empty where nothing."""
        return self._differing

    def alarms(self) -> Mapping[str, str]:
        """By profile, why its ring is taken for rolled back."""
        return self._alarms

    def obeyed_by(self, profile: str) -> float:
        """The store time by which every sidecar has seen the ring as it is now, or is stale (keys.md, rule 8)."""
        settings = [key.settings for key in self._opened(profile).ring.keys]
        return self.now() + max(s.max_staleness for s in settings) + 2 * max(s.max_skew for s in settings)

    def lifetime(self, profile: str) -> int:
        """Seconds from a token's `iat` within which it can be accepted anywhere, whichever of the ring's keys made it."""
        settings = [key.settings for key in self._opened(profile).ring.keys]
        return max(math.ceil(s.max_ttl + s.leeway + 2 * s.max_skew) for s in settings)

    async def reach(self, revision: int) -> None:
        """Return once the revocations up to this revision are held; the store is asked, if need be. `StaleStateError`: they are not."""
        came = self._clock.boot()
        for _ in range(2):  # the one under way may have begun before that revision was
            if self.denylist is None or self.denylist.revision >= revision or self._refreshed >= came:
                break
            with contextlib.suppress(SidecarError):
                await self._refresh_once()
        if self.denylist is None or self.denylist.revision < revision:
            raise StaleStateError("this sidecar does not hold the revocations up to that revision")

    def _opened(self, profile: str) -> Opened:
        if (live := self._live.get(profile)) is None:
            raise StaleStateError(_no_ring(profile))
        return live.opened

    # Looking again

    async def refresh(self) -> None:
        """Take in what others have changed. Raises `UnavailableStoreError` or `UnavailableKmsError`; what could be read is taken in."""
        await self._refresh_once()

    async def _refresh_once(self) -> None:
        """One refresh at a time; who comes while one is under way waits for it."""
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh())
            self._refreshing.add_done_callback(self._refresh_done)
        await asyncio.shield(self._refreshing)

    def _refresh_done(self, task: asyncio.Task[None]) -> None:
        self._refreshing = None
        if not task.cancelled():
            task.exception()  # fetched: whoever waited has it, and perhaps nobody did

    async def _refresh(self) -> None:
        self._refreshed = self._clock.boot()
        if self._alarms and not self._pins.unwritten:
            await self._load_pins()  # an operator may have accepted the rollback
        # Before anything is read: what is taken in meanwhile is newer than that.
        before = {name: self._live.get(name) for name in self.profiles}
        pins = dict(self._pins.rings)
        reading, self._store_id, revisions = await self._look()
        if problem := self._foreign():
            for name in self.profiles:
                self._alarm(name, problem)
            await self._write_pins()
            raise UnavailableStoreError(f"the store is not the one that this sidecar knows: {problem}")
        self._revocations = revisions.get(REVOCATIONS, 0)
        await self._take_in_revocations(reading, revisions)
        problems: list[SidecarError] = []
        for name, live in before.items():
            try:
                await self._take_in(name, revisions.get(name, 0), live, pins.get(name), reading)
            except SidecarError as error:
                problems.append(error)
            except DamagedRingError as error:
                _log.error("ring.damaged", profile=name, problem=str(error))
                problems.append(UnavailableStoreError(str(error)))
        self._pin_revocations()
        await self._write_pins()
        if problems:
            raise problems[0]

    async def _take_in_revocations(self, reading: _Reading, revisions: Mapping[str, int] | None = None) -> None:
        """Before the rings: if they cannot be read, this sidecar grows stale as by a ring that cannot."""
        if self.denylist is None:
            return
        if revisions is None or revisions.get(REVOCATIONS, 0) != self.denylist.revision:
            await self.denylist.catch_up()
            self._revocations = self.denylist.revision  # which may be past the look
        self.denylist.sweep(self.now())
        self._listed = reading

    async def _take_in(self, name: str, stored: int, before: Live | None, pin: Pin | None, reading: _Reading) -> None:
        """Look at the stored revision, and take the ring in if it is not the one that was live when the read began."""
        known = before.opened.ring if before else None
        recent = self._clock.boot() - self._loaded.get(name, -math.inf) < WHOLE_SECONDS
        behind = pin is not None and self._revocations < pin.revocations
        if recent and stored == (known.revision if known else 0) and name not in self._alarms and not behind:
            if known:
                self._mark_read(name, reading)
            return
        await self._take(name, await self._load(name), pin, reading)
        live = self._live.get(name)
        if name not in self._alarms and live and live.opened.ring != known:
            _log.info("ring.taken_in", profile=name, ring_revision=live.opened.ring.revision)

    # Changing

    async def rotate(self, profile: str, uses: tuple[KeyUse, ...] | None, *, expected: int, request_id: str) -> Changed:
        """Successors for these uses (None: all). `expected` 0: at any revision.

        Raises `ChangedRingError`, `InvalidRequestError`, `UnavailableStoreError`, `UnavailableKmsError`, `StaleStateError` (rollback, or this
        machine's clock is not that of the store).
        """
        self._demand_writable()

        def rule(ring: Ring, now: float, *, alone: bool) -> _Plan | Changed:
            if first := ring.answer_to(request_id):
                return Changed(ring, first.activate_time, first.revision)
            self._demand_clock(profile, "rotate")
            proposed = {each.use: each for each in ring.proposed(configured, alone=alone)}
            latest = ring.latest()
            # One key of a format makes no token: all of the next one come together, whichever was due or asked for.
            another = latest is None or any(e.settings.format is not latest.settings.format for e in proposed.values())
            known = [use for use in KeyUse if use in proposed or (latest and use in uses_of(latest.settings.format))]
            if uses is not None and not (set(uses) <= set(known) and uses):
                raise InvalidRequestError(
                    Violation("uses", f"profile {profile!r} has keys for {', '.join(u.value for u in known)} only")
                )
            ahead = 0.0 if alone and not configured.published else _ahead(configured)
            wanted = [each for use, each in proposed.items() if another or uses is None or use in uses]
            material, fresh = _fresh(wanted, now=now, activate=now + ahead)
            return _Plan(
                ring.rotated(fresh, now=now, activate=now + ahead, expected=expected, request_id=request_id),
                material,
                now + ahead,
            )

        configured = self.profiles[profile]
        async with self._changing, self._store.alone() as alone:
            changed = await self._change(profile, "rotate", lambda ring, now: rule(ring, now, alone=alone))
            failpoint("rotate.swapped")
        return changed

    async def compromise(self, profile: str, key_ids: frozenset[str]) -> Changed:
        """The named keys neither issue nor open from now on, and every use has an active key.

        Raises `InvalidRequestError` (no such key), `UnavailableStoreError`, `UnavailableKmsError`, `StaleStateError` (rollback).
        """
        self._demand_writable()

        def rule(ring: Ring, now: float, *, alone: bool) -> _Plan | Changed:
            named = [key for key in ring.keys if key.key_id in key_ids]
            if len(named) == len(key_ids) and all(key.compromise_time is not None for key in named):
                return Changed(ring, now, ring.revision)
            uncovered = ring.uncovered(key_ids, now)
            proposed = {each.use: each for each in ring.proposed(configured, alone=alone)}
            wanted = [ring.replacement(use, proposed.get(use), now) for use in uncovered]
            material, fresh = _fresh(wanted, now=now, activate=now)
            return _Plan(ring.compromised(key_ids, fresh, now=now), material, now)

        configured = self.profiles[profile]
        async with self._changing, self._store.alone() as alone:
            self.scrub_due = True
            changed = await self._change(profile, "revoke_keys", lambda ring, now: rule(ring, now, alone=alone))
            failpoint("revoke_keys.swapped")
            with contextlib.suppress(UnavailableStoreError):  # the keys are ended; `due` asks again for the rest
                await self._scrub()
        return changed

    async def destroy(self, profile: str) -> Changed | None:
        """Take the keys out that are due, and leave no bytes of them behind. None: no key was due.

        Raises `StaleStateError` while this machine's clock is not that of the store, `UnavailableStoreError`, `UnavailableKmsError`.
        """
        self._demand_writable()

        def rule(ring: Ring, now: float) -> _Plan | Changed:
            if not ring.destroyable(now):
                return Changed(ring, now, ring.revision)
            self._demand_clock(profile, "destroy keys")
            return _Plan(ring.pruned(now), (), now)

        async with self._changing:
            before = await self._current(profile)
            due = before.ring.destroyable(self.now())
            if due:
                self.scrub_due = True
                changed = await self._change(profile, "destroy", rule)
            if self.scrub_due:
                await self._scrub()
                failpoint("destroy.scrubbed")
            return changed if due else None

    async def rekey(self, profile: str) -> Changed:
        """Fresh data keys, under the KMS of now; everything is sealed anew, and what was under the old ones is scrubbed.

        Raises `UnavailableKmsError`, `UnavailableStoreError`, `StaleStateError` (rollback), `ChangedRingError` (others keep winning).
        """
        self._demand_writable()
        # Before the lock: a KMS that is slow to say that it is away must not hold up rotations.
        data_keys = await fresh_data_keys(self._kms, profile, self._store_id, self.now())
        async with self._changing:
            self.scrub_due = True
            changed = await self._change(
                profile, "rekey", lambda ring, now: _Plan(ring.resealed(), (), now), data_keys=data_keys
            )
            failpoint("rekey.swapped")
            with contextlib.suppress(UnavailableStoreError):  # it is done; `scrub_due` asks again for the rest
                await self._scrub()
                failpoint("rekey.scrubbed")
        return changed

    async def accept_rollback(self) -> Mapping[str, str]:
        """Take what the store has now for the truth: by profile, what was accepted; empty: nothing had gone back.

        A keeper starts a new history of each ring that went back (or makes it, if it is gone), which all other sidecars take for newer. Who
        may not write pins what is there, for this sidecar alone. Raises what `rekey` does, and `UnavailableStoreError` if the pins cannot
        be written.
        """
        async with self._changing:
            accepted, foreign = dict(self._alarms), self._foreign()
            for name in accepted:
                await self._accept(name, new_history=self.writable and not foreign)
            live = {name: self._live.get(name) for name in accepted}
            found = {
                name: Pin.of(each.opened).seeing(self._revocations, "") if each else None for name, each in live.items()
            }
            try:
                await asyncio.to_thread(self._pins.replace, self._store_id, found)
            except OSError as error:
                raise UnavailableStoreError(f"the pins cannot be written: {error.strerror}") from error
            self._alarms.clear()
        return accepted

    async def _accept(self, name: str, *, new_history: bool) -> None:
        """Make live what the store has now, from here on in a new history if this process can write one."""
        reading, pin = await self._reading(), self._pins.rings.pop(name, None)
        opened = await self._load(name)
        self._live.pop(name, None)
        before = pin.history if pin else 0
        if opened is None:
            if self.writable:
                self._live[name] = Live(await self._make(name, history=before + 1), self.profiles[name])
            return
        self._live[name] = Live(opened, self.profiles[name])
        self._mark_read(name, reading)
        if not new_history:
            return

        def rule(ring: Ring, now: float) -> _Plan | Changed:
            return _Plan(ring.resealed(history=max(before, ring.history) + 1), (), now)

        del self._alarms[name]  # or nothing could be changed on top of it
        await self._change(name, "accept_rollback", rule)

    async def _change(
        self,
        profile: str,
        operation: str,
        rule: Callable[[Ring, float], _Plan | Changed],
        *,
        data_keys: DataKeys | None = None,
    ) -> Changed:
        """Reload, apply, seal, save; again if another process was quicker. A `Changed` from the rule: nothing to save."""
        for _ in range(ATTEMPTS):
            opened = await self._current(profile)
            # Rules make keys, and an RSA key takes a third of a second: not on the event loop. The lock is held meanwhile.
            plan = await asyncio.to_thread(rule, opened.ring, self.now())
            if isinstance(plan, Changed):
                return plan
            material = {**opened.whole(), **{fresh.key_id: fresh for fresh in plan.fresh}}
            content = seal_ring(plan.ring, material, data_keys or opened.data_keys, opened)
            # Opened again before it is saved: what could not be read back must never replace what can.
            revision = plan.ring.revision
            # With fresh data keys the KMS is asked too: it must open what it has wrapped.
            known = None if data_keys else opened.data_keys
            changed = await self._open(profile, Document(revision, content), known)
            failpoint(f"{operation}.before_save")
            reading = self._read[profile]
            if await self._store.save(profile, content, expected=opened.ring.revision):
                failpoint(f"{operation}.saved")
                self._swap(profile, changed, reading)
                await self._write_pins()
                return Changed(plan.ring, plan.activate, revision)
        raise ChangedRingError

    async def _current(self, profile: str) -> Opened:
        """The ring as it is stored now, taken in."""
        reading, pin = await self._reading(), self._pins.rings.get(profile)
        try:
            opened = await self._load(profile)
        except DamagedRingError as error:
            raise UnavailableStoreError(str(error)) from error
        await self._take(profile, opened, pin, reading)
        if profile in self._alarms:
            raise StaleStateError("the store has gone back to an older state; nothing is changed on top of it")
        return self._opened(profile)

    async def _take(self, name: str, opened: Opened | None, pin: Pin | None, reading: _Reading) -> None:
        """Take in what was loaded, unless it is a step back from what was pinned before the load."""
        if problem := await self._gone_back(name, opened, pin):
            self._alarm(name, problem)
            return
        if self._alarms.pop(name, None):
            _log.warning("ring.rollback_ended", profile=name)
            self._live.pop(name, None)  # which may be newer than what was accepted
        if opened is not None:
            self._swap(name, opened, reading)

    async def _scrub(self) -> None:
        await self._store.scrub()
        self.scrub_due = False

    # Store and memory

    async def _load(self, name: str) -> Opened | None:
        looked = self._clock.boot()
        document = await self._store.load(name)
        self._loaded[name] = looked
        if document is None:
            return None
        live = self._live.get(name)
        if live and document == Document(live.opened.ring.revision, live.opened.content):
            return live.opened
        return await self._open(name, document, live.opened.data_keys if live else None)

    async def _open(self, name: str, document: Document, known: DataKeys | None) -> Opened:
        return await open_ring(
            document.content,
            name,
            document.revision,
            store_id=self._store_id,
            kms=self._kms,
            further=self._further_kms,
            known=known,
        )

    async def _make(self, name: str, *, history: int = 1) -> Opened:
        """The first ring of a profile: ours, or that of who was quicker."""
        profile, now = self.profiles[name], self.now()
        proposed = [Proposal.of(profile, use) for use in uses_of(profile.format)]
        material, keys = await asyncio.to_thread(_fresh, proposed, now=now, activate=now)
        data_keys = await fresh_data_keys(self._kms, name, self._store_id, now)
        content = seal_ring(Ring(name, 1, keys, history=history), {m.key_id: m for m in material}, data_keys)
        await self._open(name, Document(1, content), None)  # before it is saved, as for a change
        failpoint("start.before_save")
        made = await self._store.save(name, content, expected=0)
        failpoint("start.saved")
        opened = await self._load(name)
        if opened is None:
            raise UnavailableStoreError(f"the store does not keep the ring of profile {name!r}")
        if made:
            _log.info("ring.made", profile=name, ring_revision=opened.ring.revision)
        return opened

    async def _reading(self) -> _Reading:
        """Look at the clocks and the store's time; keeper time follows it from here on."""
        reading = self._clocks()
        self._go_by(await self._store.now(), reading)
        return reading

    async def _look(self) -> tuple[_Reading, str, Mapping[str, int]]:
        """The same, and the store's id and revisions: in one query, where the store can."""
        if not isinstance(self._store, Glancing):
            reading = await self._reading()
            return reading, await self._store.store_id(), await self._store.revisions()
        reading = self._clocks()
        glance = await self._store.glance()
        self._go_by(glance.time, reading)
        return reading, glance.store_id, glance.revisions

    def _go_by(self, stored: float, reading: _Reading) -> None:
        """The store read its clock at some moment since `reading`: a slow answer says little, and only moves what it contradicts."""
        before, after = reading.boot, self._clock.boot()
        if not stored - after <= self._offset <= stored - before:  # nan is never within
            self._offset = stored - (before + after) / 2

    def _clocks(self) -> _Reading:
        wall = self._clock.wall()
        return _Reading(self._clock.boot(), wall)

    def _swap(self, name: str, opened: Opened, reading: _Reading) -> None:
        """Take a ring in, and pin it, unless a newer one is there already."""
        live = self._live.get(name)
        if live is None or _age(opened.ring) >= _age(live.opened.ring):
            self._live[name] = Live(opened, self.profiles[name])
            self._mark_read(name, reading)
            self._tell_difference(name, opened.ring)
            if name not in self._alarms:
                self._pins.store_id = self._store_id
                pin = self._pins.rings.get(name)
                self._pins.rings[name] = pin.following(opened) if pin else Pin.of(opened)

    def _mark_read(self, name: str, reading: _Reading) -> None:
        """What is live is at least as new as that read."""
        if name not in self._read or reading.boot > self._read[name].boot:
            self._read[name] = reading

    def _tell_difference(self, name: str, ring: Ring) -> None:
        differing = ring.differing(self.profiles[name])
        if differing and differing != self._differing.get(name):
            newest = max(key.settings.revision for key in ring.keys)
            _log.warning(
                "settings.differ",
                profile=name,
                settings=list(differing),
                settings_revision=self.profiles[name].settings_revision,
                ring_settings_revision=newest,
                ring_revision=ring.revision,
            )
        self._differing[name] = differing

    # Rollback

    def _foreign(self) -> str:
        """Why no ring of this store is to be trusted; empty: nothing is wrong with it as a whole."""
        if self._pins.damaged:
            return "the file of pins is damaged"
        return "it is another store" if self._pins.store_id not in ("", self._store_id) else ""

    async def _gone_back(self, name: str, opened: Opened | None, pin: Pin | None) -> str:
        """Why what the store has now is a step back from what was pinned; empty: it is not."""
        problem = self._foreign() or (pin.problem(opened) if pin else "")
        if problem or pin is None or (opened and opened.ring.history > pin.history):
            return problem
        held = None
        # Where it could be another one: at the start, and while there is an alarm.
        if pin.revoked and self._revocations >= pin.revocations and (pin.forgot or name not in self._live):
            held = await self._revoked_at(pin.revocations)
        return pin.forgotten(self._revocations, held)

    async def _revoked_at(self, revision: int) -> str | None:
        """Digest of the revocation of exactly that revision, in hex; None: it was forgotten, or moved on."""
        if not isinstance(self._store, Ledger):
            return None
        page = await self._store.revocations(revision - 1, 1)
        return page.entries[0].digest.hex() if page.entries and page.revision == revision else None

    def _pin_revocations(self) -> None:
        """As far as they are held, or without a denylist as far as the store has them."""
        seen, newest = self._revocations, ""
        if self.denylist is not None:
            seen, newest = self.denylist.revision, self.denylist.newest.hex()
        for name, pin in self._pins.rings.items():
            if name in self._live and name not in self._alarms:
                self._pins.rings[name] = pin.seeing(seen, newest)

    def _alarm(self, name: str, problem: str) -> None:
        if name in self._alarms:
            return
        self._alarms[name] = problem
        if pin := self._pins.rings.get(name):
            forgot = pin.forgot or "revocations" in problem
            self._pins.rings[name] = replace(pin, alarm=pin.alarm or problem, forgot=forgot)
        _log.error("ring.rolled_back", profile=name, problem=problem)

    async def _load_pins(self) -> None:
        try:
            await asyncio.to_thread(self._pins.load)
        except OSError as error:
            raise UnavailableStoreError(f"the pins cannot be read: {error.strerror}") from error

    async def _write_pins(self) -> None:
        """Best effort: the pins in memory hold until the process ends."""
        if not self._pins.unwritten:
            return
        try:
            await asyncio.to_thread(self._pins.write)
        except OSError as error:
            if not self._pins_lost:
                _log.warning("pins.unwritten", problem=error.strerror)
            self._pins_lost = True
        else:
            self._pins_lost = False


def _age(ring: Ring) -> tuple[int, int]:
    return ring.history, ring.revision


def _no_ring(profile: str) -> str:
    return f"the store has no ring for profile {profile!r}; a keeper makes it when it starts"


def _ahead(profile: Profile) -> float:
    """Seconds from a successor's making to its activation (keys.md, rule 4)."""
    return max(float(profile.propagation), PUBLISH_AHEAD if profile.published else 0.0) + 2 * profile.max_skew


def _fresh(
    proposed: Collection[Proposal], *, now: float, activate: float
) -> tuple[tuple[Material, ...], tuple[Key, ...]]:
    """New keys as proposed."""
    material, facts = [], []
    for each in proposed:
        made = jose_keys.generate(each.algorithm, curve=each.settings.curve)
        material.append(made)
        facts.append(Key(made.key_id, each.use, made.algorithm, each.settings, create_time=now, activate_time=activate))
    return tuple(material), tuple(facts)
