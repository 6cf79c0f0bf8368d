"""`python -m tests.bench.suites`: what each suite costs on this machine, under either engine, and what its tokens weigh; as a table."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from sidecar.gate import JWE, JWS, gate
from sidecar.jose import encrypt, keys, sign
from sidecar.jose.suites import AGREEMENT_CURVES, CONTENT, KEY_MANAGEMENT, SIGNATURES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CLAIMS = (
    b'{"iss":"https://tokens.example.com","sub":"user-42","aud":["orders"],"client_id":"unix:app","scope":"read write",'
    b'"jti":"Q2hhbmdlIG1lIG5vdCE","iat":1700000000,"exp":1700000300,"role":"admin","tenant":"acme"}'
)
ROUNDS, SECONDS = 8, 0.05


def main() -> int:
    """Print the table."""
    print(
        f"Microseconds of one core, the least of {ROUNDS} rounds; {len(CLAIMS)} bytes of claims. Size in characters.\n"
    )
    print("| suite | engine | make | open | size |\n| --- | --- | ---: | ---: | ---: |")
    for name, engine, make, read, size in rows():
        print(f"| {name} | {engine} | {make:.0f} | {read:.0f} | {size} |", flush=True)
    return 0


def rows() -> Iterator[tuple[str, str, float, float, int]]:
    """Every suite that tokens are made under, by each engine that serves it: name, engine, two costs, size."""
    for name, suite in SIGNATURES.items():
        if suite.makes:
            for engine, key in _keys(name, ""):
                token = sign.sign(CLAIMS, key, typ="at+jwt")
                gated = gate(token, segments=JWS)
                yield (
                    name,
                    engine,
                    _cost(lambda key=key: sign.sign(CLAIMS, key, typ="at+jwt")),
                    _cost(lambda key=key, gated=gated: sign.verify(gated, key)),
                    len(token),
                )
    for name, management in KEY_MANAGEMENT.items():
        for curve in AGREEMENT_CURVES if management.agrees else ("",):
            if management.makes:
                yield from _encrypted(name, curve)


def _encrypted(name: str, curve: str) -> Iterator[tuple[str, str, float, float, int]]:
    for content in CONTENT:
        for engine, key in _keys(name, curve):
            if engine == keys.PREPARED and content != "A256GCM":
                continue
            token = encrypt.encrypt(CLAIMS, key, content=content, typ="at+jwt")
            gated = gate(token, segments=JWE)
            yield (
                f"{name}{f' ({curve})' if curve else ''}, {content}",
                engine,
                _cost(lambda key=key, content=content: encrypt.encrypt(CLAIMS, key, content=content, typ="at+jwt")),
                _cost(lambda key=key, gated=gated, content=content: encrypt.decrypt(gated, key, content=content)),
                len(token),
            )


def _keys(name: str, curve: str) -> Iterator[tuple[str, keys.Material]]:
    """A fresh key, under each engine that serves it."""
    data = keys.generate(name, curve=curve).private_bytes()
    former = keys.choose_engine(keys.PREPARED)
    try:
        for engine in keys.ENGINES:
            keys.choose_engine(engine)
            key = keys.load(data, name)
            if engine != keys.PREPARED or key.prepared:
                yield engine, key
    finally:
        keys.choose_engine(former)


def _cost(call: Callable[[], object]) -> float:
    """Microseconds of processor time for one call: the least of the rounds, since whatever else runs here only adds."""
    times = []
    for _ in range(ROUNDS):
        count, spent, start = 0, 0.0, time.process_time()
        while spent < SECONDS:
            for _ in range(20):
                call()
            count, spent = count + 20, time.process_time() - start
        times.append(spent / count * 1e6)
    return min(times)


if __name__ == "__main__":
    sys.exit(main())
