"""`python -m tests.bench.envoy`: what the sidecar adds to a request through Envoy, in figures.

The same Envoy answers by itself (`direct_response`), so that no app is measured: without any question, with a question to an empty
ext_authz server on the same stack as the sidecar's, and with a question to the sidecar, by each mode. One request at a time for latency,
64 at once for throughput, in alternating rounds, by h2load over HTTP/2. Memory is the sidecar's, before and after. Writes envoy.json and the
table in sidecar/envoy/README.md; `--table` writes the table alone, of the envoy.json that is there. About two minutes.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import uvloop
from google.rpc import status_pb2

from sidecar.envoy import ext_authz_pb2 as authz
from sidecar.envoy.authorization import AUTHORIZATION_SERVICE
from sidecar.rpc.server import OPTIONS
from tests.bench.__main__ import _cpu
from tests.bench.load import rss_mb
from tests.e2e.calls import Plane
from tests.gateway.conftest import config
from tests.gateway.envoys import RunningEnvoy, Tree
from tests.running import RunningSidecar, free_port

HERE = Path(__file__).parent
README = HERE.parent.parent / "sidecar/envoy/README.md"
BEGIN, END = "<!-- figures: made by python -m tests.bench.envoy -->\n", "\n<!-- end of figures -->"
ROUNDS = 5
LATENCY_REQUESTS, LOAD_REQUESTS = 500, 2_000
MODES = ("strip", "claims", "phantom", "pass")
NONE, EMPTY = "no ext_authz", "empty ext_authz"


async def serve_nothing(path: str) -> None:
    """An ext_authz server that lets everything through, until SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    answer = authz.CheckResponse(status=status_pb2.Status(), ok_response=authz.OkHttpResponse()).SerializeToString()

    async def check(_request: bytes, _context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        return answer

    server = grpc.aio.server(options=OPTIONS)
    handler = grpc.unary_unary_rpc_method_handler(check)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(AUTHORIZATION_SERVICE, {"Check": handler}),))
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    print("ready", flush=True)
    await stopping.wait()
    await server.stop(1)


@contextmanager
def nothing(path: str) -> Iterator[None]:
    """That server, as a process."""
    process = subprocess.Popen([sys.executable, "-m", "tests.bench.envoy", "--empty", path], stdout=subprocess.PIPE)
    try:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.terminate()
        process.communicate(timeout=10)


def answering(*, asked: bool) -> Callable[[Tree], None]:
    """An Envoy that answers 200 by itself, and asks first or not."""

    def changed(tree: Tree) -> None:
        manager = RunningEnvoy.manager(tree)
        manager["access_log"] = []
        (host,) = manager["route_config"]["virtual_hosts"]
        host["routes"] = [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]
        if asked:  # waiting is measured, not cut off
            manager["http_filters"][0]["typed_config"]["grpc_service"]["timeout"] = "10s"
        else:
            del manager["http_filters"][0]
        for cluster in tree["static_resources"]["clusters"]:
            cluster.pop("health_checks", None)

    return changed


