"""`tokensidecar accept-rollback`: go on from an older state of the store, after a look at what went back."""

from __future__ import annotations

import argparse
import sys

from sidecar.cli.exits import Code, CommandError
from sidecar.cli.serve import loaded

WHY_MOST = 256  # characters, as for every reason in the audit log


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--config", metavar="FILE", help="as for serve")
    parser.add_argument("--yes", action="store_true", help="accept; without it the command only says what went back")
    parser.add_argument(
        "--here-only",
        action="store_true",
        help="for this sidecar alone, where the store cannot be written; else a keeper's keys start a new history for all",
    )
    parser.add_argument("--reason", default="", metavar="TEXT", help="for the audit log")


def run(args: argparse.Namespace) -> int:
    """Say what went back, and accept it if told to; the exit code. 1: something went back and was not accepted."""
    if len(args.reason) > WHY_MOST or not args.reason.isprintable():
        raise CommandError(Code.USAGE, f"--reason: at most {WHY_MOST} printable characters")
    config = loaded(args.config)
    from sidecar import app, offline

    async def work(on: offline.Offline) -> int:
        alarms = dict(on.keeper.alarms())
        for name, problem in sorted(alarms.items()):
            print(f"{name}: {problem}", file=sys.stderr)
        if not alarms:
            print("nothing has gone back", file=sys.stderr)
            return Code.OK
        if not args.yes:
            print(
                "nothing was changed. Keys that only the newer state had are lost, and tokens under them are rejected; "
                "revocations that only it had are forgotten: "
                "put the newer state back, or accept the loss with --yes",
                file=sys.stderr,
            )
            return Code.FAILURE
        await on.accept_rollback(why=args.reason)
        print("accepted", file=sys.stderr)
        return Code.OK

    try:
        return offline.run(config, work, keeping=not args.here_only)
    except app.StartError as error:
        raise CommandError(Code.FAILURE, str(error)) from error
