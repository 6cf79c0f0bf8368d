"""Policies through real sockets: every socket a caller of its own, limits, rates, and what changes while calls are in work."""

from __future__ import annotations

import grp
import json
import os
import signal
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from tokensidecar.v1 import admin_service_pb2 as admin_pb, token_service_pb2 as pb

from tests.e2e.calls import SECONDS, Plane, metric, refused
from tests.faults.waiting import wait_for
from tests.running import RunningSidecar

if TYPE_CHECKING:
    from collections.abc import Iterator

PROFILES = """
[profiles.default]
issuer = "urn:test"
audiences = ["orders", "billing"]

[profiles.second]
issuer = "urn:second"
audiences = ["orders"]
audit_validations = true
"""
POLICY = """
[policy.web]
caller = "unix:web"
issue = { profiles = ["default"], audiences = ["orders"], subjects = ["user-*"], client_ids = ["caller"], max_ttl = "5m", scopes = ["read"], claims = ["role"] }
validate = { profiles = ["default"] }

[policy.batch]
caller = "unix:batch"
issue = { profiles = ["default", "second"], rate = "20/h" }
validate = { profiles = ["default", "second"] }
get_jwks = { profiles = ["second"] }

[policy.operators]
caller = "unix:operators"
rotate = { profiles = ["default"] }
list_keys = { profiles = ["default"] }
"""


class Meshed:
    """A sidecar with three sockets on the app plane, two on the admin plane, each in a directory of its own."""

    def __init__(self, policy: str = POLICY, further: str = "") -> None:
        self.running = RunningSidecar("", {"TOKENSIDECAR_LISTEN_APP": None, "TOKENSIDECAR_LISTEN_ADMIN": None})
        self.folder = self.running.directory
        self.head = f"""
[listen]
app = [
  {{ address = "{self.socket("web")}", mode = 0o600 }},
  {{ address = "{self.socket("jobs")}", caller = "unix:batch", group = "{grp.getgrgid(os.getgid()).gr_name}" }},
  "{self.socket("idle")}",
]
admin = ["{self.socket("operators")}", "{self.socket("readers")}"]
{PROFILES}
{further}
"""
        self.write(policy)

    def socket(self, name: str) -> str:
        return f"unix:{self.folder}/{name}/{name}.sock"

    @property
    def file(self) -> Path:
        return self.folder / "config.toml"

    def write(self, policy: str) -> None:
        """As editors do it: a new file in the place of the old one."""
        fresh = self.folder / "config.new"
        fresh.write_text(self.head + policy, encoding="utf-8")
        fresh.rename(self.file)

    def plane(self, name: str) -> Plane:
        return Plane(self.socket(name))

    def records(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.running.stdout().splitlines()]


@pytest.fixture(scope="module")
def meshed() -> Iterator[Meshed]:
    made = Meshed()
    with made.running:
        yield made


@pytest.fixture
def own() -> Iterator[Meshed]:
    made = Meshed()
    with made.running:
        yield made


def ask(**changes: object) -> pb.IssueRequest:
    return pb.IssueRequest(**{"subject": "user-1", "audiences": ["orders"], **changes})  # type: ignore[arg-type]


def test_every_socket_is_a_caller_of_its_own(meshed: Meshed) -> None:
    with meshed.plane("web") as web, meshed.plane("jobs") as jobs, meshed.plane("idle") as idle:
        token = web.token("user-1")
        assert web.accepts(token).client_id == "unix:web"
        assert jobs.accepts(jobs.token("anybody", "billing"), "billing").client_id == "unix:batch"
        assert refused(idle.issue, ask()).reason == "CALLER_DENIED"
        assert refused(idle.validate, pb.ValidateRequest(token=token, audiences=["orders"])).reason == "CALLER_DENIED"
    callers = {record["caller"] for record in meshed.records()}
    assert {"unix:web", "unix:batch", "unix:idle"} <= callers


def test_sockets_have_the_mode_and_group_that_were_configured(meshed: Meshed) -> None:
    found = {name: (meshed.folder / name / f"{name}.sock").stat() for name in ("web", "jobs", "idle")}
    assert {name: stat.S_IMODE(status.st_mode) for name, status in found.items()} == {
        "web": 0o600,
        "jobs": 0o660,
        "idle": 0o660,
    }
    assert found["jobs"].st_gid == os.getgid()
    assert all(stat.S_IMODE((meshed.folder / name).stat().st_mode) == 0o750 for name in found)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"audiences": ["billing"]}, "audience 'billing'"),
        ({"audiences": ["orders", "billing"]}, "audience 'billing'"),
        ({"subject": "admin"}, "subject 'admin'"),
        ({"client_id": "unix:batch"}, "client_id 'unix:batch'"),
        ({"scopes": ["read", "write"]}, "scope 'write'"),
        ({"ttl": {"seconds": 301}}, "at most 300s"),
        ({"claims_json": '{"role": "x", "admin": true}'}, "claim 'admin'"),
    ],
)
def test_a_caller_stays_within_its_limits(meshed: Meshed, changes: dict[str, object], words: str) -> None:
    with meshed.plane("web") as web:
        web.issue(
            ask(ttl={"seconds": 300}, scopes=["read"], claims_json='{"role": "x"}', client_id="unix:web"),
            timeout=SECONDS,
        )
        refusal = refused(web.issue, ask(**changes))
        assert (refusal.code, refusal.reason) == ("PERMISSION_DENIED", "CALLER_DENIED")
        assert words in refusal.message
        results = web.batch_issue(pb.BatchIssueRequest(requests=[ask(), ask(**changes)]), timeout=SECONDS).results
        assert [result.WhichOneof("result") for result in results] == ["response", "error"]
        assert results[1].error.message == refusal.message


