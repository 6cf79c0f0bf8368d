"""The public keys of another issuer, a JWK Set (RFC 7517) in a file or at an https address: read in the background, never for a call.

Rules:
 1. A file is read when it changes; an address every `EVERY` seconds, and after a failure sooner, ever later.
 2. Who misses a key may ask for a look, which all who ask share; there is at most one in `LOOK_LEAST` seconds, and nobody waits longer than
    `LOOK_SECONDS`, nor more than `WAITING_MOST` at once.
 3. TLS 1.2 and newer, with a certificate of the CAs that are named. No redirect is followed, no proxy used; a fetch has `FETCH_SECONDS` for all of
    it, and `SIZE_MOST` bytes.
 4. A set that is no good, or not to be had, leaves the old one in force, with a line in the log and a gauge; at most for `OLDEST` seconds.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import h11

from sidecar.jose import imported
from sidecar.jose.keys import Material
from sidecar.logs import frames, get_logger

EVERY = 300.0  # seconds
RETRY_FIRST, RETRY_MOST = 2.0, 60.0
FILE_EVERY = 1.0
LOOK_LEAST, LOOK_SECONDS, WAITING_MOST = 10.0, 2.0, 32
FETCH_SECONDS = 5.0
SIZE_MOST = 256 * 1024
TOKEN_MOST = 16 * 1024
OLDEST = 86400.0

_log = get_logger()


class UnusableKeySetError(Exception):
    """The keys cannot be had; the text says why."""


class KeySet:
    """`source`: "file:/path" or "https://…". `ca`, `token`: files, of an address alone. `now`: a clock that only goes forward, in seconds."""

    def __init__(
        self,
        source: str,
        algorithms: Sequence[str],
        *,
        ca: Path | None = None,
        token: Path | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.keys: Mapping[str, Material] = {}
        self._source = source
        self._file = Path(source.removeprefix("file:")) if source.startswith("file:") else None
        self._algorithms = algorithms
        self._ca = ca
        self._token = token
        self._now = now
        self._read_at = float("-inf")
        self._tried_at = float("-inf")
        self._failure = ""  # of the last try; empty: it was good
        self._looking: asyncio.Task[bool] | None = None
        self._waiting = 0
        self._stamp: tuple[int, ...] = ()

    @property
    def stale(self) -> bool:
        """See rule 4."""
        return self._now() - self._read_at > OLDEST

    async def start(self) -> None:
        """A first look. `UnusableKeySetError`: of a file alone; an address may come later."""
        if not await self._look() and self._file:
            raise UnusableKeySetError(f"service_accounts.keys {self._failure}")

    async def watch(self) -> None:
        """Look from time to time, for good."""
        pause = RETRY_FIRST
        while True:
            if self._file:
                await asyncio.sleep(FILE_EVERY)
                if await asyncio.to_thread(self._stamped) != self._stamp:
                    await self._shared_look()
                continue
            good = not self._failure
            pause = RETRY_FIRST if good else min(2 * pause, RETRY_MOST)
            await asyncio.sleep((EVERY if good else pause) * random.uniform(0.9, 1.1))  # noqa: S311 - jitter
            await self._shared_look()

    async def look_again(self) -> bool:
        """Whether the keys were read since, or so lately that a `kid` which is not among them is nobody's."""
        if self._looking is None and self._now() - self._tried_at < LOOK_LEAST:
            return not self._failure
        if self._waiting >= WAITING_MOST:
            return False
        self._waiting += 1
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                return await self._shared_look()
        except TimeoutError:
            return False
        finally:
            self._waiting -= 1

    def readings(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """For the metrics: name, labels, value."""
        yield "tokensidecar_service_account_keys_good", {}, float(not self._failure)
        yield "tokensidecar_service_account_keys_age_seconds", {}, self._now() - self._read_at

    async def _shared_look(self) -> bool:
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
            self._looking.add_done_callback(self._looked)
        return await asyncio.shield(self._looking)

    def _looked(self, _task: asyncio.Task[bool]) -> None:
        self._looking = None

    async def _look(self) -> bool:
        self._tried_at = began = self._now()
        try:
            stamp = await asyncio.to_thread(self._stamped)
            data = await (asyncio.to_thread(_bytes, self._file, SIZE_MOST) if self._file else self._fetched())
            keys = imported.signatures(data, self._algorithms)
        except (UnusableKeySetError, OSError, ValueError, h11.RemoteProtocolError, TimeoutError) as error:
            self._failed(f"{self._source}: {_words(error)}")
            return False
        except Exception as error:  # noqa: BLE001
            # A loop that died would keep every later key out, and nobody would notice until then.
            _log.error("service_accounts.keys_refused", error_type=type(error).__name__, frames=frames(error))
            self._failed(f"{self._source}: {type(error).__name__}")
            return False
        if self._failure:
            _log.info("service_accounts.keys_found")
        self._read_at, self._failure, self._stamp = began, "", stamp
        if {name: key.public_bytes() for name, key in keys.items()} != {
            n: k.public_bytes() for n, k in self.keys.items()
        }:
            _log.info("service_accounts.keys_changed", key_ids=sorted(keys))
            self.keys = keys
        return True

    def _failed(self, problem: str) -> None:
        if problem != self._failure:
            _log.error("service_accounts.keys_refused", problem=problem)
        self._failure = problem

    def _stamped(self) -> tuple[int, ...]:
        if self._file is None:
            return ()
        try:
            found = self._file.stat()
        except OSError:
            return (0,)
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    async def _fetched(self) -> bytes:
        address = urlsplit(self._source)
        host, port = address.hostname or "", address.port or 443
        context = await asyncio.to_thread(ssl.create_default_context, cafile=self._ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        headers = [
            ("Host", address.netloc),
            ("Accept", "application/jwk-set+json, application/json"),
            ("Connection", "close"),
        ]
        if self._token:
            shown = (await asyncio.to_thread(_bytes, self._token, TOKEN_MOST)).decode("ascii").strip()
            headers.append(("Authorization", f"Bearer {shown}"))
        async with asyncio.timeout(FETCH_SECONDS):
            reader, writer = await asyncio.open_connection(host, port, ssl=context)
            try:
                protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=16 * 1024)
                target = (address.path or "/") + (f"?{address.query}" if address.query else "")
                writer.write(protocol.send(h11.Request(method="GET", target=target, headers=headers)) or b"")
                writer.write(protocol.send(h11.EndOfMessage()) or b"")
                await writer.drain()
                return await _answer(protocol, reader)
            finally:
                writer.transport.abort()


async def _answer(protocol: h11.Connection, reader: asyncio.StreamReader) -> bytes:
    body = b""
    while True:
        event = protocol.next_event()
        if event is h11.NEED_DATA:
            protocol.receive_data(await reader.read(64 * 1024))
        elif isinstance(event, h11.Response):
            if event.status_code != 200:
                raise UnusableKeySetError(f"the answer has status {event.status_code}, and no redirect is followed")
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > SIZE_MOST:
                raise UnusableKeySetError(f"the answer has more than {SIZE_MOST} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return body
        elif not isinstance(event, h11.InformationalResponse):
            raise UnusableKeySetError("the answer ended before it was whole")


def _bytes(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise UnusableKeySetError(f"{path} has more than {most} bytes")
    return data


def _words(error: Exception) -> str:
    """Why, in words that hold nothing of what was read."""
    if isinstance(error, TimeoutError):
        return f"no whole answer within {FETCH_SECONDS:.0f} s"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or 'failed'}"
    if isinstance(error, OSError):
        return error.strerror or "cannot be reached"
    if isinstance(error, h11.RemoteProtocolError):
        return "the answer is not HTTP"
    if isinstance(error, UnicodeError):
        return "the token to show is not ASCII"
    return str(error)
