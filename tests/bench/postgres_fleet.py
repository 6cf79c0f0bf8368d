"""`python -m tests.bench.postgres_fleet [SIDECARS] [SECONDS] [AT_ONCE]`: a thousand sidecars on one PostgreSQL, in figures.

Simulated: each is a store of the product with its one connection, polling as a sidecar polls; all are tasks of one process. They go through a
pooler of transactions, then to the server directly. Then a mass restart: what each has to read where a million tokens are revoked, counted
by a proxy for one of them, and how long it takes for some at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

from sidecar.database import Database
from sidecar.denylist import Denylist
from sidecar.errors import SidecarError
from sidecar.stores.postgres import PostgresStore
from tests.bench.__main__ import _cpu
from tests.postgres import Postgres
from tests.running import free_port
from tests.stores.proxy import Proxy

HERE = Path(__file__).parent
INTERVAL = 5.0  # seconds: keys.refresh_interval, as by default
POOL = 20  # connections from the pooler to the server
REVOKED = 1_000_000
AT_ONCE = 50  # connections that are opened at the same time


def main() -> int:
    """Measure, print, write postgres_fleet.json."""
    sidecars = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
    restarted = int(sys.argv[3]) if len(sys.argv) > 3 else 10
    with Postgres({"max_connections": str(sidecars + 50)}) as server:
        results: dict[str, Any] = {
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "command": f"python -m tests.bench.postgres_fleet {sidecars} {seconds:.0f} {restarted}",
            "python": platform.python_version(),
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "load_average": os.getloadavg()[0],
            "sidecars": sidecars,
            "refresh_interval_s": INTERVAL,
            **uvloop.run(_measure(server, sidecars, seconds, restarted)),
        }
    (HERE / "postgres_fleet.json").write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))
    return 0


async def _measure(server: Postgres, sidecars: int, seconds: float, restarted: int) -> dict[str, Any]:
    name = server.create()
    await _filled(server, name)
    with _pooler(server, name, sidecars) as port:
        await asyncio.sleep(1)
        pooled = await _polled(server, server.database(name, "reader", hosts=(("127.0.0.1", port),)), sidecars, seconds)
    direct = await _polled(server, server.database(name, "reader"), sidecars, seconds)
    return {"pooler": pooled, "direct": direct, "restart": await _restarted(server, name, sidecars, restarted)}


async def _filled(server: Postgres, name: str) -> None:
    """A ring, and a million revocations; the latter by SQL, which takes seconds and not hours."""
    store = await PostgresStore.open(server.database(name))
    await store.save("default", os.urandom(4096), expected=0)
    await store.close()
    with server.admin(name) as admin:
        admin.execute(
            "INSERT INTO tokensidecar.revocations SELECT decode(md5(i::text), 'hex'), 1, 9007199254740992, "
            f"extract(epoch FROM now())::bigint + 3600, i FROM generate_series(1, {REVOKED}) AS i"
        )
        admin.execute(f"UPDATE tokensidecar.store SET revocations = {REVOKED}")
        admin.execute("VACUUM ANALYZE tokensidecar.revocations")


async def _polled(server: Postgres, database: Database, sidecars: int, seconds: float) -> dict[str, Any]:
    """All of them at their polling; what the server sees of it."""
    gate, times, failures = asyncio.Semaphore(AT_ONCE), list[float](), list[str]()

    async def opened() -> PostgresStore:
        async with gate:
            return await PostgresStore.open(database)

    async def polling(store: PostgresStore) -> None:
        await asyncio.sleep(random.uniform(0, INTERVAL))
        while True:
            started = time.perf_counter()
            try:
                await store.glance()
            except SidecarError as error:
                failures.append(error.message)
            times.append(time.perf_counter() - started)
            await asyncio.sleep(INTERVAL * random.uniform(0.8, 1.2))

    began = time.perf_counter()
    stores = await asyncio.gather(*(opened() for _ in range(sidecars)))
    connected = time.perf_counter() - began
    tasks = [asyncio.create_task(polling(store)) for store in stores]
    await asyncio.sleep(INTERVAL)
    times.clear()
    before, cpu, mark = _transactions(server, database.name), _server_cpu(server), time.perf_counter()
    await asyncio.sleep(seconds)
    passed, most = time.perf_counter() - mark, _connections(server, database.name)
    done, used = _transactions(server, database.name) - before, _server_cpu(server) - cpu
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.gather(*(store.close() for store in stores))
    quantiles = statistics.quantiles(times, n=100)
    return {
        "connect_all_s": round(connected, 2),
        "connections_at_the_server": most,
        "polls_per_s": round(len(times) / passed, 1),
        "transactions_per_s_as_the_server_counts": round(done / passed, 1),
        "server_cpu_cores": round(used / passed, 3),
        "poll_ms_p50": round(quantiles[49] * 1000, 2),
        "poll_ms_p99": round(quantiles[98] * 1000, 2),
        "failures": len(failures),
    }


async def _restarted(server: Postgres, name: str, sidecars: int, restarted: int) -> dict[str, Any]:
    """What one sidecar reads at its start, in bytes, and how long several take at once (the client's side of it included)."""
    async with Proxy(server.port) as proxy:
        store = await PostgresStore.open(server.database(name, "reader", hosts=(("127.0.0.1", proxy.port),)))
        greeted = proxy.carried
        await store.glance()
        glanced = proxy.carried - greeted
        await store.load("default")
        before = proxy.carried
        denylist, started = Denylist(store), time.perf_counter()
        await denylist.catch_up()
        one = time.perf_counter() - started
        assert denylist.held == REVOKED
        read = proxy.carried - before
        await store.close()
    cpu, started = _server_cpu(server), time.perf_counter()
    await asyncio.gather(*(_pages(server.database(name, "reader")) for _ in range(restarted)))
    passed = time.perf_counter() - started
    return {
        "revocations": REVOKED,
        "bytes_connecting": greeted,
        "bytes_of_a_poll": glanced,
        "bytes_of_all_revocations": read,
        "bytes_for_the_whole_fleet": (greeted + read) * sidecars,
        "one_alone_s": round(one, 2),
        "at_once": restarted,
        "at_once_s": round(passed, 2),
        "at_once_mb_per_s": round(read * restarted / passed / 1e6, 1),
        "server_cpu_s_each": round((_server_cpu(server) - cpu) / restarted, 2),
    }


async def _pages(database: Database) -> None:
    """All pages, read and let go: a thousand lists in one process would be 24 GB."""
    store = await PostgresStore.open(database)
    revision = 0
    while (page := await store.revocations(revision, 2000)).entries:
        revision = page.revision
    await store.close()


def _transactions(server: Postgres, name: str) -> int:
    with server.admin("postgres") as admin:
        row = admin.execute("SELECT xact_commit FROM pg_stat_database WHERE datname = %s", (name,)).fetchone()
    assert row is not None
    return int(row[0])


def _connections(server: Postgres, name: str) -> int:
    with server.admin("postgres") as admin:
        row = admin.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", (name,)).fetchone()
    assert row is not None
    return int(row[0])


def _server_cpu(server: Postgres) -> float:
    """Seconds of CPU of all its processes that live, and of those that have ended."""
    ticks = 0
    for number, pid in enumerate(server.pids()):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            continue
        ticks += sum(map(int, fields[11:13])) + (sum(map(int, fields[13:15])) if number == 0 else 0)
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def _pooler(server: Postgres, name: str, clients: int) -> Iterator[int]:
    """pgbouncer in transaction mode; its port."""
    port = free_port()
    folder = server.folder / f"pooler-{port}"
    folder.mkdir()
    (folder / "users").write_text(f'"reader" "{server.password}"\n')
    (folder / "ini").write_text(
        f"[databases]\n{name} = host=127.0.0.1 port={server.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
        f"unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {folder}/users\npool_mode = transaction\n"
        f"default_pool_size = {POOL}\nmax_client_conn = {clients + 100}\nlogfile = {folder}/log\n"
    )
    folder.chmod(0o755)
    server.give_away(folder)
    command = [*server.as_user(), "pgbouncer", "-q", str(folder / "ini")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)


if __name__ == "__main__":
    sys.exit(main())
