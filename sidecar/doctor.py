"""Looks at everything that a sidecar of a configuration stands on, and changes nothing; what it means is said in `findings`.

It works beside a running sidecar, which it asks over http, and while none runs. Data keys are unwrapped and rings opened, in memory, as
at a start: whether that works is what an operator wants to know.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import re
from collections.abc import Mapping
from dataclasses import replace

from sidecar import logs, process
from sidecar.addresses import Address
from sidecar.backends import Passive, look_at_store, open_further_kms, open_kms
from sidecar.clocks import SystemClock
from sidecar.config import Config
from sidecar.data_keys import DamagedRingError, fresh_data_keys
from sidecar.errors import UnavailableKmsError, UnavailableStoreError
from sidecar.keeper import Keeper
from sidecar.keyring import Role
from sidecar.pins import FILE, Pins
from sidecar.ports import Clock, Kms, Store
from sidecar.profile import Profile
from sidecar.seen import Running, Seen

HTTP_SECONDS = 3.0
HTTP_BYTES = 8 << 20
_SERIES = re.compile(r"^(tokensidecar_[a-z_]+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def examine(config: Config, *, keeping: bool = False) -> Seen:
    """What there is to see. `keeping`: as a keeper, which seals rings and has no app plane."""
    logs.silence()
    process.harden()
    return asyncio.run(_seen(config, keeping=keeping or config.keys.scheme == "kubernetes"))


async def _seen(config: Config, *, keeping: bool) -> Seen:
    keys, clock = config.keys, SystemClock()
    running = await asyncio.to_thread(_asked, config.listen.http) if config.listen.http else None
    seen = Seen(config, keeping=keeping, running=running, wall=clock.wall())
    if keys.scheme == "sqlite" and not os.path.lexists(keys.store_path):  # noqa: ASYNC240 - nothing else runs here
        return _first_start(seen)
    try:
        store = await look_at_store(keys, clock)
    except UnavailableStoreError as error:
        return replace(seen, store_problem=error.message)
    try:
        return await _looked(seen, store, clock)
    except UnavailableStoreError as error:
        return replace(seen, store_problem=error.message)
    finally:
        await store.close()


def _first_start(seen: Seen) -> Seen:
    path = seen.config.keys.store_path
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and log.stat().st_size:
        problem = f"the database {path} is missing, but its log {log} is there: put the database back, or move the log away too"
        return replace(seen, store_problem=problem)
    return replace(seen, absent=True)


async def _looked(seen: Seen, store: Store, clock: Clock) -> Seen:
    config = seen.config
    kms, kms_problems = await _kms(seen, store)
    seen = replace(seen, revisions=await store.revisions(), now=await store.now(), kms=kms_problems)
    if isinstance(store, Passive):
        seen = replace(seen, written=await store.written())
    try:
        Pins.look(config.state_dir / FILE)
    except OSError as error:
        seen = replace(
            seen,
            pins_problem=f"what was seen of the store before cannot be read in {config.state_dir}: {error.strerror}",
        )
    if kms_problems:
        return seen
    further: Mapping[Role, Kms] = {}
    try:
        further = await open_further_kms(config.keys, store)
    except UnavailableKmsError as error:
        return replace(seen, kms=dict.fromkeys(kms, f"keys.further_kek: {error.message}"))
    keepers, damaged, problems = {}, {}, dict(kms_problems)
    for name, profile in config.profiles.items():
        pins = Pins(None) if seen.pins_problem else Pins.look(config.state_dir / FILE)
        keeper = Keeper({name: profile}, store, kms, clock, further_kms=further, pins=pins, allow_bootstrap=False)
        try:
            await keeper.start()
        except DamagedRingError as error:
            damaged[name] = str(error)
        except UnavailableKmsError:
            problems |= await _at_fault(name, profile, store, clock, kms, further)
            break  # the other rings are under the same keys, and each would be waited for
        else:
            keepers[name] = keeper
    seen = replace(seen, keepers=keepers, damaged=damaged, kms=problems)
    if not problems and len(kms) == len(Role) and (seen.keeping or store.private):
        return replace(seen, wrapped=True, kms=await _sealed(next(iter(config.profiles)), store, kms))
    return seen


async def _kms(seen: Seen, store: Store) -> tuple[dict[Role, Kms], dict[Role, str]]:
    """What opens the rings, each role by itself."""
    opened: dict[Role, Kms] = {}
    problems = {}
    for role, location in seen.config.keys.keks.items():
        try:
            opened |= await open_kms(replace(seen.config.keys, keks={role: location}), store, may_make=False)
        except UnavailableKmsError as error:
            problems[role] = error.message
    return opened, problems


async def _at_fault(
    name: str, profile: Profile, store: Store, clock: Clock, kms: Mapping[Role, Kms], further: Mapping[Role, Kms]
) -> dict[Role, str]:
    """Which role's key-encryption key does not open the ring, and why."""
    problems = {}
    for role, one in kms.items():
        keeper = Keeper({name: profile}, store, {role: one}, clock, further_kms=further, allow_bootstrap=False)
        try:
            await keeper.start()
        except (UnavailableKmsError, DamagedRingError) as error:
            problems[role] = str(error)
    return problems


async def _sealed(name: str, store: Store, kms: Mapping[Role, Kms]) -> dict[Role, str]:
    """What the keys cannot seal: data keys that nobody keeps are wrapped, as for a rotation of seals."""
    problems = {}
    try:
        await fresh_data_keys(kms, name, await store.store_id(), await store.now())
    except UnavailableKmsError as error:
        problems = dict.fromkeys(kms, f"sealing: {error.message}")
    return problems


def _asked(address: Address) -> Running | None:
    """What the sidecar at that address says of itself; None: nobody answers."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104 - not bound to
    try:
        status, ready = _got(host, address.port, "/readyz")
        _, metrics = _got(host, address.port, "/metrics")
    except OSError:
        return None
    except http.client.HTTPException:
        return Running(stranger=True)
    gauges = tuple(
        (name, dict(_LABEL.findall(labels)), float(value)) for name, labels, value in _SERIES.findall(metrics)
    )
    if not any(name == "tokensidecar_build_info" for name, _, _ in gauges):
        return Running(stranger=not ready.startswith("not ready"), says=ready.strip())
    return Running(status == http.client.OK, ready.strip(), gauges)


def _got(host: str, port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=HTTP_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read(HTTP_BYTES).decode("utf-8", "replace")
    finally:
        connection.close()
