"""kube-score and checkov find what deploy/kubernetes/suppressions.toml says, and nothing else."""

from __future__ import annotations

import functools
import json
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.deploy.manifests import BUILDS, KUBERNETES

MOST_SUPPRESSIONS = 5
GOOD = 10  # kube-score: 1 is critical, 5 a warning, 10 good with a remark


def suppressed(tool: str) -> set[str]:
    text = (KUBERNETES / "suppressions.toml").read_text(encoding="utf-8")
    return {each["finding"] for each in tomllib.loads(text)["suppression"] if each["tool"] == tool}


@functools.cache
def rendered(name: str) -> bytes:
    return subprocess.run(
        ["kustomize", "build", str(KUBERNETES / name)], capture_output=True, timeout=60, check=True
    ).stdout


def test_suppressions_are_few_and_each_has_its_reason() -> None:
    found = tomllib.loads((KUBERNETES / "suppressions.toml").read_text(encoding="utf-8"))["suppression"]
    assert 0 < len(found) <= MOST_SUPPRESSIONS
    assert all(set(each) == {"tool", "finding", "reason"} and each["reason"] for each in found)
    assert {each["tool"] for each in found} == {"kube-score", "checkov"}


@pytest.mark.needs("kustomize", "kube-score")
def test_kube_score_finds_nothing_else() -> None:
    found = set()
    for name in BUILDS:
        command = ["kube-score", "score", "--output-format", "json", "-"]
        done = subprocess.run(command, input=rendered(name), capture_output=True, timeout=120, check=False)
        for each in json.loads(done.stdout):
            for check in each["checks"]:
                if check["grade"] < GOOD and not check["skipped"]:
                    found |= {f"{check['check']['id']}: {comment['summary']}" for comment in check["comments"] or ()}
    assert found == suppressed("kube-score")


@pytest.mark.needs("kustomize", "checkov")
def test_checkov_finds_nothing_else(tmp_path: Path) -> None:
    command = ["checkov", "--skip-download", "--quiet", "--compact", "--framework", "kubernetes", "--output", "json"]
    for name in BUILDS:
        file = tmp_path / f"{Path(name).name}.yaml"
        file.write_bytes(rendered(name))
        command += ["--file", str(file)]
    done = subprocess.run(command, capture_output=True, timeout=300, check=False)
    report = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0
    assert report["summary"]["passed"] > 500
    assert {each["check_id"] for each in report["results"]["failed_checks"]} == suppressed("checkov")
