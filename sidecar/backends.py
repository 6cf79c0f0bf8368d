"""The store and the key-encryption keys that a configuration names: one line of a table for each backend, imported only where it is used."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from sidecar import __version__
from sidecar.config import Keys, Traces as TracesConfig
from sidecar.errors import UnavailableKmsError, UnavailableStoreError
from sidecar.keyring import Role
from sidecar.kms import file
from sidecar.policy import Verb
from sidecar.ports import Clock, Kms, Store
from sidecar.sections_keys import LEDGERS
from sidecar.traces import Traces, UnavailableTracesError


@runtime_checkable
class Telling(Protocol):
    """A store that tells of a change at once."""

    async def changed(self) -> None:
        """Return when something has changed since the last return."""
        ...


@runtime_checkable
class Passive(Protocol):
    """A store without a process of its own: what it knows of the time is what keepers write."""

    async def written(self) -> float:
        """Store time of the last write, heartbeats included, in seconds since the epoch."""
        ...

    async def heartbeat(self) -> None:
        """Write the time."""
        ...


async def _sqlite(keys: Keys, clock: Clock, *, keeping: bool) -> Store:  # noqa: ARG001 - everybody at a database may write
    from sidecar.stores.sqlite import SqliteStore

    return await SqliteStore.open(keys.store_path, clock)


async def _file(keys: Keys, clock: Clock, *, keeping: bool) -> Store:
    from sidecar.stores.file import FileStore

    return await FileStore.open(keys.store_path, clock, writable=keeping)


async def _kubernetes(keys: Keys, clock: Clock, *, keeping: bool) -> Store:  # noqa: ARG001 - only keepers get as far as here
    from sidecar.stores.kubernetes import KubernetesStore

    return await KubernetesStore.open_in_cluster(*keys.secret, clock, account=keys.service_account)


async def _postgresql(keys: Keys, clock: Clock, *, keeping: bool = False, make: bool = True) -> Store:  # noqa: ARG001 - it has a clock; a role's rights decide
    try:
        from sidecar.stores.postgres import PostgresStore
    except ImportError as error:
        raise UnavailableStoreError(
            f"{keys.store} needs psycopg, which is not installed ({error.name}): install tokensidecar-server[postgres]"
        ) from error
    if keys.database is None:
        raise UnavailableStoreError(f"{keys.store} names no database")
    return await PostgresStore.open(keys.database, make=make)


async def _file_kek(place: str, keys: Keys, store: Store, *, make: bool) -> Kms:  # noqa: ARG001 - as every KMS
    path = Path(place)
    return await (file.open_or_make(path, store) if make else asyncio.to_thread(file.FileKms, path))


async def _aws_kek(place: str, keys: Keys, store: Store, *, make: bool) -> Kms:  # noqa: ARG001 - nobody makes a key there
    def opened() -> Kms:  # in a thread: loading boto3 takes half a second
        try:
            from sidecar.kms.aws import AwsKms
        except ImportError as error:
            raise UnavailableKmsError(
                f"awskms:{place} needs boto3, which is not installed ({error.name}): install tokensidecar-server[aws]"
            ) from error
        return AwsKms(place, region=keys.aws.get("region", ""), endpoint=keys.aws.get("endpoint", ""))

    return await asyncio.to_thread(opened)


KMSS: Mapping[str, Callable[..., Awaitable[Kms]]] = {"file": _file_kek, "awskms": _aws_kek}
STORES: Mapping[str, Callable[..., Awaitable[Store]]] = {
    "sqlite": _sqlite,
    "file": _file,
    "kubernetes": _kubernetes,
    "postgresql": _postgresql,
}


async def open_store(keys: Keys, clock: Clock, *, keeping: bool) -> Store:
    """The configured store; `keeping`: with write credentials, where a store knows the difference. `UnavailableStoreError`."""
    return await STORES[keys.scheme](keys, clock, keeping=keeping)


async def _look_at_sqlite(keys: Keys, clock: Clock) -> Store:
    from sidecar.stores.sqlite_look import SqliteLook

    return await SqliteLook.open(keys.store_path, clock)


async def _look_at_kubernetes(keys: Keys, clock: Clock) -> Store:
    from sidecar.stores.kubernetes import KubernetesStore

    return await KubernetesStore.open_in_cluster(*keys.secret, clock, account=keys.service_account, make=False)


async def _look_at_postgresql(keys: Keys, clock: Clock) -> Store:
    return await _postgresql(keys, clock, make=False)


LOOKS: Mapping[str, Callable[..., Awaitable[Store]]] = {
    "sqlite": _look_at_sqlite,
    "kubernetes": _look_at_kubernetes,
    "postgresql": _look_at_postgresql,
}
"""Where opening as a reader would still change something."""


async def look_at_store(keys: Keys, clock: Clock) -> Store:
    """The configured store, for who reads it once and changes nothing. `UnavailableStoreError`."""
    if look := LOOKS.get(keys.scheme):
        return await look(keys, clock)
    return await open_store(keys, clock, keeping=False)


async def open_further_kms(keys: Keys, store: Store) -> dict[Role, Kms]:
    """What else may open the data keys of each role. `UnavailableKmsError`."""
    return await _opened(keys.further_keks, keys, store, make=False)


async def open_kms(keys: Keys, store: Store, *, may_make: bool = True) -> dict[Role, Kms]:
    """What wraps the data keys of each role that this process has; one that serves several is opened once.

    A key in a file is made only for a database, only by who has both roles, and only if it `may_make`. `UnavailableKmsError`.
    """
    make = may_make and store.private and len(keys.keks) == len(Role)
    return await _opened(keys.keks, keys, store, make=make)


async def open_former_kms(location: str, keys: Keys, store: Store) -> dict[Role, Kms]:
    """That one key, a file or as a configuration names one, for every role that this process has. `UnavailableKmsError`."""
    named = location if location.partition(":")[0] in KMSS else f"file:{location}"
    return await _opened(dict.fromkeys(keys.keks, named), keys, store, make=False)


async def _opened(named: Mapping[Role, str], keys: Keys, store: Store, *, make: bool) -> dict[Role, Kms]:
    opened: dict[str, Kms] = {}
    for location in named.values():
        if location not in opened:
            scheme, _, place = location.partition(":")
            opened[location] = await KMSS[scheme](place, keys, store, make=make)
    return {role: opened[location] for role, location in named.items()}


def open_traces(config: TracesConfig) -> Traces | None:
    """Where spans go; None: nowhere, as configured. `UnavailableTracesError`: the extra is not installed."""
    if not config.endpoint:
        return None
    try:
        from sidecar.otel.spans import OtelTraces
    except ModuleNotFoundError as error:
        raise UnavailableTracesError(
            f"traces.endpoint needs the extra otel, and {error.name} is not installed: pip install 'tokensidecar-server[otel]'"
        ) from error
    return OtelTraces(config.endpoint, config.ratio, __version__)


def elsewhere(keys: Keys, *, writable: bool) -> dict[Verb, str]:
    """What this process cannot do by its role, in words that say who can."""
    found = {}
    if Role.ISSUE not in keys.keks:
        found[Verb.ISSUE] = (
            'this sidecar is a validator and cannot make tokens; Issue is served where keys.role is "issuer" or "both"'
        )
        found[Verb.REFRESH] = found[Verb.ISSUE].replace("Issue", "Refresh")
    if Role.OPEN not in keys.keks:
        found[Verb.VALIDATE] = (
            'this sidecar is an issuer and cannot open tokens; Validate is served where keys.role is "validator" or "both"'
        )
        found[Verb.REVOKE] = found[Verb.VALIDATE].replace("Validate", "Revoke")
    if not writable:
        written = f"the Secret that is mounted at {keys.store_path}" if keys.mounted else keys.store
        keeper = (
            f"on the admin plane of the keeper (`tokensidecar keeper`) that writes {written}"
            if keys.scheme in ("file", "postgresql")
            else 'on the admin plane of a sidecar whose keys.role is "both"'
        )
        found[Verb.ROTATE] = f"this sidecar changes no keys; Rotate is served {keeper}"
        found[Verb.REVOKE_KEYS] = f"this sidecar changes no keys; RevokeKeys is served {keeper}"
    if keys.scheme not in LEDGERS:
        for verb in (Verb.REVOKE, Verb.REFRESH, Verb.REVOKE_SUBJECT, Verb.REVOKE_TOKEN_ID):
            found[verb] = (
                f"no token can be taken back here: {keys.store} holds keys alone; that takes a store that every sidecar writes "
                f"(keys.store: {' or '.join(LEDGERS)})"
            )
    return found
