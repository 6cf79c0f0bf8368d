"""`python -m tests.bench.effect [effect] [spends] [million]`: ten sidecars on one PostgreSQL server, in figures and a picture.

effect: from the answer of Revoke, or of Rotate, until every other sidecar obeys or knows, by polling and by LISTEN.
spends: one-time tokens, each presented at two sidecars at once.
million: Validate on one core with a million revocations held, beside none; and what holding them costs.
"""

from __future__ import annotations

import json
import os
import platform
import random
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import matplotlib as mpl
from tokensidecar.v1 import token_service_pb2 as pb

from sidecar.kms.file import make
from tests.bench.__main__ import _cpu
from tests.bench.load import SERVER_CORE, closed, rss_mb
from tests.e2e.calls import SECONDS, Plane
from tests.faults.witness import reason_of
from tests.postgres import Postgres
from tests.running import SERVE, RunningSidecar

HERE = Path(__file__).parent
FILE = HERE / "effect.json"
SIDECARS = 10
REVOCATIONS, ROTATIONS = 25, 4
SPENDS, BATCH = 100_000, 100
MILLION = 1_000_000
CONFIG = """
[profiles.default]
issuer = "urn:bench"
audiences = ["orders"]

[profiles.once]
issuer = "urn:bench"
audiences = ["orders"]
one_time = true

[keys]
store = "{store}"
kek = "file:{kek}"
propagation = "6s"
max_skew = "1s"

[keys.postgresql]
password_file = "{password}"
{more}
"""
"""`propagation` is short, or rotations would take minutes; `refresh_interval` is the default."""


@contextmanager
def fleet(
    count: int, server: Postgres, more: str = "", command: tuple[str, ...] = SERVE
) -> Iterator[tuple[str, list[RunningSidecar]]]:
    """The name of a database of their own, and so many, ready. `more`: lines of `keys.postgresql`."""
    database = server.create()
    with tempfile.TemporaryDirectory(prefix="ts-bench-", dir="/tmp") as folder, ExitStack() as stack:
        kek = Path(folder, "kek")
        make(kek)
        config = CONFIG.format(store=server.url(database), kek=kek, password=server.password_file("keeper"), more=more)
        running = [RunningSidecar(config, env={"TOKENSIDECAR_KEK": None}, command=command) for _ in range(count)]
        for each in running:
            stack.callback(each.remove)
            stack.callback(each.kill)
            each.start()
        for each in running:
            each.wait_until_ready(120)
        yield database, running


def effect(server: Postgres) -> dict[str, Any]:
    """By polling and by LISTEN."""
    return {way: _effect(server, more) for way, more in (("polling", ""), ("listen", "listen = true"))}


def _effect(server: Postgres, more: str) -> dict[str, Any]:
    rng = random.Random(1)
    with fleet(SIDECARS, server, more) as (_, running), ExitStack() as stack:
        planes = [stack.enter_context(Plane(each.app_socket)) for each in running]
        admins = [stack.enter_context(Plane(each.admin_socket)) for each in running]
        time.sleep(2)
        revoked, known = list[float](), list[float]()
        for _ in range(REVOCATIONS):
            revoked += _revocation(planes, rng.randrange(SIDECARS))
            time.sleep(rng.uniform(0.0, 1.0))
        for _ in range(ROTATIONS):
            known += _rotation(admins, rng.randrange(SIDECARS))
            time.sleep(9)
    return {"revoked_s": _spread(revoked), "known_s": _spread(known)}


def _revocation(planes: list[Plane], at: int) -> list[float]:
    token = planes[at].token()
    for plane in planes:
        plane.accepts(token)
    planes[at].revoke(pb.RevokeRequest(token=token), timeout=SECONDS)
    request = pb.ValidateRequest(token=token, audiences=["orders"])
    return _until(
        planes, at, lambda plane: reason_of(lambda: plane.validate(request, timeout=SECONDS)) == "TOKEN_REVOKED"
    )


def _rotation(admins: list[Plane], at: int) -> list[float]:
    rotated = admins[at].rotate(pb.RotateRequest(), timeout=SECONDS)
    request = pb.GetJwksRequest()
    return _until(
        admins, at, lambda plane: plane.get_jwks(request, timeout=SECONDS).ring_revision >= rotated.ring_revision
    )


def _until(planes: list[Plane], but: int, there: Any) -> list[float]:
    """For each other plane, seconds from now until it says so; asked in turn."""
    begun, known = time.perf_counter(), dict[int, float]()
    while len(known) < len(planes) - 1:
        for number, plane in enumerate(planes):
            if number != but and number not in known and there(plane):
                known[number] = time.perf_counter() - begun
        if time.perf_counter() - begun > 60:
            raise RuntimeError("not everywhere within a minute")
        time.sleep(0.002)
    return list(known.values())


