"""Fifty sidecars and what befalls them: the real keeper, duties and verbs, each on its machine's clock and line."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Coroutine
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

from sidecar.caller import Caller, Plane
from sidecar.data_keys import DamagedRingError
from sidecar.duties import Claim, Duties, Duty
from sidecar.errors import ChangedRingError, InvalidRequestError, SidecarError
from sidecar.issue import Grant, Issue
from sidecar.keeper import Keeper
from sidecar.keyring import KeyUse, Ring, Role
from sidecar.pins import Pins
from sidecar.profile import Profile
from sidecar.validate import Demand, Validate
from tests.hand_clock import START
from tests.model.checker import Checker, Token, Violation
from tests.model.engine import Engine
from tests.model.loop import VirtualLoop
from tests.model.scenario import SKEW, Event, Kind, Machine, Scenario
from tests.model.world import DiskPins, Line, MachineClock, ModelStore, Shared, disk

CALLER = Caller("unix:app", Plane.APP)
RESTART_SECONDS = 2.0
DUTIES_EVERY = 4.0
DUTY_RETRY = 15.0
CALLS = 4  # of a sidecar that looks at the store: its time, its id, the revisions, a ring
PROBES = 6  # tokens around each moment at which a key becomes active


class _Aside:
    """Policy, audit and metrics: everything is allowed, nothing is recorded."""

    configured = False

    def check(self, *_: object) -> None:
        pass

    def decision(self, *_: object, **__: object) -> Any:
        return contextlib.nullcontext(SimpleNamespace(facts={}, quiet=True, profile=""))

    def token(self, *_: object, **__: object) -> Any:
        return contextlib.nullcontext(SimpleNamespace(profile=""))

    def named(self, **values: str) -> dict[str, str]:
        return values


ASIDE: Any = _Aside()


class Process:
    """One life of a sidecar."""

    def __init__(self, fleet: Fleet, place: Place, profiles: dict[str, Profile]) -> None:
        machine = place.machine
        place.lives += 1
        self._fleet, self._place, self._machine = fleet, place, machine
        self.profiles = profiles
        self._rng = random.Random(f"{fleet.scenario.seed} {machine.number} {place.lives}")
        self._store = ModelStore(
            fleet.shared, fleet.scenario.kind, machine, place.clock, place.line, self._rng, writable=machine.keeper
        )
        self.keeper: Keeper | None = None  # once it has started
        self._tasks: set[asyncio.Task[None]] = set()
        self.spawn(self._live())

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._fleet.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def end(self) -> None:
        """Killed: nothing is finished, nothing is tidied up."""
        for task in tuple(self._tasks):
            task.cancel()
        self._store.gone()

    async def _live(self) -> None:
        loop = self._fleet.loop
        while self._fleet.shared.taken:
            await loop.sleep(0.05)
        while True:
            pins = DiskPins(self._place.disk) if self._machine.disk else Pins(None)
            keeper = Keeper(
                self.profiles,
                self._store,
                cast("Any", dict.fromkeys(self._machine.roles)),
                self._place.clock,
                pins=pins,
            )
            try:
                await keeper.start()
                break
            except (SidecarError, DamagedRingError):
                await loop.sleep(RESTART_SECONDS)
        self.keeper = keeper
        self.issue = Issue(keeper, ASIDE, ASIDE, ASIDE)
        self.validate = Validate(keeper, ASIDE, ASIDE, ASIDE)
        self._fleet.look(self._place)
        if self._machine.keeper:
            self.spawn(self._doing_duties(keeper))
        while True:
            await loop.sleep(self._fleet.scenario.refresh * self._rng.uniform(0.8, 1.2))
            with contextlib.suppress(SidecarError):
                await keeper.refresh()
            self._fleet.look(self._place)

    async def _doing_duties(self, keeper: Keeper) -> None:
        duties = Duties(
            keeper, self._store, holder=f"{self._machine.number}/{self._place.lives}", spread=self._machine.spread
        )
        retry_at: dict[Duty, float] = {}
        while True:
            await self._fleet.loop.sleep(DUTIES_EVERY)
            now = keeper.now()
            for duty in duties.due(now):
                if now < retry_at.get(duty, 0.0):
                    continue
                outcome = await self._duty(keeper, duties, duty)
                self._fleet.told(self._place, f"duty {duty.kind} of {duty.profile}: {outcome}")
                if outcome != "OK":
                    retry_at[duty] = now + DUTY_RETRY
                self._fleet.look(self._place)

    async def _duty(self, keeper: Keeper, duties: Duties, duty: Duty) -> str:
        try:
            claim = await duties.claim(duty)
            if claim is not Claim.WON:
                return str(claim.value)
            if duty.kind == "rotate":
                await keeper.rotate(duty.profile, (duty.use,) if duty.use else None, expected=0, request_id="")
            elif duty.kind == "rekey":
                await keeper.rekey(duty.profile)
            else:
                await keeper.destroy(duty.profile)
        except SidecarError as error:
            return error.reason.name
        return "OK"

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fleet.checker.violate(self._fleet.loop.time(), "7 died", f"{self._place}: {error!r}")


@dataclass
class Place:
    """A machine, and what of it outlives a process."""

    machine: Machine
    clock: MachineClock
    line: Line
    version: int = 0  # of the configuration
    lives: int = 0
    disk: Any = field(default_factory=disk)
    process: Process | None = None
    ages: dict[str, tuple[int, int]] = field(default_factory=dict)  # of the rings it served on
    late: float = 0.0  # by so much it may see the store later than others

    @property
    def keeper(self) -> Keeper | None:
        return self.process.keeper if self.process else None

    def __str__(self) -> str:
        return f"#{self.machine.number}"


@dataclass
class Result:
    """What came of a run."""

    violations: list[Violation]
    steps: int
    store_calls: int
    counts: dict[str, int]
    trace: list[str]


class Fleet:
    """All of one run."""

    def __init__(self, scenario: Scenario, *, tracing: bool) -> None:
        self.scenario = scenario
        self.loop = VirtualLoop(START)
        self.engine = Engine()
        self.checker = Checker(scenario.reckoning, 1.5 * scenario.refresh)
        self.shared = Shared(self.loop, self.checker)
        self.counts: dict[str, int] = {}
        self._tracing, self._trace = tracing, list[str]()
        self._probed: set[str] = set()
        one: MachineClock | None = None
        self.places: list[Place] = []
        for machine in scenario.machines:
            clock = MachineClock(self.loop, machine.skew, machine.drift, machine.boot)
            if scenario.kind is Kind.LOCAL:
                one = clock = one or clock
            place = Place(machine, clock, Line(), late=machine.behind)
            if scenario.kind is Kind.MOUNTED and not machine.keeper:
                place.late = machine.renewal + machine.lag
            self.places.append(place)

        numbers = [m.number for m in scenario.machines]
        self._first = sorted(numbers, key=lambda n: -scenario.machines[n].skew)[:4]
        self._last = sorted(numbers, key=lambda n: -self.places[n].late)[:8]

    def run(self) -> Result:
        scenario, loop = self.scenario, self.loop
        with self.engine.installed():
            for place in self.places:
                loop.at(START + place.machine.start, self._start, place)
            for event in scenario.events:
                if event.at < scenario.horizon:
                    loop.at(START + event.at, self._happen, event)
            while loop.time() < START + scenario.horizon and not self.checker.violations:
                loop.drive(loop.time() + 20.0)
            if not self.checker.violations:
                self._settle()
            for place in self.places:
                self._end(place)
            loop.stopped = False
            loop.drive(loop.time())  # what was killed goes
        for error in loop.errors:
            self.checker.violate(loop.time(), "7 died", error)
        if self._tracing:
            self._trace += [f"{v.time - START:9.3f}  VIOLATED {v.rule}: {v.words}" for v in self.checker.violations]
        counts = {
            **self.counts,
            "rings": self.checker.rings_stored,
            "destroyed": self.checker.keys_destroyed,
            "limits": self.checker.limits,
        }
        return Result(self.checker.violations, loop.steps, self.shared.calls, counts, self._trace)

    def _settle(self) -> None:
        """Everything is mended; then everybody must agree, issue and accept."""
        scenario, loop = self.scenario, self.loop
        for place in self.places:
            place.line.cut, place.line.slow, place.clock.jump = "", 0.0, 0.0
            if place.process is None or scenario.kind is Kind.MOUNTED:  # who started on a wrong clock there goes by it
                self._end(place)
                self._start(place)
        unreliable = max(m.unreliable for m in scenario.machines)
        loop.drive(loop.time() + scenario.mount_delay + 2 * (scenario.refresh * 1.2 + 4.0))
        before = dict(self.checker.newest)
        loop.drive(loop.time() + scenario.mount_delay + (3 if unreliable else 1) * (scenario.refresh * 1.2 + 4.0))
        rng = random.Random(f"settled {scenario.seed}")
        for place in self.places:
            keeper = place.keeper
            for name, ring in before.items():
                if keeper is None or keeper.stale(name) or keeper.ring(name).revision < ring.revision:
                    state = (
                        "does not start"
                        if keeper is None
                        else f"{keeper.alarms()}, {keeper.staleness(name):.0f} s old, {keeper.skew():.1f} s off"
                    )
                    if (
                        place.machine.unreliable == place.machine.behind == 0.0
                        and abs(place.machine.skew) + self.checker.reckoning < SKEW
                        and not self._looking(place, name)
                    ):
                        self.checker.violate(loop.time(), "7 not found back", f"{place}: {state}")
                elif rng.random() < 0.1:
                    checks = tuple((0.0, rng.randrange(len(self.places))) for _ in range(3))
                    self._token(Event(0.0, "token", place.machine.number, 0.4, name, checks))
        loop.drive(loop.time() + 5.0)

    def _looking(self, place: Place, profile: str) -> bool:
        """Whether it is only as old as its next look at the store takes: the least that config allows leaves slow messages no room."""
        assert place.keeper
        look = 1.2 * self.scenario.refresh + 2 * CALLS * place.machine.latency
        return (
            min(c[profile].max_staleness for c in self.scenario.configs) < look
            and place.keeper.staleness(profile) < look
        )

    # What is told

    def told(self, place: Place, words: str) -> None:
        if self._tracing:
            self._trace.append(f"{self.loop.time() - START:9.3f}  {place} {words}")

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def look(self, place: Place) -> None:
        """Check what a sidecar serves on now."""
        keeper = place.keeper
        if keeper is None:
            return
        now = self.loop.time()
        for name, live in keeper._live.items():
            ring = live.opened.ring
            if name in keeper.alarms():
                continue
            before = place.ages.get(name, (0, 0))
            if (ring.history, ring.revision) != before:
                self.told(place, f"serves on revision {ring.revision} of {name}")
                self.checker.seen(str(place), ring, live.opened.content, before, now)
                place.ages[name] = ring.history, ring.revision
                if place.machine.keeper:
                    self._probe(ring)
        if keeper.alarms() and not place.machine.behind:
            self.checker.violate(now, "7 false alarm", f"{place}: {keeper.alarms()}")
        if self.checker.violations:
            self.loop.stopped = True

    def _probe(self, ring: Ring) -> None:
        """Have tokens made around the moment at which a key becomes active, and judged at once."""
        for key in ring.keys:
            if key.key_id in self._probed:
                continue
            self._probed.add(key.key_id)
            rng = random.Random(f"{self.scenario.seed} {key.key_id}")
            count = len(self.places)
            for probe in range(PROBES):
                if probe % 2:
                    machine = rng.randrange(count)
                    at = key.activate_time + rng.choice((rng.random(), rng.uniform(-2.0, 8.0) * self.checker.reckoning))
                    judges = [rng.randrange(count) for _ in range(3)]
                else:  # the worst that can meet: whose clock is furthest ahead, and who sees the store last
                    machine = rng.choice(self._first)
                    at = (
                        key.activate_time
                        - self.places[machine].machine.skew * (self.scenario.kind is Kind.MOUNTED)
                        + rng.random()
                    )
                    judges = [rng.choice(self._last) for _ in range(3)]
                checks = (
                    *((rng.random() * probe, judge) for judge in judges),
                    (rng.random(), rng.randrange(count)),
                    (-0.999, rng.randrange(count)),
                )
                event = Event(0.0, "token", machine, rng.random(), ring.profile, checks)
                self.loop.at(max(at, self.loop.time()), self._happen, event)

    # What happens

    def _start(self, place: Place) -> None:
        if place.process is None:
            if self.scenario.kind is Kind.MOUNTED and place.clock.jump > -3000.0:
                place.clock.jump = 0.0  # clocks are right when a process starts there: assumed; far behind is noticed
            self.told(place, f"starts with configuration {place.version}")
            place.process = Process(self, place, self.scenario.configs[place.version])

    def _end(self, place: Place) -> None:
        if place.process is not None:
            self.told(place, "is killed")
            place.process.end()
            place.process = None
            if not place.machine.disk:
                place.ages = {}

    def _happen(self, event: Event) -> None:
        if self.checker.violations:
            self.loop.stopped = True
            return
        place = self.places[event.machine]
        if event.what == "token":
            self._token(event)
            return
        self.told(place, str(event))
        match event.what:
            case "cut":
                place.line.cut = event.text
            case "slow":
                place.line.slow = event.number
            case "jump":
                place.clock.jump = event.number
            case "kill":
                self._end(place)
            case "start":
                self._start(place)
            case "restart":
                self._end(place)
                self._start(place)
            case "config":
                place.version = int(event.number)
                self._end(place)
                self._start(place)
            case "rotate" | "revoke" | "rekey" if place.process and place.keeper and place.machine.keeper:
                name, *words = event.text.split(" ")
                place.process.spawn(getattr(self, f"_{event.what}")(place, place.keeper, name, event, *words))

    async def _rotate(self, place: Place, keeper: Keeper, name: str, event: Event, uses: str = "") -> None:
        try:
            ring = keeper.ring(name)
            wanted = (KeyUse(uses),) if uses else None
            changed = await keeper.rotate(name, wanted, expected=ring.revision, request_id=f"{event.at}")
        except SidecarError as error:
            self.told(place, f"does not rotate: {error.reason.name}")
            return
        self.told(
            place, f"has rotated {name}: revision {changed.revision}, active at {changed.activate_time - START:.3f}"
        )
        self.look(place)

    async def _revoke(self, place: Place, keeper: Keeper, name: str, event: Event, which: str) -> None:
        try:
            ring, now = keeper.ring(name), keeper.now()
            named = [k.key_id for k in ring.keys if which in (k.state(now).value, "any")]
            if not named:
                return
            chosen = frozenset(named[int(event.number * len(named)) :][: 1 if event.number < 0.7 else None])
            for _ in range(3):
                try:
                    changed = await keeper.compromise(name, chosen)
                    break
                except (InvalidRequestError, ChangedRingError):
                    raise
                except SidecarError:
                    await self.loop.sleep(3.0)
            else:
                return
        except SidecarError as error:
            self.told(place, f"does not revoke: {error.reason.name}")
            return
        effective = keeper.obeyed_by(name)
        self.count("revoked")
        self.told(
            place,
            f"has revoked {', '.join(sorted(chosen))}: revision {changed.revision}, effective at {effective - START:.3f}",
        )
        for key_id in chosen:
            self.checker.effective[key_id] = min(self.checker.effective.get(key_id, effective), effective)
        self.look(place)

    async def _rekey(self, place: Place, keeper: Keeper, name: str, _: Event) -> None:
        with contextlib.suppress(SidecarError):
            await keeper.rekey(name)
        self.look(place)

    def _token(self, event: Event) -> None:
        """Have a token made at the next sidecar that can, and judged at others."""
        for number in range(event.machine, event.machine + 10):
            place = self.places[number % len(self.places)]
            if place.keeper and place.keeper.holds(Role.ISSUE):
                break
        else:
            return
        process, keeper, now = cast("Process", place.process), cast("Keeper", place.keeper), self.loop.time()
        max_ttl = process.profiles[event.text].max_ttl
        ttl = max_ttl if event.number > 0.5 else 1 + int(event.number * max_ttl)
        try:
            try:
                issued = process.issue(CALLER, _grant(event.text, ttl), "", "jti")
            except InvalidRequestError:  # the ring allows less than the configuration
                issued = process.issue(CALLER, _grant(event.text, None), "", "jti")
        except SidecarError as error:
            self.count(f"issue {error.reason.name}")
            if not keeper.stale(event.text) and not self._soon(keeper, event.text):
                self.checker.violate(
                    now, "7 does not issue", f"{place}, which is not stale, says {error.reason.name}: {error.message}"
                )
            return
        self.count("issued")
        layers = [self.engine.layers[issued.token]]
        if layers[0].cty:
            layers.append(self.engine.layers[layers[0].inside.decode()])
        keys = tuple(layer.kid for layer in layers)
        if any(key_id not in self.checker.facts for key_id in keys):
            self.checker.violate(now, "5 another ring", f"{place} issues with a key that is in no stored ring: {keys}")
            return
        leeway = self.checker.facts[keys[-1]].settings.leeway
        token = Token(issued.token, event.text, keys, issued.claims.issue_time, issued.claims.expire_time, leeway)
        self.told(place, f"made {token.text} with {', '.join(keys)} until {token.expire_time - START}")
        self.checker.issued(str(place), token, now, place.late)
        for when, number in event.checks:
            if when >= 0:
                at = now + when
            elif when < -1:
                at = token.expire_time + leeway + self.checker.reckoning + 1.0
            else:
                at = now - when * (token.expire_time - now)
            self.loop.at(at, self._judge, self.places[number], token)

    def _soon(self, keeper: Keeper, name: str) -> bool:
        """Whether a key that was made to be active at once is not yet so by this sidecar's clock: then nobody issues there for a moment."""
        now = keeper.now()
        return any(now < key.activate_time <= now + 2 * self.checker.reckoning for key in keeper.ring(name).keys)

    def _judge(self, place: Place, token: Token) -> None:
        if self.checker.violations:
            self.loop.stopped = True
        elif place.process and place.keeper and place.keeper.holds(Role.OPEN):
            place.process.spawn(self._judged(place, place.process, token))

    async def _judged(self, place: Place, process: Process, token: Token) -> None:
        began = self.loop.time()
        try:
            await process.validate(CALLER, Demand(token.text, ("service",), (token.profile,), ()), "")
            answer = "OK"
        except SidecarError as error:
            answer = error.reason.name
        self.count(f"validate {answer}")
        now = self.loop.time()
        before = len(self.checker.violations)
        self.checker.judged(str(place), token, answer, began, now, place.late)
        if answer != "OK" or before != len(self.checker.violations):
            self.told(place, f"says {answer} to {token.text}")


def _grant(profile: str, ttl: int | None) -> Grant:
    return Grant(profile, "subject", ("service",), ttl, "", (), None)


def simulate(scenario: Scenario, *, tracing: bool = False) -> Result:
    """Run it."""
    return Fleet(scenario, tracing=tracing).run()
