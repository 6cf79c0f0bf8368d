"""Issue and Validate, unary and in batches, each beside an empty handler of the same sizes on the same stack, in one run.

Rounds alternate between the empty handler and the real one, and medians are compared: the ratio says what our code costs.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from tokensidecar.v1 import token_service_pb2 as pb, token_service_pb2_grpc as rpc

from tests.bench.load import CONNECTIONS, SERVER_CORE, STREAMS, answered, closed, rss_mb
from tests.running import ROOT, SERVE, RunningSidecar, free_port

ROUNDS = 5
CALLS, EMPTY_CALLS, BATCH_CALLS, BATCH = 6_000, 6_000, 100, 100
CLAIMS = {"email": "ada@example.com", "roles": ["admin", "billing"], "tenant": "acme", "limit": 9007199254740993}
CONFIG = """
[profiles.default]
issuer = "https://tokens.example.com"
audiences = ["orders"]
[profiles.plain]
issuer = "https://tokens.example.com"
audiences = ["orders"]
format = "encrypted"
"""


@dataclass(frozen=True)
class Case:
    """One method with one request. `tokens`: per call."""

    name: str
    method: str
    request: bytes
    response_bytes: int
    tokens: int


def measure() -> dict[str, Any]:
    """Every case, medians over the rounds (`ratio`: of the rounds' own). Latencies in milliseconds at 64 calls in flight; ratios in tokens per
    empty call.
    """
    figures = []
    with RunningSidecar(CONFIG, command=["taskset", "-c", SERVER_CORE, *SERVE]) as sidecar:
        with grpc.insecure_channel(sidecar.app_tcp) as channel:
            cases = list(_cases(rpc.TokenServiceStub(channel)))
        with empty_server({case.name: case.response_bytes for case in cases}) as empty:
            for case in cases:
                figures.append(_compare(case, sidecar, empty))
                print(figures[-1], file=sys.stderr)
        memory = rss_mb(sidecar.process.pid)
    return {
        "load": f"h2load, {CONNECTIONS} connections x {STREAMS} streams, TCP loopback, {ROUNDS} rounds of {CALLS} calls",
        "memory_after_mb": round(memory, 1),
        "figures": figures,
    }


def _compare(case: Case, sidecar: RunningSidecar, empty: str) -> dict[str, Any]:
    calls = BATCH_CALLS if case.tokens > 1 else CALLS
    real, idle = [], []
    for _ in range(ROUNDS):
        idle.append(closed(empty, f"/bench.Empty/{case.name.replace(' ', '_')}", case.request, EMPTY_CALLS))
        before = answered(sidecar, case.method)
        real.append(closed(sidecar.app_tcp, f"/tokensidecar.v1.TokenService/{case.method}", case.request, calls))
        if answered(sidecar, case.method) - before < calls:
            raise RuntimeError(f"{case.name}: not every call was answered OK")
    rates, bases = [run.rate * case.tokens for run in real], [run.rate for run in idle]
    rate, base = statistics.median(rates), statistics.median(bases)
    return {
        "name": case.name,
        "tokens_per_second": round(rate),
        "empty_calls_per_second": round(base),
        "ratio": round(statistics.median(a / b for a, b in zip(rates, bases, strict=True)), 3),
        "p50_ms": statistics.median(run.p50 for run in real),
        "p99_ms": statistics.median(run.p99 for run in real),
        "request_bytes": len(case.request),
        "response_bytes": case.response_bytes,
    }


def _cases(stub: rpc.TokenServiceStub) -> Iterator[Case]:
    for profile, label in (("default", "nested"), ("plain", "encrypted")):
        ask = pb.IssueRequest(profile=profile, subject="user-42", audiences=["orders"], claims_json=json.dumps(CLAIMS))
        ask.ttl.seconds = 3600
        issued = stub.Issue(ask, timeout=5)
        check = pb.ValidateRequest(token=issued.token, audiences=["orders"], profiles=[profile])
        many = pb.BatchIssueRequest(requests=[ask] * BATCH)
        checks = pb.BatchValidateRequest(requests=[check] * BATCH)
        yield Case(f"Issue {label}", "Issue", ask.SerializeToString(), issued.ByteSize(), 1)
        validated = stub.Validate(check, timeout=5).ByteSize()
        yield Case(f"Validate {label}", "Validate", check.SerializeToString(), validated, 1)
        size = stub.BatchIssue(many, timeout=5).ByteSize()
        yield Case(f"BatchIssue {label}", "BatchIssue", many.SerializeToString(), size, BATCH)
        size = stub.BatchValidate(checks, timeout=5).ByteSize()
        yield Case(f"BatchValidate {label}", "BatchValidate", checks.SerializeToString(), size, BATCH)


@contextlib.contextmanager
def empty_server(sizes: dict[str, int]) -> Iterator[str]:
    """The address of a server whose methods give so many bytes each, pinned like the real one."""
    port = free_port()
    arguments = [f"{name.replace(' ', '_')}={size}" for name, size in sizes.items()]
    command = ["taskset", "-c", SERVER_CORE, sys.executable, "-m", "tests.bench.empty", str(port), *arguments]
    server = subprocess.Popen(command, cwd=ROOT)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            grpc.channel_ready_future(channel).result(timeout=20)
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)
