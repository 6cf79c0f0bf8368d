"""A fleet on one machine: a folder of sealed rings, a key-encryption key for each role, and real processes on them."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc

from tests.e2e.calls import Plane
from tests.running import SERVE, RunningSidecar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TOOL = SERVE[0]
KEEPER = (TOOL, "keeper")
PARTS = {"issuer": ("issue",), "validator": ("open",), "both": ("issue", "open")}
QUICK = {
    "propagation": "2s",
    "max_skew": "1s",
    "refresh_interval": "1s",
    "max_staleness": "1m",
    "rotate_every": "1h",
}
"""Times of keys, so short that a rotation is over in four seconds."""
PROFILE = {"ttl": "1m", "max_ttl": "5m"}


class Fleet:
    """Makes its processes' configurations and starts nothing by itself; `end` stops what runs and removes everything."""

    def __init__(self, keys: Mapping[str, str] = QUICK, profile: Mapping[str, str] = PROFILE) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="ts-", dir="/tmp"))
        self.rings = self.directory / "rings"
        self.rings.mkdir(mode=0o755)
        self.keys = dict(keys)
        self.profile = dict(profile)
        self._made: list[RunningSidecar] = []
        self.keks = {part: f"file:{self.directory}/{part}" for part in PARTS["both"]}
        for part in PARTS["both"]:
            kek = self.directory / part
            kek.touch(mode=0o600)
            kek.write_text(secrets.token_hex(32) + "\n")

    def config(self, role: str, *, store: str = "", further: str = "", **keys: str) -> str:
        """What a process of that role is given: the names of its own keys, and of no others."""
        keks = ", ".join(f'{part} = "{self.keks[part]}"' for part in PARTS[role])
        times = "\n".join(f'{name} = "{value}"' for name, value in (self.keys | keys).items())
        profile = "\n".join(f'{name} = "{value}"' for name, value in self.profile.items())
        return (
            f'[profiles.default]\nissuer = "urn:test"\naudiences = ["orders"]\n{profile}\n{further}\n'
            f'[keys]\nstore = "{store or f"file:{self.rings}"}"\nkek = {{ {keks} }}\nrole = "{role}"\n{times}\n'
        )

    def prepared(
        self, config: str, command: Sequence[str] = SERVE, env: Mapping[str, str | None] | None = None
    ) -> RunningSidecar:
        """A process that is not started yet."""
        self._made.append(RunningSidecar(config, env, command))
        return self._made[-1]

    def sidecar(self, role: str, command: Sequence[str] = SERVE, **keys: str) -> RunningSidecar:
        """A sidecar, started and ready."""
        return started(self.prepared(self.config(role, **keys), command))

    def keeper(self, **keys: str) -> RunningSidecar:
        """A long-running keeper, started and ready."""
        return started(self.prepared(self.config("both", **keys), KEEPER))

    def once(
        self, *args: str, config: str = "", env: Mapping[str, str] | None = None, code: int = 0
    ) -> list[dict[str, Any]]:
        """`tokensidecar keeper --once --json`: what it did. AssertionError unless it exits with `code`."""
        file = self.directory / "once.toml"
        file.write_text(config or self.config("both"))
        state = self.directory / "once-state"
        state.mkdir(exist_ok=True)
        given = {"PATH": "/usr/bin:/bin", "TOKENSIDECAR_STATE_DIR": str(state), **(env or {})}
        done = subprocess.run(
            [*KEEPER, "--once", "--json", "--config", str(file), *args],
            env=given, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return list(json.loads(done.stdout)["duties"]) if done.stdout else []

    def end(self) -> list[str]:
        """What did not exit with 0 at SIGTERM."""
        problems = []
        for running in self._made:
            try:
                running.stop()
            except AssertionError as problem:
                problems.append(str(problem))
            finally:
                running.kill()
                running.remove()
        shutil.rmtree(self.directory)
        return problems


def started(running: RunningSidecar) -> RunningSidecar:
    """The same, ready."""
    running.start()
    running.wait_until_ready()
    return running


def revision(running: RunningSidecar, profile: str = "default") -> int:
    """The ring's revision in that process's memory."""
    found = re.search(rf'tokensidecar_ring_revision{{profile="{profile}"}} (\S+)', running.get("/metrics")[1])
    return int(float(found[1])) if found else 0


class Load:
    """Issues at one address and validates at another, as fast as one thread of each can, until the block ends.

    `failures`: every call that was not OK. `key_ids`: of the outermost layer of each token that was accepted.
    """

    def __init__(self, issuer: str, validator: str, *, threads: int = 2) -> None:
        self.failures: list[str] = []
        self.key_ids: list[str] = []
        self._targets = (issuer, validator)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        issuer, validator = self._targets
        with Plane(issuer) as issuing, Plane(validator) as validating:
            while not self._stop.is_set():
                try:
                    token = issuing.token()
                    self.key_ids.append(validating.accepts(token).key_id)
                except grpc.RpcError as error:
                    self.failures.append(f"{error.code()}: {error.details()}")
                time.sleep(0.002)
