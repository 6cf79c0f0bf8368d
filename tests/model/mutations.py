"""Rules that are broken on purpose, one at a time: a checker that does not notice checks nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import Any

from sidecar import keeper as keeper_module
from sidecar.errors import SidecarError
from sidecar.issue import Issue
from sidecar.keeper import Keeper
from sidecar.keyring import Key, KeyState, KeyUse, Ring, Settings
from sidecar.live import Found, Live
from sidecar.pins import Pin
from tests.model.engine import replaced
from tests.model.world import ModelStore, Shared


def _tail(without: str) -> Callable[[], AbstractContextManager[None]]:
    def tail(settings: Settings) -> float:
        parts = {"max_staleness": settings.max_staleness, "max_ttl": settings.max_ttl, "leeway": settings.leeway}
        return sum(seconds for name, seconds in parts.items() if name != without) + (
            0 if without == "leeway" else 2 * settings.max_skew
        )

    return lambda: replaced((Settings, "tail", property(tail)))


def _ahead(seconds: Callable[[Any], float]) -> Callable[[], AbstractContextManager[None]]:
    return lambda: replaced((keeper_module, "_ahead", seconds))


def _pending_does_not_open() -> AbstractContextManager[None]:
    found = Live.found

    def strict(live: Live, key_id: str, use: KeyUse, now: float) -> Found | None:
        result = found(live, key_id, use, now)
        return result if result and result.key.facts.state(now) is not KeyState.PENDING else None

    return replaced((Live, "found", strict))


def _bound(name: str) -> Callable[[], AbstractContextManager[None]]:
    """One bound of staleness is not looked at."""

    def mutate() -> AbstractContextManager[None]:
        init = Live.__init__

        def without(live: Live, *args: Any) -> None:
            init(live, *args)
            setattr(live, name, math.inf)

        return replaced((Live, "__init__", without))

    return mutate


def _store_time_is_the_wall_clock() -> AbstractContextManager[None]:
    async def reading(keeper: Keeper) -> Any:
        result = await read(keeper)
        keeper._offset = keeper._clock.wall() - keeper._clock.boot()
        return result

    read = Keeper._reading
    return replaced((Keeper, "_reading", reading))


def _unknown_is_forged() -> AbstractContextManager[None]:
    """A refresh that failed is taken for one that found nothing."""
    found = Keeper.find_or_refresh

    async def bold(keeper: Keeper, profiles: Any, key_id: str, use: KeyUse) -> Found | None:
        try:
            return await found(keeper, profiles, key_id, use)
        except SidecarError:
            return None

    return replaced((Keeper, "find_or_refresh", bold))


def _no_look_for_unknown_keys() -> AbstractContextManager[None]:
    async def find(keeper: Keeper, profiles: Any, key_id: str, use: KeyUse) -> Found | None:
        return keeper.find(profiles, key_id, use)

    return replaced((Keeper, "find_or_refresh", find))


def _blind_writes() -> AbstractContextManager[None]:
    """The store does not compare."""
    commit = Shared.commit

    def blind(shared: Shared, name: str, content: bytes, expected: int) -> bool:
        found = shared.at(name, shared.loop.time())
        return commit(shared, name, content, found.revision if found else 0)

    return replaced((Shared, "commit", blind))


def _swapped_before_saved() -> AbstractContextManager[None]:
    save = ModelStore.save

    async def sure(store: ModelStore, name: str, content: bytes, *, expected: int) -> bool:
        with suppress(SidecarError):
            await save(store, name, content, expected=expected)
        return True

    return replaced((ModelStore, "save", sure))


def _no_pins() -> AbstractContextManager[None]:
    def swap(keeper: Keeper, name: str, opened: Any, reading: Any) -> None:
        keeper._live[name] = Live(opened, keeper.profiles[name])
        keeper._mark_read(name, reading)

    return replaced((Pin, "problem", lambda *_: ""), (Keeper, "_swap", swap))


def _predecessor_goes_on() -> AbstractContextManager[None]:
    return replaced((Key, "retired", lambda key, _: key))


def _successors_pile_up() -> AbstractContextManager[None]:
    return replaced((Ring, "pending", lambda *_: None))


def _revoked_key_opens() -> AbstractContextManager[None]:
    """Compromise is written and its material stays."""
    compromised = Ring.compromised

    def kept(ring: Ring, key_ids: frozenset[str], fresh: Any, *, now: float) -> Ring:
        after = compromised(ring, key_ids, fresh, now=now)
        before = {key.key_id: key for key in ring.keys}
        keys = tuple(
            replace(key, compromise_time=None, retire_time=now, destroy_time=now + key.settings.tail)
            if key.key_id in before and key.compromise_time == now
            else key
            for key in after.keys
        )
        return replace(after, keys=keys)

    return replaced((Ring, "compromised", kept))


def _lifetime_by_the_inner_key() -> AbstractContextManager[None]:
    return replaced((Issue, "settings", staticmethod(lambda keys: keys.inner.facts.settings)))


def _format_by_the_last_key() -> AbstractContextManager[None]:
    def last(ring: Ring, now: float) -> Any:
        active = [key for use in KeyUse if (key := ring.active(use, now))]
        return max(active, key=lambda key: key.activate_time).settings.format if active else None

    return replaced((Ring, "format", last), (Ring, "uncovered", _uncovered))


def _uncovered(ring: Ring, key_ids: frozenset[str], now: float) -> tuple[KeyUse, ...]:
    left = [k for k in ring.keys if k.key_id not in key_ids and k.state(now) in (KeyState.ACTIVE, KeyState.PENDING)]
    return tuple(use for use in ring.uses() if not any(k.use is use for k in left))


MUTATIONS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "propagation 0": _ahead(lambda _: 0.0),
    "propagation without skew": _ahead(lambda profile: float(profile.propagation)),
    "PENDING does not open": _pending_does_not_open,
    "destroyed without max_ttl": _tail("max_ttl"),
    "destroyed without max_staleness": _tail("max_staleness"),
    "clock skew ignored": _bound("max_skew"),
    "staleness ignored": _bound("max_staleness"),
    "store time by the wall clock": _store_time_is_the_wall_clock,
    "unknown is forged": _unknown_is_forged,
    "no look for unknown keys": _no_look_for_unknown_keys,
    "blind writes": _blind_writes,
    "swapped before saved": _swapped_before_saved,
    "no pins": _no_pins,
    "predecessor goes on": _predecessor_goes_on,
    "successors pile up": _successors_pile_up,
    "revoked key opens": _revoked_key_opens,
    "lifetime by the inner key": _lifetime_by_the_inner_key,
    "format by the last key": _format_by_the_last_key,
}
"""What each run must not survive for long."""
