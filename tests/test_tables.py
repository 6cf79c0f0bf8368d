"""The reference tables of sidecar/README.md say what the code says."""

from __future__ import annotations

from tests.running import RunningSidecar
from tests.tables import README, filled, tables


def test_reference_tables_are_those_of_the_code(sidecar: RunningSidecar) -> None:
    text = README.read_text()
    assert filled(text, tables(sidecar)) == text, "run: python -m tests.tables"
