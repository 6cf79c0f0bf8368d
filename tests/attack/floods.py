"""Floods that count: `python -m tests.attack.floods NAME TARGET TOKEN COUNT`; after each burst a line, "sent accepted", until it is killed or has sent COUNT.

The token, a good one, is what forgeries are made from.
"""

from __future__ import annotations

import gzip
import itertools
import json
import secrets
import sys
import time
from typing import TYPE_CHECKING

import grpc
from tokensidecar.v1 import token_service_pb2 as pb

from tests.e2e import http2
from tests.e2e.calls import SECONDS, Plane
from tests.e2e.http2 import Wire, frame
from tests.forgeries import forgeries, header_of, with_header

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Bursts = Iterator[tuple[int, int]]  # how many were sent, and how many of them were accepted

PAUSE = 0.001  # seconds between two bursts
BATCH = 200  # tokens in a call
BATCH_BYTES = 900_000  # below the megabyte that a request may have
AUDIENCES = ["orders"]


def forged(target: str, token: str) -> Bursts:
    """Every forgery of the library, again and again, in batches."""
    with Plane(target) as plane:
        jwks = plane.get_jwks(pb.GetJwksRequest(), timeout=SECONDS).jwks_json
        public = next((key for key in json.loads(jwks)["keys"]), None)
        texts = [text for _, text in forgeries(token, public) if text.isascii()]
        yield from _batches(plane, itertools.cycle(texts))


def unknown_kids(target: str, token: str) -> Bursts:
    """Tokens under keys that do not exist, each another one."""
    header = header_of(token)
    made = (with_header(token, header | {"kid": secrets.token_urlsafe(16)}) for _ in itertools.count())
    with Plane(target) as plane:
        yield from _batches(plane, made)


def _batches(plane: Plane, texts: Iterator[str]) -> Bursts:
    waiting: list[str] = []
    size = 0
    for text in texts:
        if waiting and (len(waiting) == BATCH or size + len(text) > BATCH_BYTES):
            yield _batch(plane, waiting)
            waiting, size = [], 0
        waiting.append(text)
        size += len(text) + 50
    raise AssertionError("an attack goes on until it is ended")


def _batch(plane: Plane, texts: list[str]) -> tuple[int, int]:
    """None of these was looked at where the call itself is refused."""
    items = [pb.ValidateRequest(token=text, audiences=AUDIENCES) for text in texts]
    try:
        answer = plane.batch_validate(pb.BatchValidateRequest(requests=items), timeout=SECONDS)
    except grpc.RpcError:
        return 0, 0
    assert len(answer.results) == len(texts)
    return len(texts), sum(result.WhichOneof("result") == "response" for result in answer.results)


def giant_metadata(target: str, token: str) -> Bursts:
    """A good token under metadata of 9 KiB to a megabyte."""
    request = pb.ValidateRequest(token=token, audiences=AUDIENCES)
    with Plane(target) as plane:
        for size in itertools.cycle((9_000, 100_000, 1_000_000)):
            metadata = (("x-giant", "a" * size),)
            calls = [plane.validate.future(request, timeout=SECONDS, metadata=metadata) for _ in range(5)]
            yield len(calls), sum(call.exception() is None for call in calls)


def slow_bodies(target: str, token: str) -> Bursts:
    """Calls whose message comes byte by byte, and never whole."""
    body = http2.message(pb.ValidateRequest(token=token, audiences=AUDIENCES).SerializeToString())[:-1]
    while True:
        wires = [Wire(target) for _ in range(50)]
        for wire in wires:
            wire.send(frame(http2.HEADERS, http2.END_HEADERS, 1, http2.request_fields()))
        for byte in body:
            for wire in wires:
                wire.send(frame(http2.DATA, 0, 1, bytes([byte])))
            yield 0, 0
        for wire in wires:
            wire.close()
        yield len(wires), 0


def bombs(target: str, token: str) -> Bursts:
    """Messages of 12 KB that are 12 MB unpacked."""
    whole = pb.ValidateRequest(token="A" * 12_000_000, audiences=AUDIENCES).SerializeToString()
    packed = http2.message(gzip.compress(whole), compressed=1)
    while True:
        with Wire(target) as wire:
            for stream in range(1, 101, 2):
                yield int(wire.call(stream, packed, ("grpc-encoding", "gzip"))), 0


FLOODS: dict[str, Callable[[str, str], Bursts]] = {
    flood.__name__: flood for flood in (forged, unknown_kids, giant_metadata, slow_bodies, bombs)
}


def main(name: str, target: str, token: str, count: int) -> None:
    """Attacks until it is killed, or has sent so many; 0: without end."""
    sent = accepted = 0
    for more, good in FLOODS[name](target, token):
        sent, accepted = sent + more, accepted + good
        print(sent, accepted, flush=True)
        if count and sent >= count:
            return
        time.sleep(PAUSE)


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
