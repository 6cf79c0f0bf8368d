"""What a protected route asks of a request, and how it turns one down (RFC 6750, section 3; RFC 9449, section 7). Knows no framework."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tokensidecar.client import Client
from tokensidecar.errors import CallError, InvalidRequestError, Reason, RejectedError, UnavailableError
from tokensidecar.tokens import DpopProof, ValidatedToken, texts

ClaimsT = TypeVar("ClaimsT")

_ALGORITHMS = 'algs="ES256 EdDSA"'
_CREDENTIALS = re.compile(r"(?P<scheme>[A-Za-z]+) +(?P<token>[A-Za-z0-9\-._~+/]+=*)").fullmatch


@dataclass(frozen=True, slots=True)
class Authorized(Generic[ClaimsT]):
    """Who may use the route: what the token says, and its claims as the route wants them."""

    token: ValidatedToken
    claims: ClaimsT = field(repr=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request presents. `proof`: the DPoP header's, where the scheme is DPoP."""

    token: str = field(repr=False)
    proof: str | None = field(default=None, repr=False)


class TurnedDownError(Exception):
    """The request does not get through: `status` 401, 400, 403, 503 or 500, and the headers of the answer.

    `error` is what the sidecar said, for a log and not for the client; None where it was not asked.
    """

    def __init__(self, status: int, headers: tuple[tuple[str, str], ...] = (), error: CallError | None = None) -> None:
        super().__init__(f"{status}: {error or 'no credentials'}")
        self.status = status
        self.headers = headers
        self.error = error


class Protection(Generic[ClaimsT]):
    """The rules of one route or service."""

    def __init__(
        self,
        client: Client,
        audiences: Iterable[str],
        *,
        profiles: Iterable[str] = (),
        required_scopes: Iterable[str] = (),
        claims: Callable[[str], ClaimsT] = json.loads,
        origin: str | None = None,
    ) -> None:
        """Take the arguments of `Client.validate`, and two more.

        Args:
            client: to ask.
            audiences: the names of this service.
            profiles: the kinds of token that are accepted; none: "default" alone.
            required_scopes: all of them must be in the token.
            claims: reads the text of the claims, an object, into what the route wants, as `Model.model_validate_json` does; a ValueError of
                it is a token that is no good here.
            origin: scheme and host that clients see (`https://api.example.com`): what DPoP proofs are made for. None: there is no DPoP here.
        """
        self._client = client
        self._audiences = texts("audiences", audiences)
        self._profiles = texts("profiles", profiles)
        self._scopes = texts("required_scopes", required_scopes)
        self._claims = claims
        self._origin = origin.rstrip("/") if origin else None

    def credentials(self, authorization: Sequence[str], dpop: Sequence[str] = ()) -> Credentials:
        """From the headers of that name, each value of them. `TurnedDownError`: there are none, or not of this form."""
        if not authorization:
            raise TurnedDownError(401, self._challenge("Bearer"))
        found = _CREDENTIALS(authorization[0]) if len(authorization) == 1 else None
        scheme = found["scheme"].lower() if found else ""
        if found and scheme == "bearer":
            return Credentials(found["token"])
        if found and scheme == "dpop" and self._origin:
            if len(dpop) == 1:
                return Credentials(found["token"], dpop[0])
            raise TurnedDownError(401, self._challenge("DPoP", "invalid_dpop_proof"))
        if found and scheme:  # another scheme: credentials that are not ours
            raise TurnedDownError(401, self._challenge("Bearer"))
        raise TurnedDownError(400, self._challenge("Bearer", "invalid_request"))

    def judge(self, presented: Credentials, method: str = "", path: str = "") -> Authorized[ClaimsT]:
        """Ask the sidecar. `TurnedDownError`: not good, or nobody can tell. `path`: of the URL, as it was sent, without the query."""
        try:
            return self._good(
                self._client.validate(
                    presented.token,
                    self._audiences,
                    profiles=self._profiles,
                    required_scopes=self._scopes,
                    possession=self._possession(presented, method, path),
                )
            )
        except CallError as error:
            raise self._turned_down(error, bound=presented.proof is not None) from error

    async def judge_async(self, presented: Credentials, method: str = "", path: str = "") -> Authorized[ClaimsT]:
        """`judge` for a program on asyncio."""
        try:
            return self._good(
                await self._client.validate_async(
                    presented.token,
                    self._audiences,
                    profiles=self._profiles,
                    required_scopes=self._scopes,
                    possession=self._possession(presented, method, path),
                )
            )
        except CallError as error:
            raise self._turned_down(error, bound=presented.proof is not None) from error

    def _possession(self, presented: Credentials, method: str, path: str) -> DpopProof | None:
        return None if presented.proof is None else DpopProof(presented.proof, method, f"{self._origin}{path}")

    def _good(self, token: ValidatedToken) -> Authorized[ClaimsT]:
        try:
            return Authorized(token, self._claims(token.claims_json))
        except ValueError:  # what it says may quote a claim
            raise TurnedDownError(401, self._challenge("Bearer", "invalid_token")) from None

    def _turned_down(self, error: CallError, *, bound: bool) -> TurnedDownError:
        scheme = "DPoP" if bound or error.reason is Reason.TOKEN_POSSESSION_UNPROVEN else "Bearer"
        if error.reason is Reason.TOKEN_SCOPE_MISSING:
            scope = " ".join(self._scopes)
            return TurnedDownError(403, self._challenge(scheme, "insufficient_scope", scope), error)
        if isinstance(error, RejectedError):
            unproven = error.reason is Reason.TOKEN_POSSESSION_UNPROVEN
            wrong = "invalid_dpop_proof" if unproven and bound else "invalid_token"
            return TurnedDownError(401, self._challenge(scheme, wrong), error)
        if isinstance(error, InvalidRequestError) and any(each.field == "token" for each in error.violations):
            return TurnedDownError(401, self._challenge(scheme, "invalid_token"), error)  # over its size, say
        if isinstance(error, UnavailableError):
            wait = () if error.retry_after is None else (("retry-after", _seconds(error.retry_after.total_seconds())),)
            return TurnedDownError(503, wait, error)
        return TurnedDownError(500, (), error)

    def _challenge(self, scheme: str, error: str = "", scope: str = "") -> tuple[tuple[str, str], ...]:
        """WWW-Authenticate. Without DPoP here, only Bearer can be asked for."""
        parts = [f'error="{error}"'] if error else []
        if scope:
            parts.append(f'scope="{scope}"')
        bearer = ("www-authenticate", f"Bearer {', '.join(parts)}".rstrip())
        dpop = ("www-authenticate", f"DPoP {', '.join([*parts, _ALGORITHMS])}")
        if not self._origin:
            return (bearer,)
        if not error:  # either will do
            return (bearer, dpop)
        return (dpop if scheme == "DPoP" else bearer,)


def _seconds(wait: float) -> str:
    return str(max(1, math.ceil(wait)))


def values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[str]:
    """Each value of that header, in order."""
    return [value.decode("latin-1") for key, value in headers if key.lower() == name]
