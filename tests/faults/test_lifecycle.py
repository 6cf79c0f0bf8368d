"""Starting, stopping, scheduled duties, racing operators, and two processes on one store."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tokensidecar.v1 import keys_pb2, token_service_pb2 as pb, token_service_pb2_grpc as pb_grpc

from tests.faults import states
from tests.faults.waiting import run, wait_for
from tests.faults.witness import AUDIENCE, reason_of
from tests.running import SERVE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.conftest import NewSidecar, NewWitness
    from tests.faults.witness import Witness
    from tests.running import RunningSidecar

PROFILE = """
[profiles.default]
issuer = "urn:test"
audiences = ["orders"]
ttl = "1s"
max_ttl = "1s"
leeway = "0s"
"""
# A key is destroyed 5 s after its retirement: 2 + 1 + 0 + 2·1.
QUICK = (
    PROFILE
    + """
[keys]
refresh_interval = "1s"
propagation = "2s"
max_staleness = "2s"
max_skew = "1s"
"""
)
LASTING = QUICK.replace('ttl = "1s"', 'ttl = "60s"')
ROTATING = QUICK + 'rotate_every = "4s"\n'
WELL_UNDER_THE_GRACE = 3.0  # seconds; calls in work would get 10
UNSHARE = pytest.mark.needs("unshare", *([] if os.geteuid() == 0 else ["root"]))

pytestmark = pytest.mark.timeout(300)


def ended_by(running: RunningSidecar, number: int) -> float:
    """Send the signal; exit code 0, sockets gone, locks free. Gives the seconds that it took."""
    began = time.monotonic()
    running.process.send_signal(number)
    assert running.process.wait(20) == 0, running.log()
    took = time.monotonic() - began
    for target in (running.app_socket, running.admin_socket):
        assert not Path(target.removeprefix("unix:")).exists()
    assert "sidecar.stopped" in running.stderr()
    assert "Traceback" not in running.stderr()
    return took


# Stopping


def test_idle_sidecar_stops_at_once_and_starts_again(new_sidecar: NewSidecar, new_witness: NewWitness) -> None:
    running = new_sidecar()
    run(running)
    witness = new_witness(running)
    for number in (signal.SIGTERM, signal.SIGINT):
        witness.check()
        assert ended_by(running, number) < WELL_UNDER_THE_GRACE
        run(running)
        witness.connect()
    witness.check()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_during_the_start_ends_it_cleanly(number: int, new_sidecar: NewSidecar) -> None:
    """At any moment after the handlers are set; before that the signal's own effect is the right one."""
    running = new_sidecar()
    running.start()
    wait_for((running.state_dir / "state.db").exists)
    running.process.send_signal(number)
    assert running.process.wait(20) == 0, running.log()
    assert "Traceback" not in running.stderr()
    run(running)


def test_open_watch_hears_of_the_end_and_does_not_hold_it_up(new_sidecar: NewSidecar) -> None:
    running = new_sidecar()
    run(running)
    with grpc.insecure_channel(running.app_socket) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""))
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        heard: list[Any] = []
        listener = threading.Thread(target=lambda: heard.extend(_until_the_end(watch)))
        listener.start()
        assert ended_by(running, signal.SIGTERM) < WELL_UNDER_THE_GRACE
        listener.join(5)
    assert [answer.status for answer in heard] == [health_pb2.HealthCheckResponse.NOT_SERVING]


