"""A small HTTP/1.1 server for probes, scrapes, public keys and forward auth: GET and HEAD, no bodies, bounded in everything.

h11 does the protocol; a web framework would cost more memory and start-up than all of this sidecar's other doors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import h11

HEAD_BYTES = 8 * 1024
CONNECTIONS = 64
REQUEST_SECONDS = 5.0  # from the first byte awaited to the answer's last; also how long a silent connection is kept

_TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, body and its media type."""

    status: int
    body: bytes
    media_type: str = _TEXT
    cache: str = "no-store"
    headers: tuple[tuple[str, str], ...] = ()


Routes = Mapping[str, Callable[[], Answer]]
Asked = Mapping[str, Callable[[h11.Request], Awaitable[Answer]]]
"""Paths whose answer depends on the request."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes of a request's head; connections at once; seconds from the first byte awaited to the answer's last."""

    head: int = HEAD_BYTES
    connections: int = CONNECTIONS
    seconds: float = REQUEST_SECONDS


PROBES = Limits()


class HttpServer:
    """Serves a table of paths on one address."""

    def __init__(
        self, routes: Routes = MappingProxyType({}), asked: Asked = MappingProxyType({}), limits: Limits = PROBES
    ) -> None:
        self._routes = routes
        self._asked = asked
        self._limits = limits
        self._open: dict[asyncio.Task[None], None] = {}  # oldest first
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> None:
        """Listen. `OSError` if the address is taken."""
        self._server = await asyncio.start_server(self._accept, host, port, limit=self._limits.head, reuse_port=False)

    async def stop(self) -> None:
        """Close the socket and what is connected to it."""
        if self._server is None:
            return
        self._server.close()
        for task in list(self._open):
            task.cancel()
        if self._open:
            await asyncio.wait(self._open, timeout=1)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= self._limits.connections:
            # The oldest goes, not the newest: whoever holds on to connections must not keep probes out.
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.cancel()
        task = asyncio.create_task(self._converse(reader, writer))
        self._open[task] = None
        task.add_done_callback(lambda done: self._open.pop(done, None))

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=self._limits.head)
        try:
            again = True
            while again:
                async with asyncio.timeout(self._limits.seconds):
                    again = await self._exchange(connection, reader, writer)
        except (TimeoutError, ConnectionError, h11.ProtocolError):
            pass  # the peer is slow, gone, or speaks something else
        finally:
            writer.close()

    async def _exchange(
        self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """One request and its answer; True if another may follow."""
        try:
            request = await _next(connection, reader)
            if not isinstance(request, h11.Request):
                return False
            answer = await self._answer(request)
            body = await _next(connection, reader)
            if not isinstance(body, h11.EndOfMessage):
                answer = Answer(413, b"no request here has a body\n")
            known = request.http_version in (b"1.0", b"1.1")
            if not known:
                answer = Answer(505, b"HTTP/1.1 only\n")
            head_only = request.method == b"HEAD"
        except h11.RemoteProtocolError as error:
            answer, head_only, known = Answer(error.error_status_hint, b"not an HTTP request\n"), False, False
        last = not known or connection.their_state is not h11.DONE
        headers = [
            ("content-type", answer.media_type),
            ("content-length", str(len(answer.body))),
            ("cache-control", answer.cache),
            *answer.headers,
            ("x-content-type-options", "nosniff"),
            *([("allow", "GET, HEAD")] if answer.status == 405 else []),
            *([("connection", "close")] if last else []),
        ]
        writer.write(connection.send(h11.Response(status_code=answer.status, headers=headers)) or b"")
        if not head_only:
            writer.write(connection.send(h11.Data(data=answer.body)) or b"")
        if last:
            await writer.drain()
            return False
        writer.write(connection.send(h11.EndOfMessage()) or b"")
        await writer.drain()
        connection.start_next_cycle()
        return True

    async def _answer(self, request: h11.Request) -> Answer:
        path = request.target.split(b"?", 1)[0].decode("ascii", "replace")
        route, asked = self._routes.get(path), self._asked.get(path)
        if route is None and asked is None:
            return Answer(404, ("not here; here are " + " ".join((*self._routes, *self._asked)) + "\n").encode())
        if request.method not in (b"GET", b"HEAD"):
            return Answer(405, b"GET or HEAD\n")
        if asked is not None:
            return await asked(request)
        assert route is not None  # noqa: S101 # above
        return route()


async def _next(connection: h11.Connection, reader: asyncio.StreamReader) -> object:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await reader.read(HEAD_BYTES))
    return event
