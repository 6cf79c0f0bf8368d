"""The live rings: loaded, refreshed and changed by compare-and-set. Whatever a call needs is in memory.

Rules (keys.md):
 1. Store time goes on by the boot-time clock from the last successful read. A wall clock that is further from it than `max_skew` makes
    the sidecar stale and changes nothing.
 2. State age counts from the start of the last successful read, by both clocks, whichever says older.
 3. A revision that steps back, a ring that vanishes or a store of another id is a rollback: stale, until the highest revision is back.
 4. A change is: reload, apply the rule, make keys, seal, save with the expected revision, swap in memory. Never the other way round.
 5. A successor is active at once only where nobody else could miss it: this process alone at the store, and nothing published.
 6. A ring is made only where there is none, create-if-absent; who loses loads the winner's.
 7. An unknown kid costs at most one refresh for everybody, and none for a moment after one.

A change is cut in half if its task is cancelled: callers run it under `commits`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

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
from sidecar.keyring import Key, KeyState, KeyUse, Ring, Role, Settings
from sidecar.logs import get_logger
from sidecar.ports import Document
from sidecar.profile import Format
from sidecar.sealing import Opened, open_ring, seal_ring

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from sidecar.jose.keys import Material
    from sidecar.ports import Clock, Kms, Store
    from sidecar.profile import Profile

PUBLISH_AHEAD = 1800.0  # seconds; Envoy caches a JWKS for 10 minutes, Istio for 20
UNKNOWN_SECONDS = 0.25  # how long one refresh answers for every unknown kid
ATTEMPTS = 5  # at a compare-and-set that others keep winning

_NEVER: tuple[float, float, Issuing | None] = (0.0, 0.0, None)

_log = get_logger()


@dataclass(frozen=True, slots=True)
class LiveKey:
    """A key's public facts, and its material in the role that it was asked for."""

    facts: Key
    material: Material


@dataclass(frozen=True, slots=True)
class Issuing:
    """What makes a token now. `signature` is None where the format has no inner layer."""

    profile: Profile
    ring_revision: int
    encryption: LiveKey
    signature: LiveKey | None


