"""More requests at once than a sidecar admits, through a real Envoy: each one ends, in time, and none gets through wrongly."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.gateway.asking import SECONDS, ask, bearer
from tests.gateway.envoys import BINARY

if TYPE_CHECKING:
    from tests.gateway.conftest import Stack

pytestmark = pytest.mark.needs(BINARY)
AT_ONCE = 700  # the sidecar has at most 512 in work
REQUEST = (
    "GET /strip/{what} HTTP/1.1\r\nHost: orders.example\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n"
)


async def flood(port: int, tokens: dict[str, str]) -> Counter[tuple[str, int]]:
    """Status by kind of token, of all requests, which are written at one moment."""
    kinds = [kind for kind in tokens for _ in range(AT_ONCE // len(tokens))]
    open_ = [await asyncio.open_connection("127.0.0.1", port) for _ in kinds]
    for kind, (_, writer) in zip(kinds, open_, strict=True):
        writer.write(REQUEST.format(what=kind, token=tokens[kind]).encode())
    lines = await asyncio.wait_for(asyncio.gather(*(reader.readline() for reader, _ in open_)), SECONDS)
    for _, writer in open_:
        writer.close()
    return Counter((kind, int(line.split()[1])) for kind, line in zip(kinds, lines, strict=True))


def test_a_flood_is_answered_whole_and_nothing_bad_gets_through(stack: Stack) -> None:
    good = stack.token()
    tokens = {"good": good, "bad": good[:-8] + "AAAAAAAA"}
    before = stack.app.seen
    began = time.monotonic()
    found = sum((asyncio.run(flood(stack.envoy.port, tokens)) for _ in range(3)), Counter[tuple[str, int]]())
    assert time.monotonic() - began < SECONDS
    assert sum(found.values()) == 3 * 2 * (AT_ONCE // 2)
    assert set(found) <= {("good", 200), ("good", 503), ("bad", 401), ("bad", 503)}, found
    assert stack.app.seen - before == found["good", 200]  # the app heard the good ones alone
    assert os.path.exists(f"/proc/{stack.sidecar.process.pid}")  # noqa: PTH110 - a process, not a file
    assert ask(stack.envoy.port, "/strip/a", bearer(good)).status == 200
