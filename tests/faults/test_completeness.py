"""Every answer has its record, and every record without an answer a kill: mixed calls on a sidecar that is killed under them, again and again.

A few thousand calls; 100,000 with TOKENSIDECAR_TEST_ALL=true. tests/README.md has the figures of such a run.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Self

import grpc
import pytest
from tokensidecar.v1 import (
    admin_service_pb2 as admin_pb,
    admin_service_pb2_grpc as admin_rpc,
    token_service_pb2 as pb,
    token_service_pb2_grpc as rpc,
)

from tests.faults.test_audit_file import file_of, records, tool
from tests.faults.waiting import run, wait_for

if TYPE_CHECKING:
    from tests.running import RunningSidecar

ALL = os.environ.get("TOKENSIDECAR_TEST_ALL") == "true"
CALLS, KILLS = (100_000, 40) if ALL else (2_000, 4)
THREADS = 8

pytestmark = pytest.mark.timeout(3600 if ALL else 300)


KINDS = {
    "issue": 40,
    "batch": 8,
    "validate": 25,
    "batch_validate": 5,
    "bad": 9,
    "rotate": 1,
    "revoke": 3,
    "revoke_subject": 1,
    "session": 3,
    "refresh": 3,
    "once": 2,
}
INTENDED = ("refresh", "rotate", "revoke", "revoke_subject")
FURTHER = """
[profiles.once]
issuer = "urn:test"
audiences = ["orders"]
one_time = true

