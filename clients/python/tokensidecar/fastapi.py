"""A FastAPI dependency: `Annotated[Authorized[Claims], Depends(Bearer(client, ["orders"], claims=Claims.model_validate_json))]`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Generic

from fastapi import HTTPException
from starlette.requests import HTTPConnection

from tokensidecar.asgi import judged
from tokensidecar.client import Client
from tokensidecar.protect import Authorized, ClaimsT, Protection, TurnedDownError


class Bearer(Generic[ClaimsT]):
    """Lets a route be called with a good token alone, and gives it what the token says. Takes the arguments of `Protection`."""

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
        self._protection = Protection(
            client, audiences, profiles=profiles, required_scopes=required_scopes, claims=claims, origin=origin
        )

    async def __call__(self, connection: HTTPConnection) -> Authorized[ClaimsT]:
        """As FastAPI calls a dependency. `HTTPException`: turned down."""
        try:
            return await judged(self._protection, connection.scope)
        except TurnedDownError as turned_down:
            raise _http(turned_down) from turned_down


def _http(turned_down: TurnedDownError) -> HTTPException:
    headers: dict[str, str] = {}
    for name, value in turned_down.headers:  # several challenges are one list (RFC 9110, section 11.6.1)
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return HTTPException(turned_down.status, headers=headers)
