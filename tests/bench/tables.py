"""results.json as tables in tests/README.md, between markers; `python -m tests.bench.tables` writes them without measuring anew."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.bench.inprocess import KINDS

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
TARGETS = {
    "Validate encrypted": 0.75,
    "Validate nested": 0.55,
    "Issue encrypted": 0.70,
    "Issue nested": 0.60,
    "BatchValidate encrypted": 9.0,
}
"""What was aimed at, as a ratio to the empty handler."""
PICTURES = {
    "calls": "Issue and Validate beside an empty handler on the same stack",
    "latency": "Validate at fixed rates, by CPU limit",
    "scale": "What grows, and what it costs",
}
WHOLE = ("Validate, whole verb", "Issue, whole verb")


def write(results: dict[str, Any]) -> None:
    """Every part that was measured, into its place in the README."""
    text = README.read_text()
    for name, table in (("calls", _calls), ("process", _process), ("inprocess", _steps), ("latency", _latency), ("scale", _scale)):  # fmt: skip
        if name in results:
            begin, end = f"<!-- {name}: made by python -m tests.bench -->\n", f"\n<!-- end of {name} -->"
            before, _, rest = text.partition(begin)
            _, _, after = rest.partition(end)
            part = results[name]
            source = f"\n\n{part['date']}, {part['cpu']}, {part['cores']} cores, Python {part['python']}, grpcio {part['grpcio']}; `{part['command']}`"
            picture = f"\n\n![{PICTURES[name]}](bench/{name}.png)" if name in PICTURES else ""
            text = f"{before}{begin}{table(part)}{source}{picture}{end}{after}"
    README.write_text(text)


def _calls(part: dict[str, Any]) -> str:
    rows = [
        (
            f["name"],
            f"{f['tokens_per_second']:,}",
            f"{f['empty_calls_per_second']:,}",
            f"{f['ratio']:.2f}",
            f"{TARGETS[f['name']]:.2f}" if f["name"] in TARGETS else "",
            f"{f['p50_ms']:.0f} / {f['p99_ms']:.0f}",
        )
        for f in part["figures"]
    ]
    head = ("call, one core, 64 in flight", "tokens/s", "empty handler, calls/s", "ratio", "aim", "p50 / p99 ms")
    return _table(head, rows)


def _process(part: dict[str, Any]) -> str:
    rows = [
        ("start to ready", f"{part['start_s']:.2f} s (first start, which makes keys: {part['first_start_s']:.2f} s)"),
        ("resident memory when ready", f"{part['ready_memory_mb']:.0f} MB"),
        ("idle CPU", f"{part['idle_cpu_percent']:.2f} % of a core"),
    ]
    return _table(("process, embedded default", ""), rows)


def _steps(part: dict[str, Any]) -> str:
    labels = [label for _, label in KINDS]
    names = dict.fromkeys(name for label in labels for name in part["steps_us"][label])
    steps = [name for name in names if name not in WHOLE] + list(WHOLE)
    rows = [(name, *(str(part["steps_us"][label].get(name, "-")) for label in labels)) for name in steps]
    rows += [(f"beside it: {name}, as most people call it", str(us), "-") for name, us in part["naive_us"].items()]
    return _table(("step, in-process, µs", *labels), rows)


def _latency(part: dict[str, Any]) -> str:
    rows = [
        (
            "none" if r["limit_millicores"] is None else f"{r['limit_millicores']}m",
            r["way"],
            f"{r['rate']:,}",
            *(f"{r[f'{which}_ms']:.1f}" if r["kept_up"] else "-" for which in ("p50", "p99", "p999")),
        )
        for r in part["rows"]
    ]
    beside = part["beside_batches_of_100"]
    table = _table(("CPU limit", "over", "calls/s", "p50 ms", "p99 ms", "p99.9 ms"), rows)
    return (
        f"{table}\n\n-: the limit allows less than that rate; whoever calls waits in a queue. Beside batches of 100 nested tokens on the "
        f"same core: p50 {beside['p50_ms']:.1f} ms, p99 {beside['p99_ms']:.1f} ms."
    )


def _scale(part: dict[str, Any]) -> str:
    words = {"claims": "bytes of claims", "ring": "keys of each use in the ring", "profiles": "profiles"}
    rows = []
    for grows, what in words.items():
        same = [r for r in part["rows"] if r["grows"] == grows]
        rows += [
            (f"{r['size']:,} {what}", *(_against(r[f"{verb}_per_second"], same[0][f"{verb}_per_second"]) for verb in ("issue", "validate")))
            for r in same
        ]  # fmt: skip
    return _table(("what grows", "Issue/s", "Validate/s"), rows)


def _against(rate: float, first: float) -> str:
    return f"{rate:,} ({rate / first - 1:+.0%})" if rate != first else f"{rate:,}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    write(json.loads((HERE / "results.json").read_text()))
    sys.exit(0)
