"""The reference tables of sidecar/README.md, made from the code. `python -m tests.tables` writes them; test_tables.py compares."""

from __future__ import annotations

import re
import sys

from sidecar.audit import FIELDS
from sidecar.sections import SECTIONS, VARIABLES
from tests.running import ROOT, RunningSidecar

README = ROOT / "sidecar" / "README.md"
METRIC_HELP = re.compile(r"# HELP (\S+) (.*)")
METRIC_TYPE = re.compile(r"# TYPE (\S+) (\S+)")


def config() -> str:
    """Every key of every section."""
    rows = ["| key | default | what it says |", "| --- | --- | --- |"]
    for section, table in SECTIONS.items():
        for name, field in table.fields.items():
            default = "required" if field.required else f"`{field.default}`" if field.default else ""
            rows.append(f"| `{section}.{name}` | {_cell(default)} | {_cell(field.purpose)} |")
    return "\n".join(rows)


def variables() -> str:
    """Every environment variable that the server reads."""
    rows = ["| variable | instead of |", "| --- | --- |"]
    return "\n".join([*rows, *(f"| `{name}` | {_cell(meaning)} |" for name, meaning in VARIABLES.items())])


def audit() -> str:
    """Every field of an audit record."""
    rows = ["| field | what it says |", "| --- | --- |"]
    return "\n".join([*rows, *(f"| `{name}` | {_cell(meaning)} |" for name, meaning in FIELDS.items())])


def metrics(sidecar: RunningSidecar) -> str:
    """Every metric that a sidecar has from its start."""
    _, text = sidecar.get("/metrics")
    types = dict(METRIC_TYPE.findall(text))
    rows = ["| metric | type | what it says |", "| --- | --- | --- |"]
    return "\n".join(
        [*rows, *(f"| `{name}` | {types[name]} | {_cell(says)} |" for name, says in METRIC_HELP.findall(text))]
    )


def filled(text: str, tables: dict[str, str]) -> str:
    """The text with each table between its two markers."""
    for name, table in tables.items():
        begin, end = f"<!-- {name}: made by python -m tests.tables -->\n", f"\n<!-- end of {name} -->"
        if begin not in text or end not in text:
            raise ValueError(f"no markers for {name}")
        head, _, rest = text.partition(begin)
        text = head + begin + table + end + rest.partition(end)[2]
    return text


def tables(sidecar: RunningSidecar) -> dict[str, str]:
    """All of them."""
    return {"config": config(), "variables": variables(), "audit": audit(), "metrics": metrics(sidecar)}


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    """Write the tables into the README."""
    with RunningSidecar() as sidecar:
        README.write_text(filled(README.read_text(), tables(sidecar)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
