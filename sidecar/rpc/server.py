"""A gRPC server for one address. The address says who calls, or what tells it, so each has a server object of its own.

gRPC tells nothing about the peer of a Unix socket, and would silently take over a socket that another process serves: hence one server
per socket, and a lock file beside it.
"""

from __future__ import annotations

import asyncio
import fcntl
import grp
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2_grpc

from sidecar.addresses import Address
from sidecar.caller import Plane
from sidecar.rpc import reflection
from sidecar.rpc.boundary import BATCH_BYTES, Boundary, Door
from sidecar.rpc.health import Health
from sidecar.rpc.servicers import ADMIN_SERVICE, TOKEN_SERVICE, Verbs, admin_service, token_service
from sidecar.rpc.tls import ServingCertificates

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", BATCH_BYTES),
    ("grpc.max_send_message_length", 2 * BATCH_BYTES),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 8 * 1024),
    ("grpc.max_concurrent_streams", 128),
    ("grpc.max_connection_idle_ms", 60_000),
    ("grpc.max_connection_age_ms", 30 * 60_000),
    ("grpc.max_connection_age_grace_ms", 10_000),
    ("grpc.server_handshake_timeout_ms", 2_000),
    ("grpc.max_allowed_incoming_connections", 1_000),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 2),
)
"""Each was attacked and held; README.md says with what."""

Services = Callable[[Door], Mapping[str, grpc.GenericRpcHandler]]
"""Makes the services that one door leads to."""

HEALTH_SERVICE = "grpc.health.v1.Health"
SERVICES = {Plane.APP: (TOKEN_SERVICE,), Plane.ADMIN: (TOKEN_SERVICE, ADMIN_SERVICE)}


class ListenError(Exception):
    """An address cannot be served; the text says why and what to do."""


def plane_services(plane: Plane, verbs: Verbs, boundary: Boundary) -> Services:
    """The services of one plane."""

    def made(door: Door) -> Mapping[str, grpc.GenericRpcHandler]:
        services = {TOKEN_SERVICE: token_service(verbs, boundary, door)}
        if plane is Plane.ADMIN:
            services[ADMIN_SERVICE] = admin_service(verbs, boundary, door)
        return services

    return made


class Server:
    """One address, and what is served there."""

    def __init__(
        self,
        address: Address,
        services: Mapping[str, grpc.GenericRpcHandler],
        health: Health,
        certificates: ServingCertificates | None = None,
    ) -> None:
        """`services` by name; `certificates`: of an address with TLS."""
        self.address = address
        self._certificates = certificates
        self._lock: int | None = None
        self._bound = False  # the socket file is ours to remove
        self._server = grpc.aio.server(options=OPTIONS)
        self._ending = asyncio.Event()
        told = reflection.handlers((*services, HEALTH_SERVICE), self._ending)
        self._server.add_generic_rpc_handlers((*services.values(), *told))
        health_pb2_grpc.add_HealthServicer_to_server(health, self._server)

    async def start(self) -> None:
        """Listen. `ListenError` if the address is taken or may not be used."""
        try:
            if self.address.kind == "unix":
                self._bind_unix(Path(self.address.path))
            else:
                self._bind_tcp()
        except ListenError:
            self.release()
            raise
        except (OSError, RuntimeError, LookupError) as error:
            self.release()
            detail = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise ListenError(f"{self.address}: {detail}") from None
        await self._server.start()

    async def stop(self, grace: float) -> None:
        """Take no new calls, finish those in work, and go. `grace` in seconds."""
        self._ending.set()
        await self._server.stop(grace)
        self.release()

    def release(self) -> None:
        """Remove the socket and let go of its lock."""
        if self._bound:
            Path(self.address.path).unlink(missing_ok=True)
            self._bound = False
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _bind_unix(self, path: Path) -> None:
        lock = os.open(
            path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise ListenError(
                f"{self.address}: another sidecar serves this socket; stop it, or listen elsewhere"
            ) from None
        self._lock = lock
        if path.exists() and not path.is_socket():
            raise ListenError(f"{self.address}: a file that is not a socket is in the way")
        path.unlink(missing_ok=True)
        before = os.umask(0o777 & ~self.address.mode)
        try:
            self._server.add_insecure_port(f"unix:{path}")
            self._bound = True
        finally:
            os.umask(before)
        if self.address.group:
            os.chown(path, -1, _group(self.address.group))

    def _bind_tcp(self) -> None:
        host, port = self.address.host, self.address.port
        # gRPC reports a taken port as an unreadable sentence: ask the kernel first.
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise ListenError(
                    f"{self.address}: {error.strerror}; is another sidecar running? Choose another port, or stop the other program"
                ) from None
        if self._certificates:
            port = self._server.add_secure_port(str(self.address), self._certificates.for_grpc())
        else:
            port = self._server.add_insecure_port(str(self.address))
        self.address = replace(self.address, port=port)  # where 0 was asked for: a free one


def _group(name: str) -> int:
    return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
