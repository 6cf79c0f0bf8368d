"""The key-encryption key in memory."""

from __future__ import annotations

import pytest

from sidecar.kms.memory import MemoryKms
from sidecar.ports import Kms
from tests.kms.contract import KmsContract


class TestMemoryKms(KmsContract):
    @pytest.fixture
    def kms(self) -> Kms:
        return MemoryKms()

    @pytest.fixture
    def other_kms(self) -> Kms:
        return MemoryKms()
