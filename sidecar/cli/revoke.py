"""`tokensidecar revoke`: end a token, one by its id, all of a subject, or keys that are compromised."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sidecar.cli import calling, keys, reading, screen
from sidecar.cli.exits import Code

if TYPE_CHECKING:
    from tokensidecar import AdminClient, Revocation


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    one = what.add_parser("keys", help="declare keys compromised: every token under them ends")
    one.add_argument("key_ids", metavar="KEY_ID", nargs="+", help="as `tokensidecar keys --json` lists them")
    _further(one)
    one = what.add_parser("subject", help="end all tokens of a subject that were issued until now")
    one.add_argument("subject", metavar="SUBJECT", help="`sub` of the tokens")
    one.add_argument("--issued-before", metavar="TIME", type=_time, help="RFC 3339; default: now")
    _further(one)
    one = what.add_parser("token", help="end the token in a file or on standard input; of a refresh token, its login")
    one.add_argument("file", nargs="?", default="-", metavar="FILE", help="default: standard input")
    one.add_argument("--reason", default="", help="for the audit log")
    calling.arguments(one)
    one = what.add_parser("token-id", help="end one token by its id")
    one.add_argument("token_id", metavar="ID", help="`jti` of the token")
    one.add_argument(
        "--expire-time", metavar="TIME", type=_time, help="its `exp`, RFC 3339; default: the latest that can be"
    )
    _further(one)


def run(args: argparse.Namespace) -> int:
    """Revoke; the exit code."""
    if args.what == "token":
        return _presented(args)
    with calling.admin_client(args.address, args) as admin:
        return _keys(admin, args) if args.what == "keys" else _tokens(admin, args)


def _presented(args: argparse.Namespace) -> int:
    token = reading.token(args.file)
    with calling.client(args.address, args) as client:
        return _told(client.revoke(token, reason=args.reason), args)


def _keys(admin: AdminClient, args: argparse.Namespace) -> int:
    done = admin.revoke_keys(args.profile, args.key_ids, reason=args.reason)
    if args.json:
        listed = [keys.as_json(key) for key in done.keys]
        revision, effective = done.ring_revision, done.effective_time
        screen.write_json({"ring_revision": revision, "effective_time": effective, "keys": listed})
    else:
        _say(done.effective_time)
        keys.show(done.keys)
    return Code.OK


def _tokens(admin: AdminClient, args: argparse.Namespace) -> int:
    if args.what == "subject":
        held = admin.revoke_subject(args.profile, args.subject, issued_before=args.issued_before, reason=args.reason)
    else:
        held = admin.revoke_token_id(args.profile, args.token_id, expire_time=args.expire_time, reason=args.reason)
    return _told(held, args)


def _told(held: Revocation, args: argparse.Namespace) -> int:
    if args.json:
        screen.write_json({"revocation_revision": held.revision, "effective_time": held.effective_time})
    else:
        _say(held.effective_time)
    return Code.OK


def _say(effective: datetime) -> None:
    now = datetime.now(UTC)
    when = "now" if effective <= now else f"in {screen.left(effective, now)}"
    screen.console().print(f"revoked here; everywhere by {screen.rfc3339(effective)}, {when}")


def _further(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--profile", default="default", help='default: "default"')
    parser.add_argument("--reason", default="", help="for the audit log")
    calling.arguments(parser, admin=True)


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if time.tzinfo is None:
        raise argparse.ArgumentTypeError("must say its offset, as in 2027-01-31T12:00:00Z")
    return time