[profiles.session]
issuer = "urn:test"
audiences = ["orders"]
refresh_ttl = "1h"
"""
"""Tokens that can be used once."""


@dataclass
class Call:
    """One call of a client. `answer`: OK, a reason of the contract, or empty: the connection broke. Times by the wall clock."""

    request_id: str
    verb: str
    items: int
    started: float
    ended: float = 0.0
    answer: str = ""
    once: bool = False  # a one-time token was to be consumed


class Clients:
    """Clients, each with a connection of its own, that call until so many calls were made."""

    def __init__(self, running: RunningSidecar) -> None:
        self._running = running
        self._lock = threading.Lock()
        self.calls: list[Call] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(THREADS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _work(self, number: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 100)]
        options += [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.min_reconnect_backoff_ms", 50)]
        chance, token, count = random.Random(number), "", 0
        held = {"session": "", "once": ""}  # what is to be refreshed; a one-time token that is to be consumed
        with (
            grpc.insecure_channel(self._running.app_socket, options) as app,
            grpc.insecure_channel(self._running.admin_socket, options) as admin,
        ):
            stub, rotator = rpc.TokenServiceStub(app), rpc.TokenServiceStub(admin)
            revoker = admin_rpc.AdminServiceStub(admin)
            issue = pb.IssueRequest(subject="u", audiences=["orders"])
            while not self._stop.is_set():
                count += 1
                kind, items = chance.choices(tuple(KINDS), tuple(KINDS.values()))[0], 1
                if kind == "batch":
                    items, verb = chance.randint(1, 5), "issue"
                    method, request = stub.BatchIssue, pb.BatchIssueRequest(requests=[issue] * items)
                elif kind == "validate" and token:
                    verb, method, request = (
                        "validate",
                        stub.Validate,
                        pb.ValidateRequest(token=token, audiences=["orders"]),
                    )
                elif kind == "bad":
                    verb, method, request = chance.choice(
                        [
                            ("validate", stub.Validate, pb.ValidateRequest(token="a.b", audiences=["orders"])),
                            ("issue", stub.Issue, pb.IssueRequest(audiences=["orders"])),
                            ("issue", stub.Issue, pb.IssueRequest(ttl={"nanos": 1})),
                            ("issue", rotator.Issue, issue),
                        ]
                    )
                elif kind == "batch_validate" and token:
                    items, verb = chance.randint(1, 5), "validate"
                    check = pb.ValidateRequest(token=token, audiences=["orders"])
                    method, request = stub.BatchValidate, pb.BatchValidateRequest(requests=[check] * items)
                elif kind == "rotate":
                    verb, method, request = "rotate", rotator.Rotate, pb.RotateRequest()
                elif kind == "revoke" and token:
                    verb, method, request = "revoke", stub.Revoke, pb.RevokeRequest(token=token)
                    token = ""
                elif kind == "revoke_subject":
                    subject = admin_pb.RevokeSubjectRequest(subject=f"nobody-{count}", reason="a test")
                    verb, method, request = "revoke_subject", revoker.RevokeSubject, subject
                elif kind == "refresh" and held["session"]:
                    verb, method, request = "refresh", stub.Refresh, pb.RefreshRequest(refresh_token=held["session"])
                elif kind == "once" and held["once"]:
                    # Now and then again: to be refused is a decision too.
                    asked = pb.ValidateRequest(token=held["once"], audiences=["orders"])
                    verb, method, request = "validate", stub.Validate, asked
                    held["once"] = held["once"] if chance.random() < 0.3 else ""
                elif kind in held:
                    verb, method, request = (
                        "issue",
                        stub.Issue,
                        pb.IssueRequest(
                            profile=kind, subject="u", audiences=["orders"], with_refresh_token=kind == "session"
                        ),
                    )
                else:
                    verb, method, request = "issue", stub.Issue, issue
                call = Call(f"c{number}-{count}", verb, items, time.time())
                call.once = kind == "once" and verb == "validate"
                try:
                    answer = method(request, timeout=20, metadata=(("x-request-id", call.request_id),))
                    call.answer = "OK"
                    token = answer.token if kind == "issue" else token
                    if verb == "issue" and kind == "once":
                        held["once"] = answer.token
                    elif verb in ("issue", "refresh") and kind in ("session", "refresh"):
                        spent = answer.tokens if verb == "refresh" else answer
                        held["session"] = spent.refresh_token or held["session"]
                except grpc.RpcError as error:
                    call.answer = str(dict(error.trailing_metadata() or ()).get("tokensidecar-reason", ""))
                call.ended = time.time()
                with self._lock:
                    self.calls.append(call)
                if not call.answer:
                    time.sleep(0.02)


def test_every_answer_has_its_record_and_every_other_record_a_kill(sidecar_with_file: RunningSidecar) -> None:
    running, kills = sidecar_with_file, list[float]()
    config = running.directory / "config.toml"
    config.write_text(FURTHER + config.read_text())
    run(running)
    with Clients(running) as clients:

        def answered() -> int:
            return sum(bool(call.answer) for call in clients.calls)

        for number in range(KILLS):
            wait_for(lambda number=number: answered() >= CALLS * (number + 1) // (KILLS + 1), 1800)
            kills.append(time.time())
            running.kill()
            kills.append(time.time())
            run(running)
        wait_for(lambda: answered() >= CALLS, 1800)
    running.stop()
    check_completeness(clients.calls, records(running), list(zip(kills[::2], kills[1::2], strict=True)))
    done = tool(running, "verify", str(file_of(running)))
    assert done.returncode == 0, done.stderr


def check_completeness(calls: list[Call], found: list[dict[str, object]], kills: list[tuple[float, float]]) -> None:
    found = [
        record for record in found if record["verb"] not in ("checkpoint", "destroy") and record["caller"] != "sidecar"
    ]
    outcomes = Counter((record["request_id"], record["outcome"]) for record in found if record["phase"] == "outcome")
    total = Counter(record["request_id"] for record in found if record["phase"] == "outcome")
    intents = Counter(record["request_id"] for record in found if record["phase"] == "intent")
    by_id = {call.request_id: call for call in calls}
    for call in calls:
        if call.answer == "OK":
            assert outcomes[call.request_id, "OK"] == total[call.request_id] == call.items, call
            # Before a token was spent, that it would be.
            assert intents[call.request_id] == (call.verb in INTENDED or call.once), call
        elif call.answer:
            assert outcomes[call.request_id, call.answer] == total[call.request_id] == 1, call
    unanswered = 0
    for record in found:
        call = by_id[str(record["request_id"])]
        assert record["verb"] == call.verb
        if not call.answer:
            unanswered += 1
            at = datetime.fromisoformat(str(record["time"])).timestamp()
            assert call.started - 0.01 <= at <= call.ended + 0.01
            assert any(begun <= call.ended and call.started <= ended for begun, ended in kills), call
    # Of what was answered: while a killed sidecar starts again, clients go on asking nobody.
    answered = sum(bool(call.answer) for call in calls)
    assert answered >= CALLS
    assert (
        min(sum(call.answer == "OK" for call in calls if call.verb == "refresh"), sum(call.once for call in calls)) > 5
    )
    assert sum(call.answer == "OK" for call in calls) > answered // 2
    assert unanswered <= len(kills) * THREADS * 6  # no more than was in flight at the kills
    print(
        f"{answered} answered, {sum(call.answer == 'OK' for call in calls)} of them OK; {len(found)} records; {len(kills)} kills; "
        f"{unanswered} records of calls that a kill left unanswered; {len(calls) - answered} calls never answered"
    )
