"""One HTTP/1.1 request as a client, or an attacker, writes it."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any

SECONDS = 20


@dataclass(frozen=True)
class Answer:
    """Header names in lower case; repeated ones joined by commas."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def seen(self) -> dict[str, Any]:
        """What reached the app: `method`, `target`, and `headers` as pairs."""
        assert self.status == 200, (self.status, self.headers, self.body)
        found: dict[str, Any] = json.loads(self.body)
        return found

    def upstream(self, name: str) -> list[str]:
        """The values of that header that reached the app."""
        return [value for key, value in self.seen["headers"] if key == name]


def ask(
    port: int,
    target: str,
    *headers: tuple[str, str | bytes],
    method: str = "GET",
    host: str = "orders.example",
    body: bytes | None = None,
) -> Answer:
    """The answer to exactly this request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", host)
        for name, value in headers:
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        found: dict[str, str] = {}
        for name, value in response.getheaders():
            key = name.lower()
            found[key] = f"{found[key]}, {value}" if key in found else value
        return Answer(response.status, found, response.read())
    finally:
        connection.close()


def bearer(token: str) -> tuple[str, str]:
    """The header of RFC 6750 section 2.1."""
    return "Authorization", f"Bearer {token}"
