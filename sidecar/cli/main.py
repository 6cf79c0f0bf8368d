"""`tokensidecar`: reads the arguments and calls one command.

Only the command that was asked for is imported, so that `serve` stays small and `inspect` needs no gRPC.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from typing import TYPE_CHECKING, Protocol

from sidecar.cli.exits import MEANINGS, Code, CommandError

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "serve": "run the sidecar in the foreground",
    "keeper": "write the rings that sidecars read from a folder or a Secret",
    "demo": "show what a sidecar does, in ten seconds",
    "fake": "a sidecar for tests: in memory, its clock and failures set by hand",
    "issue": "issue a token",
    "validate": "validate a token from standard input or a file",
    "refresh": "trade a refresh token, from standard input or a file, for a new pair",
    "rotate": "give a profile's keys their successors",
    "revoke": "end a token, one by its id, all of a subject, or keys that are compromised",
    "keys": "list keys, their states and their times",
    "inspect": "say what can be seen of a token without any key",
    "check": "check a configuration file",
    "doctor": "say what is wrong with a sidecar and its surroundings, and what to do",
    "can": "say whether a caller may do something, and which line of the configuration decides",
    "audit": "verify or show audit files",
    "rekey": "seal all rings under fresh data keys",
    "accept-rollback": "go on from an older state of the store",
}
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class Command(Protocol):
    """A module of this folder."""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""
        ...

    def run(self, args: argparse.Namespace) -> int:
        """Do it; the exit code."""
        ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. Errors are one line on standard error."""
    given = list(sys.argv[1:] if argv is None else argv)
    name = next((word for word in given if not word.startswith("-")), "")
    module: Command | None = (
        importlib.import_module(f"sidecar.cli.{name.replace('-', '_')}") if name in COMMANDS else None
    )
    try:
        args = _parser(name, module).parse_args(given)
    except SystemExit as end:  # argparse has written help or the usage error
        return int(end.code or 0)
    assert module is not None  # the parser demands a command
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 gets something rather than nothing
    try:
        code = module.run(args)
        sys.stdout.flush()
    except CommandError as error:
        print(f"tokensidecar {name}: {error.message}", file=sys.stderr)
        return error.code
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Code.FAILURE
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _parser(name: str, module: Command | None) -> argparse.ArgumentParser:
    codes = "\n".join(f"  {code.value}  {meaning}" for code, meaning in MEANINGS.items())
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="tokensidecar",
        description="Issue, validate and rotate encrypted JWTs over gRPC.",
        epilog=f"exit codes:\n{codes}\n\n`tokensidecar COMMAND --help` says more.",
        formatter_class=form,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command, line in COMMANDS.items():
        one = commands.add_parser(
            command,
            help=line,
            description=f"{line[0].upper()}{line[1:]}.",
            epilog=f"exit codes:\n{codes}",
            formatter_class=form,
        )
        if command == name and module is not None:
            module.arguments(one)
    return parser
