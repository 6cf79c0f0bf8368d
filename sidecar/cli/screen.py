"""What a person sees: tables and colour by rich, at the terminal's width; plain text in a pipe; never a control character of others' making."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

ELLIPSIS = "…"


def console() -> Console:
    """Standard output. Colour only on a terminal and without NO_COLOR; no markup is read out of what is printed."""
    from rich.console import Console

    return Console(markup=False, highlight=False, emoji=False, soft_wrap=False)


def facts(rows: Iterable[tuple[str, str]]) -> Table:
    """A table of names and values; values fold, nothing is cut."""
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, clean(value))
    return table


def clean(text: str) -> str:
    """The text with everything unprintable escaped, so that a claim can neither move the cursor nor turn the line around."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str, length: int) -> str:
    """At most `length` characters, cut at the end."""
    return text if len(text) <= length else text[: length - 1] + ELLIPSIS


def write_json(value: Mapping[str, Any]) -> None:
    """One JSON document on standard output, for programs."""
    print(json.dumps(value, ensure_ascii=False, indent=2, default=rfc3339))


def rfc3339(time: datetime) -> str:
    """UTC, with a Z."""
    return time.astimezone(UTC).isoformat(timespec="seconds").removesuffix("+00:00") + "Z"


def left(until: datetime, now: datetime) -> str:
    """The time from now until then, in its two largest units: "14m 59s"."""
    return span((until - now).total_seconds())


def span(length: float) -> str:
    """Seconds, in their two largest units."""
    seconds = max(0, round(length))
    parts = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s")]
    first = next((i for i, (amount, _) in enumerate(parts) if amount), len(parts) - 1)
    return " ".join(f"{amount}{unit}" for amount, unit in parts[first : first + 2] if amount) or "0s"


class Steps:
    """Progress of long work, on standard error: a bar where that is a terminal of its own, else a line for each step.

    Where standard output is the same terminal, what goes there would run through a bar.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._began = time.monotonic()
        self._bar: Progress | None = None
        if sys.stderr.isatty() and not sys.stdout.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def begin(self, name: str) -> None:
        """The step of that name is under way."""
        self._name = name
        if self._bar:
            self._bar.update(self._task, description=shortened(clean(name), 40))

    def end(self, said: str) -> None:
        """It is over."""
        self._done += 1
        if self._bar:
            self._bar.update(self._task, completed=self._done)
            return
        more = self._total - self._done
        seconds = (time.monotonic() - self._began) / self._done * more
        rest = f"; {span(seconds)} left" if seconds >= 1 else ""
        print(f"[{self._done}/{self._total}] {clean(self._name)}: {said}{rest}", file=sys.stderr, flush=True)


def is_terminal() -> bool:
    """Whether a person looks at standard output."""
    return sys.stdout.isatty()
