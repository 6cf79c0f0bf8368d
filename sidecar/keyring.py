"""Keys and their states, as values. No I/O, no clock, no randomness: `now` and fresh keys are arguments.

Rules (keys.md):
 1. A ring belongs to one profile; its revision grows by one with each change.
 2. States follow from times alone; only COMPROMISED is written.
 3. Of one use, at most one key is active at any time.
 4. A successor is appended pending, or active at once where nobody else could miss it; its predecessor retires when it activates.
 5. A key is destroyed no sooner than the last token made with it has expired everywhere.
 6. The same request id gets the first answer; the last 16 are kept.
 7. The next key is as the newest one is, unless a configuration with a higher settings revision says otherwise.
 8. Tokens have one format at a time, and all keys that make them agree on it. It changes when all keys of the next one are active, by
    rotation only: revoking a key changes no format.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from enum import Enum

from sidecar.errors import ChangedRingError, InvalidRequestError, Violation
from sidecar.jose.suites import KEY_MANAGEMENT
from sidecar.profile import Format, Profile

REQUESTS_KEPT = 16
PUBLISH_AHEAD = 1800  # seconds; Envoy caches a JWKS for 10 minutes, Istio for 20
KEYS_AT_ONCE = 100  # of one use in one ring; rotation past it waits until a key is destroyed


class Role(Enum):
    """What a process may do with a ring: make tokens, or open them. One that has both roles, and may write, keeps it."""

    ISSUE = "issue"
    OPEN = "open"


class KeyUse(Enum):
    """What a key does in its profile."""

    ENCRYPTION = "encryption"
    SIGNATURE = "signature"
    REFRESH = "refresh"

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles that get a part of such a key. Who only validates could make refresh tokens, and have them traded for access tokens."""
        return (Role.ISSUE,) if self is KeyUse.REFRESH else tuple(Role)


class KeyState(Enum):
    """NIST SP 800-57 Part 1, in the words of this project."""

    PENDING = "pending"  # opens, does not issue yet
    ACTIVE = "active"  # issues and opens
    RETIRING = "retiring"  # opens until the last token made with it has expired
    DESTROYED = "destroyed"  # in no live ring and no memory
    COMPROMISED = "compromised"  # neither issues nor opens

    @property
    def opens(self) -> bool:
        """Whether tokens under a key in this state are accepted."""
        return self in _OPENS


_OPENS = frozenset({KeyState.PENDING, KeyState.ACTIVE, KeyState.RETIRING})


@dataclass(frozen=True, slots=True)
class Settings:
    """What a key depends on, written with it. Lifetimes are whole seconds."""

    format: Format
    typ: str
    max_ttl: int
    leeway: int
    max_staleness: int
    max_skew: int
    content: str = ""  # JWE enc, for encryption keys
    curve: str = ""  # of an encryption key that agrees on keys
    cached: int = 0  # for how long others may go on encrypting to the public key after its retirement
    revision: int = 1  # of the configuration that they came from

    @classmethod
    def of(cls, profile: Profile, use: KeyUse) -> Settings:
        """What the profile proposes for its next key of this use."""
        return cls(
            format=profile.format,
            typ=profile.typ,
            max_ttl=profile.max_ttl,
            leeway=profile.leeway,
            max_staleness=profile.max_staleness,
            max_skew=profile.max_skew,
            content="" if use is KeyUse.SIGNATURE else profile.content,
            curve=profile.curve if use is KeyUse.ENCRYPTION and KEY_MANAGEMENT[profile.encrypt].agrees else "",
            cached=PUBLISH_AHEAD if profile.published and use is KeyUse.ENCRYPTION else 0,
            revision=profile.settings_revision,
        )

    @property
    def tail(self) -> float:
        """Seconds from a key's retirement to its destruction: the longest that a token made with it can be good anywhere."""
        return self.cached + self.max_staleness + self.max_ttl + self.leeway + 2 * self.max_skew


@dataclass(frozen=True, slots=True)
class Proposal:
    """What the next key of one use is to be."""

    use: KeyUse
    algorithm: str
    settings: Settings

    @classmethod
    def of(cls, profile: Profile, use: KeyUse) -> Proposal:
        """By configuration."""
        return cls(use, profile.sign if use is KeyUse.SIGNATURE else profile.encrypt, Settings.of(profile, use))

    @classmethod
    def as_key(cls, key: Key) -> Proposal:
        """The same again."""
        return cls(key.use, key.algorithm, key.settings)

    def differs(self, other: Proposal) -> tuple[str, ...]:
        """The names of what is not the same, revisions apart."""
        names = [field.name for field in fields(Settings) if field.name != "revision"]
        found = [n for n in names if getattr(self.settings, n) != getattr(other.settings, n)]
        return (*(["algorithm"] if self.algorithm != other.algorithm else []), *found)


