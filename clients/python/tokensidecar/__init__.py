"""Issue and validate encrypted JWTs through a Token Sidecar on the same machine.

    with tokensidecar.connect() as client:
        token = client.issue("user-42", ["orders"]).token
        print(client.validate(token, ["orders"]).subject)

A token that is no good is a `RejectedError` with the `Reason`; every other failure is another `CallError`. Whatever the error: a token is
good only where `validate` returns.
"""

from tokensidecar.admin import AdminClient, Compromise, Key, KeyState, KeyUse, Rotation, connect_admin
from tokensidecar.client import Client, connect
from tokensidecar.errors import (
    CallError,
    ChangedRingError,
    ConnectError,
    DeniedError,
    InvalidRequestError,
    Reason,
    RejectedError,
    UnavailableError,
    Violation,
)
from tokensidecar.tokens import Claims, IssuedToken, IssueRequest, ValidatedToken

__all__ = [
    "AdminClient",
    "CallError",
    "ChangedRingError",
    "Claims",
    "Client",
    "Compromise",
    "ConnectError",
    "DeniedError",
    "InvalidRequestError",
    "IssueRequest",
    "IssuedToken",
    "Key",
    "KeyState",
    "KeyUse",
    "Reason",
    "RejectedError",
    "Rotation",
    "UnavailableError",
    "ValidatedToken",
    "Violation",
    "connect",
    "connect_admin",
]
