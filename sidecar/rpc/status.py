"""An error as gRPC carries it: code, message, google.rpc.Status with details, and the trailing `tokensidecar-reason`."""

from __future__ import annotations

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2, status_pb2

from sidecar.errors import Code, SidecarError

DOMAIN = "tokensidecar"
REASON_KEY = "tokensidecar-reason"
REQUEST_ID_KEY = "x-request-id"

CODES = {code: getattr(grpc.StatusCode, code.name) for code in Code}


def trailers(error: SidecarError, request_id: str) -> tuple[tuple[str, str | bytes], ...]:
    """Trailing metadata for the error. Two errors with the same reason and message differ in the request id alone."""
    status = status_pb2.Status(code=int(error.reason.code), message=error.message)
    _pack(status.details.add(), error_details_pb2.ErrorInfo(reason=error.reason.name, domain=DOMAIN))
    if error.violations:
        bad = error_details_pb2.BadRequest()
        for violation in error.violations[:16]:
            bad.field_violations.add(field=violation.field, description=violation.problem)
        _pack(status.details.add(), bad)
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(error.retry_after * 1000))
        _pack(status.details.add(), retry)
    return (
        (REASON_KEY, error.reason.name),
        (REQUEST_ID_KEY, request_id),
        ("grpc-status-details-bin", status.SerializeToString()),
    )


def _pack(
    target: Any, detail: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo
) -> None:
    target.Pack(detail)
