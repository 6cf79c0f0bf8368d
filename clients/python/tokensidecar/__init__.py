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
from tokensidecar.protect import Authorized
from tokensidecar.source import Authorize, AuthorizeCalls, Grant, TokenSource
from tokensidecar.tls import Metadata, Tls
from tokensidecar.tokens import (
    CertificateThumbprint,
    Claims,
    Confirmation,
    DpopProof,
    IssuedToken,
    IssueRequest,
    JwkThumbprint,
    Possession,
    Revocation,
    ValidatedToken,
)

__all__ = [
    "AdminClient",
    "Authorize",
    "AuthorizeCalls",
    "Authorized",
    "CallError",
    "CertificateThumbprint",
    "ChangedRingError",
    "Claims",
    "Client",
    "Compromise",
    "Confirmation",
    "ConnectError",
    "DeniedError",
    "DpopProof",
    "Grant",
    "InvalidRequestError",
    "IssueRequest",
    "IssuedToken",
    "JwkThumbprint",
    "Key",
    "KeyState",
    "KeyUse",
    "Metadata",
    "Possession",
    "Reason",
    "RejectedError",
    "Revocation",
    "Rotation",
    "Tls",
    "TokenSource",
    "UnavailableError",
    "ValidatedToken",
    "Violation",
    "connect",
    "connect_admin",
]