@dataclass(frozen=True, slots=True)
class Key:
    """The public facts of one key. Times are store time, in seconds since the epoch."""

    key_id: str
    use: KeyUse
    algorithm: str
    settings: Settings
    create_time: float
    activate_time: float
    retire_time: float | None = None
    destroy_time: float | None = None
    compromise_time: float | None = None

    def state(self, now: float) -> KeyState:
        """The state at store time `now`."""
        if self.compromise_time is not None:
            return KeyState.COMPROMISED
        if self.destroy_time is not None and now >= self.destroy_time:
            return KeyState.DESTROYED
        if now < self.activate_time:
            return KeyState.PENDING
        if self.retire_time is None or now < self.retire_time:
            return KeyState.ACTIVE
        return KeyState.RETIRING

    def retired(self, at: float) -> Key:
        """This key, retiring at that time. One that is retiring already keeps its earlier times."""
        if self.compromise_time is not None or (self.retire_time is not None and self.retire_time <= at):
            return self
        return replace(self, retire_time=at, destroy_time=at + self.settings.tail)


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that has been answered: a repeat of its id gets the same."""

    request_id: str
    revision: int
    activate_time: float


@dataclass(frozen=True, slots=True)
class Ring:
    """All live keys of one profile, at one revision. Keys are ordered by use, then creation."""

    profile: str
    revision: int
    keys: tuple[Key, ...]
    answered: tuple[Answered, ...] = ()
    history: int = 1  # grows when a rollback is accepted: a later history is newer, whatever its revision

    def active(self, use: KeyUse, now: float) -> Key | None:
        """The one key of this use that issues at `now`."""
        return next((k for k in self.keys if k.use is use and k.state(now) is KeyState.ACTIVE), None)

    def pending(self, use: KeyUse, now: float) -> Key | None:
        """The successor that waits to activate, if there is one."""
        return next((k for k in self.keys if k.use is use and k.state(now) is KeyState.PENDING), None)

    def key(self, key_id: str) -> Key | None:
        """The key of that id."""
        return next((k for k in self.keys if k.key_id == key_id), None)

    def uses(self) -> tuple[KeyUse, ...]:
        """The uses that this ring has keys of."""
        return tuple(use for use in KeyUse if any(k.use is use for k in self.keys))

    def newest(self, use: KeyUse) -> Key | None:
        """The last successor: the one key of this use that no other is to follow yet; else the one that was made last."""
        of_use = [k for k in self.keys if k.use is use]
        unfollowed = [k for k in of_use if k.retire_time is None and k.compromise_time is None]
        return next(reversed(unfollowed or of_use), None)

    def latest(self) -> Key | None:
        """The successor that is active last of all: its format is what the profile's tokens have, or will have."""
        newest = [key for use in KeyUse if (key := self.newest(use))]
        going_on = [key for key in newest if key.retire_time is None and key.compromise_time is None]
        return max(going_on or newest, key=lambda key: key.activate_time, default=None)

    def format(self, now: float) -> Format | None:
        """The format of tokens that are made at `now`: the one activated last that has all its keys. None: no format has.

        A key of another format may be active beside them: of a former one, or of the next one, whose other key is not active yet.
        """
        active = {use: key for use in KeyUse if (key := self.active(use, now))}
        for key in sorted(active.values(), key=lambda key: key.activate_time, reverse=True):
            found = key.settings.format
            if all(use in active and active[use].settings.format is found for use in uses_of(found)):
                return found
        return None

    def proposed(self, profile: Profile, *, alone: bool) -> tuple[Proposal, ...]:
        """The next keys, one for each use of the format.

        Configuration decides where its settings revision is higher than that of the newest key, or equal and no other process could have
        another configuration; else the next key is as the newest one is.
        """

        def next_of(use: KeyUse) -> Proposal:
            newest = self.newest(use)
            if newest is None or profile.settings_revision >= newest.settings.revision + (0 if alone else 1):
                return Proposal.of(profile, use)
            return Proposal.as_key(newest)

        latest = self.latest()
        leading = next_of(latest.use) if latest else Proposal.of(profile, uses_of(profile.format)[0])
        return tuple(next_of(use) for use in uses_of(leading.settings.format))

    def differing(self, profile: Profile) -> tuple[str, ...]:
        """What the configuration says otherwise than the newest keys: names such as `encryption.max_ttl`."""
        found = []
        for use in uses_of(profile.format):
            newest, configured = self.newest(use), Proposal.of(profile, use)
            names = configured.differs(Proposal.as_key(newest)) if newest else ("none",)
            found += [f"{use.value}.{name}" for name in names]
        return tuple(found)

    def answer_to(self, request_id: str) -> Answered | None:
        """The first answer to this request id, if it is still kept."""
        return next((a for a in self.answered if request_id and a.request_id == request_id), None)

    def rotated(self, fresh: tuple[Key, ...], *, now: float, activate: float, expected: int, request_id: str) -> Ring:
        """The ring with a successor for each fresh key's use, active from `activate` on.

        `ChangedRingError`: the ring is at another revision than expected (0: any), a successor is pending already, or the ring is full.
        """
        if expected not in (0, self.revision):
            raise ChangedRingError(f"the ring is at revision {self.revision}, not {expected}; look again, then decide")
        for key in fresh:
            if waiting := self.pending(key.use, now):
                raise ChangedRingError(
                    f"a successor of the {key.use.value} key is pending already, until {_utc(waiting.activate_time)}"
                )
            held = [k for k in self.keys if k.use is key.use]
            if len(held) >= KEYS_AT_ONCE:
                raise ChangedRingError(
                    f"the ring holds {len(held)} {key.use.value} keys that tokens may still need; the next one goes {_utc(min(map(_end, held)))}"
                )
        uses = {k.use for k in fresh}
        kept = [k.retired(activate) if k.use in uses else k for k in self.keys]
        answer = (Answered(request_id, self.revision + 1, activate),) if request_id else ()
        return self._next([*kept, *fresh], self.answered + answer)

    def uncovered(self, key_ids: frozenset[str], now: float) -> tuple[KeyUse, ...]:
        """The uses that lack a key once these are compromised, so that each needs a fresh one.

        What the present format needs must be active, or have a successor of this format: to compromise a key changes no format. What a
        pending format needs must be there. A key that a former format left behind is not replaced.
        """
        format_ = self.format(now)
        present = self.uses() if format_ is None else uses_of(format_)
        left = [k for k in self.keys if k.key_id not in key_ids]
        active = [k for k in left if k.state(now) is KeyState.ACTIVE]
        pending = [k for k in left if k.state(now) is KeyState.PENDING]
        of_format = [k for k in pending if k.settings.format is format_ or format_ is None]
        return tuple(
            use
            for use in self.uses()
            if (use in present and not any(k.use is use for k in (*active, *of_format)))
            or (
                any(use in uses_of(k.settings.format) for k in pending)
                and not any(k.use is use for k in (*active, *pending))
            )
        )

    def replacement(self, use: KeyUse, proposed: Proposal | None, now: float) -> Proposal:
        """The fresh key of an uncovered use: as proposed if that is of the same format, else the same again.

        One key of another format would make no token; the format changes with the next rotation.
        """
        before = Proposal.as_key(self.active(use, now) or next(k for k in reversed(self.keys) if k.use is use))
        return proposed if proposed and proposed.settings.format is before.settings.format else before

    def compromised(self, key_ids: frozenset[str], fresh: tuple[Key, ...], *, now: float) -> Ring:
        """The ring in which the named keys neither issue nor open, and every use has an active key at once.

        A pending successor steps in for an active key; where there is none, a fresh key does (one for each of `uncovered`), until the
        successor of another format is due. An active key whose pending successor is named goes on. `InvalidRequestError`: no such key.
        """
        if unknown := sorted(key_ids - {k.key_id for k in self.keys}):
            raise InvalidRequestError(
                Violation("key_ids", f"no key of profile {self.profile!r} has the id {unknown[0]!r}")
            )
        keys = [
            replace(k, compromise_time=now) if k.key_id in key_ids and k.compromise_time is None else k
            for k in (*self.keys, *fresh)
        ]
        for use in self.uses():
            active = next((i for i, k in enumerate(keys) if k.use is use and k.state(now) is KeyState.ACTIVE), None)
            pending = next((i for i, k in enumerate(keys) if k.use is use and k.state(now) is KeyState.PENDING), None)
            if active is None and pending is not None and self.active(use, now):
                keys[pending] = replace(keys[pending], activate_time=now)
            elif active is not None and pending is None:
                keys[active] = replace(keys[active], retire_time=None, destroy_time=None)
            elif active is not None and pending is not None:
                keys[active] = keys[active].retired(keys[pending].activate_time)
        return self._next(keys)

    def resealed(self, *, history: int | None = None) -> Ring:
        """The same keys at the next revision: under new data keys, or as the start of another history."""
        return replace(self._next([*self.keys]), history=self.history if history is None else history)

    def destroyable(self, now: float) -> tuple[Key, ...]:
        """The keys that no good token can be under any more."""
        return tuple(k for k in self.keys if _end(k) <= now)

    def pruned(self, now: float) -> Ring:
        """The ring without them."""
        return self._next([k for k in self.keys if _end(k) > now])

    def rotation_due(self, use: KeyUse, rotate_every: float, now: float) -> float | None:
        """When the active key of this use is due for a successor; None while one is pending or none is active."""
        active = self.active(use, now)
        return None if active is None or self.pending(use, now) else active.activate_time + rotate_every

    def _next(self, keys: list[Key], answered: tuple[Answered, ...] | None = None) -> Ring:
        return replace(
            self,
            revision=self.revision + 1,
            keys=tuple(sorted(keys, key=lambda k: (k.use.value, k.create_time, k.key_id))),
            answered=self.answered if answered is None else answered[-REQUESTS_KEPT:],
        )


def uses_of(format_: Format) -> tuple[KeyUse, ...]:
    """The uses that a format has keys for."""
    return {
        Format.NESTED: (KeyUse.ENCRYPTION, KeyUse.SIGNATURE),
        Format.ENCRYPTED: (KeyUse.ENCRYPTION,),
        Format.SIGNED: (KeyUse.SIGNATURE,),
        Format.REFRESH: (KeyUse.REFRESH,),
    }[format_]


def _end(key: Key) -> float:
    if key.compromise_time is not None:
        return key.compromise_time + key.settings.tail
    return float("inf") if key.destroy_time is None else key.destroy_time


def _utc(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
