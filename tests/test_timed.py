"""What the store and the KMS are asked is measured at the port, whoever they are, and changes nothing of what they do."""

from __future__ import annotations

import asyncio
import inspect
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from sidecar import backends, ports
from sidecar.errors import UnavailableKmsError, UnavailableStoreError
from sidecar.metrics import Metrics, Port
from sidecar.timed import OPERATIONS, time_port

if TYPE_CHECKING:
    from collections.abc import Iterator


class OddStore:
    """Has what a folder has, and fails in every way."""

    async def now(self) -> float:
        return 12.0

    async def load(self, name: str) -> None:
        raise UnavailableStoreError(f"no {name}")

    async def revisions(self) -> dict[str, int]:
        raise ZeroDivisionError

    async def save(self, name: str, content: bytes, *, expected: int) -> bool:
        await asyncio.sleep(5)
        return True

    async def written(self) -> float:
        return 3.0

    async def heartbeat(self) -> None:
        return None


class OddKms:
    async def wrap(self, data_key: bytes, context: dict[str, str]) -> bytes:
        return data_key

    async def unwrap(self, wrapped: bytes, context: dict[str, str]) -> bytes:
        raise UnavailableKmsError("away")


class Steps:
    """Traces that keep the names of their spans."""

    def __init__(self) -> None:
        self.names: list[str] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self.names.append(name)
        yield


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(("default",), "0")


def test_every_operation_of_a_port_is_timed_or_left_out_on_purpose() -> None:
    left_out = {"alone", "close", "changed"}  # a lock, the end, and a wait for news
    asked = {
        name
        for module in (ports, backends)
        for protocol in vars(module).values()
        if getattr(protocol, "_is_protocol", False) and protocol.__module__ == module.__name__
        for name, member in vars(protocol).items()
        if inspect.iscoroutinefunction(member)
    }
    assert asked - left_out == {name for names in OPERATIONS.values() for name in names}


async def test_answers_go_through_and_are_counted(metrics: Metrics) -> None:
    store = OddStore()
    time_port(Port.STORE, (store, store), metrics, None)
    assert (await store.now(), await store.written()) == (12.0, 3.0)
    assert isinstance(store, backends.Passive)
    for operation in ("now", "written"):
        assert value(metrics, "tokensidecar_store_duration_seconds_count", operation=operation) == 1
    assert value(metrics, "tokensidecar_store_errors_total", operation="now", reason="INTERNAL") == 0
    assert value(metrics, "tokensidecar_store_errors_total", operation="spend", reason="INTERNAL") is None


async def test_failures_go_through_and_are_counted_by_reason(metrics: Metrics) -> None:
    store, kms = OddStore(), OddKms()
    time_port(Port.STORE, (store,), metrics, None)
    time_port(Port.KMS, (kms,), metrics, None)
    with pytest.raises(UnavailableStoreError, match="no x"):
        await store.load("x")
    with pytest.raises(ZeroDivisionError):
        await store.revisions()
    with pytest.raises(UnavailableKmsError):
        await kms.unwrap(b"", {})
    assert await kms.wrap(b"k", {}) == b"k"
    errors = "tokensidecar_{}_errors_total"
    assert value(metrics, errors.format("store"), operation="load", reason="STORE_UNAVAILABLE") == 1
    assert value(metrics, errors.format("store"), operation="revisions", reason="INTERNAL") == 1
    assert value(metrics, errors.format("kms"), operation="unwrap", reason="KMS_UNAVAILABLE") == 1
    assert value(metrics, "tokensidecar_kms_duration_seconds_count", operation="unwrap") == 1


async def test_who_gives_up_is_no_failure_of_the_store(metrics: Metrics) -> None:
    store = OddStore()
    time_port(Port.STORE, (store,), metrics, None)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(store.save("x", b"", expected=0), 0.02)
    assert value(metrics, "tokensidecar_store_duration_seconds_sum", operation="save") == pytest.approx(0.02, abs=2)
    for reason in ("STORE_UNAVAILABLE", "INTERNAL"):
        assert value(metrics, "tokensidecar_store_errors_total", operation="save", reason=reason) == 0


async def test_each_operation_is_a_step_of_the_trace(metrics: Metrics) -> None:
    steps, store, kms = Steps(), OddStore(), OddKms()
    time_port(Port.STORE, (store,), metrics, steps)  # type: ignore[arg-type] # steps alone are asked for
    time_port(Port.KMS, (kms,), metrics, steps)  # type: ignore[arg-type]
    await store.now()
    await kms.wrap(b"k", {})
    assert steps.names == ["store now", "kms wrap"]
