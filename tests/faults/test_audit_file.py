"""The audit file of a real sidecar: required records and full disks, renames, the commands that read it, and completeness over kills."""

from __future__ import annotations

import json
import os
import random
import subprocess
import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

import grpc
import pytest
from tokensidecar.v1 import token_service_pb2 as pb, token_service_pb2_grpc as rpc

from tests.faults.test_faults import MOUNTS, fill, mounted
from tests.faults.waiting import run, wait_for
from tests.faults.witness import reason_of
from tests.running import ROOT, RunningSidecar

if TYPE_CHECKING:
    from tests.faults.conftest import NewSidecar, NewWitness

TOOL = str(ROOT / ".venv/bin/tokensidecar")
CALLS = 100_000 if os.environ.get("TOKENSIDECAR_TEST_ALL") == "true" else 2_000
KILLS = 40 if CALLS > 10_000 else 4
PROFILES = """
[profiles.default]
issuer = "urn:test"
audiences = ["orders"]
audit_validations = true
"""

pytestmark = pytest.mark.timeout(3600 if CALLS > 10_000 else 300)


@pytest.fixture
def sidecar_with_file(new_sidecar: NewSidecar) -> RunningSidecar:
    """One that must put everything on record in the file `audit/audit.jsonl` of its directory."""
    running = new_sidecar()
    folder = running.directory / "audit"
    folder.mkdir()
    config = running.directory / "config.toml"
    config.write_text(f'{PROFILES}\n[audit]\nsink = "file:{folder}/audit.jsonl"\nrequired = true\n', encoding="utf-8")
    running.command += ["--config", str(config)]
    return running


def file_of(running: RunningSidecar) -> Path:
    return running.directory / "audit" / "audit.jsonl"


def tool(running: RunningSidecar, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TOOL, "audit", *words], env=running.env, capture_output=True, text=True, check=False, timeout=120
    )


def records(running: RunningSidecar) -> list[dict[str, object]]:
    return [json.loads(line) for line in file_of(running).read_text().splitlines()]


@MOUNTS
def test_a_full_disk_ends_answers_and_recovers(sidecar_with_file: RunningSidecar, new_witness: NewWitness) -> None:
    running = sidecar_with_file
    with mounted(running.directory / "audit", "-t", "tmpfs", "-o", "size=64k", "tmpfs"):
        run(running)
        witness = new_witness(running)
        token = witness.issue()
        filler = fill(running.directory / "audit")
        assert {reason_of(witness.issue) for _ in range(60)} >= {"AUDIT_UNAVAILABLE"}
        assert reason_of(witness.issue) == "AUDIT_UNAVAILABLE"
        assert witness.validate(token) == "AUDIT_UNAVAILABLE"
        revision = witness.revision
        assert reason_of(witness.rotate) == "AUDIT_UNAVAILABLE"
        filler.unlink()
        wait_for(lambda: reason_of(witness.issue) == "OK")
        assert witness.list_keys()[0].ring_revision == max(1, revision)  # what could not be intended was not done
        witness.rotate()
        lost = running.get("/metrics")[1]
        assert "tokensidecar_audit_lost_records 0.0" not in lost
        running.stop()
        done = tool(running, "verify", str(file_of(running)))
        assert done.returncode == 0, done.stderr
        assert "could not be written" in done.stdout


@MOUNTS
def test_where_records_are_not_required_a_full_disk_is_counted(
    sidecar_with_file: RunningSidecar, new_witness: NewWitness
) -> None:
    running = sidecar_with_file
    config = running.directory / "config.toml"
    config.write_text(config.read_text().replace("required = true", "required = false"))
    with mounted(running.directory / "audit", "-t", "tmpfs", "-o", "size=64k", "tmpfs"):
        fill(running.directory / "audit")
        run(running)
        witness = new_witness(running)
        for _ in range(5):
            witness.issue()
        wait_for(lambda: "tokensidecar_audit_lost_records 5.0" in running.get("/metrics")[1])
        assert reason_of(witness.rotate) == "AUDIT_UNAVAILABLE"  # an intent is always required
        running.stop()


