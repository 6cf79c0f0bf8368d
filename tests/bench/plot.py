"""The picture of results.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

REAL, EMPTY = "#2f6f9f", "#c9d3db"


def plot(results: dict[str, Any], file: Path) -> None:
    """Calls per second beside the empty handler, unary and in batches; ratios on the bars."""
    figure, panes = plt.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    for pane, batch in zip(panes, (False, True), strict=True):
        calls = [c for c in results["calls"] if c["name"].startswith("Batch") is batch]
        names = [c["name"].removeprefix("Batch").replace(" ", "\n") for c in calls]
        places = range(len(calls))
        pane.bar(
            [p - 0.2 for p in places],
            [c["empty_per_second"] for c in calls],
            0.4,
            color=EMPTY,
            label="empty handler, calls/s",
        )
        bars = pane.bar(
            [p + 0.2 for p in places], [c["per_second"] for c in calls], 0.4, color=REAL, label="sidecar, tokens/s"
        )
        pane.bar_label(bars, [f"{c['ratio']:.2f}x" for c in calls], padding=2, fontsize=9)
        pane.set_xticks(list(places), names)
        pane.set_title("Batches of 100" if batch else "One call, one token", fontsize=11)
        pane.spines[["top", "right"]].set_visible(False)
        pane.legend(frameon=False, fontsize=8, loc="upper left")
        pane.margins(y=0.25)
    figure.suptitle(f"One core, everything on, {results['load']}, {results['date']}", fontsize=9, color="#555555")
    figure.savefig(file, dpi=110)
