"""What happens in one run, made from a seed: machines, configurations, and everything that is done to them.

Everything is scaled down together, so that a run of some minutes sees several rotations and the end of the first keys: the bounds that
`config` demands of these times hold, `max_skew` is the real one, and clocks are wrong by up to it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from enum import Enum

from sidecar.keyring import KeyUse, Role
from sidecar.profile import Format, Profile

MACHINES = 50
SKEW = 5  # seconds: `max_skew`
ALL = tuple(Role)


class Kind(Enum):
    """What the store is like."""

    SHARED = "shared"  # a service with a clock of its own; whoever has both roles is a keeper
    MOUNTED = "mounted"  # a Secret: few keepers write it, all others read a mount; no clock of its own
    LOCAL = "local"  # processes on one machine, with one clock


@dataclass(frozen=True, slots=True)
class Machine:
    """One sidecar and where it runs. Times are in seconds."""

    number: int
    roles: tuple[Role, ...]
    keeper: bool
    skew: float
    drift: float
    boot: float
    spread: float
    disk: bool  # pins outlive the process
    prompt: float  # share of messages without a delay
    latency: float  # the most that one way takes
    unreliable: float  # share of messages that are lost
    renewal: float  # a mount is renewed so often,
    lag: float  # and shows what was there so long before
    behind: float  # some reads are answered by a replica of the store, which is so far behind
    start: float  # when it is started, from the beginning of the run


@dataclass(frozen=True, slots=True)
class Event:
    """Something that is done at a time, in seconds from the beginning of the run."""

    at: float
    what: str
    machine: int = 0
    number: float = 0.0
    text: str = ""
    checks: tuple[
        tuple[float, int], ...
    ] = ()  # of a token: after so many seconds, or parts of its life if negative; at which machine

    def __str__(self) -> str:
        return (
            f"{self.what} at {self.machine}"
            + (f" {self.number:.2f}" if self.number else "")
            + (f" {self.text}" if self.text else "")
        )


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run."""

    seed: int
    kind: Kind
    machines: tuple[Machine, ...]
    configs: tuple[dict[str, Profile], ...]
    refresh: float
    mount_delay: float
    horizon: float
    events: tuple[Event, ...] = field(repr=False)

    @property
    def reckoning(self) -> float:
        """How far a sidecar that is not stale may be from the store's time."""
        # The middle of a question and its answer is off by half of what one way took longer than the other.
        ways = [m.latency for m in self.machines] + [e.number for e in self.events if e.what == "slow"]
        return max(ways) / 2 + 0.1 + (max(abs(m.skew) for m in self.machines) if self.kind is Kind.MOUNTED else 0.0)


def scenario(seed: int) -> Scenario:
    """The run of that seed."""
    rng = random.Random(f"scenario {seed}")
    kind = rng.choices((Kind.SHARED, Kind.MOUNTED, Kind.LOCAL), (5, 4, 1))[0]
    count = rng.choice((1, 2, 3, 8)) if kind is Kind.LOCAL else MACHINES
    refresh = rng.choice((8.0, 12.0, 16.0, 20.0))
    mount_delay = rng.uniform(8.0, 60.0) if kind is Kind.MOUNTED else 0.0
    machines = tuple(_machine(rng, kind, number, mount_delay) for number in range(count))
    # Seen everywhere within this: a look at the store, or the renewal of a mount and what an unknown key has looked at; and the write itself.
    least = max(refresh * 1.2, mount_delay) + 5
    configs = _configs(rng, int(least) + 1)
    longest = max(p.rotate_every for config in configs for p in config.values())
    horizon = min(500.0, rng.uniform(1.1, 2.2) * longest + 50.0)
    events = sorted(_events(rng, kind, machines, configs, horizon), key=lambda event: event.at)
    return Scenario(seed, kind, machines, configs, refresh, mount_delay, horizon, tuple(events))


def _machine(rng: random.Random, kind: Kind, number: int, mount_delay: float) -> Machine:
    keeper = number < 4 or (kind is Kind.SHARED and rng.random() < 0.05) or kind is Kind.LOCAL
    roles = ALL if keeper else rng.choice((ALL, ALL, (Role.ISSUE,), (Role.OPEN,)))
    renewal = mount_delay * rng.uniform(0.2, 0.9)
    at_once = kind is Kind.LOCAL
    return Machine(
        number=number,
        roles=roles,
        keeper=keeper,
        skew=0.0 if at_once else rng.choice((0.0, rng.uniform(-4.8, 4.8), rng.choice((-4.8, 4.8)))),
        drift=0.0 if at_once else rng.uniform(-1e-4, 1e-4),
        boot=1000.0 if at_once else rng.uniform(10.0, 1e6),
        spread=rng.random(),
        disk=rng.random() < 0.5,
        prompt=rng.choice((0.5, 0.9, 0.97)),
        latency=rng.choice((0.05, 0.3, 0.3, 1.0)),
        unreliable=rng.choice((0.0, 0.0, 0.0, 0.02, 0.2)),
        renewal=renewal,
        lag=(mount_delay - renewal) * rng.choice((rng.random(), 1.0)),
        behind=rng.uniform(2.0, 12.0) if kind is Kind.SHARED and rng.random() < 0.1 else 0.0,
        start=rng.choice((0.0, 0.0, rng.uniform(0.0, 20.0))),
    )


def _configs(rng: random.Random, least: int) -> tuple[dict[str, Profile], ...]:
    names = ("alpha", "beta") if rng.random() < 0.25 else ("alpha",)
    first = {name: _profile(rng, name, least, 1) for name in names}
    configs = [first]
    for _ in range(rng.choice((0, 1, 2, 2))):
        last = configs[-1]
        bump = rng.random() < 0.8
        configs.append(
            {
                name: _profile(rng, name, least, last[name].settings_revision + bump)
                if rng.random() < 0.8
                else last[name]
                for name in names
            }
        )
    return tuple(configs)


