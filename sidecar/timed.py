"""How long the store and the KMS take, and how they fail: measured at the port, once for every backend.

The operations of the object itself are timed. A wrapper around it would hide what else it can do: `Telling`, `Passive`, `Ledger` and
others are told by what a store has.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import nullcontext
from typing import Any

from sidecar.errors import SidecarError
from sidecar.metrics import Metrics, Port
from sidecar.traces import Traces

OPERATIONS = {
    Port.STORE: (
        *("store_id", "now", "revisions", "load", "save", "scrub"),
        *("written", "heartbeat"),  # Passive
        *("glance", "present", "members"),  # Glancing, Membered
        *("glance", "present", "members"),  # Glancing, Membered
        *("revoke", "revocations", "consume", "spend", "forget"),  # Ledger
    ),
    Port.KMS: ("wrap", "unwrap"),
}
"""Of each port, those that ask somebody else; what waits for news or only holds a lock is not among them."""


def time_port(port: Port, objects: Iterable[object], metrics: Metrics, traces: Traces | None) -> None:
    """From now on, measure these objects; one that is given twice is measured once."""
    for one in {id(each): each for each in objects}.values():
        for name in OPERATIONS[port]:
            operation = getattr(one, name, None)
            if operation is not None:
                metrics.may_fail(port, name)
                setattr(one, name, _timed(port, name, operation, metrics, traces))


def _timed(
    port: Port, name: str, operation: Callable[..., Awaitable[Any]], metrics: Metrics, traces: Traces | None
) -> Callable[..., Awaitable[Any]]:
    span = f"{port.value} {name}"

    @functools.wraps(operation)
    async def measured(*args: Any, **given: Any) -> Any:
        started, reason = time.perf_counter(), ""
        try:
            with traces.step(span) if traces is not None else nullcontext():
                return await operation(*args, **given)
        except SidecarError as error:
            reason = error.reason.name
            raise
        except Exception:
            reason = "INTERNAL"
            raise
        finally:
            metrics.asked(port, name, reason, time.perf_counter() - started)

    return measured
