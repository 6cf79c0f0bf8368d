"""The reference tables of sidecar/README.md say what the code says."""

from __future__ import annotations

from tests.conftest import StartSidecar
from tests.tables import README, filled, tables


def test_reference_tables_are_those_of_the_code(start_sidecar: StartSidecar) -> None:
    text = README.read_text()  # a fresh sidecar: some gauges come with what others do to a shared one
    assert filled(text, tables(start_sidecar())) == text, "run: python -m tests.tables"
