"""A missing tool is never silent: pytest on a small file, as its own process."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.running import ROOT

if TYPE_CHECKING:
    from pathlib import Path

TESTS = """
import pytest

@pytest.mark.needs("no-such-tool", "sh", "no/such/path")
def test_with_missing_tools():
    pass

@pytest.mark.needs("sh", "/bin/sh", "tests/conftest.py")
def test_with_present_tools():
    pass

def test_without_tools():
    pass
"""
LINE = "NOT RUN: test_small.py::test_with_missing_tools needs no-such-tool, no/such/path"


def run(directory: Path, *arguments: str, ci: str | None) -> subprocess.CompletedProcess[str]:
    (directory / "test_small.py").write_text(TESTS, encoding="utf-8")
    (directory / "pytest.ini").write_text("[pytest]\nmarkers = needs(*tools)\n", encoding="utf-8")
    env = {name: value for name, value in os.environ.items() if name not in {"CI", "PYTEST_ADDOPTS"}}
    env |= {"PYTHONPATH": str(ROOT)} | ({} if ci is None else {"CI": ci})
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "test_small.py", *arguments],
        cwd=directory,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_missing_tool_is_named_and_the_rest_runs(tmp_path: Path) -> None:
    done = run(tmp_path, ci=None)
    assert LINE in done.stdout.splitlines()
    assert "2 passed, 1 deselected" in done.stdout
    assert done.returncode == 0, done.stdout


def test_tool_that_continuous_integration_cannot_install_may_be_missing_there(tmp_path: Path) -> None:
    (tmp_path / "test_long.py").write_text(
        'import pytest\n@pytest.mark.needs("no-such-tool", ci=False)\n@pytest.mark.parametrize("n", [1, 2])\ndef test_long(n): pass\n'
    )
    done = run(tmp_path, "test_long.py", "-k", "with_present or test_long", ci="true")
    assert "NOT RUN: test_long.py (2 tests) needs no-such-tool" in done.stdout.splitlines()
    assert done.returncode == 0, done.stdout


def test_missing_tool_fails_the_run_in_continuous_integration(tmp_path: Path) -> None:
    done = run(tmp_path, ci="true")
    assert LINE in done.stdout.splitlines()
    assert "2 passed, 1 deselected" in done.stdout
    assert done.returncode == 1, done.stdout


def test_several_processes_report_what_one_does(tmp_path: Path) -> None:
    done = run(tmp_path, "-n", "2", ci="true")
    assert done.stdout.splitlines().count(LINE) == 1
    assert "2 passed" in done.stdout
    assert done.returncode == 1, done.stdout


def test_missing_tool_of_an_unselected_test_is_not_reported(tmp_path: Path) -> None:
    done = run(tmp_path, "-k", "without_tools", ci="true")
    assert "NOT RUN" not in done.stdout
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("signs", ["-q", "-v"])
def test_report_does_not_depend_on_verbosity(tmp_path: Path, signs: str) -> None:
    assert LINE in run(tmp_path, signs, ci=None).stdout.splitlines()
