"""The boundary: every call of ours passes here, once. Nothing else in the server catches `Exception`.

In this order: a request id, the clock, admission, the deadline, the size, unpacking; then the verb; then packing, the status, one line in
the log and one count in the metrics. Requests arrive as bytes, so that a malformed one gets the contract's error and not gRPC's.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from sidecar.caller import Caller
from sidecar.errors import InternalError, InvalidRequestError, OverloadedError, SidecarError, Violation
from sidecar.logs import frames, get_logger
from sidecar.metrics import Metrics
from sidecar.rpc.status import CODES, REQUEST_ID_KEY, trailers

UNARY_BYTES = 64 * 1024
BATCH_BYTES = 1024 * 1024
AT_ONCE = 512  # calls in work; more are turned away at once rather than kept waiting
REJECTIONS_LOGGED = 20  # lines a second; the rest is counted, in the log and in the metrics

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_HOT = frozenset({"Issue", "Validate", "BatchIssue", "BatchValidate", "GetJwks", "ListKeys"})

_log = get_logger()

Context = grpc.aio.ServicerContext[Any, Any]
RequestT = TypeVar("RequestT", bound=Message)


class ExpiredDeadlineError(Exception):
    """The caller has gone: do no more work for it. gRPC's own status, so without a reason."""


@dataclass(frozen=True, slots=True)
class Call(Generic[RequestT]):
    """One call, as a servicer sees it."""

    caller: Caller
    request: RequestT
    request_id: str
    context: Context

    def alive(self) -> None:
        """Raise if the caller's deadline has passed."""
        left = self.context.time_remaining()
        if left is not None and left <= 0:
            raise ExpiredDeadlineError


class Boundary:
    """Shared by all servers of the process, so that admission and metrics see all calls."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._in_work = 0
        self._quota = _Quota(REJECTIONS_LOGGED)

    def wrap(
        self,
        service: str,
        name: str,
        kind: type[RequestT],
        serve: Callable[[Call[RequestT]], Awaitable[Message]],
        caller: Caller,
        *,
        limit: int = UNARY_BYTES,
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        """A handler that takes and gives bytes. `caller`: who this server's socket stands for."""
        method = f"{service}/{name}"

        async def handle(data: bytes, context: Context) -> bytes:
            started = time.perf_counter()
            request_id = _request_id(context)
            self._in_work += 1
            self._metrics.in_flight.set(self._in_work)
            code, reason, error = "OK", "", None
            try:
                if self._in_work > AT_ONCE:
                    raise OverloadedError
                call = Call(caller, _unpacked(kind, data, limit), request_id, context)
                call.alive()
                answer = (await serve(call)).SerializeToString()
                context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
                return answer
            except SidecarError as known:
                error = known
            except ExpiredDeadlineError:
                code = "DEADLINE_EXCEEDED"
            except Exception as unknown:  # noqa: BLE001 - here and nowhere else
                _log.error(
                    "call.failed",
                    method=method,
                    request_id=request_id,
                    error_type=type(unknown).__name__,
                    frames=frames(unknown),
                )
                error = InternalError()
            except BaseException:
                code = "CANCELLED"
                raise
            finally:
                self._in_work -= 1
                self._metrics.in_flight.set(self._in_work)
                if error is not None:
                    code, reason = error.reason.code.name, error.reason.name
                seconds = self._metrics.call(method, code, reason, started)
                self._line(name, method, code, reason, caller, request_id, seconds)
            if error is None:
                await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed before the work began")
                raise AssertionError  # abort always raises; mypy cannot know
            await context.abort(CODES[error.reason.code], error.message, trailers(error, request_id))
            raise AssertionError

        return grpc.unary_unary_rpc_method_handler(handle)

    def _line(
        self, name: str, method: str, code: str, reason: str, caller: Caller, request_id: str, seconds: float
    ) -> None:
        # Good calls of the hot verbs are worth a line only to somebody who is looking (debug); a flood of bad ones must not fill disks.
        ok = code == "OK"
        emit = _log.debug if ok and name in _HOT else _log.info
        if not ok and not self._quota.take():
            return
        suppressed = {} if ok else self._quota.suppressed()
        emit(
            "call.done",
            method=method,
            code=code,
            **({"reason": reason} if reason else {}),
            caller=caller.name,
            request_id=request_id,
            ms=round(seconds * 1000, 3),
            **suppressed,
        )


class _Quota:
    """So many a second, and a count of what was over it."""

    def __init__(self, a_second: int) -> None:
        self._a_second = a_second
        self._second = 0
        self._taken = 0
        self._over = 0

    def take(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._taken = second, 0
        self._taken += 1
        if self._taken <= self._a_second:
            return True
        self._over += 1
        return False

    def suppressed(self) -> dict[str, int]:
        """How many lines were left out since the last one; empty if none."""
        over, self._over = self._over, 0
        return {"suppressed": over} if over else {}


def _unpacked(kind: type[RequestT], data: bytes, limit: int) -> RequestT:
    if len(data) > limit:
        raise InvalidRequestError(Violation("", f"the request has {len(data)} bytes; at most {limit} are allowed"))
    try:
        return kind.FromString(data)
    except DecodeError:
        raise InvalidRequestError(Violation("", f"the request is not a {kind.DESCRIPTOR.full_name}")) from None


def _request_id(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID_KEY and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            return value
    return secrets.token_hex(8)
