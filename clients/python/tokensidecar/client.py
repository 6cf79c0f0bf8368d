"""The app plane: issue, validate, refresh and revoke."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
import weakref
from collections.abc import Iterable
from datetime import timedelta
from types import TracebackType
from typing import Self

import grpc

from tokensidecar import tokens
from tokensidecar.address import APP, Address, addresses
from tokensidecar.connecting import first_ready
from tokensidecar.errors import CallError, RejectedError, from_item, from_rpc
from tokensidecar.tls import Metadata, Tls
from tokensidecar.tokens import (
    Claims,
    Confirmation,
    IssuedToken,
    IssueRequest,
    Possession,
    Revocation,
    ValidatedToken,
)
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
    tls: Tls | None = None,
    metadata: Metadata | None = None,
) -> Client:
    """Find the sidecar, wait until it accepts calls, and return a client.

    Without `address` it goes to TOKENSIDECAR_ADDRESS if that is set; else to the first that answers of `app/app.sock` in
    TOKENSIDECAR_RUNTIME_DIR, or in /run/tokensidecar, $XDG_RUNTIME_DIR/tokensidecar and /tmp/tokensidecar-$UID (only if root or this user
    owns the socket), and 127.0.0.1:8790.

    Args:
        address: `unix:/path`, `unix:///path` or `host:port`. TCP without `tls` carries tokens in the clear: stay on loopback.
        start_timeout: seconds to wait for a sidecar that is still starting.
        validate_timeout: seconds for each validate; until a first one was answered at least 2.
        timeout: seconds for each other call.
        tls: for a sidecar that is named by `address` or the environment as `host:port`.
        metadata: what goes along with each call, as the sidecar's address wants it.

    Raises:
        ConnectError: no sidecar; it lists every address that was tried.
        ValueError: the address is none, or a file of `tls` is no good.
    """
    found, channel = first_ready(addresses(APP, address, os.environ), start_timeout, tls, metadata)
    return Client(found, channel, validate_timeout=validate_timeout, timeout=timeout)


class Client:
    """Issues and validates tokens. Safe to share between threads; reconnects by itself: make one and keep it. Made by `connect`.

    Every call has a deadline, and raises a `CallError`: `RejectedError`, `InvalidRequestError`, `DeniedError`, `UnavailableError`.
    """

    def __init__(self, address: Address, channel: grpc.Channel, *, validate_timeout: float, timeout: float) -> None:
        self.address = str(address)
        # Also at the program's end: a channel that is left to the interpreter's can wait for ever for a thread of its own.
        self._close = weakref.finalize(self, channel.close)
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
        confirmation: Confirmation | None = None,
        with_refresh_token: bool = False,
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
            confirmation: binds the token to a key of its presenter.
            with_refresh_token: also make a refresh token that carries this grant.
        """
        wanted = IssueRequest(
            subject,
            tokens.texts("audiences", audiences),
            profile,
            ttl,
            client_id,
            tokens.texts("scopes", scopes),
            claims,
            confirmation,
            with_refresh_token,
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
        possession: Possession | None = None,
        request_id: str | None = None,
        min_revocation_revision: int = 0,
    ) -> ValidatedToken:
        """Open and check a token. What returns is good for one of the audiences, now; a token that is no good is a `RejectedError`.

        Args:
            token: the token.
            audiences: the names of the service that asks.
            profiles: the kinds of token that are accepted; none: "default" alone.
            required_scopes: all of them must be in the token.
            possession: how the presenter proved that the token is its own, where it is bound.
            request_id: makes repeats of this call the same call, for one-time tokens; None: a fresh one, kept over retries.
            min_revocation_revision: the sidecar must know of revocations up to this revision.
        """
        request = self._one(
            token, audiences, profiles, required_scopes, possession, request_id, min_revocation_revision
        )
        try:
            answer = self._stub.Validate(request, timeout=self._seconds())
        except grpc.RpcError as error:
            raise self._failed(error) from error
        self._validated = True
        return tokens.validated(answer)

    async def validate_async(
        self,
        token: str,
        audiences: Iterable[str],
        *,
        profiles: Iterable[str] = (),
        required_scopes: Iterable[str] = (),
        possession: Possession | None = None,
        request_id: str | None = None,
        min_revocation_revision: int = 0,
    ) -> ValidatedToken:
        """`validate` for a program on asyncio: the loop goes on meanwhile, and a task that is cancelled cancels the call."""
        request = self._one(
            token, audiences, profiles, required_scopes, possession, request_id, min_revocation_revision
        )
        call = self._stub.Validate.future(request, timeout=self._seconds())
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def tell(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(done.set)

        call.add_done_callback(tell)
        try:
            await done.wait()
            answer = call.result()
        except asyncio.CancelledError:
            call.cancel()
            raise
        except grpc.RpcError as error:
            raise self._failed(error) from error
        self._validated = True
        return tokens.validated(answer)

    def refresh(
        self,
        refresh_token: str,
        *,
        audiences: Iterable[str] = (),
        scopes: Iterable[str] = (),
        possession: Possession | None = None,
    ) -> IssuedToken:
        """Trade a refresh token for a new pair; keep the new one, the old one is spent.

        Repeated by itself while the sidecar is unavailable: the same refresh token again, within seconds, is the same refresh.

        Args:
            refresh_token: the last one.
            audiences: fewer than were granted; none: as granted.
            scopes: fewer than were granted; none: as granted.
            possession: where the grant is bound.
        """
        request = token_service_pb2.RefreshRequest(
            refresh_token=tokens.one_text("refresh_token", refresh_token),
            audiences=tokens.texts("audiences", audiences),
            scopes=tokens.texts("scopes", scopes),
            possession=None if possession is None else tokens.possession(possession),
        )
        try:
            return tokens.issued(self._stub.Refresh(request, timeout=self._timeout).tokens)
        except grpc.RpcError as error:
            raise from_rpc(error) from error

    def revoke(self, token: str, *, reason: str = "") -> Revocation:
        """End a token, or with a refresh token everything that came of it: logout. Also good for one that is unknown or already revoked.

        Args:
            token: an access token or a refresh token.
            reason: for the audit log.
        """
        request = token_service_pb2.RevokeRequest(token=tokens.one_text("token", token), reason=reason)
        try:
            answer = self._stub.Revoke(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise from_rpc(error) from error
        return Revocation(answer.revocation_revision, tokens.utc(answer.effective_time))

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

    def _one(
        self,
        token: str,
        audiences: Iterable[str],
        profiles: Iterable[str],
        required_scopes: Iterable[str],
        possession: Possession | None,
        request_id: str | None,
        min_revocation_revision: int,
    ) -> token_service_pb2.ValidateRequest:
        request = self._validate_request(token, audiences, profiles, required_scopes)
        request.request_id = fresh_id() if request_id is None else request_id
        request.min_revocation_revision = min_revocation_revision
        if possession is not None:
            request.possession.CopyFrom(tokens.possession(possession))
        return request

    def _seconds(self) -> float:
        """For a validate: until one was answered, the connection may have to be made."""
        return self._validate_timeout if self._validated else max(self._validate_timeout, FIRST_VALIDATE_TIMEOUT)

    def _failed(self, error: grpc.RpcError) -> CallError:
        failure = from_rpc(error)
        self._validated |= isinstance(failure, RejectedError)
        return failure

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
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def fresh_id() -> str:
    """A request id that no other call has."""
    return str(uuid.uuid4())
