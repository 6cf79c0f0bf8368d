"""`tokensidecar doctor`: what is wrong with a sidecar and its surroundings, and what to do. Changes nothing, and shows no secret."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

from sidecar.cli import screen
from sidecar.cli.exits import Code
from sidecar.config import ConfigError, load
from sidecar.findings import findings, worst
from sidecar.seen import Finding, Verdict

if TYPE_CHECKING:
    import argparse

_STYLES = {Verdict.OK: "green", Verdict.WARN: "bold yellow", Verdict.PROBLEM: "bold red"}
_MARKS = {Verdict.OK: "✔", Verdict.WARN: "!", Verdict.PROBLEM: "✘"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--config", metavar="FILE", help="as for serve")
    parser.add_argument("--keeper", action="store_true", help="examine as a keeper, which also seals rings")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Examine; 1 if there is a problem, 2 if the configuration is no good, 0 otherwise, with warnings too."""
    try:
        config = load(args.config, os.environ)
    except ConfigError as error:
        _tell(
            error.source,
            [Finding("config", Verdict.PROBLEM, f"{key}: {says}") for key, says in error.problems],
            as_json=args.json,
        )
        return Code.USAGE
    from sidecar import doctor

    found = findings(doctor.examine(config, keeping=args.keeper))
    _tell(config.source, found, as_json=args.json)
    return Code.FAILURE if worst(found) is Verdict.PROBLEM else Code.OK


def _tell(source: str | None, found: list[Finding], *, as_json: bool) -> None:
    if as_json:
        lines = [{**asdict(each), "verdict": each.verdict.value} for each in found]
        screen.write_json({"source": source, "verdict": worst(found).value, "findings": lines})
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    before = ""
    for each in found:
        mark = Text(f"{_MARKS[each.verdict]} {each.verdict.value}", style=_STYLES[each.verdict])
        table.add_row(mark, each.area if each.area != before else "", screen.clean(each.says))
        if each.advice:
            table.add_row("", "", Text(f"→ {screen.clean(each.advice)}", style="italic"))
        before = each.area
    out = screen.console()
    out.print(table, soft_wrap=False)
    counts = [(sum(each.verdict is verdict for each in found), verdict) for verdict in (Verdict.PROBLEM, Verdict.WARN)]
    said = [
        f"{count} {'warning' if verdict is Verdict.WARN else 'problem'}{'s' if count != 1 else ''}"
        for count, verdict in counts
        if count
    ]
    out.print(Text(", ".join(said) or "nothing is wrong", style=_STYLES[worst(found)]))
