"""`tokensidecar demo`: what a sidecar does, shown on claims of your own or on an example; `--serve` starts one and goes on serving."""

from __future__ import annotations

import json
import time
from base64 import urlsafe_b64encode
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sidecar.cli import calling, reading, screen
from sidecar.cli.exits import Code, CommandError
from sidecar.cli.inspect import look, sizes

if TYPE_CHECKING:
    import argparse

    from rich.console import Console
    from tokensidecar import AdminClient, Client, IssuedToken

    from sidecar.addresses import Address
    from sidecar.config import Config

EXAMPLE = """{
  "email": "zoe.muller@example.com",
  "name": "Zoë Müller-Łukasik 張",
  "tenant": "acme-gmbh",
  "roles": ["buyer", "approver"],
  "account": 9223372036854775807,
  "session_started": 1790000000123456789,
  "credit_limit": {"amount": "25000.00", "currency": "EUR"},
  "mfa": true
}"""
_SET_BY_SIDECAR = ("iss", "exp", "nbf", "iat", "jti")
_JWS_HEADER = {"alg": "ES256", "kid": "x" * 43, "typ": "at+jwt"}  # a thumbprint has 43 characters
_SHOWN = 400  # characters of a plain token's claims
_JWS_SIGNATURE = 86  # characters of base64url for 64 bytes


@dataclass(frozen=True, slots=True)
class Grant:
    """What the demo's token shall say. `unused` are registered claims of the file that the sidecar sets by itself."""

    subject: str
    audiences: tuple[str, ...]
    scopes: tuple[str, ...]
    client_id: str
    claims: str
    unused: tuple[str, ...] = ()


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--claims", metavar="FILE", help="a JSON object of your own claims; - is standard input")
    parser.add_argument(
        "--serve", action="store_true", help="where no sidecar runs, start one, and go on serving until Ctrl-C"
    )


def run(args: argparse.Namespace) -> int:
    """Show it; the exit code."""
    grant = granted(EXAMPLE if args.claims is None else reading.claims_file(args.claims), args.claims)
    if not args.serve:
        try:
            with calling.client(None) as client, calling.admin_client(None) as admin:
                _show(client, admin, grant, started=False)
        except CommandError as error:
            if error.code is Code.UNREACHABLE:
                raise CommandError(error.code, f"{error.message}; `tokensidecar demo --serve` starts one") from error
            raise
        return Code.OK
    from sidecar.cli.serve import loaded

    return _serve(loaded(None), grant)


def _serve(config: Config, grant: Grant) -> int:
    if not config.listen.admin:
        raise CommandError(Code.USAGE, "the demo rotates keys, and listen.admin is empty")
    app, admin_address = _handy(config.listen.app), _handy(config.listen.admin)
    with ExitStack() as stack:
        child = None
        if not _answers(app):
            from sidecar.cli.child import ServingChild

            child = stack.enter_context(ServingChild())
            child.wait_until_ready(app)
        with calling.client(app) as client, calling.admin_client(admin_address) as admin:
            _show(client, admin, grant, started=child is not None)
        if child is None:
            return Code.OK
        _tell_planes(config)
        return child.serve_on()


def _handy(addresses: tuple[Address, ...]) -> str:
    """One that is short to type: TCP where it is served."""
    return str(next((a for a in addresses if a.kind == "tcp"), addresses[0]))


def _answers(address: str) -> bool:
    import tokensidecar

    try:
        tokensidecar.connect(address, start_timeout=0.05).close()
    except tokensidecar.ConnectError:
        return False
    return True


def granted(text: str, source: str | None) -> Grant:
    """From the text of a claims file: registered claims become fields of the request, the rest goes on byte for byte where it can."""
    claims: dict[str, Any] = json.loads(text)
    subject = claims.get("sub", "user-42")
    audiences = claims.get("aud", "orders")
    scope = claims.get("scope", "orders.read orders.write" if source is None else "")
    client_id = claims.get("client_id", "")
    audiences = [audiences] if isinstance(audiences, str) else audiences
    texts = {"sub": [subject], "aud": audiences, "scope": [scope], "client_id": [client_id]}
    for name, values in texts.items():
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise CommandError(
                Code.USAGE, f"{source}: {name} must be text{' or a list of texts' if name == 'aud' else ''}"
            )
    rest = {name: value for name, value in claims.items() if name not in (*texts, *_SET_BY_SIDECAR)}
    unused = tuple(name for name in _SET_BY_SIDECAR if name in claims)
    kept = text if len(rest) == len(claims) else json.dumps(rest, ensure_ascii=False, separators=(",", ":"))
    return Grant(subject, tuple(audiences), tuple(scope.split()), client_id, kept, unused)


def _show(client: Client, admin: AdminClient, grant: Grant, *, started: bool) -> None:
    out = screen.console()
    out.print(f"{'Started a sidecar' if started else 'Found a sidecar'} at {client.address}", soft_wrap=True)
    if grant.unused:
        out.print(f"Of the file's claims the sidecar sets {', '.join(grant.unused)} by itself.")
    token = _issue(out, client, grant)
    claims_json = _validate(out, client, grant, token)
    _thief(out, token, claims_json)
    _rotate(out, client, admin, grant, token)
    _tamper(out, client, grant, token)
    _try_it(out, client.address, admin.address, grant)


def _step(out: Console, title: str) -> None:
    from rich.text import Text

    out.print()
    out.print(Text(title, style="bold cyan"))


def _good(out: Console, text: str) -> None:
    from rich.text import Text

    out.print(Text.assemble(("✔ ", "bold green"), screen.clean(text)))


def _issued(client: Client, grant: Grant) -> IssuedToken:
    return client.issue(
        grant.subject, grant.audiences, scopes=grant.scopes, client_id=grant.client_id, claims=grant.claims
    )