def test_the_head_is_in_the_log_and_in_the_metrics(sidecar_with_file: RunningSidecar, new_witness: NewWitness) -> None:
    running = sidecar_with_file
    run(running)
    witness = new_witness(running)
    witness.issue()
    metrics = dict(
        line.split(" ") for line in running.get("/metrics")[1].splitlines() if line.startswith("tokensidecar_audit_ch")
    )
    running.stop()
    heads = [json.loads(line) for line in running.stderr().splitlines() if "audit.checkpoint" in line]
    assert [head["seq"] for head in heads] == [1, 3]
    seq = int(float(metrics["tokensidecar_audit_checkpoint"]))
    short = f"{int(float(metrics['tokensidecar_audit_checkpoint_head'])):013x}"
    assert (seq, short) == (1, heads[0]["chain"][:13])
    file = file_of(running)
    anchors = [word for head in heads for word in ("--anchor", f"{head['seq']}:{head['chain']}")]
    done = tool(running, "verify", str(file), *anchors, "--anchor", f"{seq}:{short}")
    assert (done.returncode, "not shown" in done.stdout) == (0, False), done.stdout + done.stderr
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:2]))
    done = tool(running, "verify", str(file))
    assert done.returncode == 0
    assert "no signature yet" in done.stdout
    assert "cut off" in done.stdout
    done = tool(running, "verify", str(file), *anchors)
    assert (done.returncode, "record 2: the anchor knows record 3" in done.stderr) == (1, True)


def test_commands_read_the_files_through_renames(sidecar_with_file: RunningSidecar, new_witness: NewWitness) -> None:
    running, file = sidecar_with_file, file_of(sidecar_with_file)
    run(running)
    witness = new_witness(running)
    with subprocess.Popen(
        [TOOL, "audit", "show", "-f", "--json", "--verb", "issue", str(file)], env=running.env, stdout=subprocess.PIPE
    ) as following:
        try:
            assert following.stdout is not None
            for number in range(3):
                witness.issue()
                assert json.loads(following.stdout.readline())["verb"] == "issue"
                time.sleep(0.3)
                file.rename(file.with_suffix(f".{number}"))
            witness.issue()
            assert json.loads(following.stdout.readline())["verb"] == "issue"
        finally:
            following.terminate()
    witness.rotate()
    running.stop()
    rotated = [str(file.with_suffix(f".{number}")) for number in range(3)]
    subprocess.run(["gzip", rotated[0]], check=True)
    rotated[0] += ".gz"
    key = tool(running, "key").stdout
    pem = running.directory / "key.pem"
    pem.write_text(key)
    done = tool(running, "verify", "--json", "--key", str(pem), str(file), *reversed(rotated))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["first"] == 1
    done = tool(running, "verify", str(file), *rotated[1:])
    assert "what stood before record" in done.stdout
    shown = tool(running, "show", str(file), "--since", "1h", "--outcome", "OK").stdout.splitlines()
    assert [line.split()[2] for line in shown[1:]] == ["issue", "rotate"]
    assert tool(running, "show", str(file), "--since", "2100-01-01T00:00:00Z").stdout.count("\n") == 1
    file.write_bytes(file.read_bytes().replace(b'"verb":"rotate"', b'"verb":"rotten"', 1))
    done = tool(running, "verify", "--json", str(file))
    found = json.loads(done.stdout)
    assert (done.returncode, found["good"], found["first_bad"]["line"]) == (1, False, 3)


# -- completeness


@dataclass
class Call:
    """One call of a client. `answer`: OK, a reason of the contract, or empty: the connection broke. Times by the wall clock."""

    request_id: str
    verb: str
    items: int
    started: float
    ended: float = 0.0
    answer: str = ""


