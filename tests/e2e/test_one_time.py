"""One-time tokens through the real RPC: once, on one sidecar and on two; the same request id; batches; a store that is gone."""

from __future__ import annotations

import json
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from tokensidecar.v1 import token_service_pb2 as pb

from tests.e2e.calls import SECONDS, Plane, refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import StartSidecar
    from tests.running import RunningSidecar

CONFIG = """
[profiles.default]
issuer = "urn:test"
audiences = ["orders"]

[profiles.ticket]
issuer = "urn:test"
audiences = ["orders"]
one_time = true
leeway = "30s"

[keys]
max_skew = "1s"
"""


@pytest.fixture
def running(start_sidecar: StartSidecar) -> RunningSidecar:
    return start_sidecar(CONFIG)


@pytest.fixture
def app(running: RunningSidecar) -> Iterator[Plane]:
    with Plane(running.app_socket) as plane:
        yield plane


def ask(token: str, request_id: str = "", audience: str = "orders") -> pb.ValidateRequest:
    return pb.ValidateRequest(token=token, audiences=[audience], profiles=["ticket"], request_id=request_id)


def outcome(app: Plane, request: pb.ValidateRequest) -> str:
    """OK, or the reason."""
    try:
        app.validate(request, timeout=SECONDS)
    except grpc.RpcError as error:
        return str(dict(error.trailing_metadata() or ())["tokensidecar-reason"])
    return "OK"


def test_token_is_good_once(app: Plane) -> None:
    token = app.token(profile="ticket")
    assert [outcome(app, ask(token)) for _ in range(3)] == ["OK", "TOKEN_ALREADY_CONSUMED", "TOKEN_ALREADY_CONSUMED"]
    assert outcome(app, ask(app.token(profile="ticket"))) == "OK"


def test_same_request_gets_the_same_answer_and_another_one_does_not(app: Plane) -> None:
    token = app.token(profile="ticket")
    first = app.validate(ask(token, "one"), timeout=SECONDS)
    assert app.validate(ask(token, "one"), timeout=SECONDS) == first
    assert outcome(app, ask(token, "two")) == outcome(app, ask(token)) == "TOKEN_ALREADY_CONSUMED"


def test_refused_token_is_not_consumed(app: Plane) -> None:
    token = app.token(profile="ticket")
    assert outcome(app, ask(token, audience="billing")) == "TOKEN_AUDIENCE_MISMATCH"
    needs = pb.ValidateRequest(token=token, audiences=["orders"], profiles=["ticket"], required_scopes=["admin"])
    assert outcome(app, needs) == "TOKEN_SCOPE_MISSING"
    assert outcome(app, ask(token)) == "OK"


def test_tokens_of_other_profiles_stay_good(app: Plane) -> None:
    token = app.token()
    for _ in range(3):
        app.accepts(token, profiles=["default", "ticket"])


def test_expiry_has_no_leeway(app: Plane) -> None:
    token = app.token(profile="ticket", ttl=Duration(seconds=1))
    time.sleep(1.2)
    assert outcome(app, ask(token)) == "TOKEN_EXPIRED"


def test_of_calls_at_once_on_two_sidecars_one_is_accepted(
    running: RunningSidecar, app: Plane, start_sidecar: StartSidecar
) -> None:
    second = start_sidecar(CONFIG, {"TOKENSIDECAR_STATE_DIR": str(running.state_dir)})
    with Plane(second.app_socket) as other, ThreadPoolExecutor(12) as pool:
        for _ in range(5):
            token = app.token(profile="ticket")
            results = list(pool.map(lambda i, t=token: outcome((app, other)[i % 2], ask(t, f"r{i}")), range(12)))
            assert sorted(set(results)) == ["OK", "TOKEN_ALREADY_CONSUMED"]
            assert results.count("OK") == 1
        token = app.token(profile="ticket")
        assert set(pool.map(lambda i: outcome((app, other)[i % 2], ask(token, "same")), range(12))) == {"OK"}


def test_token_twice_in_one_batch_is_accepted_once(app: Plane) -> None:
    token = app.token(profile="ticket")
    answer = app.batch_validate(
        pb.BatchValidateRequest(requests=[ask(token), ask(token), ask("junk")]), timeout=SECONDS
    )
    first, second, third = answer.results
    assert first.response.subject == "user-42"
    assert [second.error.reason, third.error.reason] == [9, 2]


def test_batch_whose_answer_is_too_large_consumes_nothing(app: Plane) -> None:
    many = json.dumps({f"c{i}": 1 for i in range(150)}, separators=(",", ":"))  # larger in the answer than in the token
    tokens = [app.token(profile="ticket", claims_json=many) for _ in range(300)]
    requests = [
        pb.ValidateRequest(token=token, audiences=["orders"], profiles=["ticket"], with_claims=True) for token in tokens
    ]
    refusal = refused(app.batch_validate, pb.BatchValidateRequest(requests=requests))
    assert (refusal.reason, refusal.fields.keys()) == ("REQUEST_INVALID", {"requests"})
    assert outcome(app, ask(tokens[0])) == outcome(app, ask(tokens[-1])) == "OK"


def test_consumption_is_on_record(app: Plane, running: RunningSidecar) -> None:
    token = app.token(profile="ticket")
    outcome(app, ask(token))
    outcome(app, ask(token))
    entries = [json.loads(line) for line in (running.directory / "stdout").read_text().splitlines()]
    issued, *validated = [entry for entry in entries if entry["verb"] in ("issue", "validate")]
    assert [entry["outcome"] for entry in validated] == ["OK", "TOKEN_ALREADY_CONSUMED"]
    assert {entry["token_id_hash"] for entry in validated} == {issued["token_id_hash"]}


def test_without_the_store_nobody_is_told_that_the_token_is_good(app: Plane, running: RunningSidecar) -> None:
    token, plain = app.token(profile="ticket"), app.token()
    with closing(sqlite3.connect(running.state_dir / "state.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # nobody else can write now
        refusal = refused(app.validate, ask(token))
        assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "STORE_UNAVAILABLE")
        batch = app.batch_validate(
            pb.BatchValidateRequest(requests=[ask(token), pb.ValidateRequest(token=plain, audiences=["orders"])]),
            timeout=SECONDS,
        )
        assert batch.results[0].error.reason == 15
        assert batch.results[1].response.subject == "user-42"
        other.execute("ROLLBACK")
    assert outcome(app, ask(token)) == "OK"
