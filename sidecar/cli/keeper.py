"""`tokensidecar keeper`: the one who writes rings, into a folder or a Secret, for sidecars that only read them."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sidecar.cli import screen
from sidecar.cli.exits import Code, CommandError
from sidecar.cli.serve import loaded

if TYPE_CHECKING:
    from sidecar.config import Config
    from sidecar.duties import Duty
    from sidecar.keeper import Changed
    from sidecar.offline import Offline

DONE, ELSEWHERE, FAILED = "done", "left to another keeper", "failed"


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was due. `activate_time`: when the new keys issue; `problem`: why it failed."""

    profile: str
    duty: str
    outcome: str
    ring_revision: int
    activate_time: datetime | None = None
    problem: str = ""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--config", metavar="FILE", help="as for serve; keys.store is a folder, or a Secret")
    parser.add_argument(
        "--once",
        action="store_true",
        help="do what is due, say so, and end: for a CronJob. Missing rings are made, keys rotated and destroyed, seals renewed",
    )
    parser.add_argument(
        "--rotate",
        action="append",
        metavar="PROFILE",
        help="with --once: rotate this profile, due or not; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="with --once: print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Keep until SIGTERM or SIGINT, or once; the exit code. Once: 0 unless something that was due, or asked for, failed."""
    if not args.once and (args.rotate or args.json):
        raise CommandError(
            Code.USAGE, "--rotate and --json go with --once; ask a running keeper by `tokensidecar rotate`"
        )
    config = loaded(args.config)
    asked = list(dict.fromkeys(args.rotate or ()))
    if unknown := [name for name in asked if name not in config.profiles]:
        raise CommandError(Code.USAGE, f"no such profile: {', '.join(unknown)}")
    from sidecar import app, offline

    async def work(on: offline.Offline) -> int:
        lines = await once(config, on, asked)
        _tell(lines, as_json=args.json)
        return Code.FAILURE if any(line.outcome == FAILED for line in lines) else Code.OK

    try:
        if not args.once:
            return app.run(config, keeping=True)
        app.refuse_what_cannot_work(config.keys, keeping=True)
        # Standard output has the report; so records that would go there go to standard error.
        return offline.run(config, work, keeping=True, may_make=True, audit_to=sys.stderr)
    except app.StartError as error:
        raise CommandError(Code.FAILURE, str(error)) from error


async def once(config: Config, on: Offline, asked: list[str]) -> list[Line]:
    """Do what is due, then what was asked for."""
    lines = [Line(name, "make", DONE, on.keeper.rings()[name].revision) for name in on.made]
    await on.heartbeat()
    lines += [
        Line(name, "keep", FAILED, 0, problem="its state is stale: see the log, and `tokensidecar accept-rollback`")
        for name in config.profiles
        if on.keeper.stale(name)
    ]
    for duty in on.duties.due(on.keeper.now()):
        lines.append(await _do(on, duty))
    for name in asked:
        lines.append(await _rotate(on, name))
    return lines


async def _do(on: Offline, duty: Duty) -> Line:
    from sidecar.data_keys import DamagedRingError
    from sidecar.errors import ChangedRingError, SidecarError

    what = f"{duty.kind} {duty.use.value}" if duty.use else duty.kind
    try:
        # Not claimed: a claim outlives this process by up to a minute, and would keep the next run from its work.
        await on.keeper.refresh()
        if duty not in on.duties.due(on.keeper.now()):
            return Line(duty.profile, what, ELSEWHERE, _revision(on, duty.profile))
        return _line(on, duty.profile, what, await on.do(duty))
    except ChangedRingError:
        return Line(duty.profile, what, ELSEWHERE, _revision(on, duty.profile))
    except (SidecarError, DamagedRingError) as error:
        return Line(duty.profile, what, FAILED, _revision(on, duty.profile), problem=str(error))


async def _rotate(on: Offline, profile: str) -> Line:
    from sidecar.data_keys import DamagedRingError
    from sidecar.errors import SidecarError

    try:
        return _line(on, profile, "rotate", await on.rotate(profile))
    except (SidecarError, DamagedRingError) as error:
        return Line(profile, "rotate", FAILED, _revision(on, profile), problem=str(error))


def _line(on: Offline, profile: str, what: str, changed: Changed | None) -> Line:
    if changed is None:
        return Line(profile, what, DONE, _revision(on, profile))
    activate = datetime.fromtimestamp(changed.activate_time, UTC) if what.startswith("rotate") else None
    return Line(profile, what, DONE, changed.revision, activate)


def _revision(on: Offline, profile: str) -> int:
    ring = on.keeper.rings().get(profile)
    return ring.revision if ring else 0


def _tell(lines: list[Line], *, as_json: bool) -> None:
    if as_json:
        screen.write_json({"duties": [asdict(line) for line in lines]})
        return
    out = screen.console()
    if not lines:
        out.print("nothing is due")
        return
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for name in ("profile", "duty", "outcome", "revision", "new keys issue from"):
        table.add_column(name, no_wrap=True)
    for line in lines:
        from_ = screen.rfc3339(line.activate_time) if line.activate_time else ""
        table.add_row(line.profile, line.duty, line.outcome, str(line.ring_revision or ""), from_)
    out.print(table)
    for line in lines:
        if line.problem:
            print(f"tokensidecar keeper: {line.profile}, {line.duty}: {screen.clean(line.problem)}", file=sys.stderr)
