"""Several processes on one store in memory: keepers, issuers and validators, each with the key-encryption keys of its roles alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.denylist import Denylist
from sidecar.keeper import Keeper
from sidecar.keyring import Role
from sidecar.kms.file import FileKms, make
from sidecar.pins import FILE, Pins
from sidecar.profile import DEFAULT
from tests.hand_clock import HandClock
from tests.stores.memory import Disk, MemoryStore

if TYPE_CHECKING:
    from pathlib import Path

    from sidecar.ports import Kms
    from sidecar.profile import Profile

BOTH = tuple(Role)


class Fleet:
    """One disk, a key-encryption key for each role, and one clock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = HandClock()
        self.disk = Disk(self.clock)
        self.kms: dict[Role, Kms] = {role: self.kek(role.value) for role in Role}

    def kek(self, name: str) -> FileKms:
        """A key-encryption key of that name, made if there is none."""
        if not (self.path / name).exists():
            make(self.path / name)
        return FileKms(self.path / name)

    async def start(
        self,
        *roles: Role,
        profile: Profile = DEFAULT,
        writable: bool | None = None,
        kms: dict[Role, Kms] | None = None,
        further: dict[Role, Kms] | None = None,
        state: str = "",
        listing: bool = False,
    ) -> Keeper:
        """A process of these roles (none: a keeper). `state`: the name of its directory, where pins are; empty: it has none. `listing`: it holds revocations."""
        pins = None
        if state:
            (self.path / state).mkdir(exist_ok=True)
            pins = Pins(self.path / state / FILE)
        keys = kms or {role: self.kms[role] for role in roles or BOTH}
        store = MemoryStore(self.disk, writable=not roles if writable is None else writable)
        denylist = Denylist(store) if listing else None
        keeper = Keeper(
            {profile.name: profile}, store, keys, self.clock, further_kms=further, pins=pins, denylist=denylist
        )
        await keeper.start()
        return keeper
