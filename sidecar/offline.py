"""Store, keeper and audit without a server: for commands that work on the store itself, beside a running sidecar or while none runs."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import TextIO

from sidecar import logs, process
from sidecar.accept_rollback import AcceptRollback
from sidecar.app import StartError, open_file_sink, prepare_directories
from sidecar.audit import Audit
from sidecar.backends import Passive, open_former_kms, open_further_kms, open_kms, open_store
from sidecar.caller import OPERATOR
from sidecar.clocks import SystemClock
from sidecar.commits import Commits
from sidecar.config import Config
from sidecar.data_keys import DamagedRingError
from sidecar.destroy import Destroy
from sidecar.directories import UnsafeDirectoryError
from sidecar.duties import Duties, Duty
from sidecar.errors import SidecarError
from sidecar.keeper import Changed, Keeper
from sidecar.pins import FILE, Pins
from sidecar.policy import Policy
from sidecar.ports import Store
from sidecar.rekey import Rekey
from sidecar.rotate import Rotate
from sidecar.salt import UnusableSaltError, audit_salt
from sidecar.schedule import Perform
from sidecar.sinks.chained import UnusableFileError
from sidecar.sinks.stdout import StdoutSink


class Offline:
    """What a command works with."""

    def __init__(
        self, config: Config, store: Store, keeper: Keeper, audit: Audit, *, made: tuple[str, ...] = ()
    ) -> None:
        """`made`: the profiles whose rings were made for it."""
        self.made = made
        self.keeper = keeper
        self._store = store
        self.duties = Duties(keeper, store, holder=secrets.token_hex(8), spread=0.0)
        self._commits = Commits()
        policy = Policy(config.profiles, {})
        self._rotate = Rotate(keeper, policy, audit, self._commits)
        self._rekey = Rekey(keeper, audit, self._commits)
        self._perform = Perform(self._rotate, Destroy(keeper, policy, audit, self._commits), self._rekey)
        self._accept_rollback = AcceptRollback(keeper, audit, self._commits)

    async def heartbeat(self) -> None:
        """Write the time, where readers have no other."""
        if isinstance(self._store, Passive):
            await self._store.heartbeat()

    async def rotate(self, profile: str) -> Changed:
        """See the verb; for whoever runs the command."""
        return await self._rotate(OPERATOR, profile, None, request_id=secrets.token_hex(8), alive=lambda: None)

    async def do(self, duty: Duty) -> Changed | None:
        """The verb of the duty, as the schedule calls it. None: nothing was due after all."""
        return await self._perform(duty, request_id=secrets.token_hex(8))

    async def rekey(self, profile: str) -> Changed:
        """See the verb."""
        return await self._rekey(OPERATOR, profile, request_id=secrets.token_hex(8))

    async def accept_rollback(self, *, why: str) -> Mapping[str, str]:
        """See the verb."""
        return await self._accept_rollback(OPERATOR, why=why, request_id=secrets.token_hex(8))


Work = Callable[[Offline], Awaitable[int]]
"""Gives the exit code."""


def run(
    config: Config,
    work: Work,
    *,
    keeping: bool = True,
    former_kek: str | None = None,
    may_make: bool = False,
    audit_to: TextIO | None = None,
) -> int:
    """Do the work on the store that is configured. `StartError`: something that a person can mend.

    `keeping`: with write credentials for the store. `former_kek`: where a key is that opens what the configured ones do not. `may_make`: rings,
    and what they need, where there are none. Records go to the audit file that is configured, beside a sidecar that may write it; without
    one to `audit_to`; None: standard output.
    """
    logs.configure(config.log_level)
    process.harden()
    try:
        return asyncio.run(
            _run(config, work, former_kek, keeping=keeping, may_make=may_make, audit_to=audit_to or sys.stdout)
        )
    except (SidecarError, DamagedRingError, UnsafeDirectoryError, UnusableFileError, UnusableSaltError) as error:
        raise StartError(str(error)) from error


async def _run(
    config: Config, work: Work, former_kek: str | None, *, keeping: bool, may_make: bool, audit_to: TextIO
) -> int:
    keys, clock = config.keys, SystemClock()
    if may_make:
        prepare_directories(config)
    elif keys.scheme in ("sqlite", "file") and not keys.store_path.exists():
        raise StartError(f"there is no store at {keys.store_path}")
    store = await open_store(keys, clock, keeping=keeping)
    try:
        further = await (open_former_kms(former_kek, keys, store) if former_kek else open_further_kms(keys, store))
        kms, pins = await open_kms(keys, store, may_make=may_make), Pins(config.state_dir / FILE)
        keeper = Keeper(config.rings, store, kms, clock, further_kms=further, pins=pins, allow_bootstrap=may_make)
        before = await store.revisions()
        await keeper.start()
        made = tuple(name for name in keeper.rings() if name not in before)
        salt = audit_salt(config.state_dir, config.audit.salt_file)
        file = await open_file_sink(config, clock.wall, beside=True)
        try:
            audit = Audit(
                file or StdoutSink(logs.LineWriter(audit_to.fileno())),
                required=True,
                salt=salt,
                now=clock.wall,
                clear=config.audit.names == "clear",
            )
            return await work(Offline(config, store, keeper, audit, made=made))
        finally:
            if file:
                await file.close()
    finally:
        await store.close()
