"""The TypeScript client: its stubs, its package, its tests against the fake and against a real sidecar, and the login example."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes import COMMAND
from tests.running import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.conftest import StartSidecar

PACKAGE = ROOT / "clients/typescript"
pytestmark = [pytest.mark.needs("node", "npm"), pytest.mark.timeout(300)]


def run(*command: str, cwd: Path = PACKAGE, env: Mapping[str, str] | None = None) -> str:
    """Standard output of a command that must succeed; the address of no other sidecar gets through."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TOKENSIDECAR_")}
    done = subprocess.run(
        command, cwd=cwd, env={**clean, **(env or {})}, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def _dependencies() -> None:
    # One at a time: the conformance kit, in another process, installs them by the same line.
    install = "test -d node_modules || npm ci --ignore-scripts --no-audit --no-fund"
    run("flock", "package.json", "sh", "-c", install)


def passed(report: str) -> int:
    """How many tests of a node:test report passed, TAP or spec; none may have failed, nor been skipped."""
    counts = {
        name: int(count)
        for name, count in re.findall(r"^[#\u2139] (pass|fail|cancelled|skipped|todo) (\d+)$", report, re.MULTILINE)
    }
    assert sum(counts.values()) == counts["pass"], report
    return counts["pass"]


def test_stubs_are_what_generate_writes(tmp_path: Path) -> None:
    run("./generate.sh", str(tmp_path))
    committed = {
        path.relative_to(PACKAGE / "src"): path.read_text() for path in (PACKAGE / "src/tokensidecar").rglob("*.ts")
    }
    generated = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.ts")}
    assert "tokensidecar/v1/token_service_pb.ts" in map(str, generated)
    assert generated == committed


def test_lint_is_clean() -> None:
    run("npm", "run", "--silent", "lint")


def test_client_passes_its_tests_against_the_fake() -> None:
    assert passed(run("npm", "test", "--silent")) > 0


def test_client_and_login_example_pass_against_a_real_sidecar(start_sidecar: StartSidecar) -> None:
    # One of its own: the tests rotate and revoke keys.
    sidecar = start_sidecar()
    addresses = {
        "TOKENSIDECAR_TEST_SOCKET": sidecar.app_socket,
        "TOKENSIDECAR_TEST_TCP": sidecar.app_tcp,
        "TOKENSIDECAR_TEST_ADMIN": sidecar.admin_socket,
        "TOKENSIDECAR_TEST_FAKE": COMMAND,
    }
    report = run("npm", "test", "--silent", env=addresses)
    assert passed(report) > 0
    assert "a sidecar over its socket" in report
    assert "a sidecar over TCP" in report
    assert "time goes by, and calls fail, as the test says" in report
    log = sidecar.log()
    assert "ada@example.com" not in log


def test_readme_compiles_and_package_installs(tmp_path: Path) -> None:
    """What npm would publish, in a project of its own: every TypeScript block of the README type-checks, and it imports."""
    (packed,) = json.loads(run("npm", "pack", "--json", "--silent", "--pack-destination", str(tmp_path)))
    names = {file["path"] for file in packed["files"]}
    assert {"package.json", "README.md", "LICENSE", "dist/index.js", "dist/index.d.ts"} <= names
    assert not [name for name in names if name.startswith(("test/", "src/", "build/", "examples/"))]

    modules = tmp_path / "node_modules"
    modules.mkdir()
    for installed in (PACKAGE / "node_modules").iterdir():
        if installed.name != ".package-lock.json":
            (modules / installed.name).symlink_to(installed)
    shutil.unpack_archive(tmp_path / packed["filename"], tmp_path / "unpacked", "gztar")
    (tmp_path / "unpacked/package").rename(modules / "tokensidecar")

    (tmp_path / "package.json").write_text('{"type": "module"}')
    blocks = re.findall(r"^```ts\n(.*?)^```$", (PACKAGE / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 3
    for number, block in enumerate(blocks):
        declared = "" if "const { token" in block else "declare const token: string;\n"
        (tmp_path / f"block{number}.ts").write_text(declared + block + "\nexport {};\n")
    options = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", "--types", "node"]
    run("node_modules/.bin/tsc", *options, *(f"block{number}.ts" for number in range(len(blocks))), cwd=tmp_path)

    script = "import * as all from 'tokensidecar'; console.log(Object.keys(all).sort().join(' '))"
    exported = run("node", "--input-type=module", "--eval", script, cwd=tmp_path)
    assert exported.split() == [
        "DeniedError",
        "InvalidRequestError",
        "RejectedError",
        "TokenSidecarError",
        "TokenSource",
        "UnavailableError",
        "connect",
        "connectAdmin",
        "protect",
    ]
