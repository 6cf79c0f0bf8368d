"""Store, keeper and audit without a server: for commands that work on the store itself, beside a running sidecar or while none runs."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from sidecar import logs, process
from sidecar.accept_rollback import AcceptRollback
from sidecar.app import StartError, audit_salt, open_store
from sidecar.audit import Audit
from sidecar.caller import OPERATOR
from sidecar.clocks import SystemClock
from sidecar.commits import Commits
from sidecar.config import Config
from sidecar.data_keys import DamagedRingError
from sidecar.errors import SidecarError
from sidecar.keeper import Changed, Keeper
from sidecar.keyring import Role
from sidecar.kms.file import FileKms
from sidecar.pins import FILE, Pins
from sidecar.rekey import Rekey


class Offline:
    """What a command works with."""

    def __init__(self, keeper: Keeper, audit: Audit) -> None:
        self.keeper = keeper
        self._commits = Commits()
        self._rekey = Rekey(keeper, audit, self._commits)
        self._accept_rollback = AcceptRollback(keeper, audit, self._commits)

    async def rekey(self, profile: str) -> Changed:
        """See the verb."""
        return await self._rekey(OPERATOR, profile, request_id=secrets.token_hex(8))

    async def accept_rollback(self, *, why: str) -> Mapping[str, str]:
        """See the verb."""
        return await self._accept_rollback(OPERATOR, why=why, request_id=secrets.token_hex(8))


Work = Callable[[Offline], Awaitable[int]]
"""Gives the exit code."""


def run(config: Config, work: Work, *, former_kek: str | None = None) -> int:
    """Do the work on the store that is configured. Audit records go to stdout. `StartError`: something that a person can mend."""
    logs.configure(config.log_level)
    process.harden()
    try:
        return asyncio.run(_run(config, work, former_kek))
    except (SidecarError, DamagedRingError) as error:
        raise StartError(str(error)) from error


async def _run(config: Config, work: Work, former_kek: str | None) -> int:
    if not config.keys.store_path.exists():
        raise StartError(f"there is no store at {config.keys.store_path}")
    clock = SystemClock()
    further = dict.fromkeys(Role, FileKms(Path(former_kek))) if former_kek else {}
    kms = dict.fromkeys(Role, FileKms(config.keys.kek_path))
    store = await open_store(config)
    try:
        pins = Pins(config.state_dir / FILE)
        keeper = Keeper(config.profiles, store, kms, clock, further_kms=further, pins=pins, allow_bootstrap=False)
        await keeper.start()
        salt = audit_salt(config.state_dir)
        audit = Audit(logs.LineWriter(sys.stdout.fileno()), required=True, salt=salt, now=clock.wall)
        return await work(Offline(keeper, audit))
    finally:
        await store.close()
