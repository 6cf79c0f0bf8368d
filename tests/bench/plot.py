"""The pictures of results.json: one for each part that has a shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

REAL, EMPTY = "#2f6f9f", "#c9d3db"
COLOURS = ("#2f6f9f", "#c26d3f", "#5d8a4b", "#8a5d8a")


def draw(results: dict[str, Any], folder: Path) -> None:
    """All pictures whose part was measured."""
    for name, picture in (("calls", _calls), ("latency", _latency), ("scale", _scale)):
        if name in results:
            picture(results[name], folder / f"{name}.png")


def _calls(part: dict[str, Any], file: Path) -> None:
    figure, panes = plt.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    for pane, batch in zip(panes, (False, True), strict=True):
        calls = [c for c in part["figures"] if c["name"].startswith("Batch") is batch]
        names = [c["name"].removeprefix("Batch").replace(" ", "\n") for c in calls]
        left, right = [n - 0.2 for n in range(len(calls))], [n + 0.2 for n in range(len(calls))]
        pane.bar(left, [c["empty_calls_per_second"] for c in calls], 0.4, color=EMPTY, label="empty handler, calls/s")
        bars = pane.bar(right, [c["tokens_per_second"] for c in calls], 0.4, color=REAL, label="sidecar, tokens/s")
        pane.bar_label(bars, [f"{c['ratio']:.2f}x" for c in calls], padding=2, fontsize=9)
        pane.set_xticks(range(len(calls)), names)
        _plain(pane, "Batches of 100" if batch else "One call, one token")
        pane.margins(y=0.25)
    _finish(figure, file, f"one core, everything on; {part['load']}; {part['date']}")


def _latency(part: dict[str, Any], file: Path) -> None:
    limits = list(dict.fromkeys(row["limit_millicores"] for row in part["rows"]))
    figure, panes = plt.subplots(1, len(limits), figsize=(12, 3.6), constrained_layout=True, sharey=True)
    for pane, limit in zip(panes, limits, strict=True):
        for colour, way in zip(COLOURS, ("socket", "tcp"), strict=False):
            rows = [r for r in part["rows"] if r["limit_millicores"] == limit and r["way"] == way]
            rates = [r["rate"] for r in rows]
            pane.plot(rates, [r["p99_ms"] for r in rows], marker="o", color=colour, label=f"{way}, p99")
            pane.plot(rates, [r["p50_ms"] for r in rows], marker=".", linestyle=":", color=colour, label=f"{way}, p50")
            for row in rows:
                if not row["kept_up"]:
                    pane.annotate("queue", (row["rate"], row["p99_ms"]), fontsize=7, color="#a03c2e")
        pane.set_yscale("log")
        pane.set_xlabel("calls/s")
        _plain(pane, "no limit" if limit is None else f"{limit}m CPU")
    panes[0].set_ylabel("ms")
    _finish(figure, file, f"Validate, nested; {part['load']}; {part['date']}")


def _scale(part: dict[str, Any], file: Path) -> None:
    titles = {"claims": "bytes of claims", "ring": "keys of each use in the ring", "profiles": "profiles"}
    figure, panes = plt.subplots(1, 3, figsize=(11, 3.4), constrained_layout=True, sharey=True)
    for pane, (what, title) in zip(panes, titles.items(), strict=True):
        rows = [row for row in part["rows"] if row["grows"] == what]
        for colour, verb in zip(COLOURS, ("validate", "issue"), strict=False):
            pane.plot(
                [r["size"] for r in rows], [r[f"{verb}_per_second"] for r in rows], marker="o", color=colour, label=verb
            )
        pane.set_ylim(bottom=0)
        _plain(pane, title)
    panes[0].set_ylabel("calls/s, one core")
    _finish(figure, file, f"what grows, and what it costs; {part['date']}")


def _plain(pane: Axes, title: str) -> None:
    pane.set_title(title, fontsize=10)
    pane.spines[["top", "right"]].set_visible(False)
    pane.legend(frameon=False, fontsize=7)


def _finish(figure: Any, file: Path, title: str) -> None:
    figure.suptitle(title, fontsize=9, color="#555555")
    figure.savefig(file, dpi=110)
    plt.close(figure)
