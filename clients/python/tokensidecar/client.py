"""The app plane: issue and validate."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from datetime import timedelta
from types import TracebackType
from typing import Self

import grpc

from tokensidecar import tokens
from tokensidecar.address import APP, Address, addresses
from tokensidecar.connecting import first_ready
from tokensidecar.errors import RejectedError, from_rpc, refused
from tokensidecar.tokens import Claims, IssuedToken, ValidatedToken
from tokensidecar.v1 import token_service_pb2, token_service_pb2_grpc

START_TIMEOUT = 10.0
VALIDATE_TIMEOUT = 0.25
FIRST_VALIDATE_TIMEOUT = 2.0
TIMEOUT = 1.0


def connect(
    address: str | None = None,
    *,
    start_timeout: float = START_TIMEOUT,
    validate_timeout: float = VALIDATE_TIMEOUT,
    timeout: float = TIMEOUT,
) -> Client:
    """Find the sidecar, wait until it accepts calls, and return a client.

    Without `address` it goes to TOKENSIDECAR_ADDRESS if that is set; else to the first that answers of `app/app.sock` in
    TOKENSIDECAR_RUNTIME_DIR, or in /run/tokensidecar, $XDG_RUNTIME_DIR/tokensidecar and /tmp/tokensidecar-$UID (only if root or this user
    owns the socket), and 127.0.0.1:8790.

    Args:
        address: `unix:/path`, `unix:///path` or `host:port`. TCP carries tokens in the clear: stay on loopback.
        start_timeout: seconds to wait for a sidecar that is still starting.
        validate_timeout: seconds for each validate; until a first one was answered at least 2.
        timeout: seconds for each other call.

    Raises:
        ConnectError: no sidecar; it lists every address that was tried.
        ValueError: the address is none.
    """
    found, channel = first_ready(addresses(APP, address, os.environ), start_timeout)
    return Client(found, channel, validate_timeout=validate_timeout, timeout=timeout)


class Client:
    """Issues and validates tokens. Safe to share between threads; reconnects by itself: make one and keep it. Made by `connect`.

    Every call has a deadline, and raises a `CallError`: `RejectedError`, `InvalidRequestError`, `DeniedError`, `UnavailableError`.
    """

    def __init__(self, address: Address, channel: grpc.Channel, *, validate_timeout: float, timeout: float) -> None:
        self.address = str(address)
        self._channel = channel
        self._stub = token_service_pb2_grpc.TokenServiceStub(channel)
        self._validate_timeout = validate_timeout
        self._timeout = timeout
        self._validated = False  # a first validate was answered

    def issue(
        self,
        subject: str,
        audiences: Iterable[str],
        *,
        profile: str = "",
        ttl: timedelta | None = None,
        client_id: str = "",
        scopes: Iterable[str] = (),
        claims: Claims | None = None,
    ) -> IssuedToken:
        """Make a token. Never repeated by itself.

        Args:
            subject: `sub`.
            audiences: `aud`: the services that shall accept the token.
            profile: the kind of token; empty: "default".
            ttl: its lifetime; None: the profile's. Above the profile's maximum the request is refused.
            client_id: `client_id`; empty: this program's name, as the sidecar sees it.
            scopes: `scope`, one word each.
            claims: further claims.
        """
        request = token_service_pb2.IssueRequest(
            profile=profile,
            subject=_text("subject", subject),
            audiences=_texts("audiences", audiences),
            client_id=_text("client_id", client_id),
            scopes=_texts("scopes", scopes),
        )
        if ttl is not None:
            request.ttl.FromTimedelta(ttl)
        if claims is not None:
            request.claims_json = _text("claims_json", tokens.to_claims_json(claims))
        try:
            return tokens.issued(self._stub.Issue(request, timeout=self._timeout))
        except grpc.RpcError as error:
            raise from_rpc(error) from error

    def validate(
        self,
        token: str,
        audiences: Iterable[str],
        *,
        profiles: Iterable[str] = (),
        required_scopes: Iterable[str] = (),
        request_id: str | None = None,
        min_revocation_revision: int = 0,
    ) -> ValidatedToken:
        """Open and check a token. What returns is good for one of the audiences, now; a token that is no good is a `RejectedError`.

        Args:
            token: the token.
            audiences: the names of the service that asks.
            profiles: the kinds of token that are accepted; none: "default" alone.
            required_scopes: all of them must be in the token.
            request_id: makes repeats of this call the same call, for one-time tokens; None: a fresh one, kept over retries.
            min_revocation_revision: the sidecar must know of revocations up to this revision.
        """
        request = token_service_pb2.ValidateRequest(
            token=_text("token", token),
            audiences=_texts("audiences", audiences),
            profiles=_texts("profiles", profiles),
            required_scopes=_texts("required_scopes", required_scopes),
            request_id=fresh_id() if request_id is None else request_id,
            min_revocation_revision=min_revocation_revision,
        )
        seconds = self._validate_timeout if self._validated else max(self._validate_timeout, FIRST_VALIDATE_TIMEOUT)
        try:
            answer = self._stub.Validate(request, timeout=seconds)
        except grpc.RpcError as error:
            failure = from_rpc(error)
            self._validated |= isinstance(failure, RejectedError)
            raise failure from error
        self._validated = True
        return tokens.validated(answer)

    def jwks(self, profile: str = "") -> str:
        """The public halves of a profile's keys, as the text of a JWK Set (RFC 7517, section 5)."""
        try:
            return self._stub.GetJwks(
                token_service_pb2.GetJwksRequest(profile=profile), timeout=self._timeout
            ).jwks_json
        except grpc.RpcError as error:
            raise from_rpc(error) from error

    def close(self) -> None:
        """End the connection; calls under way fail."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def fresh_id() -> str:
    """A request id that no other call has."""
    return str(uuid.uuid4())


def _text(field: str, text: str) -> str:
    """The same text; InvalidRequestError where it cannot be sent. Never says what is in it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise refused(field, "has a lone surrogate, which UTF-8 cannot carry") from error
    return text


def _texts(field: str, texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str):
        raise TypeError(f"{field} is a list of texts, not one text")
    return [_text(field, each) for each in texts]
