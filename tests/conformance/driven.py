"""A driver process: one command, one answer, a line of JSON each."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from tests.running import ROOT

if TYPE_CHECKING:
    from types import TracebackType

FOLDER = ROOT / "clients/conformance"
ANSWER_SECONDS = 30.0
BUILD_SECONDS = 880.0


@dataclass(frozen=True)
class Language:
    """One column: how its driver is built and run, and which scenarios its client cannot play."""

    name: str
    folder: str
    needs: tuple[str, ...]
    build: tuple[tuple[str, ...], ...]
    run: tuple[str, ...]
    lacks: dict[str, str]


def languages() -> tuple[Language, ...]:
    """All of clients/conformance/languages.toml."""
    with (FOLDER / "languages.toml").open("rb") as file:
        found = tomllib.load(file)["language"]
    return tuple(
        Language(
            one["name"],
            one["folder"],
            tuple(one["needs"]),
            tuple(map(tuple, one["build"])),
            tuple(one["run"]),
            one.get("lacks", {}),
        )
        for one in found
    )


def build(language: Language) -> None:
    """Makes the driver, if it must be made; the first time, its tools fetch and compile everything."""
    for command in language.build:
        done = subprocess.run(
            _command(command),
            cwd=ROOT / language.folder,
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def _command(words: tuple[str, ...]) -> list[str]:
    return [sys.executable if word == "$python" else word for word in words]


def _environment() -> dict[str, str]:
    """The caller's, but for what would lead to another sidecar or build elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("TOKENSIDECAR_", "CARGO_TARGET"))}


class Driver:
    """A running one. Its answers are read by a thread, so that none is waited for without end."""

    def __init__(self, language: Language) -> None:
        self._process = subprocess.Popen(
            _command(language.run),
            cwd=ROOT / language.folder,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """The answer; AssertionError if none comes."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        try:
            line = self._lines.get(timeout=ANSWER_SECONDS)
        except queue.Empty:
            raise AssertionError(f"no answer to {command['do']} within {ANSWER_SECONDS} s") from None
        assert line, f"the driver ended at {command['do']}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._process.stdin.close()
        self._process.stdout.close()
