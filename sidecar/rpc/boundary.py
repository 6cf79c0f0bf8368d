"""The boundary: every call of ours passes here, once. Nothing else in the server catches `Exception`.

In this order: a request id, the clock, admission, who calls, whether that caller has this verb at all, the size, unpacking, the caller's
rate, the deadline; then the verb; then packing, the wait for what must be on record, the status, one line in the log and one count in the
metrics. Requests arrive as bytes, so that a malformed one gets the contract's error and not gRPC's. Whatever no verb has put on record is
recorded here.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from sidecar.audit import Audit
from sidecar.caller import Caller
from sidecar.errors import (
    ExpiredDeadlineError,
    InternalError,
    InvalidRequestError,
    OverloadedError,
    SidecarError,
    UnavailableAuditError,
    Violation,
)
from sidecar.logs import frames, get_logger
from sidecar.metrics import Metrics
from sidecar.policy import Policy, Verb
from sidecar.rpc.status import CODES, REQUEST_ID_KEY, trailers
from sidecar.traces import Traces

UNARY_BYTES = 64 * 1024
BATCH_BYTES = 1024 * 1024
AT_ONCE = 512  # calls in work; more are turned away at once rather than kept waiting
REJECTIONS_LOGGED = 20  # lines a second; the rest is counted, in the log and in the metrics

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
_HOT = frozenset({"Issue", "Validate", "BatchIssue", "BatchValidate", "GetJwks", "ListKeys", "Check"})

_log = get_logger()

Context = grpc.aio.ServicerContext[Any, Any]
RequestT = TypeVar("RequestT", bound=Message)

Identify = Callable[[Context], "Caller | Awaitable[Caller]"]
"""Who calls. It may look at the connection or at the call; a `SidecarError` says that it is nobody we know.

An awaitable: not before something has been looked up, which is rare, bounded, and shared by all who wait for it.
"""


@dataclass(frozen=True, slots=True)
class Door:
    """What one server knows of its callers: how to tell who calls, and what to call whoever cannot be told."""

    identify: Identify
    nobody: Caller


class Call(NamedTuple, Generic[RequestT]):
    """One call, as a servicer sees it."""

    caller: Caller
    request: RequestT
    request_id: str
    context: Context
    refused: Callable[[SidecarError, str], None]
    """Record that an item of a batch was refused, and its profile, unless a verb has done so."""

    def alive(self) -> None:
        """Raise if the caller's deadline has passed."""
        left = self.context.time_remaining()
        if left is not None and left <= 0:
            raise ExpiredDeadlineError


class Boundary:
    """Shared by all servers of the process, so that admission and metrics see all calls."""

    def __init__(self, metrics: Metrics, policy: Policy, audit: Audit, traces: Traces | None = None) -> None:
        self._metrics = metrics
        self._policy = policy
        self._audit = audit
        self._traces = traces
        self._in_work = 0
        metrics.in_flight.set_function(lambda: self._in_work)
        self._quota = _Quota(REJECTIONS_LOGGED)

    def wrap(
        self,
        service: str,
        name: str,
        verb: Verb,
        kind: type[RequestT],
        serve: Callable[[Call[RequestT]], Awaitable[Message]],
        door: Door,
        *,
        limit: int = UNARY_BYTES,
        items: Callable[[RequestT], int] = lambda _: 1,
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        """A handler that takes and gives bytes. `items` says how many tokens a request is about, or refuses it."""
        method = f"{service}/{name}"
        # Good calls of the hot verbs are worth a line only to somebody who is looking; a flood of bad ones must not fill disks.
        untold = name in _HOT and not _log.is_enabled_for(logging.DEBUG)
        audit, policy, traces = self._audit, self._policy, self._traces

        async def handle(data: bytes, context: Context) -> bytes:
            started = time.perf_counter()
            request_id = _request_id(context)
            self._in_work += 1
            code, reason, error, answer = "OK", "", None, b""
            caller, profile, tokens, mark = door.nobody, "", 1, audit.taken

            def refused(failure: BaseException, item: str | None = None) -> None:
                decision = audit.decision(caller, verb, profile if item is None else item, request_id)
                if item is None and tokens > 1:
                    decision.facts["items"] = tokens
                decision.failed(failure)

            try:
                try:
                    if self._in_work > AT_ONCE:
                        raise OverloadedError
                    found = door.identify(context)
                    caller = found if isinstance(found, Caller) else await found
                    policy.check_verb(caller, verb)
                    request = _unpacked(kind, data, limit)
                    profile = getattr(request, "profile", "")
                    tokens = items(request)
                    policy.take(caller, verb, tokens)
                    call = Call(caller, request, request_id, context, refused)
                    call.alive()
                    answer = (await serve(call)).SerializeToString()
                except ExpiredDeadlineError as late:
                    code = "DEADLINE_EXCEEDED"
                    refused(late)
                except SidecarError as known:
                    error = known
                    refused(known)
                except Exception as unknown:  # noqa: BLE001 - here and nowhere else
                    _log.error(
                        "call.failed",
                        method=method,
                        request_id=request_id,
                        error_type=type(unknown).__name__,
                        frames=frames(unknown),
                    )
                    error = InternalError()
                    refused(unknown)
                if audit.required and audit.taken != mark:
                    await audit.on_record()
                if code == "OK" and error is None:
                    context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
                    return answer
            except UnavailableAuditError as lost:
                error = lost
            except BaseException:
                code = "CANCELLED"
                raise
            finally:
                self._in_work -= 1
                if error is not None:
                    code, reason = error.reason.code.name, error.reason.name
                seconds = self._metrics.call(method, code, reason, started)
                if code != "OK" or not untold:
                    self._line(name, method, code, reason, caller, request_id, seconds)
                if traces is not None:
                    named = self._metrics.known(profile)
                    traces.answered(code, reason, caller=caller.name, profile=named, request_id=request_id)
            if error is None:
                await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed before the work began")
                raise AssertionError  # abort always raises; mypy cannot know
            await context.abort(CODES[error.reason.code], error.message, trailers(error, request_id))
            raise AssertionError

        if traces is None:
            return grpc.unary_unary_rpc_method_handler(handle)

        async def traced(data: bytes, context: Context) -> bytes:
            with traces.call(method, context.invocation_metadata() or ()):
                return await handle(data, context)

        return grpc.unary_unary_rpc_method_handler(traced)

    def _line(
        self, name: str, method: str, code: str, reason: str, caller: Caller, request_id: str, seconds: float
    ) -> None:
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
    return os.urandom(8).hex()