class Clients:
    """Eight clients, each with a connection of its own, that call until so many calls were made."""

    def __init__(self, running: RunningSidecar) -> None:
        self._running = running
        self._lock = threading.Lock()
        self.calls: list[Call] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(8)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _work(self, number: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 100)]
        options += [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.min_reconnect_backoff_ms", 50)]
        chance, token, count = random.Random(number), "", 0
        with (
            grpc.insecure_channel(self._running.app_socket, options) as app,
            grpc.insecure_channel(self._running.admin_socket, options) as admin,
        ):
            stub, rotator = rpc.TokenServiceStub(app), rpc.TokenServiceStub(admin)
            issue = pb.IssueRequest(subject="u", audiences=["orders"])
            while not self._stop.is_set():
                count += 1
                kind, items = chance.choices(("issue", "batch", "validate", "bad", "rotate"), (50, 10, 30, 9, 1))[0], 1
                if kind == "batch":
                    items, verb = chance.randint(1, 5), "issue"
                    method, request = stub.BatchIssue, pb.BatchIssueRequest(requests=[issue] * items)
                elif kind == "validate" and token:
                    verb, method, request = (
                        "validate",
                        stub.Validate,
                        pb.ValidateRequest(token=token, audiences=["orders"]),
                    )
                elif kind == "bad":
                    verb, method, request = chance.choice(
                        [
                            ("validate", stub.Validate, pb.ValidateRequest(token="a.b", audiences=["orders"])),
                            ("issue", stub.Issue, pb.IssueRequest(audiences=["orders"])),
                            ("issue", stub.Issue, pb.IssueRequest(ttl={"nanos": 1})),
                            ("issue", rotator.Issue, issue),
                        ]
                    )
                elif kind == "rotate":
                    verb, method, request = "rotate", rotator.Rotate, pb.RotateRequest()
                else:
                    verb, method, request = "issue", stub.Issue, issue
                call = Call(f"c{number}-{count}", verb, items, time.time())
                try:
                    answer = method(request, timeout=20, metadata=(("x-request-id", call.request_id),))
                    call.answer = "OK"
                    token = answer.token if kind == "issue" else token
                except grpc.RpcError as error:
                    call.answer = str(dict(error.trailing_metadata() or ()).get("tokensidecar-reason", ""))
                call.ended = time.time()
                with self._lock:
                    self.calls.append(call)
                if not call.answer:
                    time.sleep(0.02)


def test_every_answer_has_its_record_and_every_other_record_a_kill(sidecar_with_file: RunningSidecar) -> None:
    running, kills = sidecar_with_file, list[float]()
    run(running)
    with Clients(running) as clients:

        def answered() -> int:
            return sum(bool(call.answer) for call in clients.calls)

        for number in range(KILLS):
            wait_for(lambda number=number: answered() >= CALLS * (number + 1) // (KILLS + 1), 1800)
            kills.append(time.time())
            running.kill()
            kills.append(time.time())
            run(running)
        wait_for(lambda: answered() >= CALLS, 1800)
    running.stop()
    check_completeness(clients.calls, records(running), list(zip(kills[::2], kills[1::2], strict=True)))
    done = tool(running, "verify", str(file_of(running)))
    assert done.returncode == 0, done.stderr


def check_completeness(calls: list[Call], found: list[dict[str, object]], kills: list[tuple[float, float]]) -> None:
    found = [
        record for record in found if record["verb"] not in ("checkpoint", "destroy") and record["caller"] != "sidecar"
    ]
    outcomes = Counter((record["request_id"], record["outcome"]) for record in found if record["phase"] == "outcome")
    total = Counter(record["request_id"] for record in found if record["phase"] == "outcome")
    by_id = {call.request_id: call for call in calls}
    for call in calls:
        if call.answer == "OK":
            assert outcomes[call.request_id, "OK"] == total[call.request_id] == call.items, call
        elif call.answer:
            assert outcomes[call.request_id, call.answer] == total[call.request_id] == 1, call
    unanswered = 0
    for record in found:
        call = by_id[str(record["request_id"])]
        assert record["verb"] == call.verb
        if not call.answer:
            unanswered += 1
            at = datetime.fromisoformat(str(record["time"])).timestamp()
            assert call.started - 0.01 <= at <= call.ended + 0.01
            assert any(begun <= call.ended and call.started <= ended for begun, ended in kills), call
    # Of what was answered: while a killed sidecar starts again, clients go on asking nobody.
    answered = sum(bool(call.answer) for call in calls)
    assert answered >= CALLS
    assert sum(call.answer == "OK" for call in calls) > answered // 2
    assert unanswered <= len(kills) * 8 * 6  # no more than was in flight at the kills
