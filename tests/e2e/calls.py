"""Plain gRPC calls, and what a refusal carries."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from tokensidecar.v1 import admin_service_pb2_grpc, token_service_pb2 as pb, token_service_pb2_grpc

if TYPE_CHECKING:
    from types import TracebackType

    from tests.running import RunningSidecar

SECONDS = 20  # for a call; far more than any takes, on a machine that does other things too
DETAILS = "grpc-status-details-bin"
REQUEST_ID = "x-request-id"
REASON = "tokensidecar-reason"


class Plane:
    """A channel to one address, and the stubs of both services. `target` as gRPC spells it; `credentials`: of TLS."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
        self.channel = (
            grpc.insecure_channel(target, options=options)
            if credentials is None
            else grpc.secure_channel(target, credentials, options=options)
        )
        tokens = token_service_pb2_grpc.TokenServiceStub(self.channel)
        admin = admin_service_pb2_grpc.AdminServiceStub(self.channel)
        self.issue, self.validate = tokens.Issue, tokens.Validate
        self.batch_issue, self.batch_validate = tokens.BatchIssue, tokens.BatchValidate
        self.refresh, self.revoke = tokens.Refresh, tokens.Revoke
        self.rotate, self.get_jwks = tokens.Rotate, tokens.GetJwks
        self.list_keys, self.revoke_keys = admin.ListKeys, admin.RevokeKeys
        self.revoke_subject, self.revoke_token_id = admin.RevokeSubject, admin.RevokeTokenId

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.channel.close()

    def token(self, subject: str = "user-42", audience: str = "orders", **fields: Any) -> str:
        """A good token."""
        request = pb.IssueRequest(subject=subject, audiences=[audience], **fields)
        return str(self.issue(request, timeout=SECONDS).token)

    def accepts(self, token: str, audience: str = "orders", **fields: Any) -> pb.ValidateResponse:
        """What Validate says of a token that must be good."""
        request = pb.ValidateRequest(token=token, audiences=[audience], **fields)
        answer: pb.ValidateResponse = self.validate(request, timeout=SECONDS)
        return answer


@dataclass(frozen=True)
class Refusal:
    """How a call failed. `fields`: field and description of each BadRequest violation; `trailers`: all trailing metadata, in order."""

    code: str
    message: str
    reason: str
    domain: str
    fields: dict[str, str]
    retry_after: float | None
    request_id: str
    trailers: tuple[tuple[str, str | bytes], ...]


def refused(rpc: Any, request: Any, metadata: tuple[tuple[str, str], ...] = ()) -> Refusal:
    """The refusal of a call that must fail with an error of ours; its parts agree with each other."""
    error = failed(rpc, request, metadata)
    trailers = tuple((str(key), value) for key, value in error.trailing_metadata() or ())
    values = dict(trailers)
    assert DETAILS in values, f"not one of our errors: {error.code()} {error.details()}"
    assert len(values) == len(trailers)
    details = values[DETAILS]
    assert isinstance(details, bytes)
    status = status_pb2.Status.FromString(details)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    found = {str(detail.type_url): detail for detail in status.details}
    assert len(found) == len(status.details)
    for message in (info, bad, retry):
        detail = found.pop(f"type.googleapis.com/{message.DESCRIPTOR.full_name}", None)
        if detail is not None:
            assert detail.Unpack(message)
    assert found == {}
    assert info.reason == values[REASON]
    assert info.metadata == {}
    assert re.fullmatch(r"[A-Za-z0-9._:/+=-]{1,128}", str(values[REQUEST_ID]))
    wait = retry.retry_delay.ToMilliseconds() / 1000
    return Refusal(
        error.code().name,
        str(error.details()),
        info.reason,
        info.domain,
        {violation.field: violation.description for violation in bad.field_violations},
        wait or None,
        str(values[REQUEST_ID]),
        trailers,
    )


def failed(rpc: Any, request: Any, metadata: tuple[tuple[str, str], ...] = ()) -> Any:
    """The grpc.RpcError of a call that must fail."""
    with pytest.raises(grpc.RpcError) as raised:
        rpc(request, timeout=SECONDS, metadata=metadata)
    return raised.value


def metric(sidecar: RunningSidecar, name: str, **labels: str) -> float:
    """The value of one series of /metrics; 0 where it is not there yet."""
    status, text = sidecar.get("/metrics")
    assert status == 200
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        series, _, value = line.rpartition(" ")
        given = dict(re.findall(r'(\w+)="([^"]*)"', series))
        if series.partition("{")[0] == name and given == labels:
            return float(value)
    return 0.0
