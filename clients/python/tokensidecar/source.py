"""Tokens for outgoing calls: made once, kept for most of their life, shared by all who want the same."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import grpc

from tokensidecar.client import Client
from tokensidecar.errors import UnavailableError
from tokensidecar.tokens import IssuedToken, texts

KEPT = 0.8  # of a token's life
MOST = 1000  # grants whose tokens are kept


@dataclass(frozen=True, slots=True)
class Grant:
    """What the tokens of outgoing calls say; as the arguments of `Client.issue`."""

    subject: str = field(repr=False)
    audiences: Sequence[str]
    profile: str = ""
    scopes: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "audiences", tuple(texts("audiences", self.audiences)))
        object.__setattr__(self, "scopes", tuple(texts("scopes", self.scopes)))


class _Kept:
    """One grant's token. Who holds the lock makes it; the others wait for that."""

    __slots__ = ("lock", "renew_at", "token")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.token: IssuedToken | None = None
        self.renew_at = 0.0


class TokenSource:
    """Safe to share between threads. `now`: seconds since the epoch."""

    def __init__(self, client: Client, *, now: Callable[[], float] = time.time) -> None:
        self._client = client
        self._now = now
        self._lock = threading.Lock()
        self._kept: OrderedDict[Grant, _Kept] = OrderedDict()

    def token(self, grant: Grant) -> str:
        """The text of a token: a kept one for 80 % of its life, and longer only while the sidecar does not answer. Raises a `CallError`."""
        with self._lock:
            kept = self._kept.setdefault(grant, _Kept())
            self._kept.move_to_end(grant)
            if len(self._kept) > MOST:
                self._kept.popitem(last=False)
        with kept.lock:
            if kept.token is None or self._now() >= kept.renew_at:
                self._renew(grant, kept)
            assert kept.token is not None  # noqa: S101 # _renew raises otherwise
            return kept.token.token

    def _renew(self, grant: Grant, kept: _Kept) -> None:
        try:
            token = self._client.issue(grant.subject, grant.audiences, profile=grant.profile, scopes=grant.scopes)
        except UnavailableError:
            if kept.token is None or self._now() >= kept.token.expire_time.timestamp() - 1:
                raise
            return
        began, ends = token.issue_time.timestamp(), token.expire_time.timestamp()
        kept.token, kept.renew_at = token, began + KEPT * (ends - began)

    def forget(self, grant: Grant) -> None:
        """The next call gets another token: for when the other side turned this one down."""
        with self._lock:
            self._kept.pop(grant, None)


class Authorize:
    """Puts a token on each outgoing call: `requests.get(url, auth=Authorize(source, grant))`, and the same with httpx.

    A token is made by a call that waits: on asyncio, call `source.token` in a thread before, or make this the rare case it is.
    """

    def __init__(self, source: TokenSource, grant: Grant) -> None:
        self._source = source
        self._grant = grant

    def __call__(self, request: Any) -> Any:
        """As both libraries call an `auth`: with the request, whose headers it sets."""
        request.headers["Authorization"] = f"Bearer {self._source.token(self._grant)}"
        return request


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Iterable[tuple[str, str | bytes]] | None
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class AuthorizeCalls(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """The same for gRPC: `grpc.intercept_channel(channel, AuthorizeCalls(source, grant))`."""

    def __init__(self, source: TokenSource, grant: Grant) -> None:
        self._source = source
        self._grant = grant

    def _call(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        token = ("authorization", f"Bearer {self._source.token(self._grant)}")
        authorized = _Details(
            details.method,
            details.timeout,
            [*(details.metadata or ()), token],
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )
        return continuation(authorized, request)

    intercept_unary_unary: Any = _call
    intercept_unary_stream: Any = _call
    intercept_stream_unary: Any = _call
    intercept_stream_stream: Any = _call
