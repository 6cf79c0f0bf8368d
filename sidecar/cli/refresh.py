"""`tokensidecar refresh`: a new pair for a refresh token, from standard input or a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.cli import calling, reading, screen
from sidecar.cli.exits import Code

if TYPE_CHECKING:
    import argparse

    from tokensidecar import IssuedToken


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "file", nargs="?", default="-", metavar="FILE", help="holds the refresh token; default: standard input"
    )
    parser.add_argument("-a", "--audience", action="append", default=[], help="fewer than granted; may be repeated")
    parser.add_argument("--scope", action="append", default=[], help="fewer than granted; may be repeated")
    calling.arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Refresh once; the exit code."""
    token = reading.token(args.file)
    with calling.client(args.address, args) as client:
        issued = client.refresh(token, audiences=args.audience, scopes=args.scope)
    write(issued, as_json=args.json)
    return Code.OK


def write(issued: IssuedToken, *, as_json: bool) -> None:
    """The access token on a line of standard output, and the refresh token on the next where there is one."""
    if as_json:
        screen.write_json({name: getattr(issued, name) for name in type(issued).__dataclass_fields__})
        return
    print(issued.token)
    if issued.refresh_token:
        print(issued.refresh_token)
    if screen.is_terminal():
        rows = [
            ("token id", issued.token_id),
            ("key id", issued.key_id),
            ("audiences", ", ".join(issued.audiences)),
            ("scopes", " ".join(issued.scopes) or "none"),
            (
                "expires",
                f"{screen.rfc3339(issued.expire_time)}, after {screen.left(issued.expire_time, issued.issue_time)}",
            ),
            ("size", f"{len(issued.token):,} characters"),
        ]
        if issued.refresh_expire_time:
            rows.append(("refresh token", f"the second line; expires {screen.rfc3339(issued.refresh_expire_time)}"))
        out = screen.console()
        out.print()
        out.print(screen.facts(rows))
