"""The measure: an empty handler in the same kind of server, with answers of the same sizes. `python -m tests.bench.empty PORT NAME=BYTES…`."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import grpc
import uvloop

from sidecar.rpc.server import OPTIONS

SERVICE = "bench.Empty"


async def serve(port: int, sizes: dict[str, int]) -> None:
    """Serve until SIGTERM: each method gives as many bytes as its real twin."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)

    def method(size: int) -> grpc.RpcMethodHandler[bytes, bytes]:
        answer = bytes(size)

        async def empty(_request: bytes, _context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            return answer

        return grpc.unary_unary_rpc_method_handler(empty)

    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {name: method(size) for name, size in sizes.items()}),)
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await stopping.wait()
    await server.stop(1)


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), {name: int(size) for name, _, size in (a.partition("=") for a in sys.argv[2:])}))
