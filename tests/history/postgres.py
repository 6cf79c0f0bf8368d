"""What breaks on a PostgreSQL server, and a proxy that cuts connections while they commit."""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tests.postgres import Postgres

PASSWORD = """
[keys.postgresql]
password_file = "{file}"
"""


class Cutter:
    """A TCP proxy. While `cutting`, a connection that sends COMMIT has it passed on, and is cut before the answer comes."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cutting = False
        self.cuts = 0
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._listener.settimeout(0.2)
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _start(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = self._listener.accept()
                self._start(self._pass, client)

    def _pass(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._target, timeout=5)
        except OSError:
            client.close()
            return
        with client, server, selectors.DefaultSelector() as ready:
            ready.register(client, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, client)
            with contextlib.suppress(OSError):
                while not self._stopping.is_set():
                    for key, _ in ready.select(0.2):
                        if not self._one(key.fileobj, key.data, client):
                            return

    def _one(self, source: socket.socket, target: socket.socket, client: socket.socket) -> bool:  # type: ignore[override,unused-ignore]
        data = source.recv(65536)
        if not data:
            return False
        target.sendall(data)
        if self.cutting and source is client and b"COMMIT" in data:
            self.cuts += 1
            return False
        return True


class ServerFaults:
    """Each mends itself before it returns."""

    def __init__(self, server: Postgres, cutter: Cutter) -> None:
        self._server = server
        self._database = server.create()
        self._cutter = cutter
        self.store = server.url(self._database, "keeper", port=cutter.port)
        self.further = PASSWORD.format(file=server.password_file("keeper"))

    def database_paused(self, rng: random.Random) -> None:
        """SIGSTOP to all of its processes: connections stay open, and nobody answers."""
        with self._server.paused():
            time.sleep(rng.choice((0.5, 2.0, 6.0)))

    def database_stopped(self, rng: random.Random) -> None:
        """In order, and away for a while."""
        self._server.stop()
        time.sleep(rng.uniform(0.0, 3.0))
        self._server.start()

    def database_crashed(self, rng: random.Random) -> None:
        """As after a power cut, but that the machine goes on."""
        self._server.stop(signal.SIGQUIT)
        time.sleep(rng.uniform(0.0, 1.0))
        self._server.start()

    def backends_terminated(self, rng: random.Random) -> None:
        """Every connection is ended by the server, several times."""
        for _ in range(rng.randint(1, 5)):
            self._server.terminate(self._database)
            time.sleep(0.2)

    def commits_cut(self, rng: random.Random) -> None:
        """Nobody is told how its commit ended."""
        self._cutter.cutting = True
        time.sleep(rng.uniform(0.5, 2.0))
        self._cutter.cutting = False

    def everything(self) -> list[Callable[[random.Random], None]]:
        return [
            self.database_paused,
            self.database_stopped,
            self.database_crashed,
            self.backends_terminated,
            self.commits_cut,
        ]
