"""BatchIssue and BatchValidate: a result per item, judged as a whole before any effect, and no burden to others."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from tokensidecar.v1 import errors_pb2, token_service_pb2 as pb

from tests.e2e.calls import SECONDS, Plane, failed, metric, refused

if TYPE_CHECKING:
    from tests.running import RunningSidecar

MIB = 1024 * 1024
GOOD = pb.IssueRequest(subject="user-42", audiences=["orders"])


def error(result: pb.IssueResult | pb.ValidateResult) -> tuple[str, str, str]:
    assert result.WhichOneof("result") == "error"
    (code,) = (code.name for code in grpc.StatusCode if code.value[0] == result.error.code)
    return code, errors_pb2.ErrorReason.Name(result.error.reason), result.error.field


def test_results_come_in_the_order_of_the_requests(app: Plane) -> None:
    subjects = [f"user-{number}" for number in range(200)]
    requests = [pb.IssueRequest(subject=subject, audiences=["orders"]) for subject in subjects]
    issued = app.batch_issue(pb.BatchIssueRequest(requests=requests), timeout=SECONDS).results
    tokens = [result.response.token for result in issued]
    assert len({result.response.token_id for result in issued}) == 200
    checks = [pb.ValidateRequest(token=token, audiences=["orders"]) for token in tokens]
    accepted = app.batch_validate(pb.BatchValidateRequest(requests=checks), timeout=SECONDS).results
    assert [result.response.subject for result in accepted] == subjects


def test_a_bad_request_does_not_fail_its_neighbours(app: Plane) -> None:
    bad = [
        pb.IssueRequest(),
        pb.IssueRequest(subject="u", audiences=["orders"], ttl=Duration(seconds=4000)),
        pb.IssueRequest(subject="u", audiences=["orders"], profile="unknown"),
        pb.IssueRequest(subject="u", audiences=["orders"], with_refresh_token=True),
        pb.IssueRequest(subject="u", audiences=["orders"], claims_json='{"a":"' + "x" * 4000 + '"}'),
    ]
    results = app.batch_issue(pb.BatchIssueRequest(requests=[GOOD, *bad, GOOD]), timeout=SECONDS).results
    assert [error(result) for result in results[1:-1]] == [
        ("INVALID_ARGUMENT", "REQUEST_INVALID", "subject"),
        ("INVALID_ARGUMENT", "REQUEST_INVALID", "ttl"),
        ("PERMISSION_DENIED", "CALLER_DENIED", ""),
        ("INVALID_ARGUMENT", "REQUEST_INVALID", "with_refresh_token"),
        ("INVALID_ARGUMENT", "REQUEST_INVALID", "claims"),
    ]
    for result in (results[0], results[-1]):
        assert app.accepts(result.response.token).subject == "user-42"


def test_a_bad_token_does_not_fail_its_neighbours_and_is_told_as_a_single_call_would(app: Plane) -> None:
    token = app.token()
    requests = [
        pb.ValidateRequest(token=token, audiences=["orders"], with_claims=True),
        pb.ValidateRequest(token=token[:-1], audiences=["orders"]),
        pb.ValidateRequest(token=token, audiences=["elsewhere"]),
        pb.ValidateRequest(token=token, audiences=["orders"], required_scopes=["write"]),
        pb.ValidateRequest(token=token),
        pb.ValidateRequest(token=token, audiences=["orders"], profiles=["unknown"]),
        pb.ValidateRequest(token=token, audiences=["orders"]),
    ]
    results = app.batch_validate(pb.BatchValidateRequest(requests=requests), timeout=SECONDS).results
    for request, result in zip(requests[1:-1], results[1:-1], strict=True):
        single = refused(app.validate, request)
        assert error(result) == (single.code, single.reason, next(iter(single.fields), ""))
        assert result.error.message == single.message
    assert results[0].response.claims["sub"] == "user-42"
    assert results[-1].response.subject == "user-42"
    assert not results[-1].response.HasField("claims")


def test_a_batch_has_one_to_a_thousand_items(app: Plane) -> None:
    check = pb.ValidateRequest(token="t", audiences=["orders"])
    for rpc, kind, item in (
        (app.batch_issue, pb.BatchIssueRequest, GOOD),
        (app.batch_validate, pb.BatchValidateRequest, check),
    ):
        for count in (0, 1001):
            refusal = refused(rpc, kind(requests=[item] * count))
            assert (refusal.reason, list(refusal.fields)) == ("REQUEST_INVALID", ["requests"])
            assert f"not {count}" in refusal.message
        assert len(rpc(kind(requests=[item] * 1000), timeout=60).results) == 1000


def test_a_batch_over_a_mebibyte_does_not_get_past_grpc(app: Plane) -> None:
    big = pb.ValidateRequest(token="A" * (MIB // 10), audiences=["orders"])
    assert len(app.batch_validate(pb.BatchValidateRequest(requests=[big] * 9), timeout=SECONDS).results) == 9
    found = failed(app.batch_validate, pb.BatchValidateRequest(requests=[big] * 11))
    assert found.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("count", "item"),
    [
        (700, pb.IssueRequest(subject="u", audiences=["orders"], claims_json='{"a":"' + "x" * 800 + '"}')),
        (240, pb.IssueRequest(subject="u", audiences=[f"{number:x}" + "a" * 120 for number in range(13)])),
    ],
    ids=["tokens", "audiences"],
)
def test_a_batch_whose_answer_would_be_over_a_mebibyte_issues_nothing(
    app: Plane, sidecar: RunningSidecar, count: int, item: pb.IssueRequest
) -> None:
    one = app.batch_issue(pb.BatchIssueRequest(requests=[item]), timeout=SECONDS)
    assert one.ByteSize() * count > MIB
    before = metric(sidecar, "tokensidecar_tokens_total", profile="default", verb="issue", outcome="OK")
    refusal = refused(app.batch_issue, pb.BatchIssueRequest(requests=[item] * count))
    assert (refusal.reason, list(refusal.fields)) == ("REQUEST_INVALID", ["requests"])
    assert "send fewer" in refusal.message
    assert metric(sidecar, "tokensidecar_tokens_total", profile="default", verb="issue", outcome="OK") == before


def test_no_answer_to_a_batch_is_over_a_mebibyte(app: Plane) -> None:
    """The last size that is granted keeps the bound, and uses most of it."""
    item = pb.IssueRequest(subject="s" * 255, audiences=["a" * 255] * 3, scopes=["s" * 255] * 2)
    sizes, code = [0], grpc.StatusCode.OK
    for count in range(200, 400, 10):
        try:
            answer = app.batch_issue(pb.BatchIssueRequest(requests=[item] * count), timeout=SECONDS)
        except grpc.RpcError as refusal:
            code = refusal.code()
            break
        sizes.append(answer.ByteSize())
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert 0.9 * MIB < sizes[-1] <= MIB


def test_a_batch_of_validations_with_an_answer_over_a_mebibyte_is_refused(app: Plane) -> None:
    audiences = ["orders", *(f"{number}" + "a" * 200 for number in range(5))]
    token = app.issue(pb.IssueRequest(subject="u", audiences=audiences), timeout=SECONDS).token
    check = pb.ValidateRequest(token=token, audiences=["orders"], with_claims=True)
    batch = pb.BatchValidateRequest(requests=[check] * 400)
    assert batch.ByteSize() < MIB
    refusal = refused(app.batch_validate, batch)
    assert (refusal.reason, list(refusal.fields)) == ("REQUEST_INVALID", ["requests"])


def test_others_are_answered_while_batches_are_worked_on(sidecar: RunningSidecar) -> None:
    with Plane(sidecar.app_socket) as busy, Plane(sidecar.app_tcp) as other, ThreadPoolExecutor(2) as threads:
        requests = pb.BatchIssueRequest(requests=[GOOD] * 1000)
        token = other.token()
        end = threading.Event()

        def keep_busy() -> int:
            batches = 0
            while not end.is_set():
                busy.batch_issue(requests, timeout=60)
                batches += 1
            return batches

        running = [threads.submit(keep_busy) for _ in range(2)]
        waits = []
        try:
            time.sleep(0.1)
            while len(waits) < 40:
                started = time.perf_counter()
                other.accepts(token)
                waits.append(time.perf_counter() - started)
        finally:
            end.set()
        assert sum(each.result() for each in running) >= 1
        # A thousand tokens take far longer than this; whoever comes meanwhile waits for a millisecond's work of each batch.
        assert sorted(waits)[20] < 0.1, waits
