"""`tokensidecar keys`: the keys, their states, and their times on a line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import accumulate, groupby, pairwise
from typing import TYPE_CHECKING

from sidecar.cli import calling, screen
from sidecar.cli.exits import Code

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from tokensidecar import Key

LINE = 20  # characters of a time line
_STYLES = {"pending": "cyan", "active": "green", "retiring": "yellow", "destroyed": "dim", "compromised": "bold red"}
_MARKS = {"pending": "·", "active": "━", "retiring": "╌", "destroyed": " ", "compromised": "x"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--profile", default="", help="default: all")
    calling.arguments(parser, admin=True)


def run(args: argparse.Namespace) -> int:
    """List them; the exit code."""
    with calling.admin_client(args.address, args) as admin:
        found = admin.keys(args.profile)
    if args.json:
        screen.write_json({"keys": [as_json(key) for key in found]})
    else:
        show(found)
    return Code.OK


def as_json(key: Key) -> dict[str, object]:
    """The key by the contract's names."""
    return {name: getattr(key, name) for name in type(key).__dataclass_fields__}


def show(keys: Sequence[Key]) -> None:
    """A table per profile, with a time line that serves all keys of the profile."""
    from rich.table import Table
    from rich.text import Text

    out = screen.console()
    now = datetime.now(UTC)
    for profile, group in groupby(keys, key=lambda key: key.profile):
        ring = list(group)
        line = TimeLine(ring, now)
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
        for name in ("use", "key id", "algorithm", "state", " " * line.column(now) + "▼"):
            table.add_column(name, no_wrap=True)
        for key in ring:
            algorithm = key.algorithm + (f" {key.content_encryption}" if key.content_encryption else "")
            state = Text(key.state + _until(key, now), style=_STYLES[key.state])
            table.add_row(key.use, screen.shortened(key.key_id, 10), algorithm, state, line.of(key))
        first, last = (f"{time:%d %b %H:%M}" for time in (line.times[0], line.times[-1]))
        out.print(
            Text(f"profile {profile}, ring revision {ring[0].ring_revision}, from {first} to {last} UTC", style="bold")
        )
        out.print(table)
    marks = "  ".join(f"{_MARKS[state]} {state}" for state in ("pending", "active", "retiring", "compromised"))
    out.print(Text(f"{marks}  ▼ now; not to scale", style="dim"))


class TimeLine:
    """Columns for times: from the first to the last time of a ring, each stretch between two of them wide enough to be seen."""

    def __init__(self, ring: Sequence[Key], now: datetime) -> None:
        set_times = {time for key in ring for time in (key.create_time, *_ends(key)) if time}
        after = max(set_times | {now}) + timedelta(seconds=30)  # what has no end goes on
        self.times = sorted(set_times | {now, after})
        stretches = list(pairwise(self.times))
        least = min(2, LINE // len(stretches))
        seconds = (self.times[-1] - self.times[0]).total_seconds()
        shared = LINE - least * len(stretches)
        widths = [least + shared * (b - a).total_seconds() / seconds for a, b in stretches]
        self._columns = [0, *(min(LINE, round(x)) for x in accumulate(widths))]

    def column(self, time: datetime) -> int:
        """Where a time of the ring, or now, is drawn: 0 to LINE."""
        return self._columns[self.times.index(time)]

    def of(self, key: Key) -> str:
        """The phases of one key, in marks."""
        activate, retire, destroy, compromise = _ends(key)
        marks = [" "] * LINE
        last = destroy or self.times[-1]
        phases = (
            ("pending", key.create_time, activate),
            ("active", activate, retire or last),
            ("retiring", retire, last),
            ("compromised", compromise, last),
        )
        for state, since, until in phases:
            if since and until and since < until:
                first, after = self.column(since), self.column(until)
                marks[first:after] = _MARKS[state] * (after - first)
        return "".join(marks)


def _ends(key: Key) -> tuple[datetime, datetime | None, datetime | None, datetime | None]:
    """Activation, retirement, destruction, compromise."""
    return key.activate_time, key.retire_time, key.destroy_time, key.compromise_time


def _until(key: Key, now: datetime) -> str:
    """How long this state lasts, where that is known."""
    until = {"pending": key.activate_time, "active": key.retire_time, "retiring": key.destroy_time}.get(key.state)
    return f" {screen.left(until, now)}" if until else ""