def _issue(out: Console, client: Client, grant: Grant) -> IssuedToken:
    _step(out, "1. Issue")
    issued = _issued(client, grant)
    _good(
        out,
        f"an encrypted JWT for {grant.subject}, to be used at {', '.join(grant.audiences)} until {issued.expire_time:%H:%M:%S} UTC",
    )
    out.print(f"  {issued.token[:50]}…{issued.token[-20:]}", style="dim")
    out.print(sizes(look(issued.token).parts))
    return issued


def _validate(out: Console, client: Client, grant: Grant, issued: IssuedToken) -> str:
    _step(out, "2. Validate")
    client.validate(issued.token, grant.audiences)
    start = time.perf_counter()
    found = client.validate(issued.token, grant.audiences)
    took = (time.perf_counter() - start) * 1000
    same = {name: found.claims.get(name) for name in json.loads(grant.claims)} == json.loads(grant.claims)
    exact = "your claims came back exactly, 64-bit integers and all" if same else "the claims came back changed"
    _good(out, f"good: subject {found.subject}, {len(found.claims)} claims; {exact} ({took:.1f} ms)")
    return found.claims_json


def _thief(out: Console, issued: IssuedToken, claims_json: str) -> None:
    _step(out, "3. What a thief reads, from a log or a proxy")
    payload = claims_json.encode()
    plain = (
        len(_base64url(json.dumps(_JWS_HEADER, separators=(",", ":")).encode()))
        + len(_base64url(payload))
        + _JWS_SIGNATURE
        + 2
    )
    plain_text = json.dumps(json.loads(claims_json), ensure_ascii=False)
    rows = [
        (
            "this token",
            f"{json.dumps(json.loads(look(issued.token).header or ''))}, and nothing else: no subject, no claim",
        ),
        ("a plain JWS", screen.shortened(plain_text, _SHOWN)),
    ]
    out.print(screen.facts(rows))
    out.print(f"Encrypted it has {len(issued.token):,} characters, as a plain JWS of the same claims {plain:,}.")


def _rotate(out: Console, client: Client, admin: AdminClient, grant: Grant, old: IssuedToken) -> None:
    import tokensidecar

    _step(out, "4. Rotate the keys")
    try:
        rotation = admin.rotate(reason="demo")
    except tokensidecar.ChangedRingError as error:
        _good(out, f"not now, for {error.message}")
    else:
        now = datetime.now(UTC)
        when = (
            "at once"
            if rotation.activate_time <= now
            else f"in {screen.left(rotation.activate_time, now)}, when every sidecar knows them"
        )
        _good(out, f"ring revision {rotation.ring_revision}: fresh keys for encryption and signature take over {when}")
    client.validate(old.token, grant.audiences)
    _good(out, f"the old token is still good (key {old.key_id})")
    new = _issued(client, grant)
    client.validate(new.token, grant.audiences)
    _good(
        out,
        f"a new one is good, {'under the new' if new.key_id != old.key_id else 'still under the old'} key (key {new.key_id})",
    )


def _tamper(out: Console, client: Client, grant: Grant, issued: IssuedToken) -> None:
    import tokensidecar

    _step(out, "5. Tamper: one character of the ciphertext is changed")
    head, _, _ = issued.token.rpartition(".")
    at = len(head) - 40
    forged = issued.token[:at] + ("A" if issued.token[at] != "A" else "B") + issued.token[at + 1 :]
    try:
        client.validate(forged, grant.audiences)
    except tokensidecar.RejectedError as error:
        _good(out, f"rejected: {error.reason}, {error.message}")
    else:
        raise CommandError(Code.FAILURE, "a tampered token was accepted")


def _try_it(out: Console, app: str, admin: str, grant: Grant) -> None:
    _step(out, "Try it yourself, with grpcurl")
    # Plain print: what is copied must not be wrapped or coloured.
    out.file.write("\n".join(grpcurl(app, admin, grant.audiences[0])) + "\n")
    out.file.flush()


def grpcurl(app: str, admin: str, audience: str) -> list[str]:
    """Lines to copy: Issue, Validate of what Issue makes (through standard input, where `ps` cannot see it), Rotate.

    What Issue answers holds `token` and `audiences`, as Validate asks for them; the rest of it is unknown there, and let be.
    """
    service = "tokensidecar.v1.TokenService"
    asked = json.dumps({"subject": "user-42", "audiences": [audience]}, ensure_ascii=False).replace("'", "\\u0027")
    issue = [f"grpcurl -plaintext -d '{asked}' \\", f"  {_target(app)} {service}/Issue"]
    return [
        *issue,
        "",
        *issue[:1],
        f"{issue[1]} |",
        f"  grpcurl -plaintext -allow-unknown-fields -d @ {_target(app)} \\",
        f"  {service}/Validate",
        "",
        'grpcurl -plaintext -d \'{"reason": "trying it"}\' \\',
        f"  {_target(admin)} {service}/Rotate",
    ]


def _target(address: str) -> str:
    """As grpcurl spells it."""
    return f"unix://{address.removeprefix('unix:')}" if address.startswith("unix:") else address


def _tell_planes(config: Config) -> None:
    out = screen.console()
    _step(out, "Serving on; Ctrl-C ends it")
    listen = config.listen
    http = f"http://{listen.http}/metrics, /readyz" if listen.http else "nowhere"
    rows = [("app", ", ".join(map(str, listen.app))), ("admin", ", ".join(map(str, listen.admin))), ("http", http)]
    out.print(screen.facts([*rows, ("state", str(config.state_dir))]))
    out.print("The log follows.", style="dim")
    out.file.flush()


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
