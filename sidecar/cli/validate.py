"""`tokensidecar validate`: whether a token is good, and what it says."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sidecar.cli import calling, reading, screen
from sidecar.cli.exits import Code

if TYPE_CHECKING:
    import argparse

    from tokensidecar import ValidatedToken


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="holds the token; default: standard input")
    parser.add_argument(
        "-a", "--audience", action="append", required=True, help="name of the service that asks; may be repeated"
    )
    parser.add_argument(
        "--profile", action="append", default=[], help='accepted profile, default "default"; may be repeated'
    )
    parser.add_argument("--scope", action="append", default=[], help="required scope; may be repeated")
    calling.arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Validate one token; the exit code."""
    token = reading.token(args.file)
    with calling.client(args.address, args) as client:
        import tokensidecar

        try:
            found = client.validate(token, args.audience, profiles=args.profile, required_scopes=args.scope)
        except tokensidecar.RejectedError as error:
            if args.json:
                screen.write_json({"valid": False, "reason": error.reason, "message": error.message})
            raise
    if args.json:
        _write_json(found)
    else:
        _show(found, args.audience)
    return Code.OK


def _write_json(found: ValidatedToken) -> None:
    """One JSON document; the claims in it are the very text that was signed or sealed."""
    names = [name for name in type(found).__dataclass_fields__ if name != "claims_json"]
    rest = {"valid": True} | {name: getattr(found, name) for name in names}
    text = json.dumps(rest, ensure_ascii=False, default=screen.rfc3339)
    print(f'{text[:-1]}, "claims": {found.claims_json}}}')


def _show(found: ValidatedToken, asked: list[str]) -> None:
    from rich.text import Text

    out = screen.console()
    out.print(
        Text("good", style="bold green"), "for", screen.clean(", ".join(a for a in found.audiences if a in asked))
    )
    registered = {"iss", "sub", "aud", "exp", "iat", "jti", "client_id", "scope"}
    rows = [
        ("profile", found.profile),
        ("issuer", found.issuer),
        ("subject", found.subject),
        ("client id", found.client_id),
        ("scopes", " ".join(found.scopes) or "none"),
        ("token id", found.token_id),
        ("issued", screen.rfc3339(found.issue_time)),
        ("expires", f"{screen.rfc3339(found.expire_time)}, in {screen.left(found.expire_time, datetime.now(UTC))}"),
        ("key id", found.key_id),
    ]
    out.print(screen.facts(rows))
    further = [(name, value) for name, value in found.claims.items() if name not in registered]
    if further:
        out.print()
        out.print(screen.facts((screen.clean(name), json.dumps(value, ensure_ascii=False)) for name, value in further))
