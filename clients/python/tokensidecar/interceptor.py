"""Protects a gRPC server: `grpc.server(…, interceptors=[Protect(client, ["orders"])])`, or `AioProtect` for grpc.aio.

Without a good token a call ends with UNAUTHENTICATED, for a scope with PERMISSION_DENIED, and with UNAVAILABLE where nobody can judge.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import grpc

from tokensidecar.client import Client
from tokensidecar.errors import UnavailableError
from tokensidecar.protect import Authorized, Credentials, Protection, TurnedDownError

_authorized: ContextVar[Authorized[Any]] = ContextVar("tokensidecar.authorized")

_CODES = {
    400: grpc.StatusCode.UNAUTHENTICATED,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    503: grpc.StatusCode.UNAVAILABLE,
}
_WORDS = {
    grpc.StatusCode.UNAUTHENTICATED: "the token is missing or no good",
    grpc.StatusCode.PERMISSION_DENIED: "the token lacks a scope",
    grpc.StatusCode.UNAVAILABLE: "the token cannot be judged now",
    grpc.StatusCode.INTERNAL: "the token cannot be judged",
}


def authorized() -> Authorized[Any]:
    """Who makes the call that is being served. LookupError: the server is not protected, or this is not the call's own thread or task."""
    return _authorized.get()


class _Rules:
    """What both kinds of server share. Some methods can be left `open_methods`: `/grpc.health.v1.Health/Check`."""

    def __init__(
        self,
        client: Client,
        audiences: Iterable[str],
        *,
        profiles: Iterable[str] = (),
        required_scopes: Iterable[str] = (),
        claims: Callable[[str], Any] = json.loads,
        open_methods: Iterable[str] = (),
    ) -> None:
        """Take the arguments of `Protection`, but for DPoP, which is HTTP's; `open_methods`: full names that need no token."""
        self._protection: Protection[Any] = Protection(
            client, audiences, profiles=profiles, required_scopes=required_scopes, claims=claims
        )
        self._open = frozenset(open_methods)

    def _presented(self, metadata: Iterable[tuple[str, str | bytes]] | None) -> Credentials:
        headers = [value for name, value in metadata or () if name == "authorization" and isinstance(value, str)]
        return self._protection.credentials(headers)


class Protect(_Rules, grpc.ServerInterceptor):
    """For `grpc.server`. The handler finds who calls by `authorized()`."""

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """See `grpc.ServerInterceptor`."""
        handler = continuation(handler_call_details)
        if handler is None or handler_call_details.method in self._open:
            return handler

        def judge(context: grpc.ServicerContext) -> Authorized[Any]:
            try:
                return self._protection.judge(self._presented(context.invocation_metadata()))
            except TurnedDownError as turned_down:
                code = _code(turned_down)
                context.abort(code, _WORDS[code])

        def one(work: Callable[[Any, grpc.ServicerContext], Any]) -> Callable[[Any, grpc.ServicerContext], Any]:
            def protected(request: Any, context: grpc.ServicerContext) -> Any:
                with _as(judge(context)):
                    return work(request, context)

            return protected

        def many(
            work: Callable[[Any, grpc.ServicerContext], Iterator[Any]],
        ) -> Callable[[Any, grpc.ServicerContext], Iterator[Any]]:
            def protected(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
                with _as(judge(context)):
                    yield from work(request, context)

            return protected

        return _rewrapped(handler, one, many)


class AioProtect(_Rules, grpc.aio.ServerInterceptor):
    """For `grpc.aio.server`. The handler finds who calls by `authorized()`."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """See `grpc.aio.ServerInterceptor`."""
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method in self._open:
            return handler

        async def judge(context: grpc.aio.ServicerContext[Any, Any]) -> Authorized[Any]:
            try:
                return await self._protection.judge_async(self._presented(context.invocation_metadata()))
            except TurnedDownError as turned_down:
                code = _code(turned_down)
                await context.abort(code, _WORDS[code])

        def one(work: Any) -> Any:
            async def protected(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
                with _as(await judge(context)):
                    return await work(request, context)

            return protected

        def many(work: Any) -> Any:
            async def protected(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
                with _as(await judge(context)):
                    async for answer in work(request, context):
                        yield answer

            return protected

        return _rewrapped(handler, one, many)


@contextmanager
def _as(caller: Authorized[Any]) -> Iterator[None]:
    token = _authorized.set(caller)
    try:
        yield
    finally:
        _authorized.reset(token)


def _rewrapped(
    handler: grpc.RpcMethodHandler[Any, Any], one: Callable[[Any], Any], many: Callable[[Any], Any]
) -> grpc.RpcMethodHandler[Any, Any]:
    """The same method, with its behaviour wrapped by how many answers it gives."""
    if handler.request_streaming and handler.response_streaming:
        make, work = grpc.stream_stream_rpc_method_handler, many(handler.stream_stream)
    elif handler.request_streaming:
        make, work = grpc.stream_unary_rpc_method_handler, one(handler.stream_unary)
    elif handler.response_streaming:
        make, work = grpc.unary_stream_rpc_method_handler, many(handler.unary_stream)
    else:
        make, work = grpc.unary_unary_rpc_method_handler, one(handler.unary_unary)
    return make(work, handler.request_deserializer, handler.response_serializer)


def _code(turned_down: TurnedDownError) -> grpc.StatusCode:
    if isinstance(turned_down.error, UnavailableError):
        return grpc.StatusCode.UNAVAILABLE
    return _CODES.get(turned_down.status, grpc.StatusCode.INTERNAL)
