"""What stands between a commit and a release: licences, versions, the changelog."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import ROOT

LICENCES = ROOT / ".ci/licences.py"
UV = ROOT / ".uv/bin/uv"


def licences(sbom: Path, *, installed: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **({"PYTHONPATH": str(installed)} if installed else {})}
    return subprocess.run(
        [sys.executable, LICENCES, sbom], env=env, capture_output=True, text=True, timeout=60, check=False
    )


def one_package(folder: Path, *says: str, version: str = "1.0", properties: tuple[tuple[str, str], ...] = ()) -> Path:
    """An SBOM of one package, which is installed in the folder with that metadata; without any, it is not installed."""
    if says:
        info = folder / "odd-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("\n".join(["Metadata-Version: 2.4", "Name: odd", "Version: 1.0", *says, ""]))
    sbom = folder / "sbom.json"
    named = [{"name": name, "value": value} for name, value in properties]
    sbom.write_text(json.dumps({"components": [{"name": "odd", "version": version, "properties": named}]}))
    return sbom


@pytest.mark.parametrize(
    "says",
    [
        ["License-Expression: GPL-3.0-only"],
        ["License-Expression: AGPL-3.0-or-later"],
        ["License-Expression: LGPL-3.0-only"],  # borne by name alone
        ["License-Expression: MIT AND GPL-2.0-only"],
        ["License-Expression: MIT AND (Apache-2.0 OR GPL-2.0-only)"],
        ["License-Expression: Apache-2.0 WITH Odd-exception"],
        ["License: Proprietary"],
        ["Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)"],
        [
            "License: Dual",
            "Classifier: License :: OSI Approved :: MIT License",
            "Classifier: License :: OSI Approved :: GNU General Public License v2 (GPLv2)",
        ],
        ["License-Expression: GPL-3.0-only", "License: MIT"],
        ["Summary: nothing of a licence"],
    ],
    ids=lambda says: says[-1],
)
def test_a_forbidden_licence_ends_a_release(tmp_path: Path, says: list[str]) -> None:
    done = licences(one_package(tmp_path, *says), installed=tmp_path)
    assert done.returncode == 1
    assert "odd 1.0" in done.stderr
    assert "take another package" in done.stderr


@pytest.mark.parametrize(
    "says",
    [
        "License-Expression: GPL-2.0-only OR MIT",
        "License-Expression: Apache-2.0 AND BSD-2-Clause",
        "License: Apache License 2.0",
        "Classifier: License :: OSI Approved :: MIT License",
    ],
)
def test_an_allowed_licence_is_listed(tmp_path: Path, says: str) -> None:
    done = licences(one_package(tmp_path, says), installed=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "| odd | 1.0 | " in done.stdout


def test_a_package_whose_licence_nobody_saw_ends_a_release(tmp_path: Path) -> None:
    assert "not installed" in licences(one_package(tmp_path)).stderr
    elsewhere = one_package(tmp_path, properties=(("uv:package:marker", "sys_platform == 'win32'"),))
    assert licences(elsewhere).returncode == 0  # it is none of this platform's
    other = one_package(tmp_path, "License-Expression: MIT", version="2.0")
    done = licences(other, installed=tmp_path)
    assert (done.returncode, "locked at 2.0, and 1.0 is installed" in done.stderr) == (1, True)


@pytest.mark.needs(str(UV))
def test_every_locked_dependency_has_an_allowed_licence(tmp_path: Path) -> None:
    sbom = tmp_path / "sbom.json"
    command = (
        *(UV, "export", "--quiet", "--frozen", "--format", "cyclonedx1.5", "--output-file", sbom),
        *("--package", "tokensidecar-server", "--no-dev", "--all-extras"),
    )
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    done = licences(sbom)
    assert done.returncode == 0, done.stderr
    assert "| jwcrypto | " in done.stdout
    notice = (ROOT / "NOTICE").read_text()
    borne = [line.split(" | ")[0].removeprefix("| ") for line in done.stdout.splitlines() if "see NOTICE" in line]
    assert borne == ["jwcrypto", "psycopg", "psycopg-binary"]
    assert all(name in notice for name in borne)


@pytest.mark.parametrize(
    ("server", "client", "changelog", "says"),
    [
        ("1.2.0", "1.1.0", "## 1.2.0 - 2026-12-01\n", "the server is 1.2.0 and the Python client 1.1.0"),
        ("1.2.0", "1.2.0", "## Unreleased\n", "CHANGELOG.md has no heading '## 1.2.0 - YYYY-MM-DD'"),
        ("1.2.0", "1.2.0", "## 1.2.0\n", "CHANGELOG.md has no heading"),
        ("1.2.0", "1.2.0", "## 1x2.0 - 2026-12-01\n", "CHANGELOG.md has no heading"),
        ("1.2.0", "1.2.0", "## 1.2.0 - 2026-12-01\n", "not committed"),
    ],
)
def test_a_release_without_its_version_or_commit_is_refused(
    tmp_path: Path, server: str, client: str, changelog: str, says: str
) -> None:
    for folder in (".ci", "sidecar", "clients/python"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(ROOT / ".ci/release", tmp_path / ".ci/release")
    (tmp_path / "sidecar/__init__.py").write_text(f'__version__ = "{server}"\n')
    (tmp_path / "clients/python/pyproject.toml").write_text(f'version = "{client}"\n')
    (tmp_path / "CHANGELOG.md").write_text(changelog)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    done = subprocess.run([tmp_path / ".ci/release"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("release: ")
    assert says in done.stderr
    assert not (tmp_path / "dist").exists()
