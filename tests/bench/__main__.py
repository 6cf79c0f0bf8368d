"""`make bench`: Issue and Validate against an empty handler on the same stack, in one run; start-up, memory and idle CPU.

The server is pinned to one core and the load (h2load) to another. Everything that a default start has is on: policy, audit, metrics, logs.
Rounds alternate between the empty handler and the real one, and the medians are compared.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
from tokensidecar.v1 import token_service_pb2 as pb, token_service_pb2_grpc as rpc

from tests.running import ROOT, SERVE, RunningSidecar, free_port

HERE = Path(__file__).parent
SERVER_CORE, LOAD_CORE = "0", "1"
ROUNDS = 3
CONNECTIONS, STREAMS = 4, 16
CALLS, BATCH_CALLS, BATCH = 8_000, 400, 100
IDLE_SECONDS = 30
CLAIMS = {"email": "ada@example.com", "roles": ["admin", "billing"], "tenant": "acme", "limit": 9007199254740993}
ENCRYPTED = """
[profiles.default]
issuer = "https://tokens.example.com"
audiences = ["orders"]
[profiles.plain]
issuer = "https://tokens.example.com"
audiences = ["orders"]
format = "encrypted"
"""


@dataclass
class Figure:
    """One method, medians over the rounds. Latencies in milliseconds; `ratio` in calls (or tokens) per empty call."""

    name: str
    per_second: float
    empty_per_second: float
    ratio: float
    p50_ms: float
    p99_ms: float
    request_bytes: int
    response_bytes: int


def main() -> int:
    """Measure, print a table, write the files."""
    for tool in ("h2load", "taskset"):
        if not shutil.which(tool):
            print(f"NOT RUN: benchmarks need {tool}", file=sys.stderr)
            return 1
    results: dict[str, object] = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": "make bench",
        "python": platform.python_version(),
        "grpcio": grpc.__version__,
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "load": f"h2load, {CONNECTIONS} connections x {STREAMS} streams, TCP loopback, {ROUNDS} rounds",
    }
    results["process"] = measure_process()
    results["calls"] = [asdict(figure) for figure in measure_calls()]
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    from tests.bench.plot import plot

    plot(results, HERE / "results.png")
    print(json.dumps(results, indent=1))
    return 0


def measure_process() -> dict[str, float]:
    """Start-up to ready (first start, which makes keys, and later ones), memory and idle CPU of the embedded default."""
    sidecar = RunningSidecar()
    try:
        starts = []
        for _ in range(6):
            begun = time.perf_counter()
            sidecar.start()
            sidecar.wait_until_ready()
            starts.append(time.perf_counter() - begun)
            memory = _rss_mb(sidecar.process.pid)
            sidecar.stop()
        sidecar.start()
        sidecar.wait_until_ready()
        time.sleep(2)
        before = _cpu_seconds(sidecar.process.pid)
        time.sleep(IDLE_SECONDS)
        idle = (_cpu_seconds(sidecar.process.pid) - before) / IDLE_SECONDS * 100
        sidecar.stop()
    finally:
        sidecar.kill()
        sidecar.remove()
    return {
        "first_start_s": round(starts[0], 3),
        "start_s": round(statistics.median(starts[1:]), 3),
        "ready_memory_mb": round(memory, 1),
        "idle_cpu_percent": round(idle, 3),
    }


def measure_calls() -> list[Figure]:
    """Every method, each beside the empty handler of its sizes."""
    sidecar = RunningSidecar(ENCRYPTED, {"TOKENSIDECAR_LOG_LEVEL": "info"}, ["taskset", "-c", SERVER_CORE, *SERVE])
    figures = []
    with sidecar, grpc.insecure_channel(sidecar.app_tcp) as channel:
        stub = rpc.TokenServiceStub(channel)
        cases = dict(_cases(stub))
        port = free_port()
        sizes = [f"{name.replace(' ', '_')}={case[2]}" for name, case in cases.items()]
        command = ["taskset", "-c", SERVER_CORE, sys.executable, "-m", "tests.bench.empty", str(port), *sizes]
        empty = subprocess.Popen(command, cwd=ROOT)
        try:
            grpc.channel_ready_future(grpc.insecure_channel(f"127.0.0.1:{port}")).result(timeout=10)
            for name, (method, request, size, tokens) in cases.items():
                calls = BATCH_CALLS if tokens > 1 else CALLS
                real, idle, latencies = [], [], []
                for _ in range(ROUNDS):
                    rate, _ = _load(f"127.0.0.1:{port}", f"/bench.Empty/{name.replace(' ', '_')}", request, calls)
                    idle.append(rate)
                    before = _answered(sidecar, method)
                    rate, times = _load(sidecar.app_tcp, f"/tokensidecar.v1.TokenService/{method}", request, calls)
                    if _answered(sidecar, method) - before < calls:
                        raise RuntimeError(f"{name}: not every call was answered OK")
                    real.append(rate * tokens)
                    latencies.append(times)
                rate, base = statistics.median(real), statistics.median(idle)
                figures.append(
                    Figure(
                        name=name,
                        per_second=round(rate),
                        empty_per_second=round(base),
                        ratio=round(rate / base, 3),
                        p50_ms=round(statistics.median(t[0] for t in latencies), 2),
                        p99_ms=round(statistics.median(t[1] for t in latencies), 2),
                        request_bytes=len(request),
                        response_bytes=size,
                    )
                )
                print(figures[-1], file=sys.stderr)
        finally:
            empty.terminate()
            empty.wait(10)
    return figures


def _cases(stub: rpc.TokenServiceStub) -> list[tuple[str, tuple[str, bytes, int, int]]]:
    """(name, (method, request, response bytes, tokens per call))."""
    cases: list[tuple[str, tuple[str, bytes, int, int]]] = []
    for profile, label in (("default", "nested"), ("plain", "encrypted")):
        ask = pb.IssueRequest(profile=profile, subject="user-42", audiences=["orders"], claims_json=json.dumps(CLAIMS))
        ask.ttl.seconds = 3600
        issued = stub.Issue(ask, timeout=5)
        check = pb.ValidateRequest(token=issued.token, audiences=["orders"], profiles=[profile])
        answer = stub.Validate(check, timeout=5)
        issue_many = pb.BatchIssueRequest(requests=[ask] * BATCH)
        check_many = pb.BatchValidateRequest(requests=[check] * BATCH)
        cases += [
            (f"Issue {label}", ("Issue", ask.SerializeToString(), issued.ByteSize(), 1)),
            (f"Validate {label}", ("Validate", check.SerializeToString(), answer.ByteSize(), 1)),
            (
                f"BatchIssue {label}",
                (
                    "BatchIssue",
                    issue_many.SerializeToString(),
                    stub.BatchIssue(issue_many, timeout=5).ByteSize(),
                    BATCH,
                ),
            ),
            (
                f"BatchValidate {label}",
                (
                    "BatchValidate",
                    check_many.SerializeToString(),
                    stub.BatchValidate(check_many, timeout=5).ByteSize(),
                    BATCH,
                ),
            ),
        ]
    return cases


def _load(target: str, path: str, request: bytes, calls: int) -> tuple[float, tuple[float, float]]:
    """Calls per second, and (p50, p99) of the time to the answer in milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        body, log = Path(folder, "body"), Path(folder, "log")
        body.write_bytes(b"\0" + len(request).to_bytes(4, "big") + request)
        command = [
            "taskset",
            "-c",
            LOAD_CORE,
            "h2load",
            "-n",
            str(calls),
            "-c",
            str(CONNECTIONS),
            "-m",
            str(STREAMS),
            "-d",
            str(body),
        ]
        command += [
            "-H",
            "content-type: application/grpc",
            "-H",
            "te: trailers",
            f"--log-file={log}",
            f"http://{target}{path}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
        rows = [line.split("\t") for line in log.read_text().splitlines()]
    if len(rows) != calls or any(row[1] != "200" for row in rows):
        raise RuntimeError(done.stdout)
    times = sorted(int(row[2]) / 1000 for row in rows)
    begun = min(int(row[0]) for row in rows)
    ended = max(int(row[0]) + int(row[2]) for row in rows)
    return calls / ((ended - begun) / 1e6), (times[len(times) // 2], times[len(times) * 99 // 100])


def _answered(sidecar: RunningSidecar, method: str) -> float:
    label = f'tokensidecar_rpcs_total{{code="OK",method="tokensidecar.v1.TokenService/{method}",reason=""}}'
    _, text = sidecar.get("/metrics")
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(label))


def _rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
