"""An app behind a gateway: tells what reached it, streams events, echoes WebSockets; and a gRPC service that echoes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

import grpc
import h11

from tests.running import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

EVENTS = 5
PAUSE = 0.05  # seconds between events
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3


class App:
    """Serves on two ports of 127.0.0.1: `port` speaks HTTP/1.1, `grpc_port` gRPC. `seen` counts the requests that came."""

    def __init__(self) -> None:
        self.port, self.grpc_port = free_port(), free_port()
        self.seen = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._grpc = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        self._grpc.add_generic_rpc_handlers((_Echo(self),))

    def __enter__(self) -> Self:
        self._thread.start()
        made = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._converse, "127.0.0.1", self.port), self._loop
        )
        self._server = made.result(5)
        self._grpc.add_insecure_port(f"127.0.0.1:{self.grpc_port}")
        self._grpc.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._grpc.stop(0).wait(5)
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            while True:
                request = await _next(connection, reader)
                if not isinstance(request, h11.Request):
                    return
                self.seen += 1
                while not isinstance(await _next(connection, reader), h11.EndOfMessage):
                    pass
                headers = [(name.decode(), value.decode("latin-1")) for name, value in request.headers]
                if dict(headers).get("upgrade", "").lower() == "websocket":
                    await _websocket(headers, connection, reader, writer)
                    return
                await _answer(request, headers, connection, writer)
                connection.start_next_cycle()
        except (ConnectionError, h11.ProtocolError):
            pass
        finally:
            writer.close()


async def _answer(
    request: h11.Request, headers: list[tuple[str, str]], connection: h11.Connection, writer: asyncio.StreamWriter
) -> None:
    target = request.target.decode("latin-1")
    if target.startswith("/v1/stream"):
        writer.write(connection.send(h11.Response(status_code=200, headers=[("content-type", "text/event-stream")])))
        for number in range(EVENTS):
            writer.write(connection.send(h11.Data(data=f"data: {number}\n\n".encode())))
            await writer.drain()
            await asyncio.sleep(PAUSE)
    else:
        seen = {"method": request.method.decode(), "target": target, "headers": headers}
        body = json.dumps(seen).encode()
        kind = [("content-type", "application/json"), ("content-length", str(len(body)))]
        writer.write(connection.send(h11.Response(status_code=200, headers=kind)))
        writer.write(connection.send(h11.Data(data=body)))
    writer.write(connection.send(h11.EndOfMessage()))
    await writer.drain()


async def _websocket(
    headers: list[tuple[str, str]],
    connection: h11.Connection,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Accepts, sends what reached it as one line, then sends back each byte."""
    accept = base64.b64encode(hashlib.sha1((dict(headers)["sec-websocket-key"] + _GUID).encode()).digest())
    answer = [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", accept.decode())]
    writer.write(connection.send(h11.InformationalResponse(status_code=101, headers=answer)))
    writer.write(json.dumps(headers).encode() + b"\n")
    while data := await reader.read(4096):
        writer.write(data)
        await writer.drain()


async def _next(connection: h11.Connection, reader: asyncio.StreamReader) -> object:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await reader.read(65536))
    return event


class _Echo(grpc.GenericRpcHandler):
    """echo.Echo: Say answers with the metadata, as JSON; Stream does so three times."""

    def __init__(self, app: App) -> None:
        self._app = app

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        def say(_request: bytes, context: grpc.ServicerContext) -> bytes:
            self._app.seen += 1
            return json.dumps([[str(key), str(value)] for key, value in context.invocation_metadata()]).encode()

        def stream(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            for _ in range(3):
                yield say(request, context)

        methods = {
            "/echo.Echo/Say": grpc.unary_unary_rpc_method_handler(say),
            "/echo.Echo/Stream": grpc.unary_stream_rpc_method_handler(stream),
        }
        return methods.get(details.method)