def _profile(rng: random.Random, name: str, least: int, revision: int) -> Profile:
    propagation = least + rng.choice((0, rng.randrange(0, 20)))
    ahead = propagation + 2 * SKEW
    max_ttl = rng.choice((rng.randrange(5, 30), rng.randrange(5, 30), rng.randrange(60, 150), rng.randrange(200, 400)))
    format_ = rng.choices((Format.NESTED, Format.ENCRYPTED, Format.SIGNED), (6, 2, 2))[0]
    return Profile(
        name=name,
        issuer="urn:model",
        audiences=(),
        format=format_,
        sign="" if format_ is Format.ENCRYPTED else "ES256",
        typ=rng.choice(("at+jwt", "jwt")),
        ttl=rng.randrange(1, max_ttl + 1),
        max_ttl=max_ttl,
        leeway=rng.choice((0, 2, 5)),
        rotate_every=ahead + rng.randrange(0, ahead),
        propagation=propagation,
        max_staleness=propagation + rng.choice((0, rng.randrange(0, 3 * propagation), 3 * propagation)),
        max_skew=SKEW,
        settings_revision=revision,
    )


def _events(
    rng: random.Random,
    kind: Kind,
    machines: tuple[Machine, ...],
    configs: tuple[dict[str, Profile], ...],
    horizon: float,
) -> list[Event]:
    count = len(machines)
    keepers = [m.number for m in machines if m.keeper]
    events = [
        Event(
            rng.uniform(0.0, horizon),
            "token",
            rng.randrange(count),
            rng.random(),
            _name(rng, configs),
            _checks(rng, count),
        )
        for _ in range(40)
    ]

    def times(most: int) -> list[float]:
        return [rng.uniform(0.0, horizon) for _ in range(rng.choice((0, rng.randrange(most + 1))))]

    for at in times(4):
        cut, until = rng.choice(("request", "request", "reply")), at + rng.expovariate(1 / rng.choice((30.0, 150.0)))
        chosen = rng.sample(range(count), rng.randrange(1, max(2, count // 2)))
        events += [Event(at, "cut", machine, text=cut) for machine in chosen]
        events += [Event(until, "cut", machine) for machine in chosen]
        for machine in chosen[
            :4
        ]:  # the last tokens that they make before they are stale are those that need their keys longest
            name = _name(rng, configs)
            late = at + configs[0][name].max_staleness * rng.uniform(0.6, 1.0)
            events.append(Event(late, "token", machine, 1.0, name, ((-0.999, rng.randrange(count)),)))
    for at in times(6):
        machine = rng.randrange(count)
        events += [
            Event(at, "slow", machine, rng.uniform(0.5, 4.0)),
            Event(at + rng.expovariate(1 / 40), "slow", machine),
        ]
    for at in times(8):
        machine = rng.choice(keepers) if rng.random() < 0.5 else rng.randrange(count)
        events += [Event(at, "kill", machine), Event(at + rng.choice((0.5, rng.expovariate(1 / 30))), "start", machine)]
    for at in times(5):
        machine, jump = rng.randrange(count), rng.choice((-1.0, 1.0)) * rng.choice((rng.uniform(10, 60), 3600.0, 3e8))
        until = at + rng.expovariate(1 / 60)
        events += [Event(at, "jump", machine, jump), Event(until, "jump", machine)]
        # Who starts far behind what was written notices it, and is started again when the clock is right, as it asks for.
        if kind is Kind.MOUNTED and machine not in keepers and jump < -3000:
            events += [Event(at + 1.0, "restart", machine), Event(until, "restart", machine)]
    for at in times(6):
        uses = rng.choice(("", *(use.value for use in KeyUse)))
        together = rng.randrange(1, 4)
        for machine in rng.sample(keepers, min(together, len(keepers))):
            events.append(
                Event(at + rng.choice((0.0, rng.random())), "rotate", machine, text=f"{_name(rng, configs)} {uses}")
            )
    for at in times(7):
        which = rng.choice(("active", "active", "pending", "retiring", "any"))
        events.append(Event(at, "revoke", rng.choice(keepers), rng.random(), f"{_name(rng, configs)} {which}"))
    for at in times(1):
        events.append(Event(at, "rekey", rng.choice(keepers), text=_name(rng, configs)))
    for version in range(1, len(configs)):
        at, window = rng.uniform(0.02, 0.6) * horizon, rng.choice((1.0, 40.0))
        for machine in rng.sample(range(count), rng.choice((count, count, count // 2))):
            events.append(Event(at + rng.random() * window, "config", machine, version))
        if (
            rng.random() < 0.5
        ):  # one use gets its key by the new configuration, the other one keeps what it has for a while
            use = rng.choice([use.value for use in KeyUse])
            events.append(Event(at + window + 1.0, "rotate", rng.choice(keepers), text=f"{_name(rng, configs)} {use}"))
    return events


def _name(rng: random.Random, configs: tuple[dict[str, Profile], ...]) -> str:
    return rng.choice(list(configs[0]))


def _checks(rng: random.Random, count: int) -> tuple[tuple[float, int], ...]:
    """At once, some time in its life, and just before its end."""
    return tuple((when, rng.randrange(count)) for when in (0.0, 0.3 * rng.random(), -rng.random(), -0.999, -1.2))


def without(scenario: Scenario, events: tuple[Event, ...]) -> Scenario:
    """The same with these events only."""
    return replace(scenario, events=events)
