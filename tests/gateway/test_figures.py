"""The figures that sidecar/envoy/README.md shows are those that were measured."""

from __future__ import annotations

import json

from tests.bench.envoy import BEGIN, END, HERE, README, table


def test_the_readme_shows_what_was_measured() -> None:
    results = json.loads((HERE / "envoy.json").read_text())
    assert f"{BEGIN}{table(results)}{END}" in README.read_text()
