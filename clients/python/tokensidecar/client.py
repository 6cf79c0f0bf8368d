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
from tokensidecar.errors import CallError, RejectedError, from_item, from_rpc
from tokensidecar.tokens import Claims, IssuedToken, IssueRequest, ValidatedToken
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
        wanted = IssueRequest(
            subject,
            tokens.texts("audiences", audiences),
            profile,
            ttl,
            client_id,
            tokens.texts("scopes", scopes),
            claims,
        )
        request = tokens.issue_request(wanted)
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
        request = self._validate_request(token, audiences, profiles, required_scopes)
        request.request_id = fresh_id() if request_id is None else request_id
        request.min_revocation_revision = min_revocation_revision
        seconds = self._validate_timeout if self._validated else max(self._validate_timeout, FIRST_VALIDATE_TIMEOUT)
        try:
            answer = self._stub.Validate(request, timeout=seconds)
        except grpc.RpcError as error:
            failure = from_rpc(error)
            self._validated |= isinstance(failure, RejectedError)
            raise failure from error
        self._validated = True
        return tokens.validated(answer)

    def batch_issue(self, requests: Iterable[IssueRequest]) -> list[IssuedToken | CallError]:
        """Issue up to 1,000 tokens at once: for each, in order, the token or the error that `issue` would raise."""
        batch = token_service_pb2.BatchIssueRequest(requests=map(tokens.issue_request, requests))
        try:
            answer = self._stub.BatchIssue(batch, timeout=self._timeout)
        except grpc.RpcError as error:
            raise from_rpc(error) from error
        return [
            tokens.issued(each.response) if each.HasField("response") else from_item(each.error)
            for each in answer.results
        ]

    def batch_validate(
        self,
        presented: Iterable[str],
        audiences: Iterable[str],
        *,
        profiles: Iterable[str] = (),
        required_scopes: Iterable[str] = (),
    ) -> list[ValidatedToken | CallError]:
        """Validate up to 1,000 tokens at once: for each, in order, what it says or the error that `validate` would raise."""
        audiences, profiles, required_scopes = (
            list(tokens.texts("audiences", audiences)),
            list(profiles),
            list(required_scopes),
        )
        batch = token_service_pb2.BatchValidateRequest()
        for token in presented:
            request = self._validate_request(token, audiences, profiles, required_scopes)
            request.request_id = fresh_id()
            batch.requests.append(request)
        try:
            answer = self._stub.BatchValidate(batch, timeout=self._timeout)
        except grpc.RpcError as error:
            raise from_rpc(error) from error
        return [
            tokens.validated(each.response) if each.HasField("response") else from_item(each.error)
            for each in answer.results
        ]

    @staticmethod
    def _validate_request(
        token: str, audiences: Iterable[str], profiles: Iterable[str], required_scopes: Iterable[str]
    ) -> token_service_pb2.ValidateRequest:
        return token_service_pb2.ValidateRequest(
            token=tokens.one_text("token", token),
            audiences=tokens.texts("audiences", audiences),
            profiles=tokens.texts("profiles", profiles),
            required_scopes=tokens.texts("required_scopes", required_scopes),
        )

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
