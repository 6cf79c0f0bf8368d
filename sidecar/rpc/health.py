"""gRPC health (grpc.health.v1), one state for all servers of the process.

Services: "" and each served service while calls are taken; `tokensidecar.state` while what this sidecar knows of its store is fresh. The
latter never touches the pod's probes: a database failover must not take down every app. Not the library's servicer: that one has no
List, and its watches outlive a shutdown and are not bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

STATE = "tokensidecar.state"
WATCHES = 64  # at once; each costs memory as long as it lasts

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

_Context = grpc.aio.ServicerContext[Any, Any]


class Health(health_pb2_grpc.HealthServicer):
    """Answers Check, List and Watch."""

    def __init__(self, services: tuple[str, ...]) -> None:
        self._status = dict.fromkeys(("", *services, STATE), NOT_SERVING)
        self._changed = asyncio.Event()
        self._closed = False
        self._watches = 0

    def set_serving(self) -> None:
        """Calls are taken from now on."""
        self._set({service: SERVING for service in self._status if service != STATE})

    def set_fresh(self, fresh: bool) -> None:
        """Whether this sidecar's state is fresh enough to answer."""
        if not self._closed:
            self._set({STATE: SERVING if fresh else NOT_SERVING})

    def close(self) -> None:
        """Nothing is served any more: watchers hear it, and their streams end before the sockets do."""
        self._closed = True
        self._set(dict.fromkeys(self._status, NOT_SERVING))

    def _set(self, status: dict[str, health_pb2.HealthCheckResponse.ServingStatus]) -> None:
        self._status.update(status)
        self._changed.set()
        self._changed = asyncio.Event()

    async def Check(  # noqa: N802 - gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> health_pb2.HealthCheckResponse:
        """One service's status; NOT_FOUND for one that is not here."""
        status = self._status.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service here")
            raise AssertionError  # abort always raises; mypy cannot know
        return health_pb2.HealthCheckResponse(status=status)

    async def List(  # noqa: N802 - gRPC's name
        self, _request: health_pb2.HealthListRequest, _context: _Context
    ) -> health_pb2.HealthListResponse:
        """All of them."""
        return health_pb2.HealthListResponse(
            statuses={name: health_pb2.HealthCheckResponse(status=status) for name, status in self._status.items()}
        )

    async def Watch(  # noqa: N802 - gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The status now and after each change, until the sidecar stops."""
        if self._watches >= WATCHES:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many health watches")
        self._watches += 1
        try:
            last = None
            while True:
                changed = self._changed
                status = self._status.get(request.service, SERVICE_UNKNOWN)
                if status != last:
                    last = status
                    yield health_pb2.HealthCheckResponse(status=status)
                if self._closed:
                    return
                await changed.wait()
        finally:
            self._watches -= 1
