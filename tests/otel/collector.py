"""A collector: a gRPC server that speaks OTLP and keeps the spans that it is sent."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb, trace_service_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from types import TracebackType

SECONDS = 20.0


@dataclass(frozen=True)
class Span:
    """One span, as it came. Ids are hexadecimal; `parent` empty: a root."""

    name: str
    trace_id: str
    span_id: str
    parent: str
    kind: int
    status: tuple[int, str]
    facts: dict[str, str | int]
    events: int
    seconds: float


class Collector(pb_grpc.TraceServiceServicer):
    """Listens inside its block, at `endpoint`. `received`: every byte of every request."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resource: dict[str, str | int] = {}
        self.received = b""
        self._server = grpc.server(ThreadPoolExecutor(2))
        pb_grpc.add_TraceServiceServicer_to_server(self, self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(0).wait()

    def Export(self, request: Any, _context: Any) -> Any:  # noqa: N802 - gRPC's name
        self.received += request.SerializeToString()
        for group in request.resource_spans:
            self.resource = _facts(group.resource.attributes)
            self.spans += [_span(one) for scope in group.scope_spans for one in scope.spans]
        return pb.ExportTraceServiceResponse()

    def named(self, name: str, count: int = 1) -> list[Span]:
        """The spans of that name, once there are so many; AssertionError after a while."""
        end = time.monotonic() + SECONDS
        while True:
            found = [span for span in self.spans if span.name == name]
            if len(found) >= count:
                return found
            assert time.monotonic() < end, f"{name}: {len(found)} of {count}; there are {[s.name for s in self.spans]}"
            time.sleep(0.05)


def _span(one: Any) -> Span:
    return Span(
        name=one.name,
        trace_id=one.trace_id.hex(),
        span_id=one.span_id.hex(),
        parent=one.parent_span_id.hex(),
        kind=one.kind,
        status=(one.status.code, one.status.message),
        facts=_facts(one.attributes),
        events=len(one.events),
        seconds=(one.end_time_unix_nano - one.start_time_unix_nano) / 1e9,
    )


def _facts(attributes: Any) -> dict[str, str | int]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
