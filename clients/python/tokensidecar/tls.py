"""A sidecar on the network: TLS, a certificate of one's own, and what goes along with each call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import grpc

Metadata = Callable[[], Iterable[tuple[str, str]]]
"""Called for each call; what it gives goes along: a guard, or a service account token, which is best read from its file each time."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM, read when a client connects: connect again when they have been renewed.

    Args:
        ca: the CAs of the sidecar's certificate; None: those that gRPC comes with.
        certificate: this program's certificate and its chain, for mutual TLS.
        key: its private key.
        server_name: the name that the sidecar's certificate has; None: the host of the address.
    """

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """For gRPC. ValueError: a file cannot be read, or one of certificate and key is missing."""
        if bool(self.certificate) != bool(self.key):
            raise ValueError("a certificate and its key belong together: name both, or neither")
        return grpc.ssl_channel_credentials(_read(self.ca), _read(self.key), _read(self.certificate))


def _read(path: str | None) -> bytes | None:
    try:
        return Path(path).read_bytes() if path else None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


class _Along(grpc.UnaryUnaryClientInterceptor):
    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata

    def intercept_unary_unary(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any) -> Any:
        more = [*(details.metadata or ()), *self._metadata()]
        parts = (details.method, details.timeout, more, details.credentials, details.wait_for_ready)
        return continuation(_Details(*parts, details.compression), request)


def along(channel: grpc.Channel, metadata: Metadata | None) -> grpc.Channel:
    """The channel, whose calls take the metadata along."""
    return channel if metadata is None else grpc.intercept_channel(channel, _Along(metadata))
