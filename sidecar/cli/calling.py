"""Commands that call a running sidecar: the arguments they share, the clients, and what becomes of errors."""

from __future__ import annotations

import ipaddress
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    tls = parser.add_argument_group("a sidecar on the network")
    tls.add_argument("--ca", metavar="FILE", help="CAs of its certificate, in PEM; with any of these, TLS is spoken")
    tls.add_argument("--cert", metavar="FILE", help="your certificate, in PEM")
    tls.add_argument("--key", metavar="FILE", help="its private key, in PEM")
    tls.add_argument("--server-name", metavar="NAME", help="name in its certificate; default: the host of --address")
    tls.add_argument("--guard", metavar="KEY", help="metadata key that its address wants with each call")
    tls.add_argument(
        "--service-account-token", metavar="FILE", help="file of the token that tells its address who you are"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


@contextmanager
def client(address: str | None, args: argparse.Namespace | None = None) -> Iterator[Client]:
    """A client of the app plane, whose errors end the command. `args`: of a command that has the arguments above."""
    import tokensidecar

    with (
        ended_by_errors(),
        tokensidecar.connect(
            address, start_timeout=START_TIMEOUT, timeout=TIMEOUT, validate_timeout=TIMEOUT, **_network(args)
        ) as found,
    ):
        yield found


@contextmanager
def admin_client(address: str | None, args: argparse.Namespace | None = None) -> Iterator[AdminClient]:
    """A client of the admin plane, whose errors end the command. `args` as for `client`."""
    import tokensidecar

    with (
        ended_by_errors(),
        tokensidecar.connect_admin(address, start_timeout=START_TIMEOUT, timeout=TIMEOUT, **_network(args)) as found,
    ):
        yield found


def _network(args: argparse.Namespace | None) -> dict[str, Any]:
    """What the arguments say of TLS and metadata, as `connect` takes it."""
    if args is None:
        return {}
    import tokensidecar

    named = (args.ca, args.cert, args.key, args.server_name)
    along = [(args.guard, "true")] if args.guard else []
    if args.service_account_token:
        try:
            text = Path(args.service_account_token).read_text(encoding="ascii").strip()
        except (OSError, UnicodeError):
            raise CommandError(Code.USAGE, f"{args.service_account_token} cannot be read as a token") from None
        if not (any(named) or _local(args.address)):
            raise CommandError(Code.USAGE, "a service account token beyond loopback needs TLS: --ca")
        along.append(("authorization", f"Bearer {text}"))
    return {"tls": tokensidecar.Tls(*named) if any(named) else None, "metadata": (lambda: along) if along else None}


def _local(address: str | None) -> bool:
    """Whether this machine alone can be meant."""
    named = [address] if address else [os.environ.get(f"TOKENSIDECAR_{plane}ADDRESS", "") for plane in ("", "ADMIN_")]
    hosts = [one.rpartition(":")[0].strip("[]") for one in named if one and not one.startswith("unix:")]
    try:
        return all(host == "localhost" or ipaddress.ip_address(host).is_loopback for host in hosts)
    except ValueError:
        return False


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
