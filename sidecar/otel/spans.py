"""Spans by the OpenTelemetry SDK, sent by OTLP over gRPC from a thread of the SDK's.

The SDK reads its own variables: OTEL_EXPORTER_OTLP_HEADERS, _CERTIFICATE and _COMPRESSION, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES.
Names and attributes are those of the OpenTelemetry semantic conventions for gRPC; ours begin with `tokensidecar.`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sidecar.errors import Code
from sidecar.traces import Metadata

_NUMBERS = {"OK": 0, "CANCELLED": 1, **{code.name: code.value for code in Code}}
_UNKNOWN = 2
_OURS = frozenset({"DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE"})
"""The codes for which the conventions call a server's span failed; the others are the caller's doing."""
_CONTEXT = frozenset({"traceparent", "tracestate"})
EXPORT_SECONDS = 5
CLOSE_SECONDS = 2.0


class OtelTraces:
    """See `traces.Traces`. `ratio`: the share of traces begun here that is recorded; of others, whoever began them has decided."""

    def __init__(self, endpoint: str, ratio: float, version: str) -> None:
        mine = {"service.name": "tokensidecar", "service.version": version, "service.instance.id": secrets.token_hex(8)}
        named = OTELResourceDetector().detect().attributes
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)),
            resource=Resource.create({**mine, **named}),
            span_limits=SpanLimits(max_attribute_length=256),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(OTLPSpanExporter(endpoint, timeout=EXPORT_SECONDS), schedule_delay_millis=1000)
        )
        self._tracer = self._provider.get_tracer("tokensidecar", version)
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def call(self, method: str, metadata: Metadata) -> Iterator[None]:
        """See `Traces`. The names are known beforehand, for samplers."""
        carried = {name: value for name, value in metadata if name in _CONTEXT and isinstance(value, str)}
        parent = self._propagator.extract(carried, Context()) if carried else Context()
        service, _, name = method.partition("/")
        facts = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name} if name else {}
        with self._tracer.start_as_current_span(
            method, parent, SpanKind.SERVER, facts, record_exception=False, set_status_on_exception=False
        ):
            yield

    def answered(self, code: str, reason: str, **facts: str) -> None:
        """See `Traces`."""
        span = trace.get_current_span()
        if not span.is_recording():
            return
        span.set_attribute("rpc.grpc.status_code", _NUMBERS.get(code, _UNKNOWN))
        given = {"reason": reason, **facts}
        span.set_attributes({f"tokensidecar.{name}": value for name, value in given.items() if value})
        if code in _OURS:
            span.set_status(Status(StatusCode.ERROR, reason or code))

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """See `Traces`. Of an exception the type alone is told."""
        if not trace.get_current_span().is_recording():
            yield
            return
        with self._tracer.start_as_current_span(
            name, kind=SpanKind.CLIENT, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except BaseException as error:
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                raise

    async def close(self) -> None:
        """See `Traces`."""
        # A thread that nobody waits for longer: a collector that does not answer must not hold up the end.
        closing = Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, CLOSE_SECONDS)
