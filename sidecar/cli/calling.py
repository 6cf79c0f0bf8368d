"""Commands that call a running sidecar: the arguments they share, the clients, and what becomes of errors."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sidecar.cli.exits import Code, CommandError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from tokensidecar import AdminClient, CallError, Client

START_TIMEOUT = 1.0  # seconds for a sidecar that is still starting
TIMEOUT = 5.0  # seconds for a call: a person waits longer than a program should


def arguments(parser: argparse.ArgumentParser, *, admin: bool = False) -> None:
    """Declare where the sidecar is, and --json."""
    variable = "TOKENSIDECAR_ADMIN_ADDRESS" if admin else "TOKENSIDECAR_ADDRESS"
    parser.add_argument(
        "--address",
        metavar="ADDRESS",
        help=f"unix:/path or host:port of the {'admin' if admin else 'app'} plane; default: {variable}, else where a sidecar puts itself",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


@contextmanager
def client(address: str | None) -> Iterator[Client]:
    """A client of the app plane, whose errors end the command."""
    import tokensidecar

    with (
        ended_by_errors(),
        tokensidecar.connect(address, start_timeout=START_TIMEOUT, timeout=TIMEOUT, validate_timeout=TIMEOUT) as found,
    ):
        yield found


@contextmanager
def admin_client(address: str | None) -> Iterator[AdminClient]:
    """A client of the admin plane, whose errors end the command."""
    import tokensidecar

    with ended_by_errors(), tokensidecar.connect_admin(address, start_timeout=START_TIMEOUT, timeout=TIMEOUT) as found:
        yield found


@contextmanager
def ended_by_errors() -> Iterator[None]:
    """Turn the client's errors into the end of the command, with the code that says which kind it was."""
    import tokensidecar

    try:
        yield
    except tokensidecar.CallError as error:
        raise CommandError(code_of(error), in_one_line(error)) from error
    except ValueError as error:  # an address that is none
        raise CommandError(Code.USAGE, str(error)) from error


def code_of(error: CallError) -> Code:
    """The exit code for a call's error."""
    import tokensidecar

    if isinstance(error, tokensidecar.RejectedError):
        return Code.REJECTED
    if isinstance(error, tokensidecar.InvalidRequestError):
        return Code.USAGE
    if isinstance(error, tokensidecar.UnavailableError) and error.reason is None:
        return Code.UNREACHABLE  # nobody there, or no answer in time; with a reason it was the sidecar who answered
    return Code.FAILURE


def in_one_line(error: CallError) -> str:
    """The error, its reason first."""
    import tokensidecar

    if isinstance(error, tokensidecar.ConnectError):
        return "no sidecar answers; tried " + ", ".join(f"{address} ({what})" for address, what in error.tried)
    if isinstance(error, tokensidecar.RejectedError):
        return f"token rejected: {error}"
    return str(error)
