"""`tokensidecar rotate`: successors for a profile's keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sidecar.cli import calling, keys, screen
from sidecar.cli.exits import Code

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--profile", default="", help='default: "default"')
    parser.add_argument(
        "--use", choices=("encryption", "signature", "refresh"), help="default: encryption and signature"
    )
    parser.add_argument(
        "--expect", type=int, default=0, metavar="REVISION", help="only if the ring is at this revision (see `keys`)"
    )
    parser.add_argument(
        "--request-id", metavar="ID", help="a repeat with the same id rotates once; default: a fresh one"
    )
    parser.add_argument("--reason", default="", help="for the audit log")
    calling.arguments(parser, admin=True)


def run(args: argparse.Namespace) -> int:
    """Rotate once; the exit code."""
    with calling.admin_client(args.address, args) as admin:
        import tokensidecar

        rotation = admin.rotate(
            args.profile,
            use=tokensidecar.KeyUse(args.use) if args.use else None,
            expected_ring_revision=args.expect,
            request_id=args.request_id,
            reason=args.reason,
        )
    if args.json:
        screen.write_json(
            {
                "ring_revision": rotation.ring_revision,
                "activate_time": rotation.activate_time,
                "keys": [keys.as_json(key) for key in rotation.keys],
            }
        )
        return Code.OK
    now = datetime.now(UTC)
    when = "now" if rotation.activate_time <= now else f"in {screen.left(rotation.activate_time, now)}"
    screen.console().print(
        f"rotated; the new keys issue from {screen.rfc3339(rotation.activate_time)}, {when}; tokens stay good"
    )
    keys.show(rotation.keys)
    return Code.OK
