"""The audit log: what is on record, in which order, and that nothing irreversible happens without it."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from tokensidecar.v1 import admin_service_pb2 as admin_pb, keys_pb2, token_service_pb2 as pb

from sidecar.audit import FIELDS
from sidecar.logs import LINE_MAX
from tests.e2e.calls import REQUEST_ID, SECONDS, Plane, metric, refused
from tests.e2e.pipes import Piped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import StartSidecar
    from tests.running import RunningSidecar

REQUIRED = """
[profiles.default]
issuer = "urn:tokensidecar:local"
audiences = ["orders"]

[audit]
required = true
"""
QUICK = """
[profiles.default]
issuer = "urn:tokensidecar:local"
audiences = ["orders"]
ttl = "1s"
max_ttl = "1s"
leeway = "0s"

[keys]
rotate_every = "4s"
propagation = "2s"
max_staleness = "2s"
max_skew = "1s"
refresh_interval = "1s"
"""


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def own(start_sidecar: StartSidecar) -> Iterator[tuple[RunningSidecar, Plane, Plane]]:
    running = start_sidecar()
    with Plane(running.app_socket) as app, Plane(running.admin_socket) as admin:
        yield running, app, admin


def test_each_decision_is_one_record(own: tuple[RunningSidecar, Plane, Plane]) -> None:
    running, app, admin = own
    issued = app.issue(
        pb.IssueRequest(subject="u", audiences=["orders"]), timeout=SECONDS, metadata=((REQUEST_ID, "one"),)
    )
    app.accepts(issued.token)
    refused(app.validate, pb.ValidateRequest(token="x", audiences=["orders"]), ((REQUEST_ID, "two"),))
    refused(app.validate, pb.ValidateRequest(token=issued.token, audiences=["other"]), ((REQUEST_ID, "three"),))
    refused(app.issue, pb.IssueRequest(subject="u", audiences=["a"], profile="none"), ((REQUEST_ID, "four"),))
    refused(app.rotate, pb.RotateRequest(), ((REQUEST_ID, "five"),))
    admin.list_keys(admin_pb.ListKeysRequest(), timeout=SECONDS)
    found = records(running.stdout())
    told = ("request_id", "caller", "plane", "verb", "profile", "phase", "outcome", "stage")
    assert [tuple(record.get(name) for name in told) for record in found] == [
        ("one", "unix:app", "app", "issue", "default", "outcome", "OK", None),
        ("two", "unix:app", "app", "validate", "default", "outcome", "TOKEN_INVALID", "gate.segments"),
        ("three", "unix:app", "app", "validate", "default", "outcome", "TOKEN_AUDIENCE_MISMATCH", None),
        ("four", "unix:app", "app", "issue", "none", "outcome", "CALLER_DENIED", "policy.profile"),
        ("five", "unix:app", "app", "rotate", "", "outcome", "CALLER_DENIED", "policy.verb"),
    ]
    assert found[0]["key_id"] == issued.key_id
    assert found[0]["expire_time"] == issued.expire_time.seconds
    for record in found:
        assert record["audit"] == 1
        assert set(record) <= set(FIELDS)


def test_accepted_validations_are_counted_and_not_recorded(own: tuple[RunningSidecar, Plane, Plane]) -> None:
    running, app, _ = own
    token = app.token()
    before = running.stdout()
    for _ in range(30):
        app.accepts(token)
    assert running.stdout() == before
    labels = {"profile": "default", "verb": "validate", "outcome": "OK"}
    assert metric(running, "tokensidecar_tokens_total", **labels) == 30


def test_each_item_of_a_batch_is_one_record(own: tuple[RunningSidecar, Plane, Plane]) -> None:
    running, app, _ = own
    good, bad = (
        pb.IssueRequest(subject="u", audiences=["orders"]),
        pb.IssueRequest(subject="u", audiences=["a"], profile="b"),
    )
    app.batch_issue(pb.BatchIssueRequest(requests=[good, bad, good]), timeout=SECONDS)
    found = records(running.stdout())
    assert sorted(record["outcome"] for record in found) == ["CALLER_DENIED", "OK", "OK"]
    assert len({record["request_id"] for record in found}) == 1


def test_subjects_can_be_joined_but_not_read_and_over_restarts(own: tuple[RunningSidecar, Plane, Plane]) -> None:
    running, app, _ = own
    for subject in ("alice", "alice", "bob"):
        app.token(subject)
    running.stop()
    running.start()
    running.wait_until_ready()
    with Plane(running.app_socket) as again:
        again.token("alice")
    first, second, other, later = (record["subject_hash"] for record in records(running.stdout()))
    assert first == second == later
    assert other != first
    assert len(first) == 32
    assert first != hashlib.sha256(b"alice").hexdigest()[:32]
    assert len({record["token_id_hash"] for record in records(running.stdout())}) == 4


def test_a_shared_salt_joins_the_records_of_several_sidecars(start_sidecar: StartSidecar, tmp_path: Path) -> None:
    salt = tmp_path / "salt"
    salt.write_text("5a" * 32 + "\n")
    config = REQUIRED + f'salt = "file:{salt}"\n'
    hashes = []
    for running in (start_sidecar(config), start_sidecar(config), start_sidecar(REQUIRED)):
        with Plane(running.app_socket) as app:
            app.token("alice")
        hashes += [record["subject_hash"] for record in records(running.stdout())]
    first, second, other = hashes
    assert first == second == hmac.new(b"\x5a" * 32, b"alice", hashlib.sha256).hexdigest()[:32]
    assert other != first


def test_names_stand_in_the_clear_only_where_that_is_configured(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(REQUIRED + 'names = "clear"\n')
    with Plane(running.app_socket) as app:
        app.token("alice")
        app.token("\U0001f600" * 128)  # too long, as JSON spells it, to be sure that the record fits a pipe
    short, long = records(running.stdout())
    assert short["subject"] == "alice"
    assert len(short["token_id"]) >= 16
    assert not {"subject_hash", "token_id_hash"} & short.keys()
    assert "subject" not in long
    assert len(long["subject_hash"]) == 32
    assert set(long) | set(short) <= set(FIELDS)
    assert "audit.names" in running.stderr()


@pytest.mark.parametrize("text", ["", "5a" * 31, "xy" * 32, None])
def test_a_salt_that_is_none_is_told_at_the_start(
    start_sidecar: StartSidecar, tmp_path: Path, text: str | None
) -> None:
    salt = tmp_path / "salt"
    if text is not None:
        salt.write_text(text)
    running = start_sidecar(REQUIRED + f'salt = "file:{salt}"\n', wait=False)
    assert running.process.wait(SECONDS) == 1
    last = running.stderr().splitlines()[-1]
    assert str(salt) in last
    assert "Traceback" not in running.stderr()


@pytest.mark.parametrize("verb", ["rotate", "revoke_keys"])
def test_an_intent_comes_before_what_cannot_be_undone(own: tuple[RunningSidecar, Plane, Plane], verb: str) -> None:
    running, _, admin = own
    (key, _) = admin.list_keys(admin_pb.ListKeysRequest(), timeout=SECONDS).keys
    request = (
        pb.RotateRequest(reason="näher — 漢字")
        if verb == "rotate"
        else admin_pb.RevokeKeysRequest(profile="default", key_ids=[key.key_id], reason="näher — 漢字")
    )
    answer = getattr(admin, verb)(request, timeout=SECONDS, metadata=((REQUEST_ID, "r1"),))
    intent, outcome = records(running.stdout())
    for record in (intent, outcome):
        assert (record["verb"], record["request_id"], record["why"]) == (verb, "r1", "näher — 漢字")
        assert record.get("key_ids") == (None if verb == "rotate" else [key.key_id])
        assert set(record) <= set(FIELDS)
    assert (intent["phase"], "outcome" in intent, "ring_revision" in intent) == ("intent", False, False)
    assert (outcome["phase"], outcome["outcome"], outcome["ring_revision"]) == ("outcome", "OK", answer.ring_revision)


def test_a_change_that_fails_has_an_outcome_too(own: tuple[RunningSidecar, Plane, Plane]) -> None:
    running, _, admin = own
    refused(admin.rotate, pb.RotateRequest(expected_ring_revision=99))
    assert [(record["phase"], record.get("outcome")) for record in records(running.stdout())] == [
        ("intent", None),
        ("outcome", "RING_CHANGED"),
    ]


def test_what_the_schedule_does_is_on_record_like_anything_else(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(QUICK)
    end = time.monotonic() + 20
    found: list[tuple[str, str, str]] = []
    while ("destroy", "outcome", "OK") not in found and time.monotonic() < end:
        time.sleep(0.2)
        found = [
            (record["verb"], record["phase"], record.get("outcome", ""))
            for record in records(running.stdout())
            if record["caller"] == "sidecar"
        ]
    assert ("destroy", "outcome", "OK") in found
    for verb in ("rotate", "destroy"):
        assert found.index((verb, "intent", "")) < found.index((verb, "outcome", "OK"))


def test_the_longest_record_fits_a_pipe() -> None:
    """Longer ones could be torn, or wait for the reader."""
    with Piped(None) as piped, Plane(piped.sidecar.admin_socket) as admin:
        for _ in range(20):
            admin.rotate(pb.RotateRequest(), timeout=SECONDS)
        listed = admin.list_keys(admin_pb.ListKeysRequest(), timeout=SECONDS).keys
        keys = [key.key_id for key in listed if key.key_use == keys_pb2.KEY_USE_SIGNATURE]
        assert len(keys) > 20
        request = admin_pb.RevokeKeysRequest(profile="default", key_ids=keys, reason="🔥" * 256)
        admin.revoke_keys(request, timeout=SECONDS, metadata=((REQUEST_ID, "r" * 128),))
        lines = piped.read("stdout").splitlines(keepends=True)
    assert max(map(len, lines)) <= LINE_MAX
    for phase in ("intent", "outcome"):
        parts = [r for r in map(json.loads, lines) if (r["verb"], r["phase"]) == ("revoke_keys", phase)]
        assert sorted(key for part in parts for key in part["key_ids"]) == sorted(keys)
        assert parts[0]["why"] == "🔥" * 256
    last = json.loads(lines[-1])
    assert (last["verb"], last["outcome"], last["request_id"]) == ("revoke_keys", "OK", "r" * 128)


def test_without_a_record_nothing_irreversible_is_done() -> None:
    with Piped(None) as piped, Plane(piped.sidecar.app_socket) as app, Plane(piped.sidecar.admin_socket) as admin:
        before = admin.list_keys(admin_pb.ListKeysRequest(), timeout=SECONDS)
        token = app.token()
        piped.fill("stdout")
        named = [key.key_id for key in before.keys]
        for rpc, request in (
            (admin.rotate, pb.RotateRequest()),
            (admin.revoke_keys, admin_pb.RevokeKeysRequest(profile="default", key_ids=named)),
        ):
            refusal = refused(rpc, request)
            assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "AUDIT_UNAVAILABLE")
        assert admin.list_keys(admin_pb.ListKeysRequest(), timeout=SECONDS) == before
        # What can be undone, or has no effect, goes on, and what is lost is counted.
        app.accepts(token)
        app.accepts(app.token())
        assert metric(piped.sidecar, "tokensidecar_audit_lost_records") > 2
        piped.read("stdout")
        admin.rotate(pb.RotateRequest(), timeout=SECONDS)


def test_where_a_record_is_required_there_is_no_answer_without_it() -> None:
    with Piped(REQUIRED) as piped, Plane(piped.sidecar.app_socket) as app:
        token = app.token()
        piped.fill("stdout")
        issue = pb.IssueRequest(subject="u", audiences=["orders"])
        for rpc, request in (
            (app.issue, issue),
            (app.validate, pb.ValidateRequest(token="x", audiences=["orders"])),
        ):
            refusal = refused(rpc, request)
            assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "AUDIT_UNAVAILABLE")
        (result,) = app.batch_issue(pb.BatchIssueRequest(requests=[issue]), timeout=SECONDS).results
        assert result.WhichOneof("result") == "error"
        app.accepts(token)
        piped.read("stdout")
        app.accepts(app.token())
