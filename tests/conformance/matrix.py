"""The matrix of clients/README.md, language by scenario. A cell is what test_conformance.py holds it to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.conformance.driven import languages
from tests.conformance.player import scenarios
from tests.running import ROOT

if TYPE_CHECKING:
    from tests.conformance.driven import Language

README = ROOT / "clients/README.md"
BEGIN = "<!-- matrix: made by python -m tests.conformance -->\n"
END = "\n<!-- end of matrix -->"


def matrix() -> str:
    """✔: played, and good. —: the client cannot, and why is below."""
    columns = languages()
    rows = [
        "| scenario | " + " | ".join(column.name for column in columns) + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    for scenario in scenarios():
        name = scenario["name"]
        rows.append(f"| {name} | " + " | ".join("—" if name in each.lacks else "✔" for each in columns) + " |")
    return "\n".join([*rows, "", *_reasons(columns)]).rstrip("\n")


def _reasons(columns: tuple[Language, ...]) -> list[str]:
    return [f"- {column.name}, {name}: {why}." for column in columns for name, why in column.lacks.items()]


def filled(text: str) -> str:
    """The page with the matrix between its markers."""
    head, _, rest = text.partition(BEGIN)
    return head + BEGIN + matrix() + END + rest.partition(END)[2]
