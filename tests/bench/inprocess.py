"""Without gRPC: what each step of a call costs, and what the same token costs with jwcrypto and joserfc as most people call them."""

from __future__ import annotations

import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop
from jwcrypto import jwe, jwk, jws
from tokensidecar.v1 import token_service_pb2 as pb

from sidecar import claims as claims_, config, logs
from sidecar.app import App
from sidecar.caller import Caller, Plane
from sidecar.gate import JWE, JWS, gate
from sidecar.issue import Grant
from sidecar.jose import encrypt, sign
from sidecar.keyring import KeyUse
from sidecar.policy import Verb
from sidecar.rpc import messages
from tests.bench.calls import CLAIMS, CONFIG
from tests.bench.load import SERVER_CORE
from tests.running import free_port

KINDS = (("default", "nested"), ("plain", "encrypted"))
TIMES, ROUNDS = 20, 400  # rounds so short that some of them are not interrupted
CALLER = Caller("tcp:app", Plane.APP)


def measure() -> dict[str, Any]:
    """Microseconds each, the least of the rounds: whatever else runs here only adds."""
    os.sched_setaffinity(0, {int(SERVER_CORE)})
    nowhere = os.open(os.devnull, os.O_WRONLY)
    shown, told = os.dup(1), os.dup(2)
    os.dup2(nowhere, 1)  # where audit records go
    os.dup2(nowhere, 2)  # and log lines
    try:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "config.toml").write_text(CONFIG)
            steps = uvloop.run(_steps(Path(folder)))
        return {"steps_us": steps, "naive_us": _naive()}
    finally:
        os.dup2(shown, 1)
        os.dup2(told, 2)
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


async def _steps(folder: Path) -> dict[str, dict[str, float]]:
    env = {
        "TOKENSIDECAR_RUNTIME_DIR": f"{folder}/run",
        "TOKENSIDECAR_STATE_DIR": f"{folder}/state",
        "TOKENSIDECAR_LISTEN_APP": f"127.0.0.1:{free_port()}",
        "TOKENSIDECAR_LISTEN_ADMIN": f"127.0.0.1:{free_port()}",
        "TOKENSIDECAR_LISTEN_HTTP": "off",
    }
    logs.configure("debug", "json")  # so that a line costs what a written line costs
    app = App(config.load(folder / "config.toml", env))
    await app.start()
    try:
        return {label: await _measured(app, profile) for profile, label in KINDS}
    finally:
        await app.stop()


async def _measured(app: App, profile: str) -> dict[str, float]:
    verbs, keeper = app.verbs, app.keeper
    grant = Grant(profile, "user-42", ("orders",), None, "", (), json.dumps(CLAIMS).encode())
    ask = pb.IssueRequest(profile=profile, subject="user-42", audiences=["orders"], claims_json=json.dumps(CLAIMS))
    issued = verbs.issue(CALLER, grant, "r", "a" * 22)
    check = pb.ValidateRequest(token=issued.token, audiences=["orders"], profiles=[profile])
    demand = messages.demand(check)
    accepted = await verbs.validate(CALLER, demand, "r")
    payload = accepted.claims.payload
    now = keeper.now()
    made = keeper.issuing(profile)
    assert made.encryption is not None
    wrapped, settings = made.encryption.material, made.inner.facts.settings
    outer = gate(issued.token, segments=JWE)
    opened = encrypt.decrypt(outer, wrapped, content="A256GCM")
    inner = gate(opened.decode(), segments=JWS) if made.signature else None
    cty, typ = ("JWT", "") if inner else ("", settings.typ)
    log = logs.get_logger()
    profile_ = made.profile

    def gated() -> None:
        gate(issued.token, segments=JWE)
        if inner:
            gate(inner.text, segments=JWS)

    def judged() -> None:
        claims = claims_.parse(payload)
        claims_.check(claims, issuer=profile_.issuer, settings=settings, audiences=("orders",), now=now)

    def found() -> None:
        keeper.find((profile,), outer.kid, KeyUse.ENCRYPTION)
        if inner:
            keeper.find((profile,), inner.kid, KeyUse.SIGNATURE)

    def counted() -> None:
        app.metrics.call("bench", "OK", "", time.perf_counter())
        app.metrics.count_token(profile, Verb.VALIDATE, "OK")

    def recorded() -> None:
        with app._audit.decision(CALLER, Verb.ISSUE, profile, "r") as decision:
            decision.facts.update(verbs.issue.facts(issued))

    steps: dict[str, Callable[[], object]] = {
        "unpack Validate's request": lambda: messages.demand(pb.ValidateRequest.FromString(check.SerializeToString())),
        "policy": lambda: app._policy.check(CALLER, Verb.VALIDATE, profile),
        "gate, every layer": gated,
        "keys by kid, freshness": found,
        "decrypt (A256KW, A256GCM)": lambda: encrypt.decrypt(outer, wrapped, content="A256GCM"),
        "claims: parse and check": judged,
        "pack Validate's answer": lambda: messages.accepted(
            accepted, pb.ValidateResponse(), with_claims=False
        ).SerializeToString(),
        "metrics, of a call and a token": counted,
        "log line (at debug only)": lambda: log.debug(
            "call.done", method="bench", code="OK", caller=CALLER.name, request_id="r", ms=0.1
        ),
        "unpack Issue's request": lambda: messages.grant(pb.IssueRequest.FromString(ask.SerializeToString())),
        "claims: build": lambda: claims_.build(
            profile=profile_, settings=settings, subject="user-42", audiences=("orders",), ttl=None, client_id="tcp:app",
            scopes=(), further=grant.further, token_id="a" * 22, now=now,
        ),
        "encrypt (A256KW, A256GCM)": lambda: encrypt.encrypt(opened, wrapped, content="A256GCM", cty=cty, typ=typ),
        "audit record": recorded,
        "Issue, whole verb": lambda: verbs.issue(CALLER, grant, "r", "a" * 22),
    }  # fmt: skip
    if inner and made.signature:
        signer = made.signature.material
        steps["verify (ES256)"] = lambda: sign.verify(inner, signer)
        steps["sign (ES256)"] = lambda: sign.sign(payload, signer, typ=settings.typ)
    return {name: _each(work) for name, work in steps.items()} | {
        "Validate, whole verb": await _each_async(lambda: verbs.validate(CALLER, demand, "r"))
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
    return round(min(rounds), 1)


async def _each_async(work: Callable[[], Any]) -> float:
    rounds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        for _ in range(TIMES):
            await work()
        rounds.append((time.perf_counter() - begun) / TIMES * 1e6)
    return round(min(rounds), 1)