def spends(server: Postgres) -> dict[str, Any]:
    """Each of so many tokens at two sidecars at once."""
    with fleet(4, server) as (_, running), ExitStack() as stack, ThreadPoolExecutor(8) as threads:
        planes = [stack.enter_context(Plane(each.app_socket)) for each in running]
        begun, winners = time.perf_counter(), [0, 0, 0]
        others = dict[str, int]()

        def race(number: int) -> list[list[str]]:
            rng = random.Random(number)
            issue = pb.IssueRequest(profile="once", subject="u", audiences=["orders"])
            made = rng.choice(planes).batch_issue(pb.BatchIssueRequest(requests=[issue] * BATCH), timeout=60)
            asked = [
                pb.ValidateRequest(token=each.response.token, audiences=["orders"], profiles=["once"])
                for each in made.results
            ]

            def spend(plane: Plane) -> list[str]:
                answer = plane.batch_validate(pb.BatchValidateRequest(requests=asked), timeout=120)
                return [str(each.error.reason) if each.HasField("error") else "OK" for each in answer.results]

            return list(threads.map(spend, rng.sample(planes, 2)))

        with ThreadPoolExecutor(4) as racers:
            for pair in racers.map(race, range(SPENDS // BATCH)):
                for one, two in zip(*pair, strict=True):
                    winners[(one == "OK") + (two == "OK")] += 1
                    for each in (one, two):
                        others[each] = others.get(each, 0) + 1
        seconds = time.perf_counter() - begun
    return {
        "tokens": sum(winners),
        "with_one_winner": winners[1],
        "with_none": winners[0],
        "with_two": winners[2],
        "spends_per_second": round(2 * sum(winners) / seconds),
    }


def million(server: Postgres) -> dict[str, Any]:
    """The same sidecar twice: with nothing revoked, and with a million."""
    found: dict[str, Any] = {"revocations": MILLION}
    pinned = ("taskset", "-c", SERVER_CORE, *SERVE)
    with fleet(1, server, command=pinned) as (database, (one,)), Plane(one.app_socket) as plane:
        rates = dict[str, list[float]]()
        token = plane.token()
        request = pb.ValidateRequest(token=token, audiences=["orders"]).SerializeToString()
        path = "/tokensidecar.v1.TokenService/Validate"
        found["memory_mb_without"] = round(rss_mb(one.process.pid), 1)
        for _ in range(3):
            rates.setdefault("without", []).append(closed(one.app_socket, path, request, 15_000).rate)
        _fill(server, database)
        begun = time.perf_counter()
        wanted = pb.ValidateRequest(token=token, audiences=["orders"], min_revocation_revision=MILLION)
        while reason_of(lambda: plane.validate(wanted, timeout=SECONDS)) != "OK":
            if time.perf_counter() - begun > 300:
                raise RuntimeError("not taken in within five minutes")
            time.sleep(0.1)
        found["taken_in_s"] = round(time.perf_counter() - begun, 1)
        found["memory_mb_with"] = round(rss_mb(one.process.pid), 1)
        for _ in range(3):
            rates.setdefault("with", []).append(closed(one.app_socket, path, request, 15_000).rate)
    found["validates_per_second"] = {name: round(statistics.median(each)) for name, each in rates.items()}
    found["ratio"] = round(statistics.median(rates["with"]) / statistics.median(rates["without"]), 3)
    found["bytes_each"] = round((found["memory_mb_with"] - found["memory_mb_without"]) * 2**20 / MILLION)
    return found


def _fill(server: Postgres, database: str) -> None:
    until = int(time.time()) + 7200
    with server.admin(database) as admin, admin.transaction():
        with admin.cursor().copy(
            "COPY tokensidecar.revocations (digest, kind, before, until, revision) FROM STDIN"
        ) as rows:
            for revision in range(1, MILLION + 1):
                rows.write_row((secrets.token_bytes(16), 1, 2**53, until, revision))
        admin.execute(f"UPDATE tokensidecar.store SET revocations = {MILLION}".encode())


def _spread(seconds: list[float]) -> dict[str, Any]:
    ordered = sorted(seconds)
    return {
        "p50": round(statistics.median(ordered), 4),
        "p99": round(ordered[len(ordered) * 99 // 100], 4),
        "max": round(ordered[-1], 4),
        "all": [round(each, 4) for each in seconds],
    }


def plot(results: dict[str, Any], file: Path) -> None:
    """How the times are spread."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panes = plt.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    for pane, way in zip(panes, ("polling", "listen"), strict=True):
        for name, words, colour in (("revoked_s", "Revoke", "#2f6f9f"), ("known_s", "Rotate", "#c26d3f")):
            part = results[way][name]
            ordered = sorted(part["all"])
            pane.step(
                ordered,
                [(n + 1) / len(ordered) * 100 for n in range(len(ordered))],
                where="post",
                color=colour,
                label=f"{words}: median {part['p50']:.2f} s, p99 {part['p99']:.2f} s",
            )
        pane.set_xlabel("seconds until another sidecar obeys")
        pane.set_ylabel("% of sidecars")
        pane.set_title({"polling": "polling every 5 s (default)", "listen": "LISTEN"}[way], fontsize=10)
        pane.legend(fontsize=8, loc="lower right")
        pane.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{SIDECARS} sidecars on one PostgreSQL server, {results['date']}", fontsize=10)
    figure.savefig(file, dpi=110)


PARTS = {"effect": effect, "spends": spends, "million": million}


def main() -> int:
    """Measure the parts that are named, or all; print, write the files."""
    names = sys.argv[1:] or list(PARTS)
    results: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {}
    with Postgres({"fsync": "on", "shared_buffers": "256MB"}) as server:
        for name in names:
            results |= {
                "date": datetime.now(UTC).strftime("%Y-%m-%d"),
                "python": platform.python_version(),
                "grpcio": grpc.__version__,
                "cpu": _cpu(),
                "cores": os.cpu_count(),
            }
            part = PARTS[name](server)
            results |= part if name == "effect" else {name: part}
            FILE.write_text(json.dumps(results, indent=1) + "\n")
    if "polling" in results:
        plot(results, HERE / "effect.png")
    shown = json.loads(json.dumps(results))
    for way in ("polling", "listen"):
        for part in shown.get(way, {}).values():
            del part["all"]
    print(json.dumps(shown, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
