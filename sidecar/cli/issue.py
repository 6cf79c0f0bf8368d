"""`tokensidecar issue`: a token on standard output; on a terminal with what was granted."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sidecar.cli import calling, reading, refresh
from sidecar.cli.exits import Code

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("-s", "--subject", required=True, help="`sub`")
    parser.add_argument("-a", "--audience", action="append", required=True, help="`aud`; may be repeated")
    parser.add_argument("--profile", default="", help='default: "default"')
    parser.add_argument("--ttl", type=duration, help='lifetime such as "5m"; default: the profile\'s')
    parser.add_argument("--scope", action="append", default=[], help="may be repeated")
    parser.add_argument("--client-id", default="", help="default: the caller's name, as the sidecar sees it")
    parser.add_argument(
        "--claim",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="VALUE is JSON where it can be, else text; may be repeated",
    )
    parser.add_argument(
        "--claims", metavar="FILE", help="a JSON object, carried over byte for byte; - is standard input"
    )
    parser.add_argument("--refresh", action="store_true", help="also a refresh token, which carries this grant")
    calling.arguments(parser)


def duration(text: str) -> timedelta:
    """A lifetime; ValueError for argparse."""
    from sidecar.fields import Duration

    return timedelta(seconds=Duration(1, 30 * 86400).read(text))


def run(args: argparse.Namespace) -> int:
    """Issue one token; the exit code."""
    claims = reading.claims(args.claims, args.claim)
    with calling.client(args.address, args) as client:
        issued = client.issue(
            args.subject,
            args.audience,
            profile=args.profile,
            ttl=args.ttl,
            client_id=args.client_id,
            scopes=args.scope,
            claims=claims,
            with_refresh_token=args.refresh,
        )
    refresh.write(issued, as_json=args.json)
    return Code.OK
