"""What Validate and Issue cost as things grow: claims, keys in the ring, profiles."""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
from collections.abc import Iterator
from typing import Any

import grpc
from tokensidecar.v1 import token_service_pb2 as pb, token_service_pb2_grpc as rpc

from tests.bench.load import SERVER_CORE, closed
from tests.running import SERVE, RunningSidecar

CALLS, ROUNDS = 3_000, 3
FIRST_START_SECONDS = 120  # five hundred rings are made, each on the disk before the next
CLAIM_BYTES = (200, 1_000, 2_000, 4_000, 8_000)
RING_KEYS = (1, 10, 50)
PROFILES = (1, 50, 500)
PROFILE = """
[profiles.{name}]
issuer = "https://tokens.example.com"
audiences = ["orders"]
max_token_bytes = 16384
"""


def measure() -> dict[str, Any]:
    """Calls per second on one core."""
    rows = []
    with _sidecar(1) as sidecar:
        rows += [{"grows": "claims", "size": size, **_rates(sidecar, size)} for size in CLAIM_BYTES]
        made = 1
        for keys in RING_KEYS:
            with grpc.insecure_channel(sidecar.admin_tcp) as channel:
                for _ in range(keys - made):
                    rpc.TokenServiceStub(channel).Rotate(pb.RotateRequest(), timeout=5)
            made = keys
            rows.append({"grows": "ring", "size": keys, **_rates(sidecar, 200)})
    for profiles in PROFILES:
        with _sidecar(profiles) as sidecar:
            rows.append({"grows": "profiles", "size": profiles, **_rates(sidecar, 200)})
    return {"rows": rows}


@contextlib.contextmanager
def _sidecar(profiles: int) -> Iterator[RunningSidecar]:
    names = ["default", *(f"p{n}" for n in range(1, profiles))]
    sidecar = RunningSidecar(
        "".join(PROFILE.format(name=n) for n in names), command=["taskset", "-c", SERVER_CORE, *SERVE]
    )
    try:
        sidecar.start()
        sidecar.wait_until_ready(FIRST_START_SECONDS)
        yield sidecar
        sidecar.stop()
    finally:
        sidecar.kill()
        sidecar.remove()


def _rates(sidecar: RunningSidecar, claim_bytes: int) -> dict[str, Any]:
    ask = pb.IssueRequest(subject="user-42", audiences=["orders"], claims_json=json.dumps({"data": "x" * claim_bytes}))
    with grpc.insecure_channel(sidecar.app_tcp) as channel:
        token = rpc.TokenServiceStub(channel).Issue(ask, timeout=5).token
    check = pb.ValidateRequest(token=token, audiences=["orders"])
    row: dict[str, Any] = {"token_bytes": len(token)}
    for method, request in (("Issue", ask), ("Validate", check)):
        runs = [
            closed(sidecar.app_tcp, f"/tokensidecar.v1.TokenService/{method}", request.SerializeToString(), CALLS)
            for _ in range(ROUNDS)
        ]
        row[f"{method.lower()}_per_second"] = round(statistics.median(run.rate for run in runs))
    print(row, file=sys.stderr)
    return row
