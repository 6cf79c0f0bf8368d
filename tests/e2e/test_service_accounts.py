"""Service account tokens and the guard through real sockets, with TLS and without."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
import tokensidecar
from tokensidecar.v1 import token_service_pb2 as pb

from tests.cluster_tokens import AUDIENCE, ISSUER, KeySetServer, Signer, key_set
from tests.e2e.calls import SECONDS, Plane, refused
from tests.e2e.meshed import Secured
from tests.faults.waiting import wait_for
from tests.running import ROOT, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

ASK = pb.IssueRequest(subject="user-1", audiences=["orders"])
POLICY = """
[policy.web]
caller = "k8s:shop/web"
issue = { profiles = ["default"], subjects = ["caller", "user-*"] }
validate = { profiles = ["default"] }

[policy.jobs]
caller = "k8s:jobs/*"
validate = { profiles = ["default"] }

[policy.local]
caller = "tcp:app"
validate = { profiles = ["default"] }
"""


class Clustered(Secured):
    """With a TLS address and a loopback one for service accounts, and one that is guarded; keys from an https server."""

    def __init__(self) -> None:
        self.accounts, self.plain, self.guarded, self.keys_port = (free_port() for _ in range(4))
        super().__init__()
        self.signer = Signer("ES256")
        self.keys = KeySetServer(self.authority, self.folder, key_set(self.signer), port=self.keys_port)
        (self.folder / "show").write_text("of.the.sidecar")

    def config(self) -> str:
        return f"""
[listen]
app = [
  {{ address = "127.0.0.1:{self.accounts}", service_accounts = true, tls = {{ {self.files} }} }},
  {{ address = "127.0.0.1:{self.plain}", service_accounts = true, guard = "x-tokensidecar-guard" }},
  {{ address = "127.0.0.1:{self.guarded}", guard = "x-tokensidecar-guard" }},
]
admin = []

