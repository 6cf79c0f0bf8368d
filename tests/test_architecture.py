"""The house's one rule, import directions and names, held as tests."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.failpoints import NAMES
from tests.running import ROOT

LINT = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
FORBIDDEN_NAMES = {"utils", "common", "helpers", "base", "core", "manager", "handler", "impl", "types", "misc"}


def _sources() -> list[Path]:
    return sorted((ROOT / "sidecar").rglob("*.py"))


def test_imports_only_point_down() -> None:
    done = subprocess.run(LINT, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("sidecar/audit.py", "import grpc"),
        ("sidecar/claims.py", "from jwcrypto import jwe"),
        ("sidecar/kms/file.py", "import sqlite3"),
        ("sidecar/data_keys.py", "import boto3"),
        ("sidecar/stores/file.py", "from botocore import session"),
        ("sidecar/jose/suites.py", "import sidecar.keyring"),
        ("sidecar/stray.py", "'a module that no layer lists'"),
    ],
)
def test_an_import_that_breaks_the_rule_is_noticed(tmp_path: Path, module: str, line: str) -> None:
    tree = tmp_path / "tree"
    for source in (*_sources(), *(ROOT / "clients/python/tokensidecar").rglob("*.py")):
        python = ROOT / "clients/python"
        inside = source.relative_to(python if source.is_relative_to(python) else ROOT)
        (tree / inside).parent.mkdir(parents=True, exist_ok=True)
        (tree / inside).write_bytes(source.read_bytes())
    (tree / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    with (tree / module).open("a") as file:
        file.write(f"\n{line}\n")
    environment = {"PYTHONPATH": str(tree), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(LINT, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    assert "BROKEN" in done.stdout, done.stdout


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [p for p in _sources() if FORBIDDEN_NAMES & set(p.stem.split("_"))] == []


def test_every_failpoint_is_passed_somewhere() -> None:
    text = "".join(p.read_text() for p in _sources() if p.name != "failpoints.py")
    passed = set(re.findall(r'failpoint\(\s*f?"([^"]+)"', text))
    by_operation = {n for n in passed if "{" not in n}
    for name in NAMES:
        operation, _, step = name.partition(".")
        assert name in by_operation or f"{{operation}}.{step}" in passed, f"{name} of {operation} is never passed"


def test_the_map_names_every_module_and_folder_of_the_root() -> None:
    text = (ROOT / "sidecar/README.md").read_text()
    table = text[text.index("## The map") : text.index("## Configuration")]
    root = [p for p in (ROOT / "sidecar").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()]
    names = {p.name if p.suffix else f"{p.name}/" for p in root if not p.name.startswith("__")}
    assert sorted(name for name in names if f"`{name}`" not in table) == []
