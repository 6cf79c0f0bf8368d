"""How long Validate takes at a steady rate: over socket and TCP, unconfined and under the CPU limits that pods get; and beside batches."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import grpc
from tokensidecar.v1 import token_service_pb2 as pb, token_service_pb2_grpc as rpc

from tests.bench.calls import BATCH, CLAIMS
from tests.bench.load import closed, limited, opened
from tests.running import RunningSidecar

RATES = (100, 500, 1000)
LIMITS = (None, 500, 250, 100)  # thousandths of a core
SECONDS = 5
METHOD = "/tokensidecar.v1.TokenService/Validate"
BATCHES = "/tokensidecar.v1.TokenService/BatchValidate"


def measure() -> dict[str, Any]:
    """Milliseconds to the answer. `kept_up` false: the limit allows less than the rate, and the figures are those of a queue."""
    rows = []
    with RunningSidecar() as sidecar:
        request = _request(sidecar)
        check, checks = (
            request.SerializeToString(),
            pb.BatchValidateRequest(requests=[request] * BATCH).SerializeToString(),
        )
        for milli in LIMITS:
            with limited(sidecar.process.pid, milli):
                for way, target in (("socket", sidecar.app_socket), ("tcp", sidecar.app_tcp)):
                    for rate in RATES:
                        run = opened(target, METHOD, check, rate, SECONDS)
                        rows.append(
                            {
                                "limit_millicores": milli,
                                "way": way,
                                "rate": rate,
                                "kept_up": run.rate > 0.95 * rate,
                                "p50_ms": run.p50,
                                "p99_ms": run.p99,
                                "p999_ms": run.p999,
                            }
                        )
                        print(rows[-1], file=sys.stderr)
                        time.sleep(0.5)  # whatever waits in a queue is cut off with its connection
        batches = threading.Thread(target=closed, args=(sidecar.app_tcp, BATCHES, checks, 400))
        batches.start()
        neighbour = opened(sidecar.app_socket, METHOD, check, 100, 5)
        busy = batches.is_alive()
        batches.join()
    return {
        "load": f"h2load at a fixed rate, {SECONDS} s each",
        "rows": rows,
        "beside_batches_of_100": {"p50_ms": neighbour.p50, "p99_ms": neighbour.p99, "batches_all_the_time": busy},
    }


def _request(sidecar: RunningSidecar) -> pb.ValidateRequest:
    with grpc.insecure_channel(sidecar.app_tcp) as channel:
        ask = pb.IssueRequest(subject="user-42", audiences=["orders"], claims_json=json.dumps(CLAIMS))
        ask.ttl.seconds = 3600
        token = rpc.TokenServiceStub(channel).Issue(ask, timeout=5).token
    return pb.ValidateRequest(token=token, audiences=["orders"])