@dataclass(frozen=True, slots=True)
class Found:
    """A key that opens now, and the profile that it belongs to."""

    profile: Profile
    ring_revision: int
    key: LiveKey


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
class _Live:
    """One profile's ring in memory: a snapshot, with what a call looks up prepared."""

    opened: Opened
    max_staleness: float
    max_skew: float
    found: Mapping[str, tuple[Found, float]]  # by key id, with the time from which the key opens no more

    @classmethod
    def of(cls, opened: Opened, profile: Profile) -> _Live:
        ring = opened.ring
        # A key is destroyed by the settings that were written with it: nobody may serve on state that is older than those allow.
        settings = [key.settings for key in ring.keys]
        return cls(
            opened,
            min([profile.max_staleness, *(s.max_staleness for s in settings)]),
            min([profile.max_skew, *(s.max_skew for s in settings)]),
            {
                key.key_id: (
                    Found(profile, ring.revision, LiveKey(key, opened.open[key.key_id])),
                    math.inf if key.destroy_time is None else key.destroy_time,
                )
                for key in ring.keys
                if key.key_id
                in opened.open  # pending, active and retiring ones open, and compromised ones have no part
            },
        )


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
        allow_bootstrap: bool = True,
    ) -> None:
        """Touches nothing; `start` does.

        `kms` wraps each role's data keys; a process has the roles that are named there and no other. `further_kms` opens what `kms` does
        not: the former key-encryption keys, or the next ones, while `rekey` goes from one to the other. Without `allow_bootstrap` not
        even a keeper makes a ring where there is none.
        """
        self.profiles = profiles
        self._store = store
        self._kms = kms
        self._further_kms = further_kms or {}
        self._clock = clock
        self._allow_bootstrap = allow_bootstrap
        self._store_id = ""
        self._live: dict[str, _Live] = {}
        self._read: dict[str, _Reading] = {}
        self._issuing: dict[str, tuple[float, float, Issuing | None]] = {}  # by profile: since, until, what
        self._offset = 0.0  # store time less boot time
        self._stepped_back: set[str] = set()
        self._changing = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed = -math.inf  # when the last refresh began, by the boot-time clock
        self._scrub_due = False

    async def start(self) -> None:
        """Load every profile's ring, or make it where there is none.

        Raises `DamagedRingError`, `UnavailableStoreError` or `UnavailableKmsError`; each says what to do, and nothing was overwritten.
        """
        self._store_id = await self._store.store_id()
        for name in self.profiles:
            reading = await self._reading()
            opened = await self._load(name) or await self._make(name)
            self._swap(name, opened, reading)

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

    # Time

    def now(self) -> float:
        """Store time, in seconds since the epoch."""
        return self._offset + self._clock.boot()

    def skew(self) -> float:
        """How far this machine's wall clock is ahead of store time, in seconds."""
        return self._clock.wall() - self.now()

    def staleness(self, profile: str) -> float:
        """Seconds since the start of the last successful read of this profile's ring."""
        reading = self._read[profile]
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
        live, reading = self._live[profile], self._read[profile]
        boot, wall = self._clock.boot(), self._clock.wall()
        now = self._offset + boot
        if profile in self._stepped_back:
            raise StaleStateError(
                "the store has gone back to an older state; this sidecar answers again once the newest is back"
            )
        if not abs(wall - now) <= live.max_skew:
            raise StaleStateError(
                f"this machine's clock and the store's time are {abs(wall - now):.0f} s apart; set the clock right, "
                "or start again if it is right now"
            )
        if not max(boot - reading.boot, wall - reading.wall) <= live.max_staleness:
            raise StaleStateError
        return now

    # Reading: memory only

    def rings(self) -> Mapping[str, Ring]:
        """The public facts of every profile."""
        return {name: live.opened.ring for name, live in self._live.items()}

    def issuing(self, profile: str) -> Issuing:
        """The active keys. Raises `StaleStateError`, `DeniedCallerError` (no issuer)."""
        self._demand(Role.ISSUE)
        now = self._fresh_now(profile)
        since, until, issuing = self._issuing.get(profile, _NEVER)
        if issuing is None or not since <= now < until:
            issuing = self._issuing_at(profile, now)
            changes = (
                t
                for key in self._live[profile].opened.ring.keys
                for t in (key.activate_time, key.retire_time)
                if t is not None
            )
            self._issuing[profile] = (now, min((t for t in changes if t > now), default=math.inf), issuing)
        return issuing

    def _issuing_at(self, profile: str, now: float) -> Issuing:
        opened = self._live[profile].opened

        def active(use: KeyUse) -> LiveKey:
            facts = opened.ring.active(use, now)
            if facts is None:
                raise StaleStateError(f"no {use.value} key of profile {profile!r} is active at this time")
            return LiveKey(facts, opened.issue[facts.key_id])

        encryption = active(KeyUse.ENCRYPTION)
        signature = active(KeyUse.SIGNATURE) if encryption.facts.settings.format is Format.NESTED else None
        return Issuing(self.profiles[profile], opened.ring.revision, encryption, signature)

    def find(self, profiles: Sequence[str], key_id: str, use: KeyUse) -> Found | None:
        """The one key of that id and use that opens now, among these profiles. Raises `StaleStateError` if one of them is stale.

        `DeniedCallerError`: not a validator.
        """
        self._demand(Role.OPEN)
        result: Found | None = None
        for name in profiles:
            now = self._fresh_now(name)
            found = self._live[name].found.get(key_id)
            if result is None and found is not None and now < found[1] and found[0].key.facts.use is use:
                result = found[0]
        return result

    async def find_or_refresh(self, profiles: Sequence[str], key_id: str, use: KeyUse) -> Found | None:
        """As `find`, but None only if a refresh a moment ago did not know the key either. Raises `StaleStateError` if that failed."""
        if found := self.find(profiles, key_id, use):
            return found
        if self._clock.boot() - self._refreshed >= UNKNOWN_SECONDS or self._refreshing is not None:
            with contextlib.suppress(SidecarError):
                await self._refresh_once()
        if found := self.find(profiles, key_id, use):
            return found
        if any(self._read[name].boot < self._refreshed for name in profiles):
            raise StaleStateError("this sidecar does not know the token's key and cannot ask its store")
        return None

    def public_jwks(self, profile: str, uses: Collection[KeyUse]) -> tuple[list[dict[str, str]], int]:
        """The public JWKs that outside readers need (RFC 7517), and the ring's revision. Symmetric keys have none.

        Signature keys that are pending, active or retiring; of encryption keys the active one.
        """
        opened, now = self._live[profile].opened, self.now()
        listed = {
            KeyUse.SIGNATURE: (KeyState.PENDING, KeyState.ACTIVE, KeyState.RETIRING),
            KeyUse.ENCRYPTION: (KeyState.ACTIVE,),
        }
        wanted = [key for key in opened.ring.keys if key.use in uses and key.state(now) in listed[key.use]]
        public = [opened.public(key.key_id) for key in wanted]
        return [json.loads(jwk) for jwk in public if jwk is not None], opened.ring.revision

    def due(self, now: float) -> list[tuple[str, Literal["rotate", "destroy"], KeyUse | None]]:
        """What the schedule owes at store time `now`. Nothing while stale: a clock that jumped must not start a rotation."""
        owed: list[tuple[str, Literal["rotate", "destroy"], KeyUse | None]] = []
        for name, live in self._live.items():
            if self.stale(name):
                continue
            profile, ring = self.profiles[name], live.opened.ring
            for use in _uses(profile):
                due = ring.rotation_due(use, profile.rotate_every, now)
                if due is not None and due <= now:
                    owed.append((name, "rotate", use))
            if ring.destroyable(now) or self._scrub_due:
                owed.append((name, "destroy", None))
        return owed

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
        before = {name: live.opened for name, live in self._live.items()}
        reading = await self._reading()
        if await self._store.store_id() != self._store_id:
            self._step_back(*before, why="it is another store")
            raise UnavailableStoreError("the store is not the one that this sidecar started with")
        revisions = await self._store.revisions()
        problems: list[SidecarError] = []
        for name, opened in before.items():
            try:
                await self._take_in(name, revisions.get(name, 0), opened, reading)
            except SidecarError as error:
                problems.append(error)
            except DamagedRingError as error:
                _log.error("ring.damaged", profile=name, problem=str(error))
                problems.append(UnavailableStoreError(str(error)))
        if problems:
            raise problems[0]

    async def _take_in(self, name: str, stored: int, before: Opened, reading: _Reading) -> None:
        """Compare the stored revision with the ring that was live when the read began."""
        if stored < before.ring.revision:
            self._step_back(name, why=f"revision {stored} after {before.ring.revision}")
        elif stored > before.ring.revision or name in self._stepped_back:
            self._take(name, await self._load(name), before, reading)
            if (revision := self._live[name].opened.ring.revision) > before.ring.revision:
                _log.info("ring.taken_in", profile=name, ring_revision=revision)
        else:
            self._mark_read(name, reading)

    # Changing

    async def rotate(self, profile: str, uses: tuple[KeyUse, ...] | None, *, expected: int, request_id: str) -> Changed:
        """Successors for these uses (None: all). `expected` 0: at any revision.

        Raises `ChangedRingError`, `InvalidRequestError`, `UnavailableStoreError`, `UnavailableKmsError`, `StaleStateError` (rollback).
        """
        self._demand_writable()
        proposed = self.profiles[profile]
        known = _uses(proposed)
        if uses is not None and not (set(uses) <= set(known) and uses):
            raise InvalidRequestError(
                Violation("uses", f"profile {profile!r} has keys for {', '.join(u.value for u in known)} only")
            )

        def rule(ring: Ring, now: float, *, alone: bool) -> _Plan | Changed:
            if first := ring.answer_to(request_id):
                return Changed(ring, first.activate_time, first.revision)
            ahead = 0.0 if alone and not proposed.published else _ahead(proposed)
            wanted = [use for use in known if uses is None or use in uses or use not in ring.uses()]
            material, fresh = _fresh(proposed, wanted, now=now, activate=now + ahead)
            return _Plan(
                ring.rotated(fresh, now=now, activate=now + ahead, expected=expected, request_id=request_id),
                material,
                now + ahead,
            )

        async with self._changing, self._store.alone() as alone:
            changed = await self._change(profile, "rotate", lambda ring, now: rule(ring, now, alone=alone))
            failpoint("rotate.swapped")
        return changed

    async def compromise(self, profile: str, key_ids: frozenset[str]) -> Changed:
        """The named keys neither issue nor open from now on, and every use has an active key.

        Raises `InvalidRequestError` (no such key), `UnavailableStoreError`, `UnavailableKmsError`, `StaleStateError` (rollback).
        """
        self._demand_writable()

        def rule(ring: Ring, now: float) -> _Plan | Changed:
            named = [key for key in ring.keys if key.key_id in key_ids]
            if len(named) == len(key_ids) and all(key.compromise_time is not None for key in named):
                return Changed(ring, now, ring.revision)
            material, fresh = _fresh(self.profiles[profile], ring.uncovered(key_ids, now), now=now, activate=now)
            return _Plan(ring.compromised(key_ids, fresh, now=now), material, now)

        async with self._changing:
            self._scrub_due = True
            changed = await self._change(profile, "revoke_keys", rule)
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
            if abs(self.skew()) > self._live[profile].max_skew:
                raise StaleStateError("this machine's clock is too far from the store's to destroy keys")
            return _Plan(ring.pruned(now), (), now)

        async with self._changing:
            before = await self._current(profile)
            due = before.ring.destroyable(self.now())
            if due:
                self._scrub_due = True
                changed = await self._change(profile, "destroy", rule)
            if self._scrub_due:
                await self._scrub()
                failpoint("destroy.scrubbed")
            return changed if due else None

    async def _change(self, profile: str, operation: str, rule: Callable[[Ring, float], _Plan | Changed]) -> Changed:
        """Reload, apply, seal, save; again if another process was quicker. A `Changed` from the rule: nothing to save."""
        for _ in range(ATTEMPTS):
            opened = await self._current(profile)
            plan = rule(opened.ring, self.now())
            if isinstance(plan, Changed):
                return plan
            material = {**opened.whole(), **{fresh.key_id: fresh for fresh in plan.fresh}}
            content = seal_ring(plan.ring, material, opened.data_keys, opened)
            # Opened again before it is saved: what could not be read back must never replace what can.
            revision = plan.ring.revision
            changed = await self._open(profile, Document(revision, content), opened.data_keys)
            failpoint(f"{operation}.before_save")
            reading = self._read[profile]
            if await self._store.save(profile, content, expected=opened.ring.revision):
                failpoint(f"{operation}.saved")
                self._swap(profile, changed, reading)
                return Changed(plan.ring, plan.activate, revision)
        raise ChangedRingError

    async def _current(self, profile: str) -> Opened:
        """The ring as it is stored now, taken in."""
        reading, before = await self._reading(), self._live[profile].opened
        try:
            opened = await self._load(profile)
        except DamagedRingError as error:
            raise UnavailableStoreError(str(error)) from error
        self._take(profile, opened, before, reading)
        if profile in self._stepped_back:
            raise StaleStateError("the store has gone back to an older state; nothing is changed on top of it")
        return self._live[profile].opened

    def _take(self, name: str, opened: Opened | None, before: Opened, reading: _Reading) -> None:
        """Take in what was loaded, unless it is older than what was live `before` the load, or another history.

        After a step back only the very same document is taken: whoever changed an older one has started a history of their own.
        """
        if opened is None:
            self._step_back(name, why="the ring is gone")
        elif opened.ring.revision < before.ring.revision:
            self._step_back(name, why=f"revision {opened.ring.revision} after {before.ring.revision}")
        elif opened is not before and (opened.ring.revision == before.ring.revision or name in self._stepped_back):
            self._step_back(name, why=f"another revision {opened.ring.revision} than the one that is known")
        else:
            self._stepped_back.discard(name)
            self._swap(name, opened, reading)

    async def _scrub(self) -> None:
        await self._store.scrub()
        self._scrub_due = False

    # Store and memory

    async def _load(self, name: str) -> Opened | None:
        document = await self._store.load(name)
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

    async def _make(self, name: str) -> Opened:
        """The first ring of a profile: ours, or that of who was quicker."""
        if not (self._allow_bootstrap and self.writable):
            raise UnavailableStoreError(
                f"the store has no ring for profile {name!r}, and this sidecar may not make one"
            )
        profile, now = self.profiles[name], self.now()
        material, keys = _fresh(profile, _uses(profile), now=now, activate=now)
        data_keys = await fresh_data_keys(self._kms, name, self._store_id, now)
        content = seal_ring(Ring(name, 1, keys), {m.key_id: m for m in material}, data_keys)
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
        wall, before = self._clock.wall(), self._clock.boot()
        stored = await self._store.now()
        after = self._clock.boot()
        self._offset = stored - (before + after) / 2
        return _Reading(before, wall)

    def _swap(self, name: str, opened: Opened, reading: _Reading) -> None:
        """Take a ring in, unless a newer one is there already."""
        live = self._live.get(name)
        if live is None or opened.ring.revision >= live.opened.ring.revision:
            self._live[name] = _Live.of(opened, self.profiles[name])
            self._issuing.pop(name, None)
            self._mark_read(name, reading)

    def _mark_read(self, name: str, reading: _Reading) -> None:
        """What is live is at least as new as that read."""
        if name not in self._read or reading.boot > self._read[name].boot:
            self._read[name] = reading

    def _step_back(self, *names: str, why: str) -> None:
        for name in names:
            if name not in self._stepped_back:
                self._stepped_back.add(name)
                _log.error("ring.stepped_back", profile=name, problem=why)


def _uses(profile: Profile) -> tuple[KeyUse, ...]:
    return (KeyUse.ENCRYPTION, KeyUse.SIGNATURE) if profile.format is Format.NESTED else (KeyUse.ENCRYPTION,)


def _ahead(profile: Profile) -> float:
    """Seconds from a successor's making to its activation (keys.md, rule 4)."""
    return max(float(profile.propagation), PUBLISH_AHEAD if profile.published else 0.0) + 2 * profile.max_skew


def _fresh(
    profile: Profile, uses: Collection[KeyUse], *, now: float, activate: float
) -> tuple[tuple[Material, ...], tuple[Key, ...]]:
    """New keys of these uses, as the profile proposes them."""
    material, facts = [], []
    for use in uses:
        made = jose_keys.generate(profile.encrypt if use is KeyUse.ENCRYPTION else profile.sign)
        material.append(made)
        facts.append(
            Key(made.key_id, use, made.algorithm, Settings.of(profile, use), create_time=now, activate_time=activate)
        )
    return tuple(material), tuple(facts)
