"""Forward auth: `GET /auth`, for gateways that have no ext_authz. The same routes; the answer's status and headers are the gateway's to copy.

The gateway says by headers of its own what was asked of it; which ones is configured, and only these are believed. One that is missing, or
there twice, is a gateway that is not set up: 503, and the log says what to do.
"""

from __future__ import annotations

import re
import secrets
import time

import h11

from sidecar.audit import Audit
from sidecar.authorize import Allowed, Authorize
from sidecar.caller import Caller
from sidecar.denials import Denied
from sidecar.errors import Code, OverloadedError, SidecarError
from sidecar.http.server import Answer, Limits
from sidecar.logs import frames, get_logger
from sidecar.metrics import Metrics
from sidecar.policy import Policy, Verb
from sidecar.possession import of_certificate
from sidecar.routes import REQUEST_HEADERS, Request, Spoken
from sidecar.traces import Traces

PATH = "/auth"
LIMITS = Limits(head=64 * 1024, connections=1000, seconds=75.0)
"""Gateways keep connections; nginx for 60 s."""
AT_ONCE = 512
METHOD = "forward_auth"
"""The label of its calls in metrics."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}").fullmatch
_ORIGINAL_URL = re.compile(r"(https?)://([^/?#\\@\x00-\x20\x7f-\U0010ffff]+)(/[\x21-\x7e]*)").fullmatch
_UNAVAILABLE = Answer(503, b"temporarily_unavailable\n")

_log = get_logger()


class ForwardAuth:
    """The door of one address. What every gRPC call passes at its boundary, every request passes here."""

    def __init__(
        self,
        authorize: Authorize,
        caller: Caller,
        spoken: Spoken,
        policy: Policy,
        audit: Audit,
        metrics: Metrics,
        traces: Traces | None = None,
    ) -> None:
        self._authorize = authorize
        self._caller = caller
        self._spoken = spoken
        self._policy = policy
        self._audit = audit
        self._metrics = metrics
        self._traces = traces
        self._in_work = 0
        self._told = False  # that the gateway is not set up

    async def __call__(self, asked: h11.Request) -> Answer:
        """The answer to one request of the gateway's."""
        if self._traces is None:
            return await self._answer(asked)
        carried = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in asked.headers)
        with self._traces.call(METHOD, carried):
            return await self._answer(asked)

    async def _answer(self, asked: h11.Request) -> Answer:
        started = time.perf_counter()
        headers, repeated = _joined(asked)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID(given) else secrets.token_hex(8)
        self._in_work += 1
        code, reason = "OK", ""

        def refused(failure: BaseException, profile: str = "") -> None:
            self._audit.decision(self._caller, Verb.VALIDATE, profile, request_id).failed(failure)

        try:
            mark = self._audit.taken
            try:
                if self._in_work > AT_ONCE:
                    raise OverloadedError
                self._policy.check_verb(self._caller, Verb.VALIDATE)
                self._policy.take(self._caller, Verb.VALIDATE, 1)
                request = self._request(headers, repeated)
                if request is None:
                    code = Code.INVALID_ARGUMENT.name
                    return _UNAVAILABLE
                answer = packed(await self._authorize(self._caller, request, request_id, refused))
            except SidecarError as error:
                code, reason, answer = error.reason.code.name, error.reason.name, _UNAVAILABLE
                refused(error)
            if self._audit.required and self._audit.taken != mark:
                await self._audit.on_record()
            return answer
        except SidecarError as error:
            code, reason = error.reason.code.name, error.reason.name
            return _UNAVAILABLE
        except Exception as unknown:  # noqa: BLE001 - the boundary of this door
            code, kind = Code.INTERNAL.name, type(unknown).__name__
            _log.error("call.failed", method=METHOD, request_id=request_id, error_type=kind, frames=frames(unknown))
            return _UNAVAILABLE
        finally:
            self._in_work -= 1
            seconds = self._metrics.call(METHOD, code, reason, started)
            caller, ms = self._caller.name, round(seconds * 1000, 3)
            _log.debug("call.done", method=METHOD, code=code, caller=caller, request_id=request_id, ms=ms)
            if self._traces is not None:
                self._traces.answered(code, reason, caller=caller, request_id=request_id)

    def _request(self, headers: dict[str, str], repeated: set[str]) -> Request | None:
        """What was asked of the gateway; None: it does not say."""
        names = REQUEST_HEADERS[self._spoken.family]
        said = [headers.get(name, "") for name in names]
        found = _original(*said) if self._spoken.family == "x-original" else _forwarded(*said)
        if found is None or not repeated.isdisjoint(names):
            if not self._told:
                advice = f"let the gateway set {', '.join(names)} on what it asks, whatever the client sent"
                _log.warning("forward_auth.request_unknown", caller=self._caller.name, advice=advice)
            self._told = True
            return None
        method, scheme, host, target = found
        shown = of_certificate(headers.get(self._spoken.certificate, "")) if self._spoken.certificate else ""
        return Request(method, scheme, host, target, headers, certificate=shown)


def packed(answer: Allowed | Denied) -> Answer:
    """The answer for the gateway: 200 with the headers to set, or the denial for the client."""
    if isinstance(answer, Denied):
        kept = ("content-type", "cache-control")
        further = tuple((name, value) for name, value in answer.headers.items() if name not in kept)
        return Answer(answer.status, answer.body, answer.headers["content-type"], headers=further)
    return Answer(200, b"", headers=tuple(answer.changes.put.items()))


def _joined(asked: h11.Request) -> tuple[dict[str, str], set[str]]:
    """Headers by name in lower case, repeated ones joined by commas, and the names of those.

    What is not UTF-8 does not become something that is good.
    """
    found: dict[str, str] = {}
    repeated: set[str] = set()
    for name, value in asked.headers:
        key, text = name.decode("ascii").lower(), value.decode("utf-8", "replace")
        if key in found:
            repeated.add(key)
            text = f"{found[key]},{text}"
        found[key] = text
    return found, repeated


def _original(method: str, url: str) -> tuple[str, str, str, str] | None:
    found = _ORIGINAL_URL(url)
    return (method, *found.groups()) if method and found else None  # type: ignore[return-value] # three groups


def _forwarded(method: str, scheme: str, host: str, target: str) -> tuple[str, str, str, str] | None:
    if not method or scheme not in ("http", "https", "ws", "wss") or not host or not target:
        return None
    return method, scheme.replace("ws", "http"), host, target
