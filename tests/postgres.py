"""A real PostgreSQL server of the test's own: in a folder under /tmp, on a free port of loopback and a Unix socket, never as root."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import psycopg

from sidecar.database import Database
from sidecar.stores import postgres_schema
from tests.running import ROOT, free_port

NEEDS = "pg_createcluster"
"""What `needs` is told: Debian's server packages put it on PATH, and the server itself elsewhere."""
ROLES = {
    "owner": "tokensidecar_owner",
    "reader": "tokensidecar_read",
    "writer": "tokensidecar_write",
    "keeper": "tokensidecar_keeper",
}
"""Logins, and the role that each is in. All have the same password."""
SETTINGS: Mapping[str, str] = {
    "fsync": "off",  # the machine does not lose power under a test
    "shared_buffers": "32MB",
    "max_connections": "60",
    "unix_socket_permissions": "0777",
    "log_min_messages": "warning",
    "password_encryption": "scram-sha-256",
    "autovacuum_naptime": "10s",
}
TABLES = ("documents", "members", "revocations", "consumed", "families")
_READY_SECONDS = 30.0


def programs() -> Path:
    """The folder of the newest server that is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    return found[-1].parent if found else Path(str(shutil.which("postgres"))).parent


class Postgres:
    """As a context manager: it runs inside. `superuser` goes by the socket without a password; everybody else has one."""

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ts-pg-", dir="/tmp"))
        self.data = self.folder / "data"
        self.port = free_port()
        self.password = secrets.token_hex(16)
        self.settings = {**SETTINGS, **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._shared = ""

    def __enter__(self) -> Self:
        try:
            self._make()
            self.start()
            self._make_roles()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGQUIT)  # its data goes anyway
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def give_away(self, path: Path) -> None:
        """To the server's user."""
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            for each in (path, *path.rglob("*")):
                os.chown(each, user.pw_uid, user.pw_gid)

    def as_user(self) -> list[str]:
        """What to put before a command, so that it does not run as root."""
        if os.geteuid() != 0:
            return []
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]

    def _make(self) -> None:
        self.give_away(self.folder)
        self.folder.chmod(0o755)
        command = [str(programs() / "initdb"), "-D", str(self.data), "-U", "superuser", "-A", "trust", "-E", "UTF8"]
        done = subprocess.run(
            [*self.as_user(), *command, "--no-sync", "--locale=C.UTF-8"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        (self.data / "pg_hba.conf").write_text(
            "local all superuser trust\nlocal all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n"
        )

    def start(self) -> None:
        """Also again, on the same data and port."""
        given = [f"-c{name}={value}" for name, value in self.settings.items()]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self.as_user(), str(programs() / "postgres"), "-D", str(self.data), "-h", "127.0.0.1",
                 "-p", str(self.port), "-k", str(self.folder), *given],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            with contextlib.suppress(psycopg.OperationalError), self.admin("postgres"):
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self.folder / "log").read_text(errors="replace")[-2000:])
            time.sleep(0.05)

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: at once and in order. SIGQUIT: as in a crash."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(number)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def pids(self) -> list[int]:
        """The server's processes, the first one first."""
        tasks = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [self.process.pid, *map(int, tasks.split())]

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """All of its processes stopped (SIGSTOP), and going on at the end."""
        pids = self.pids()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in reversed(pids):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def admin(self, database: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """As superuser, by the socket; each statement by itself."""
        connection = psycopg.connect(
            host=str(self.folder), port=self.port, user="superuser", dbname=database, autocommit=True, connect_timeout=5
        )
        try:
            yield connection
        finally:
            connection.close()

    def terminate(self, database: str) -> int:
        """End every other connection to that database; how many there were."""
        with self.admin("postgres") as admin:
            rows = admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (database,)
            ).fetchall()
        return len(rows)

    def _make_roles(self) -> None:
        with self.admin("postgres") as admin:
            admin.execute((ROOT / "deploy/postgres/roles.sql").read_bytes())
            for login, role in ROLES.items():
                admin.execute(f"CREATE ROLE {login} LOGIN PASSWORD '{self.password}' IN ROLE {role}".encode())
        for name in (*ROLES, "wrong"):
            file = self.password_file(name)
            file.touch(mode=0o600)
            file.write_text(f"{'wrong' if name == 'wrong' else self.password}\n")

    def emptied(self) -> str:
        """The name of one database, with the schema and nothing in it: as good as a new one, and there in no time."""
        if not self._shared:
            self._shared = self.create()
        with self.admin(self._shared) as admin:
            tables = ", ".join(f"tokensidecar.{name}" for name in TABLES)
            admin.execute(f"TRUNCATE {tables}".encode())
            admin.execute("UPDATE tokensidecar.store SET revocations = 0")
        return self._shared

    def password_file(self, login: str) -> Path:
        """As `keys.postgresql.password_file` would name it."""
        return self.folder / f"{login}.password"

    def create(self, *, schema: bool = True) -> str:
        """A database of its own, and its name; with the schema of `deploy/postgres/schema.sql`, owned by its role."""
        name = f"t{secrets.token_hex(6)}"
        with self.admin("postgres") as admin:
            admin.execute(f"CREATE DATABASE {name} OWNER tokensidecar_owner".encode())
        if schema:
            with self.admin(name) as admin, admin.transaction():
                admin.execute("SET LOCAL ROLE tokensidecar_owner")
                admin.execute(postgres_schema.script().encode())
        return name

    def database(self, name: str, login: str = "keeper", **more: Any) -> Database:
        """How a process logs in to it, over TCP."""
        given = {"hosts": (("127.0.0.1", self.port),), "password_file": self.password_file(login), **more}
        return Database(role=login, name=name, **given)

    def url(self, name: str, login: str = "keeper", *, port: int = 0) -> str:
        """For `keys.store`."""
        return f"postgresql://{login}@127.0.0.1:{port or self.port}/{name}"
