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

LINE = 40  # characters of a time line: the most that leaves room for the rest in 80 columns
_STYLES = {"pending": "cyan", "active": "green", "retiring": "yellow", "destroyed": "dim", "compromised": "bold red"}
_MARKS = {"pending": "·", "active": "━", "retiring": "╌", "compromised": "x", "destroyed": "┤"}
_KEY_ID, _STATE = 10, len("retiring 30d 23h")  # widths


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
    """The keys of each profile by use and algorithm, with a time line that serves all keys of the profile."""
    from rich.text import Text

    out = screen.console()
    now = datetime.now(UTC)
    for profile, group in groupby(keys, key=lambda key: key.profile):
        ring = list(group)
        line = TimeLine(ring, now)
        first, last = (f"{time:%d %b %H:%M}" for time in (line.times[0], line.times[-1]))
        title = f"profile {profile}, ring revision {ring[0].ring_revision}, from {first} to {last} UTC"
        out.print(Text(title, style="bold"), soft_wrap=True)
        out.print(Text(" " * (_KEY_ID + _STATE + 6 + line.column(now)) + "▼ now", style="dim"), soft_wrap=True)
        for kind, alike in groupby(ring, key=_kind):
            out.print(Text(kind), soft_wrap=True)
            for key in alike:
                key_id = screen.shortened(screen.clean(key.key_id), _KEY_ID).ljust(_KEY_ID)
                state = (key.state + _until(key, now)).ljust(_STATE)
                drawn = ((mark, _mark_style(mark)) for mark in line.of(key))
                row = Text.assemble("  ", key_id, "  ", (state, _STYLES[key.state]), "  ", *drawn)
                row.rstrip()
                out.print(row, soft_wrap=True)
    marks = "  ".join(f"{mark} {state}" for state, mark in _MARKS.items())
    out.print(Text(f"{marks}; not to scale", style="dim"), soft_wrap=True)


def _kind(key: Key) -> str:
    """What is alike in keys that succeed each other."""
    return " ".join(filter(None, (key.use, key.algorithm, key.content_encryption)))


def _mark_style(mark: str) -> str:
    return next((_STYLES[state] for state, its in _MARKS.items() if its == mark), "")


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
        if destroy and self.column(destroy) < LINE:
            marks[self.column(destroy)] = _MARKS["destroyed"]
        return "".join(marks)


def _ends(key: Key) -> tuple[datetime, datetime | None, datetime | None, datetime | None]:
    """Activation, retirement, destruction, compromise."""
    return key.activate_time, key.retire_time, key.destroy_time, key.compromise_time


def _until(key: Key, now: datetime) -> str:
    """How long this state lasts, where that is known."""
    until = {"pending": key.activate_time, "active": key.retire_time, "retiring": key.destroy_time}.get(key.state)
    return f" {screen.left(until, now)}" if until else ""
