"""Without gRPC: what each step of a call costs, and what the same token costs with jwcrypto and joserfc as most people call them."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

from jwcrypto import jwe, jwk, jws
from tokensidecar.v1 import token_service_pb2 as pb

from sidecar import claims as claims_, config
from sidecar.app import App
from sidecar.caller import Caller, Plane
from sidecar.gate import gate
from sidecar.issue import Grant
from sidecar.rpc import messages
from sidecar.validate import Demand
from tests.bench.calls import CLAIMS
from tests.running import free_port

TIMES, ROUNDS = 1_000, 5
CALLER = Caller("tcp:app", Plane.APP)


def measure() -> dict[str, Any]:
    """Microseconds each, medians of rounds, on the core that this process is pinned to."""
    os.sched_setaffinity(0, {0})
    nowhere = os.open(os.devnull, os.O_WRONLY)
    shown = os.dup(1)
    os.dup2(nowhere, 1)  # where audit records go
    try:
        return {"steps_us": asyncio.run(_steps()), "naive_us": _naive()}
    finally:
        os.dup2(shown, 1)


async def _steps() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        env = {
            "TOKENSIDECAR_RUNTIME_DIR": f"{folder}/run",
            "TOKENSIDECAR_STATE_DIR": f"{folder}/state",
            "TOKENSIDECAR_LISTEN_APP": f"127.0.0.1:{free_port()}",
            "TOKENSIDECAR_LISTEN_ADMIN": f"127.0.0.1:{free_port()}",
            "TOKENSIDECAR_LISTEN_HTTP": "off",
        }
        app = App(config.load(None, env))
        await app.start()
        try:
            return await _measured(app)
        finally:
            await app.stop()


async def _measured(app: App) -> dict[str, float]:
    verbs = app.verbs
    grant = Grant("default", "user-42", ("orders",), None, "", (), json.dumps(CLAIMS).encode())
    issued = verbs.issue(CALLER, grant, "r", "a" * 22)
    demand = Demand(issued.token, ("orders",), ("default",), ())
    accepted = await verbs.validate(CALLER, demand, "r")
    loop_cost = await _each_async(lambda: asyncio.sleep(0))
    return {
        "Issue, whole verb": _each(lambda: verbs.issue(CALLER, grant, "r", "a" * 22)),
        "Validate, whole verb": await _each_async(lambda: verbs.validate(CALLER, demand, "r")),
        "gate, outer": _each(lambda: gate(issued.token, segments=frozenset({5}))),
        "claims, parse": _each(lambda: claims_.parse(accepted.claims.payload)),
        "pack the answer": _each(
            lambda: messages.accepted(accepted, pb.ValidateResponse(), with_claims=False).SerializeToString()
        ),
        "metrics, one call": _each(lambda: app.metrics.call("bench", "OK", "", time.perf_counter())),
        "an empty turn of the loop": loop_cost,
    }


def _naive() -> dict[str, float]:
    signer = jwk.JWK.generate(kty="EC", crv="P-256", kid="s")
    wrapper = jwk.JWK.generate(kty="oct", size=256, kid="e")
    payload = json.dumps(CLAIMS).encode()
    inner = jws.JWS(payload)
    inner.add_signature(signer, None, json.dumps({"alg": "ES256", "kid": "s"}))
    outer = jwe.JWE(
        inner.serialize(compact=True).encode(), json.dumps({"alg": "A256KW", "enc": "A256GCM", "cty": "JWT"})
    )
    outer.add_recipient(wrapper)
    token = outer.serialize(compact=True)

    def with_jwcrypto() -> None:
        opened = jwe.JWE()
        opened.deserialize(token, key=wrapper)
        verified = jws.JWS()
        verified.deserialize(opened.payload.decode(), key=signer)
        json.loads(verified.payload)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from joserfc import jwe as other_jwe, jws as other_jws
        from joserfc.jwk import ECKey, OctKey

        public, secret = ECKey.import_key(json.loads(signer.export())), OctKey.import_key(json.loads(wrapper.export()))

        def with_joserfc() -> None:
            opened = other_jwe.decrypt_compact(token, secret)
            assert opened.plaintext is not None
            json.loads(other_jws.deserialize_compact(opened.plaintext, public).payload)

        return {"open and verify, jwcrypto": _each(with_jwcrypto), "open and verify, joserfc": _each(with_joserfc)}


def _each(work: Callable[[], object]) -> float:
    rounds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        for _ in range(TIMES):
            work()
        rounds.append((time.perf_counter() - begun) / TIMES * 1e6)
    return round(statistics.median(rounds), 1)


async def _each_async(work: Callable[[], Any]) -> float:
    rounds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        for _ in range(TIMES):
            await work()
        rounds.append((time.perf_counter() - begun) / TIMES * 1e6)
    print(rounds, file=sys.stderr)
    return round(statistics.median(rounds), 1)
