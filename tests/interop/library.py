"""The libraries, their drivers, and how to build and ask them.

A driver is a program that reads requests from its standard input, one line of JSON each, and answers each with one line:

    {"op": "make" | "open", "format": "signed" | "encrypted" | "nested", "sign": ..., "alg": ..., "enc": ..., "typ": ...,
     "keys": {"signature": JWK, "encryption": JWK}, "payload": base64url (make), "token": text (open)}

    {"ok": token (make) | payload in base64url (open)} or {"error": text}

`sign`, `alg` and `enc` are the only algorithms that it may accept. `typ` belongs to the innermost layer; a nested token has `cty: JWT`.
A driver knows nothing of suites: what its library does not know is an error.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = Path(__file__).parent


class RefusedError(Exception):
    """The library's own words for why it does not make or open a token."""


@dataclass(frozen=True)
class Library:
    """A JOSE library: the folder of its driver, what it needs on the machine, how it is built and started there."""

    name: str
    folder: str
    needs: tuple[str, ...]
    command: tuple[str, ...]
    build: tuple[str, ...] = ()
    product: str = ""  # of the build

    def __str__(self) -> str:
        return self.folder

    def built(self) -> None:
        """Builds the driver where its sources have changed since the last time. `AssertionError` with the tool's words if that fails."""
        if not self.build:
            return
        home = FOLDER / self.folder
        target = home / "target"
        target.mkdir(exist_ok=True)
        with (target / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs at once
            stamp, sources = target / "sources.sha256", self._digest()
            if (home / self.product).exists() and stamp.exists() and stamp.read_text() == sources:
                return
            done = subprocess.run(self.build, cwd=home, capture_output=True, text=True, timeout=600, check=False)
            assert done.returncode == 0, f"{' '.join(self.build)}\n{done.stdout}\n{done.stderr}"
            stamp.write_text(sources)

    def _digest(self) -> str:
        home = FOLDER / self.folder
        digest = hashlib.sha256(repr((self.build, self.command)).encode())
        for path in sorted(home.rglob("*")):
            if path.is_file() and not {"target", "node_modules"} & set(path.relative_to(home).parts):
                digest.update(repr((str(path.relative_to(home)), path.read_bytes())).encode())
        return digest.hexdigest()


LIBRARIES = (
    Library(
        "go-jose",
        "go",
        needs=("go",),
        command=("target/driver",),
        build=("go", "build", "-o", "target/driver", "."),
        product="target/driver",
    ),
    Library(
        "panva jose",
        "node",
        needs=("node", "npm"),
        command=("node", "driver.js"),
        build=("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"),
        product="node_modules/jose",
    ),
    Library(
        "Nimbus JOSE+JWT",
        "java",
        needs=("java", "mvn"),
        command=("java", "-XX:TieredStopAtLevel=1", "-cp", "target/classes:target/dependency/*", "Driver"),
        build=("mvn", "--quiet", "--batch-mode", "compile", "dependency:copy-dependencies"),
        product="target/classes/Driver.class",
    ),
    Library(
        "josekit",
        "rust",
        needs=("cargo", "pkg-config", "/usr/include/openssl/ssl.h"),
        command=("target/debug/interop",),
        build=("cargo", "build", "--locked", "--quiet"),
        product="target/debug/interop",
    ),
    Library("joserfc", "joserfc", needs=(), command=(sys.executable, "-W", "ignore", "driver.py")),
    Library("Authlib", "authlib", needs=(), command=(sys.executable, "-W", "ignore", "driver.py")),
)


class Driver:
    """A running driver; `close` ends it."""

    def __init__(self, library: Library) -> None:
        library.built()
        self.library = library
        self._process = subprocess.Popen(
            library.command,
            cwd=FOLDER / library.folder,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def ask(self, request: Mapping[str, object]) -> str:
        """The token or the payload asked for. `RefusedError`: the library did not do it."""
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answers is not None
        asked.write(json.dumps(request) + "\n")  # all ASCII, lone surrogates included
        asked.flush()
        line = answers.readline()
        assert line, f"the driver of {self.library.name} ended at {request}"
        answer: dict[str, str] = json.loads(line)
        if "error" in answer:
            raise RefusedError(answer["error"])
        return answer["ok"]

    def close(self) -> None:
        """Ends the driver, which does so by itself at the end of its input."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
