"""The README's promises that a machine can check: its grpcurl lines, run as written; its size; its links."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import StartSidecar
from tests.running import ROOT

TEXT = (ROOT / "README.md").read_text()
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)  # where ]( is no link
LINES = re.findall(r"```sh\n(.*?)\n```", TEXT, re.DOTALL)


def test_readme_is_short_and_its_first_screen_shows_everything() -> None:
    lines = TEXT.splitlines()
    first = "\n".join(lines[:40])
    assert len(lines) <= 200
    assert "make run" in first
    for method in ("Issue", "Validate", "Rotate"):
        assert f"TokenService/{method}" in first


def test_every_link_of_every_readme_leads_somewhere() -> None:
    pages = subprocess.run(
        ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    links = [
        (ROOT / page, to)
        for page in pages
        for to in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", CODE.sub("", (ROOT / page).read_text()))
    ]
    assert links
    assert [link for link in links if not (link[0].parent / link[1]).exists()] == []


@pytest.mark.needs("grpcurl")
def test_grpcurl_lines_of_the_readme_work_as_written(start_sidecar: StartSidecar, tmp_path: Path) -> None:
    version = re.search(r"grpcurl (\d+\.\d+\.\d+)", TEXT)
    assert version
    sidecar = start_sidecar()
    ports = {"127.0.0.1:8790": sidecar.app_tcp, "127.0.0.1:8791": sidecar.admin_tcp}
    answers = []
    for line in LINES:
        for written, real in ports.items():
            line = line.replace(written, real)  # noqa: PLW2901 - the tests' ports are free ones
        done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout or (tmp_path / "token.json").read_text()))
    issued, validated, rotated = answers
    assert validated["subject"] == "user-42"
    assert validated["token_id"] == issued["token_id"]
    assert rotated["ring_revision"] == "2"
