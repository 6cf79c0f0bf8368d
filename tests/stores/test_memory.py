"""The store that other tests stand on keeps the contract of a real one."""

from __future__ import annotations

import pytest

from sidecar.ports import Store
from tests.hand_clock import HandClock
from tests.stores.contract import OpenStore, StoreContract
from tests.stores.ledger_contract import LedgerContract, LedgerStore, OpenLedger
from tests.stores.memory import Disk, MemoryStore


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def open_store(self) -> OpenStore:
        disk = Disk(HandClock())

        async def opened() -> Store:
            return MemoryStore(disk)

        return opened


class TestMemoryLedger(LedgerContract):
    @pytest.fixture
    def open_ledger(self) -> OpenLedger:
        disk = Disk(HandClock())

        async def opened() -> LedgerStore:
            return MemoryStore(disk)

        return opened
