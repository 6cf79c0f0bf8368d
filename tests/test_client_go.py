"""The Go client: stubs as generated, formatted, vetted, and tested against a real sidecar over socket and TCP."""

from __future__ import annotations

import filecmp
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.fakes import COMMAND
from tests.running import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartSidecar

CLIENT = ROOT / "clients/go"

pytestmark = [pytest.mark.needs("go"), pytest.mark.timeout(600)]  # a first build compiles all of gRPC


def run(*command: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=CLIENT, env=os.environ | (env or {}), capture_output=True, text=True, timeout=580, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.needs(".venv/bin/python")
def test_stubs_are_what_generate_writes(tmp_path: Path) -> None:
    run("./generate.sh", str(tmp_path))
    for package in ("tokensidecarv1", "tokensidecarfakev1"):
        committed, written = CLIENT / package, tmp_path / package
        names = sorted(file.name for file in committed.iterdir())
        assert names == sorted(file.name for file in written.iterdir())
        assert filecmp.cmpfiles(committed, written, names, shallow=False) == (names, [], [])


@pytest.mark.needs("gofmt")
def test_source_is_formatted() -> None:
    assert run("gofmt", "-l", ".") == ""


def test_vet_finds_nothing() -> None:
    run("go", "vet", "./...")


@pytest.mark.needs("staticcheck")
def test_staticcheck_finds_nothing() -> None:
    run("staticcheck", "./...")


def test_module_names_exactly_what_it_uses() -> None:
    run("go", "mod", "tidy", "-diff")
    run("go", "mod", "verify")


def test_client_works_with_a_real_sidecar(start_sidecar: StartSidecar) -> None:
    sidecar = start_sidecar()  # of its own: the keys are revoked
    env = {
        "TOKENSIDECAR_TEST_SOCKET": sidecar.app_socket,
        "TOKENSIDECAR_TEST_TCP": sidecar.app_tcp,
        "TOKENSIDECAR_TEST_ADMIN": sidecar.admin_socket,
        "TOKENSIDECAR_TEST_FAKE": COMMAND,
    }
    told = run("go", "test", "-count=1", "-v", "./...", env=env)
    assert "--- PASS: TestSidecarRotatesWithoutLosingAToken" in told
    assert "--- SKIP" not in told