def requests(port: int, path: str, token: str, *, count: int, at_once: int) -> tuple[list[float], float]:
    """The milliseconds of each request, and requests per second. RuntimeError unless each one is answered with 200."""
    with tempfile.NamedTemporaryFile() as log:
        done = subprocess.run(
            ["h2load", "-n", str(count), "-c", str(min(at_once, 8)), "-m", str(max(at_once // 8, 1)), f"--log-file={log.name}",
             "-H", f"authorization: Bearer {token}", f"http://127.0.0.1:{port}{path}"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        lines = [line.split() for line in Path(log.name).read_text().splitlines()]
    rate = re.search(r"finished in [^,]*, ([0-9.]+) req/s", done.stdout)
    if rate is None or len(lines) != count or {line[1] for line in lines} != {"200"}:
        raise RuntimeError(done.stdout)
    return [int(line[2]) / 1000 for line in lines], float(rate[1])


def main() -> int:
    """Measure, print, write the file."""
    times: dict[str, list[float]] = defaultdict(list)
    rates: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ts-", dir="/tmp"))
        asked, empty = f"unix:{folder}/envoy.sock", f"{folder}/empty.sock"
        sidecar = stack.enter_context(RunningSidecar(config(asked, free_port())))
        stack.enter_context(nothing(empty))
        started = rss_mb(sidecar.process.pid)

        def envoy(socket: str, *, questions: bool) -> RunningEnvoy:
            return stack.enter_context(RunningEnvoy(socket, 1, 1, answering(asked=questions)))

        by_sidecar = envoy(asked, questions=True)
        setups = {
            NONE: (envoy(asked, questions=False), "/strip/a"),
            EMPTY: (envoy(f"unix:{empty}", questions=True), "/strip/a"),
        }
        setups |= {mode: (by_sidecar, f"/{mode}/a") for mode in MODES}
        plane = stack.enter_context(Plane(sidecar.app_socket))
        for _ in range(ROUNDS):
            token = plane.token(claims_json='{"tenant": "acme"}')
            for name, (running, path) in setups.items():
                found, _ = requests(running.port, path, token, count=LATENCY_REQUESTS, at_once=1)
                times[name] += found
                _, rate = requests(running.port, path, token, count=LOAD_REQUESTS, at_once=64)
                rates[name].append(rate)
        memory = {
            "sidecar_mb_ready": started,
            "sidecar_mb_after": rss_mb(sidecar.process.pid),
            "envoy_mb": rss_mb(by_sidecar.pid),
        }
    results = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": "python -m tests.bench.envoy",
        "python": platform.python_version(),
        "grpcio": grpc.__version__,
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "rows": {name: row(found, rates[name]) for name, found in times.items()},
        **memory,
    }
    (HERE / "envoy.json").write_text(json.dumps(results, indent=1) + "\n")
    write(results)
    print(table(results))
    return 0


def table(results: dict[str, Any]) -> str:
    """The figures as the README has them."""
    base = results["rows"][NONE]
    lines = [
        "| request | p50 ms | p99 ms | added p50 | added p99 | requests/s, 64 at once |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in results["rows"].items():
        added = (f"{one[p] - base[p]:.2f}" if name != NONE else "" for p in ("p50_ms", "p99_ms"))
        shown = f"`{name}`" if name in MODES else name
        lines.append(
            f"| {shown} | {one['p50_ms']:.2f} | {one['p99_ms']:.2f} | {' | '.join(added)} | {one['per_second']:,.0f} |"
        )
    busy = f"load average {results['load_average']:.0f} at the end"
    return (
        "\n".join(lines)
        + f"\n\n{results['date']}, {results['cpu']}, {results['cores']} cores, {busy}, Python {results['python']}, "
        + f"grpcio {results['grpcio']}; `{results['command']}`. Resident memory: the sidecar {results['sidecar_mb_ready']:.0f} MB when ready and "
        + f"{results['sidecar_mb_after']:.0f} MB after it, Envoy {results['envoy_mb']:.0f} MB."
    )


def write(results: dict[str, Any]) -> None:
    """The table, into its place in the README; ValueError: it has none."""
    text = README.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{README} has no place for the figures")
    README.write_text(f"{before}{begin}{table(results)}{end}{after}")


def row(times: list[float], rates: list[float]) -> dict[str, float]:
    """One setup's figures."""
    hundredths = statistics.quantiles(times, n=100)
    return {"p50_ms": hundredths[49], "p99_ms": hundredths[98], "per_second": statistics.median(rates)}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--empty"]:
        uvloop.run(serve_nothing(sys.argv[2]))
    elif sys.argv[1:2] == ["--table"]:
        write(json.loads((HERE / "envoy.json").read_text()))
    else:
        sys.exit(main())
