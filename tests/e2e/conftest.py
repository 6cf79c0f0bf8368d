"""Sidecars and channels that the tests of this folder share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.calls import Plane
from tests.running import RunningSidecar

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = """
[profiles.web]
issuer = "https://tokens.example.com"
audiences = ["orders", "billing"]
ttl = "2m"
max_ttl = "10m"
claims = { allow = ["role", "tenant"], require = ["tenant"] }

[profiles.inside]
issuer = "https://inside.example.com"
audiences = ["orders"]
format = "encrypted"

[profiles.outside]
issuer = "https://outside.example.com"
audiences = ["orders"]
published = true
"""
"""Three profiles: claim rules, another format, public keys for others."""


@pytest.fixture(scope="session")
def configured() -> Iterator[RunningSidecar]:
    """One sidecar with `CONFIG`, shared by all tests that change nothing another one relies on."""
    with RunningSidecar(CONFIG) as running:
        yield running


@pytest.fixture
def app(sidecar: RunningSidecar) -> Iterator[Plane]:
    """The app plane of the sidecar on embedded defaults."""
    with Plane(sidecar.app_socket) as plane:
        yield plane


@pytest.fixture
def admin(sidecar: RunningSidecar) -> Iterator[Plane]:
    """Its admin plane."""
    with Plane(sidecar.admin_socket) as plane:
        yield plane


@pytest.fixture
def web(configured: RunningSidecar) -> Iterator[Plane]:
    """The app plane of the configured sidecar."""
    with Plane(configured.app_socket) as plane:
        yield plane


@pytest.fixture
def web_admin(configured: RunningSidecar) -> Iterator[Plane]:
    """Its admin plane."""
    with Plane(configured.admin_socket) as plane:
        yield plane
