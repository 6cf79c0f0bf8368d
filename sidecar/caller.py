"""Who is asking. Every verb takes the caller as its first argument; it is never kept in a context variable."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Plane(Enum):
    """The server object that a call came in through; each has its own sockets and its own services."""

    APP = "app"
    ADMIN = "admin"


class Identified(Enum):
    """What tells who a caller is; the value is the word in audit."""

    ADDRESS = "address"  # whoever can reach it
    CERTIFICATE = "certificate"  # of mutual TLS
    SERVICE_ACCOUNT = "service_account"  # a token of Kubernetes


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and through which plane.

    `name` as policy, logs and audit spell it: `unix:app`, `tcp:app`, `spiffe://example.org/web`, `dns:web.example.org`, `k8s:shop/web`,
    `sidecar`.
    """

    name: str
    plane: Plane
    identified: Identified = Identified.ADDRESS


SIDECAR = Caller("sidecar", Plane.ADMIN)
"""The sidecar itself, when a schedule rotates or destroys."""

OPERATOR = Caller("operator", Plane.ADMIN)
"""Whoever runs a command that works on the store itself, beside key-encryption key and configuration."""
