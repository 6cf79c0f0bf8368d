"""Server reflection, v1alpha and v1. grpcio-reflection knows v1alpha only; v1 has the same messages under another name.

A client may keep its stream open for as long as it likes: it ends when the server does, and does not hold that up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from sidecar.logs import frames, get_logger

V1 = "grpc.reflection.v1.ServerReflection"
V1ALPHA = reflection.SERVICE_NAME

_log = get_logger()


def handlers(services: tuple[str, ...], ending: asyncio.Event) -> tuple[grpc.GenericRpcHandler, ...]:
    """Handlers that tell of these services, and of reflection itself, until `ending` is set."""
    servicer = reflection.aio.ReflectionServicer((*services, V1, V1ALPHA))

    async def info(
        requests: AsyncIterator[reflection_pb2.ServerReflectionRequest], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[reflection_pb2.ServerReflectionResponse]:
        try:
            async for response in servicer.ServerReflectionInfo(_until(ending, requests), context):
                yield response
        except Exception as error:  # noqa: BLE001
            # gRPC would send the exception's text.
            _log.error("reflection.failed", error_type=type(error).__name__, frames=frames(error))
            await context.abort(grpc.StatusCode.INTERNAL, "internal error")

    method = grpc.stream_stream_rpc_method_handler(
        info,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return tuple(grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method}) for name in (V1, V1ALPHA))


async def _until(
    ending: asyncio.Event, requests: AsyncIterator[reflection_pb2.ServerReflectionRequest]
) -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
    """The requests that come before the end. One that is awaited then ends with the call."""
    ended = asyncio.ensure_future(ending.wait())
    try:
        while True:
            request = asyncio.ensure_future(anext(requests, None))
            await asyncio.wait((request, ended), return_when=asyncio.FIRST_COMPLETED)
            if not request.done():
                # Fetched: nobody waits for it any more, and asyncio would complain of its end.
                request.add_done_callback(lambda left: left.cancelled() or left.exception())
                return
            if (taken := request.result()) is None:
                return
            yield taken
    finally:
        ended.cancel()
