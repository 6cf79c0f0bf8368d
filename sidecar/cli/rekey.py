"""`tokensidecar rekey`: seal every ring under fresh data keys, wrapped by the key-encryption keys of the configuration."""

from __future__ import annotations

import argparse

from sidecar.cli import screen
from sidecar.cli.exits import Code, CommandError
from sidecar.cli.serve import loaded

RECENT = 3600.0  # seconds


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--config", metavar="FILE", help="as for serve")
    parser.add_argument("--profile", action="append", metavar="NAME", help="only this one; may be repeated")
    parser.add_argument(
        "--former-kek",
        metavar="KEK",
        help="the key-encryption key (a file, or as keys.kek names it) that the rings are still under, if it is neither keys.kek nor keys.further_kek",
    )
    parser.add_argument(
        "--all", action="store_true", help="also rings whose data keys were renewed within the last hour"
    )


def run(args: argparse.Namespace) -> int:
    """Rekey ring after ring; the exit code. A run that was ended goes on where it stopped: what is done is passed over."""
    config = loaded(args.config)
    if unknown := sorted(set(args.profile or ()) - config.profiles.keys()):
        raise CommandError(Code.USAGE, f"no such profile: {', '.join(unknown)}")
    from sidecar import app, offline
    from sidecar.profile import ring_owner

    names = [ring for ring in config.rings if ring_owner(ring) in (args.profile or config.profiles)]

    async def work(on: offline.Offline) -> int:
        with screen.Steps(len(names)) as steps:
            for name in names:
                steps.begin(name)
                age = on.keeper.now() - on.keeper.data_keys_time(name)
                if age < RECENT and not args.all and not on.keeper.further(name):
                    steps.end(f"done already, {age:.0f} s ago")
                    continue
                changed = await on.rekey(name)
                steps.end(f"done, ring revision {changed.revision}")
        return Code.OK

    try:
        return offline.run(config, work, former_kek=args.former_kek)
    except app.StartError as error:
        raise CommandError(Code.FAILURE, str(error)) from error