[service_accounts]
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
keys = "https://127.0.0.1:{self.keys_port}/openid/v1/jwks"
keys_ca = "{self.tls}/ca.crt"
keys_token = "{self.folder}/show"
{POLICY}
"""


def bearing(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


@pytest.fixture(scope="module")
def clustered() -> Iterator[Clustered]:
    made = Clustered()
    with made.keys, made.running:
        yield made


@pytest.fixture
def shown(clustered: Clustered) -> Iterator[Plane]:
    with Plane(f"localhost:{clustered.accounts}", clustered.credentials(None)) as plane:
        yield plane


GUARD = (("x-tokensidecar-guard", "true"),)


def test_a_service_account_is_a_caller(clustered: Clustered, shown: Plane) -> None:
    token = clustered.signer.token()
    issued = shown.issue(
        pb.IssueRequest(subject="k8s:shop/web", audiences=["orders"]), timeout=SECONDS, metadata=bearing(token)
    )
    record = clustered.records()[-1]
    assert (record["caller"], record["identified"], record["outcome"]) == ("k8s:shop/web", "service_account", "OK")
    check = pb.ValidateRequest(token=issued.token, audiences=["orders"])
    jobs = bearing(clustered.signer.token("jobs", "nightly"))
    assert shown.validate(check, timeout=SECONDS, metadata=jobs).client_id == "k8s:shop/web"
    for refusal in (
        refused(shown.issue, ASK, jobs),
        refused(shown.issue, pb.IssueRequest(subject="k8s:jobs/x", audiences=["orders"]), bearing(token)),
        refused(shown.validate, check, bearing(clustered.signer.token("other", "web"))),
        refused(shown.rotate, pb.RotateRequest(profile="default"), bearing(token)),
    ):
        assert (refusal.code, refusal.reason) == ("PERMISSION_DENIED", "CALLER_DENIED")


def test_what_is_no_credential_is_no_rejected_token(clustered: Clustered, shown: Plane) -> None:
    """UNAUTHENTICATED speaks of the token in the request alone."""
    good = clustered.signer.token()
    issued = shown.issue(ASK, timeout=SECONDS, metadata=bearing(good)).token
    check = pb.ValidateRequest(token=issued, audiences=["orders"])
    for metadata in (
        (),
        bearing(""),
        bearing("nonsense"),
        bearing(issued),
        (("authorization", good),),
        (("authorization", f"Basic {good}"),),
        (*bearing(good), *bearing(clustered.signer.token("jobs", "x"))),
        bearing(clustered.signer.token(aud=["other"])),
        bearing(clustered.signer.token(iss="https://other")),
        bearing(clustered.signer.token(iat=1_700_000_000, nbf=1_700_000_000, exp=1_700_003_600)),
        bearing(clustered.signer.token(header={"alg": "none"})),
        bearing(Signer("ES256").token(header={"kid": clustered.signer.key_id})),
    ):
        for rpc, request in ((shown.validate, check), (shown.issue, ASK)):
            refusal = refused(rpc, request, metadata)
            assert (refusal.code, refusal.reason) == ("PERMISSION_DENIED", "CALLER_UNIDENTIFIED"), metadata
    assert clustered.records()[-1]["caller"] == "unidentified"
    assert good.split(".")[2] not in clustered.running.log()
    assert "of.the.sidecar" not in clustered.running.log()


def test_a_flood_of_unknown_keys_fetches_at_most_twice(clustered: Clustered, shown: Plane) -> None:
    gets = clustered.keys.gets
    for number in range(300):
        refusal = refused(shown.issue, ASK, bearing(clustered.signer.token(header={"kid": f"unknown-{number}"})))
        assert refusal.reason == "CALLER_UNIDENTIFIED"
    assert clustered.keys.gets <= gets + 2
    assert clustered.keys.shown == "Bearer of.the.sidecar"


def test_a_key_that_was_just_published_is_found(clustered: Clustered, shown: Plane) -> None:
    fresh = Signer("ES256")
    clustered.keys.body = key_set(clustered.signer, fresh)

    def named() -> bool:
        try:
            shown.issue(ASK, timeout=SECONDS, metadata=bearing(fresh.token()))
        except Exception:  # noqa: BLE001 # within 10 s of the last look
            return False
        return True

    wait_for(named, 15)


def test_a_guarded_address_wants_its_metadata_on_each_call(clustered: Clustered) -> None:
    token = clustered.signer.token()
    with Plane(f"127.0.0.1:{clustered.plain}") as plain, Plane(f"127.0.0.1:{clustered.guarded}") as guarded:
        issued = plain.issue(ASK, timeout=SECONDS, metadata=(*GUARD, *bearing(token))).token
        check = pb.ValidateRequest(token=issued, audiences=["orders"])
        guarded.validate(check, timeout=SECONDS, metadata=GUARD)
        for metadata in ((), (("x-tokensidecar-guard", "1"),), (("x-other", "true"),), (*GUARD, *GUARD)):
            for refusal in (
                refused(guarded.validate, check, metadata),
                refused(plain.validate, check, (*metadata, *bearing(token))),
            ):
                assert (refusal.code, refusal.reason) == ("PERMISSION_DENIED", "CALLER_UNIDENTIFIED")
                assert "x-tokensidecar-guard: true" in refusal.message
    assert clustered.records()[-1]["stage"] == "caller.guard"


def test_the_python_client_and_the_command_line_show_a_token_and_the_guard(clustered: Clustered) -> None:
    file, along = clustered.folder / "account", (*GUARD, *bearing(clustered.signer.token()))
    file.write_text(clustered.signer.token())
    with tokensidecar.connect(f"127.0.0.1:{clustered.plain}", metadata=lambda: along) as client:
        token = client.issue("user-1", ["orders"]).token
        assert client.validate(token, ["orders"]).client_id == "k8s:shop/web"
    shown = ["--guard", "x-tokensidecar-guard", "--service-account-token", str(file)]
    tool = [str(ROOT / ".venv/bin/tokensidecar"), "validate", "-a", "orders", "--address"]
    for address, more, code in (
        (f"127.0.0.1:{clustered.plain}", shown, 0),
        (f"localhost:{clustered.accounts}", [*shown, "--ca", f"{clustered.tls}/ca.crt"], 0),
        (f"127.0.0.1:{clustered.plain}", [], 1),
        ("tokens.example.org:8790", shown, 2),
    ):
        done = subprocess.run(
            [*tool, address, *more], input=token, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == code, done.stderr