def _until_the_end(stream: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from stream
    except grpc.RpcError:
        return


def test_open_reflection_stream_does_not_hold_up_the_end(new_sidecar: NewSidecar) -> None:
    running = new_sidecar()
    run(running)
    enough = threading.Event()

    def requests() -> Iterator[Any]:
        yield reflection_pb2.ServerReflectionRequest(list_services="*")
        enough.wait(30)

    with grpc.insecure_channel(running.app_socket) as channel:
        stream = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(requests())
        assert next(stream).list_services_response.service
        took = ended_by(running, signal.SIGTERM)
        enough.set()
    assert took < WELL_UNDER_THE_GRACE


def test_open_http_connection_does_not_hold_up_the_end(new_sidecar: NewSidecar) -> None:
    running = new_sidecar()
    run(running)
    host, port = running.http.split(":")
    with socket.create_connection((host, int(port))) as silent:
        assert ended_by(running, signal.SIGTERM) < WELL_UNDER_THE_GRACE
        assert silent.recv(1) == b""


def test_rotation_in_work_is_finished_before_the_end(new_sidecar: NewSidecar, new_witness: NewWitness) -> None:
    """The store is kept locked meanwhile: the commit waits for it, the end waits for the commit, and the caller gets its answer."""
    import sqlite3

    running = new_sidecar()
    run(running)
    witness = new_witness(running)
    with closing(sqlite3.connect(running.state_dir / "state.db", isolation_level=None)) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(1) as pool:
            rotating = pool.submit(witness.rotate, "in work")
            wait_for(lambda: '"phase":"intent"' in running.stdout())
            running.process.send_signal(signal.SIGTERM)
            wait_for(lambda: "sidecar.stopping" in running.stderr())
            time.sleep(0.3)
            assert running.running
            blocker.execute("ROLLBACK")
            assert rotating.result(20).ring_revision == 2
    assert running.process.wait(20) == 0, running.log()
    assert states.ring(running.state_dir)["revision"] == 2
    assert '"outcome":"OK"' in running.stdout().splitlines()[-1]


@UNSHARE
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_as_pid_1_it_stops_as_anywhere(number: int, new_sidecar: NewSidecar) -> None:
    running = new_sidecar(command=["unshare", "--pid", "--fork", "--kill-child", *SERVE])
    run(running)
    children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()
    assert len(children) == 1
    first = int(children[0])
    assert Path(f"/proc/{first}/status").read_text().split("NSpid:")[1].split("\n")[0].split()[-1] == "1"
    os.kill(first, number)
    assert running.process.wait(WELL_UNDER_THE_GRACE) == 0, running.log()
    assert "sidecar.stopped" in running.stderr()


# CANCELLED too: gRPC's core ends calls so that arrive while it shuts a server down, before the client has heard of it (grpc issue 41785).
RETRIES = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": "tokensidecar.v1.TokenService"}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                },
            }
        ]
    }
)


@pytest.mark.parametrize("address", ["app_socket", "app_tcp"])
def test_restart_under_load_fails_no_call_of_a_client_that_reconnects(address: str, new_sidecar: NewSidecar) -> None:
    running = new_sidecar()
    run(running)
    problems: list[str] = []
    done = [0, 0, 0]
    enough = threading.Event()

    def work(number: int) -> None:
        options = [
            ("grpc.service_config", RETRIES),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 200),
        ]
        with grpc.insecure_channel(getattr(running, address), options) as channel:
            stub = pb_grpc.TokenServiceStub(channel)
            while not enough.is_set():
                try:
                    token = stub.Issue(
                        pb.IssueRequest(subject="user-1", audiences=[AUDIENCE]), timeout=20, wait_for_ready=True
                    ).token
                    stub.Validate(
                        pb.ValidateRequest(token=token, audiences=[AUDIENCE]), timeout=20, wait_for_ready=True
                    )
                    done[number] += 1
                except grpc.RpcError as error:
                    problems.append(f"{error.code().name}: {error.details()}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        time.sleep(0.3)
        assert ended_by(running, signal.SIGTERM) < WELL_UNDER_THE_GRACE
        run(running)
    before = list(done)
    wait_for(lambda: all(now > then for now, then in zip(done, before, strict=True)))
    enough.set()
    for thread in threads:
        thread.join()
    assert not problems, problems[:3]


def test_socket_left_by_a_killed_sidecar_is_no_obstacle(new_sidecar: NewSidecar, new_witness: NewWitness) -> None:
    running = new_sidecar()
    run(running)
    running.kill()
    assert Path(running.app_socket.removeprefix("unix:")).is_socket()
    run(running)
    new_witness(running).check()


def test_second_sidecar_on_the_same_sockets_is_refused_and_disturbs_nothing(
    new_sidecar: NewSidecar, new_witness: NewWitness
) -> None:
    running = new_sidecar()
    run(running)
    witness = new_witness(running)
    witness.check()
    for variables in (("TOKENSIDECAR_LISTEN_APP", "TOKENSIDECAR_LISTEN_ADMIN"), ("TOKENSIDECAR_LISTEN_HTTP",)):
        second = new_sidecar(env={name: running.env[name] for name in variables})
        second.start()
        assert second.process.wait(20) == 1, second.log()
        lines = [line for line in second.stderr().splitlines() if not line.startswith("{")]
        assert len(lines) == 1, lines
        assert lines[0].startswith("tokensidecar serve: ")
    witness.check()
    witness.connect()
    witness.check()


# Duties


def test_keys_rotate_by_age_and_are_destroyed_in_the_end(new_sidecar: NewSidecar, new_witness: NewWitness) -> None:
    running = new_sidecar(ROTATING)
    run(running)
    witness = new_witness(running)
    first = states.ring(running.state_dir)
    old = witness.issue()
    seen = 1
    until = time.monotonic() + 30
    while time.monotonic() < until:
        witness.check()  # at every moment of the way
        seen = max(seen, witness.revision)
        time.sleep(0.2)
        if not {key["key_id"] for key in first["keys"]} & states.ring(running.state_dir)["parts"].keys():
            break
    assert seen > 2
    wait_for(lambda: "keys.destroyed" in running.stderr())
    audited = [json.loads(line) for line in running.stdout().splitlines()]
    changes = [line for line in audited if line["verb"] in {"rotate", "destroy"}]
    assert {line["verb"] for line in changes} == {"rotate", "destroy"}
    assert {line["caller"] for line in changes} == {"sidecar"}
    assert [line["phase"] for line in changes[:2]] == ["intent", "outcome"]
    revisions = [line["ring_revision"] for line in changes if line.get("outcome") == "OK"]
    assert revisions == sorted(set(revisions)), "a revision came twice or went back"

    # Gone from memory: an expired token under a key that is there is TOKEN_EXPIRED.
    assert witness.validate(old) == "TOKEN_INVALID"
    young = witness.issue()
    time.sleep(2.1)
    assert witness.validate(young) == "TOKEN_EXPIRED"
    # Gone from the disk.
    for key in first["keys"]:
        for part in first["parts"][key["key_id"]].values():
            wait_for(lambda part=part: not states.holds(running.state_dir, part))
    assert states.holds(running.state_dir, states.ring(running.state_dir)["seals"]["open"]), "nothing was looked at"


# Racing operators


def test_of_many_rotations_at_one_revision_one_wins(new_sidecar: NewSidecar, new_witness: NewWitness) -> None:
    running = new_sidecar()
    run(running)
    witness = new_witness(running)
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: reason_of(lambda: witness.rotate(expected=1)), range(10)))
    assert sorted(answers) == ["OK"] + 9 * ["RING_CHANGED"]
    assert witness.revision == 2
    witness.check()
    with ThreadPoolExecutor(10) as pool:
        same = list(pool.map(lambda _: witness.rotate("the same", expected=2).ring_revision, range(10)))
    assert set(same) == {3}
    witness.check()
    assert witness.revision == 3


