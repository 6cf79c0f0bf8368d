"""Who is asking. Every verb takes the caller as its first argument; it is never kept in a context variable."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Plane(Enum):
    """The server object that a call came in through; each has its own sockets and its own services."""

    APP = "app"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """`name` as policy, logs and audit spell it (`unix:app`, `tcp:app`, `sidecar`), and the plane it came through."""

    name: str
    plane: Plane


SIDECAR = Caller("sidecar", Plane.ADMIN)
"""The sidecar itself, when a schedule rotates or destroys."""

OPERATOR = Caller("operator", Plane.ADMIN)
"""Whoever runs a command that works on the store itself, beside key-encryption key and configuration."""
