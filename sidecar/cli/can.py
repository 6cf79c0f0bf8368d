"""`tokensidecar can CALLER VERB PROFILE`: yes or no, and which line of the configuration decides."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.backends import elsewhere
from sidecar.caller import Caller, Plane
from sidecar.cli import screen
from sidecar.cli.exits import Code
from sidecar.cli.serve import loaded
from sidecar.fields import Duration
from sidecar.keyring import Role
from sidecar.policy import SERVED, Policy, Verb, Wanted
from sidecar.rules import line_of

if TYPE_CHECKING:
    from sidecar.config import Config

_TTL = Duration(1, 30 * 86400)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "caller", metavar="CALLER", help='such as "unix:app", "spiffe://example.org/web" or "k8s:shop/web"'
    )
    parser.add_argument(
        "verb", metavar="VERB", choices=[verb.value for verb in SERVED], help=", ".join(v.value for v in SERVED)
    )
    parser.add_argument("profile", metavar="PROFILE", nargs="?", help="default: none in particular")
    parser.add_argument("--subject", metavar="TEXT", help="for issue; what is not given is not judged")
    parser.add_argument("--audience", metavar="TEXT", action="append", default=[])
    parser.add_argument("--scope", metavar="TEXT", action="append", default=[])
    parser.add_argument("--client-id", metavar="TEXT", help="default: the caller's name")
    parser.add_argument("--ttl", metavar="DURATION", type=_seconds, help='such as "5m"; default: the profile\'s')
    parser.add_argument("--claim", metavar="NAME", action="append", default=[])
    parser.add_argument("--config", metavar="FILE", help="as for serve")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Decide as a sidecar with this configuration would: 0 for yes, 1 for no."""
    config = loaded(args.config)
    verb = Verb(args.verb)
    caller = Caller(args.caller, _plane(config, args.caller, verb))
    served = {
        Plane.APP: ", ".join(map(str, config.listen.app)),
        Plane.ADMIN: ", ".join(map(str, config.listen.admin)) or "nowhere, as configured",
    }
    keys = config.keys
    writable = keys.scheme in ("sqlite", "postgresql") and len(keys.keks) == len(Role)
    cannot = elsewhere(keys, writable=writable)
    verdict = Policy(config.profiles, served, config.policy, imported=config.imported, elsewhere=cannot).decide(
        caller, verb, args.profile, _wanted(args, config, verb)
    )
    line = (
        line_of(Path(config.source).read_text(encoding="utf-8"), verdict.key) if config.source and verdict.key else None
    )
    if args.json:
        said = {"allowed": verdict.allowed, "says": verdict.words, "key": verdict.key or None}
        screen.write_json({**said, "file": config.source, "line": line})
    else:
        where = f"{config.source}:{line}: {verdict.key}" if line else verdict.key or "the built-in rules"
        print(f"{'yes' if verdict.allowed else 'no'}: {screen.clean(verdict.words)}\n  by {screen.clean(where)}")
    return Code.OK if verdict.allowed else Code.FAILURE


def _plane(config: Config, caller: str, verb: Verb) -> Plane:
    """Where the caller calls; one that could call on several planes, or on none: where the verb is served."""
    planes = config.listen.planes_of(caller)
    return planes[0] if len(planes) == 1 else SERVED[verb][0]


def _wanted(args: argparse.Namespace, config: Config, verb: Verb) -> Wanted | None:
    if verb is not Verb.ISSUE:
        return None
    profile = config.profiles.get(args.profile)
    return Wanted(
        subject=args.subject,
        audiences=args.audience,
        scopes=args.scope,
        client_id=args.client_id or args.caller,
        ttl=args.ttl if args.ttl is not None or profile is None else profile.ttl,
        claims=args.claim,
    )


def _seconds(text: str) -> int:
    try:
        return _TTL.read(f"{text}s" if re.fullmatch("[0-9]+", text) else text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