@pytest.fixture
def two(new_sidecar: NewSidecar, new_witness: NewWitness) -> tuple[Witness, Witness]:
    """Two sidecars on one store, with sockets of their own."""
    one = new_sidecar(LASTING)
    other = new_sidecar(LASTING, {"TOKENSIDECAR_STATE_DIR": str(one.state_dir)})
    for each in (one, other):
        each.start()  # both at once: one of them makes the store, the key and the ring
    for each in (one, other):
        each.wait_until_ready()
    return new_witness(one), new_witness(other)


def test_tokens_of_each_of_two_sidecars_validate_at_the_other_through_a_rotation(two: tuple[Witness, Witness]) -> None:
    one, other = two
    rotated = one.rotate(expected=1)
    assert rotated.activate_time.ToMilliseconds() / 1000 >= time.time() + 2.0  # propagation and twice the skew ahead
    assert [key.state for key in one.list_keys()].count(keys_pb2.KEY_STATE_PENDING) == 2
    assert reason_of(other.rotate) == "RING_CHANGED"  # a successor is pending
    old = one.active()
    until = time.monotonic() + 15
    new_seen = 0
    while time.monotonic() < until and new_seen < 10:
        for issuer, validator in ((one, other), (other, one)):
            token = issuer.issue(remember=False)
            assert validator.validate(token) == "OK"
            new_seen += token.key_id not in old.values()
        time.sleep(0.05)
    assert new_seen == 10
    one.check()
    other.check()
    assert one.active() == other.active()
    assert one.revision == other.revision


def test_racing_rotations_of_two_sidecars_have_one_winner(two: tuple[Witness, Witness]) -> None:
    one, other = two
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda n: reason_of(lambda: (one, other)[n % 2].rotate(expected=1)), range(10)))
    assert sorted(answers) == ["OK"] + 9 * ["RING_CHANGED"]
    one.check()
    wait_for(lambda: other.active() == one.active() and other.revision == 2)
    other.check()


def test_revoked_key_is_refused_by_the_other_sidecar_within_a_refresh(two: tuple[Witness, Witness]) -> None:
    one, other = two
    named = sorted(one.active().values())
    token = other.issue(remember=False)
    answer = one.revoke_keys(named)
    assert one.validate(token) == "TOKEN_INVALID"
    wait_for(lambda: other.validate(token) != "OK", answer.effective_time.ToMilliseconds() / 1000 - time.time())
    one.check()
    wait_for(lambda: other.active() == one.active())
    fresh = one.issue()
    assert other.validate(fresh) == "OK"
