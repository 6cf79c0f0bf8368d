"""`tokensidecar fake`: the real answers without keys on a disk, a clock and failures by hand, and no door to either in a real sidecar."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
import tokensidecar
from google.protobuf.duration_pb2 import Duration
from tokensidecar.fake.v1 import fake_service_pb2 as pb, fake_service_pb2_grpc
from tokensidecar.v1 import errors_pb2, token_service_pb2, token_service_pb2_grpc

from tests.fakes import COMMAND, RunningFake
from tests.running import ROOT, RunningSidecar

DAY = 86_400


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFake]:
    with RunningFake(tmp_path_factory.mktemp("home")) as fake:
        yield fake


@pytest.fixture
def fake(running: RunningFake) -> RunningFake:
    """Shared: each test finds it without failures, at some later time."""
    running.fail()
    return running


@pytest.fixture
def client(fake: RunningFake) -> Iterator[tokensidecar.Client]:
    with tokensidecar.connect(fake.app) as connected:
        yield connected


def test_fake_issues_and_validates_and_writes_nothing(fake: RunningFake, client: tokensidecar.Client) -> None:
    issued = client.issue("ada", ["orders"], claims={"tenant": "acme"})
    assert client.validate(issued.token, ["orders"]).claims["tenant"] == "acme"
    with pytest.raises(tokensidecar.RejectedError) as rejected:
        client.validate(issued.token, ["billing"])
    assert rejected.value.reason == "TOKEN_AUDIENCE_MISMATCH"
    assert list(fake.home.rglob("*")) == []


def test_time_goes_by_by_hand(fake: RunningFake, client: tokensidecar.Client) -> None:
    token = client.issue("ada", ["orders"]).token
    before = fake.advance(0)
    assert fake.advance(3600) - before == pytest.approx(3600, abs=60)
    with pytest.raises(tokensidecar.RejectedError) as rejected:
        client.validate(token, ["orders"])
    assert rejected.value.reason == "TOKEN_EXPIRED"
    client.validate(client.issue("ada", ["orders"]).token, ["orders"])
    with pytest.raises(grpc.RpcError, match="time never goes back"):
        fake.advance(-1)


def _states(admin: tokensidecar.AdminClient) -> dict[str, str]:
    listed = admin.keys()
    return {key.key_id: key.state for key in listed}


def test_what_falls_due_meanwhile_is_done_on_return(fake: RunningFake) -> None:
    with tokensidecar.connect_admin(fake.admin) as admin:
        before = set(_states(admin))
        fake.advance(100 * DAY)
        rotated = _states(admin)
        assert set(rotated) - before
        assert {state for key, state in rotated.items() if key in before} == {"retiring"}
        fake.advance(100 * DAY)
        assert not before & _states(admin).keys()


def test_a_clock_that_is_wrong_makes_the_state_stale(fake: RunningFake, client: tokensidecar.Client) -> None:
    fake.service.MoveClock(pb.MoveClockRequest(skew=Duration(seconds=-3600)))
    with pytest.raises(tokensidecar.UnavailableError) as stale:
        client.issue("ada", ["orders"])
    assert stale.value.reason == "STATE_STALE"
    fake.service.MoveClock(pb.MoveClockRequest(skew=Duration()))
    client.issue("ada", ["orders"])


def test_planned_failures_come_in_order_and_are_used_up(fake: RunningFake, client: tokensidecar.Client) -> None:
    fake.fail(
        pb.Failure(method="Issue", reason=errors_pb2.CALLER_DENIED, count=1),
        pb.Failure(method="Issue", reason=errors_pb2.OVERLOADED, count=1, retry_after=Duration(seconds=7)),
    )
    with pytest.raises(tokensidecar.DeniedError):
        client.issue("ada", ["orders"])
    with pytest.raises(tokensidecar.UnavailableError) as overloaded:
        client.issue("ada", ["orders"])
    assert overloaded.value.reason == "OVERLOADED"
    assert overloaded.value.retry_after == timedelta(seconds=7)
    client.issue("ada", ["orders"])


def test_a_failure_without_a_count_stays_until_it_is_replaced(fake: RunningFake, client: tokensidecar.Client) -> None:
    token = client.issue("ada", ["orders"]).token
    fake.fail(pb.Failure(reason=errors_pb2.TOKEN_REVOKED))
    for _ in range(3):
        with pytest.raises(tokensidecar.RejectedError) as rejected:
            client.validate(token, ["orders"])
        assert rejected.value.reason == "TOKEN_REVOKED"
    fake.fail()
    client.validate(token, ["orders"])


def test_a_slow_answer_ends_at_the_callers_deadline(fake: RunningFake, client: tokensidecar.Client) -> None:
    fake.fail(pb.Failure(method="Issue", delay=Duration(seconds=3600)))
    started = time.monotonic()
    with pytest.raises(tokensidecar.UnavailableError):
        client.issue("ada", ["orders"])
    assert time.monotonic() - started < 30


def test_a_lost_answer_has_had_its_effect(fake: RunningFake) -> None:
    fake.fail(pb.Failure(method="Rotate", reason=errors_pb2.AUDIT_UNAVAILABLE, count=1, after_effect=True))
    with tokensidecar.connect_admin(fake.admin) as admin:
        before = admin.keys()[0].ring_revision
    with grpc.insecure_channel(fake.admin) as channel:
        stub = token_service_pb2_grpc.TokenServiceStub(channel)
        request = token_service_pb2.RotateRequest(request_id="once")
        with pytest.raises(grpc.RpcError) as lost:
            stub.Rotate(request)
        assert lost.value.code() is grpc.StatusCode.UNAVAILABLE
        assert stub.Rotate(request).ring_revision == before + 1


@pytest.mark.parametrize(
    "failure",
    [
        pb.Failure(method="Valdate", reason=errors_pb2.INTERNAL),
        pb.Failure(after_effect=True),
        pb.Failure(delay=Duration(seconds=-1)),
        pb.Failure(reason=99),  # type: ignore[arg-type]
    ],
)
def test_a_failure_that_cannot_be_is_refused(fake: RunningFake, failure: pb.Failure) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        fake.fail(failure)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_profiles_and_policy_of_a_file_hold(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[profiles.service]\nissuer = "https://a.example"\naudiences = ["orders"]\nttl = "2m"\n')
    with RunningFake(tmp_path, "--config", str(file)) as fake, tokensidecar.connect(fake.app) as client:
        issued = client.issue("ada", ["orders"], profile="service")
        assert (issued.expire_time - issued.issue_time).total_seconds() == 120


def test_two_fakes_know_nothing_of_each_other(tmp_path: Path) -> None:
    with (
        RunningFake(tmp_path) as one,
        RunningFake(tmp_path) as other,
        tokensidecar.connect(one.app) as mine,
        tokensidecar.connect(other.app) as theirs,
        pytest.raises(tokensidecar.RejectedError),
    ):
        theirs.validate(mine.issue("ada", ["orders"]).token, ["orders"])


def test_an_address_that_is_taken_is_told(fake: RunningFake) -> None:
    done = subprocess.run([COMMAND, "fake", "--app", fake.app], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "Address already in use" in done.stderr


def test_no_real_sidecar_serves_the_fakes_service(sidecar: RunningSidecar) -> None:
    for address in (sidecar.app_socket, sidecar.app_tcp, sidecar.admin_socket, sidecar.admin_tcp):
        with grpc.insecure_channel(address, options=[("grpc.default_authority", "localhost")]) as channel:
            stub = fake_service_pb2_grpc.FakeServiceStub(channel)
            for call, request in (
                (stub.MoveClock, pb.MoveClockRequest()),
                (stub.SetFailures, pb.SetFailuresRequest()),
            ):
                with pytest.raises(grpc.RpcError) as unknown:
                    call(request)
                assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_only_the_fakes_command_knows_the_fakes_parts() -> None:
    parts = re.compile(r"tokensidecar\.fake|stores\.memory|kms\.memory|cli\.fake|cli import fake")
    knowing = {
        str(file.relative_to(ROOT)) for file in (ROOT / "sidecar").rglob("*.py") if parts.search(file.read_text())
    }
    assert knowing == {"sidecar/cli/fake.py"}