def test_another_caller_s_profile_looks_like_none(meshed: Meshed) -> None:
    with meshed.plane("web") as web, meshed.plane("operators") as operators:
        seen = {refused(web.issue, ask(profile=name)).message for name in ("second", "none")}
        for name in ("second", "none"):
            check = pb.ValidateRequest(token="t", audiences=["orders"], profiles=["default", name])
            seen.add(refused(web.validate, check).message)
            seen.add(refused(operators.rotate, pb.RotateRequest(profile=name)).message)
            seen.add(refused(operators.list_keys, admin_pb.ListKeysRequest(profile=name)).message)
        assert seen == {"the profile does not exist or is not for this caller"}


def test_a_listing_of_all_keys_is_of_the_allowed_profiles(meshed: Meshed) -> None:
    with meshed.plane("operators") as operators, meshed.plane("readers") as readers:
        listed = operators.list_keys(admin_pb.ListKeysRequest(), timeout=SECONDS).keys
        assert {key.profile for key in listed} == {"default"}
        assert refused(readers.list_keys, admin_pb.ListKeysRequest()).reason == "CALLER_DENIED"


def test_a_denied_batch_is_one_record(own: Meshed) -> None:
    with own.plane("idle") as idle:
        refused(idle.batch_issue, pb.BatchIssueRequest(requests=[ask()] * 50))
    (record,) = own.records()
    assert (record["verb"], record["outcome"], record["stage"]) == ("issue", "CALLER_DENIED", "policy.verb")


def test_a_rate_counts_items_and_says_when_to_come_back(own: Meshed) -> None:
    with own.plane("jobs") as jobs, own.plane("web") as web:
        jobs.batch_issue(pb.BatchIssueRequest(requests=[ask()] * 19), timeout=SECONDS)
        jobs.issue(ask(), timeout=SECONDS)
        for rpc, request, wait in (
            (jobs.issue, ask(), 180),
            (jobs.batch_issue, pb.BatchIssueRequest(requests=[ask()] * 3), 540),
        ):
            refusal = refused(rpc, request)
            assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
            assert refusal.retry_after == pytest.approx(wait, abs=10)
        jobs.accepts(web.token("user-1"))  # another verb, another caller: not theirs
    refusals = [record for record in own.records() if record["outcome"] == "OVERLOADED"]
    assert [(record["stage"], record.get("items")) for record in refusals] == [
        ("policy.rate", None),
        ("policy.rate", 3),
    ]


def test_validations_are_on_record_where_the_profile_says_so(own: Meshed) -> None:
    with own.plane("jobs") as jobs:
        for profile in ("default", "second"):
            token = jobs.token(profile=profile)
            jobs.accepts(token, profiles=["default", "second"])
    found = [record for record in own.records() if record["verb"] == "validate"]
    assert [(record["profile"], record["outcome"]) for record in found] == [("second", "OK")]
    issued = [record for record in own.records() if record["verb"] == "issue"][-1]
    assert all(found[0][name] == issued[name] for name in ("token_id_hash", "subject_hash", "key_id", "expire_time"))


@pytest.mark.parametrize(
    ("raw", "method", "verb"),
    [(b"\xff\xff", "Issue", "issue"), (b"x" * 70_000, "Validate", "validate"), (b"\x0f", "BatchIssue", "issue")],
)
def test_what_cannot_be_unpacked_is_on_record(own: Meshed, raw: bytes, method: str, verb: str) -> None:
    with own.plane("web") as web:
        call = web.channel.unary_unary(f"/tokensidecar.v1.TokenService/{method}")
        assert refused(call, raw).reason == "REQUEST_INVALID"
        if method == "BatchIssue":
            bad = pb.BatchIssueRequest(requests=[ask(), ask(with_refresh_token=True)])
            web.batch_issue(bad, timeout=SECONDS)
            refused(web.batch_issue, pb.BatchIssueRequest())
    found = [(record["verb"], record["outcome"]) for record in own.records()]
    assert found[0] == (verb, "REQUEST_INVALID")
    assert found[1:] == (
        [] if method != "BatchIssue" else [("issue", "REQUEST_INVALID"), ("issue", "OK"), ("issue", "REQUEST_INVALID")]
    )


# -- reload

WIDER = POLICY.replace('audiences = ["orders"], subjects', 'audiences = ["orders", "billing"], subjects')


