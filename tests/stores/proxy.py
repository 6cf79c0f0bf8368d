"""A TCP proxy on loopback that cuts a connection at a chosen moment: before a request gets through, or before its answer does."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self


class Proxy:
    """As an asynchronous context manager; `port` is where it listens."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._lost = ""
        self._containing = b""
        self._times = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.carried = 0  # bytes from the server

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self, lost: str, *, containing: bytes, times: int = 1) -> None:
        """At the next request with those bytes. lost "request": it does not get through; "answer": it does, and its answer does not."""
        self._lost, self._containing, self._times = lost, containing, times

    async def settled(self) -> None:
        """What was let through has been done by now."""
        await asyncio.sleep(0.2)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._to)
        silent = asyncio.Event()

        async def down() -> None:
            while data := await up_reader.read(65536):
                if silent.is_set():
                    return
                self.carried += len(data)
                writer.write(data)
                await writer.drain()

        async def up() -> None:
            while data := await reader.read(65536):
                if self._times and self._containing in data:
                    self._times -= 1
                    if self._lost == "request":
                        return
                    silent.set()
                up_writer.write(data)
                await up_writer.drain()

        tasks = [asyncio.create_task(down()), asyncio.create_task(up())]
        try:
            with contextlib.suppress(asyncio.CancelledError):  # the end of the test
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for end in (writer, up_writer):
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()
