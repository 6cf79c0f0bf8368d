"""One line that protects an ASGI application: `app = Protect(app, client, ["orders"])`."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Generic
from urllib.parse import quote

from tokensidecar.client import Client
from tokensidecar.protect import Authorized, ClaimsT, Protection, TurnedDownError, values

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

SCOPE_KEY = "tokensidecar"


class Protect(Generic[ClaimsT]):
    """An application that only requests and web sockets with a good token get through to; it finds it by `authorized(scope)`.

    The others are answered as RFC 6750 says: 401, 400 or 403 with WWW-Authenticate, and 503 when nobody can judge.
    """

    def __init__(
        self,
        app: Application,
        client: Client,
        audiences: Iterable[str],
        *,
        profiles: Iterable[str] = (),
        required_scopes: Iterable[str] = (),
        claims: Callable[[str], ClaimsT] = json.loads,
        origin: str | None = None,
    ) -> None:
        """`app`, and the arguments of `Protection`."""
        self._app = app
        self._protection = Protection(
            client, audiences, profiles=profiles, required_scopes=required_scopes, claims=claims, origin=origin
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI calls an application."""
        if scope["type"] in ("http", "websocket"):
            try:
                scope[SCOPE_KEY] = await judged(self._protection, scope)
            except TurnedDownError as turned_down:
                await _answer(turned_down, scope, send)
                return
        await self._app(scope, receive, send)


async def judged(protection: Protection[ClaimsT], scope: Scope) -> Authorized[ClaimsT]:
    """What the request of that scope may do. `TurnedDownError`: nothing."""
    headers = list(scope["headers"])
    presented = protection.credentials(values(headers, b"authorization"), values(headers, b"dpop"))
    path = scope.get("raw_path")
    text = path.decode("latin-1") if path else quote(scope["path"], safe="/~!$&'()*+,;=:@")
    return await protection.judge_async(presented, scope.get("method", "GET"), text)  # a web socket opens with GET


def authorized(scope: Scope) -> Authorized[Any]:
    """Who may use this route (`request.scope`, in Starlette and FastAPI). LookupError: the application is not protected."""
    if SCOPE_KEY not in scope:
        raise LookupError("no tokensidecar.asgi.Protect around this application")
    found: Authorized[Any] = scope[SCOPE_KEY]
    return found


async def _answer(turned_down: TurnedDownError, scope: Scope, send: Send) -> None:
    extensions = scope.get("extensions") or {}
    if scope["type"] == "websocket" and "websocket.http.response" not in extensions:
        await send({"type": "websocket.close", "code": 1008})  # before it was accepted: the server answers 403
        return
    kind = "http.response" if scope["type"] == "http" else "websocket.http.response"
    headers = [(name.encode(), value.encode("latin-1")) for name, value in turned_down.headers]
    await send(
        {"type": f"{kind}.start", "status": turned_down.status, "headers": [(b"content-length", b"0"), *headers]}
    )
    await send({"type": f"{kind}.body", "body": b""})