def reloads(meshed: Meshed, outcome: str) -> float:
    return metric(meshed.running, "tokensidecar_config_reloads_total", outcome=outcome)


def good(meshed: Meshed) -> float:
    return metric(meshed.running, "tokensidecar_config_good")


def test_a_changed_policy_is_in_force_without_a_restart(own: Meshed) -> None:
    with own.plane("web") as web:
        assert refused(web.issue, ask(audiences=["billing"])).reason == "CALLER_DENIED"
        own.write(WIDER)
        wait_for(lambda: reloads(own, "OK") == 1)
        web.token("user-1", "billing")
        own.write(POLICY)
        os.kill(own.running.process.pid, signal.SIGHUP)
        wait_for(lambda: reloads(own, "OK") >= 2)
        assert refused(web.issue, ask(audiences=["billing"])).reason == "CALLER_DENIED"
    changes = [record for record in own.records() if record["verb"] == "config"]
    assert {(record["caller"], record["outcome"]) for record in changes} == {("sidecar", "OK")}
    assert len({record["config_hash"] for record in changes}) == 2


def test_a_swapped_link_is_noticed(own: Meshed) -> None:
    """As kubelets do it: the file is a link through a directory that is a link, and that is what changes."""
    first, second, link = (own.folder / name for name in ("..a", "..b", "..data"))
    for folder, policy in ((first, POLICY), (second, WIDER)):
        folder.mkdir()
        (folder / "config.toml").write_text(own.head + policy, encoding="utf-8")
    link.symlink_to(first)
    own.file.unlink()
    own.file.symlink_to("..data/config.toml")
    wait_for(lambda: reloads(own, "OK") == 1)
    with own.plane("web") as web:
        assert refused(web.issue, ask(audiences=["billing"])).reason == "CALLER_DENIED"
        (fresh := own.folder / "..new").symlink_to(second)
        fresh.rename(link)
        wait_for(lambda: reloads(own, "OK") == 2)
        web.token("user-1", "billing")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (POLICY + "\n[polic", "is not TOML"),
        (WIDER + '\n[policy.x]\ncaller = "nobody"\n', "policy.x.caller"),
        (WIDER.replace("[policy.web]", "[polcy.web]"), "did you mean policy"),
        ("", "does not take the last policy away"),
    ],
)
def test_a_bad_file_leaves_the_old_policy_in_force_and_says_so(own: Meshed, text: str, key: str) -> None:
    own.write(text)
    wait_for(lambda: good(own) == 0)
    assert key in own.running.stderr()
    with own.plane("web") as web, own.plane("idle") as idle:
        web.token("user-1")
        assert refused(web.issue, ask(audiences=["billing"])).reason == "CALLER_DENIED"
        assert refused(idle.issue, ask()).reason == "CALLER_DENIED"
    assert [r["outcome"] for r in own.records() if r["verb"] == "config"] == ["REQUEST_INVALID"]
    own.write(WIDER)
    wait_for(lambda: good(own) == 1)
    with own.plane("web") as web:
        web.token("user-1", "billing")


def test_a_missing_file_leaves_the_old_policy_in_force(own: Meshed) -> None:
    own.file.unlink()
    wait_for(lambda: good(own) == 0)
    with own.plane("web") as web:
        web.token("user-1")


def test_what_needs_a_restart_is_told(own: Meshed) -> None:
    own.head = own.head.replace("urn:test", "urn:other") + '\n[log]\nlevel = "debug"\n'
    own.write(WIDER)
    wait_for(lambda: "config.restart_needed" in own.running.stderr())
    line = next(json.loads(x) for x in own.running.stderr().splitlines() if "config.restart_needed" in x)
    assert line["parts"] == ["profiles", "log_level"]
    with own.plane("web") as web:
        assert web.accepts(web.token("user-1", "billing"), "billing").issuer == "urn:test"


def test_policies_change_under_load_without_a_dropped_or_a_half_allowed_call(own: Meshed) -> None:
    """Two policies, alternately in force: each call is judged by the one or the other as a whole."""
    only = '\n[policy.web]\ncaller = "unix:web"\nissue = {{ profiles = ["default"], audiences = ["{0}"], subjects = ["{0}-*"] }}\n'
    own.write(only.format("orders"))
    wait_for(lambda: reloads(own, "OK") == 1)
    stop, seen, wrong = threading.Event(), set[str](), list[str]()

    def call() -> None:
        with own.plane("web") as web:
            while not stop.is_set():
                for audience in ("orders", "billing"):
                    for subject in ("orders-1", "billing-1"):
                        try:
                            web.issue(ask(audiences=[audience], subject=subject), timeout=SECONDS)
                        except grpc.RpcError as error:
                            if error.code() is not grpc.StatusCode.PERMISSION_DENIED:
                                wrong.append(str(error))
                        else:
                            seen.add(f"{audience} {subject}")

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(6):
        own.write(only.format(("billing", "orders")[number % 2]))
        os.kill(own.running.process.pid, signal.SIGHUP)
        time.sleep(0.3)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert wrong == []
    assert seen == {"orders orders-1", "billing billing-1"}
