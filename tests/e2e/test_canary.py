"""Marked secrets go through every verb, also through failing ones and faults of our own; none of them is in anything that the sidecar leaves."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from tokensidecar.v1 import admin_service_pb2 as admin_pb, token_service_pb2 as pb

from tests.e2e.calls import SECONDS, Plane
from tests.e2e.insider import Insider
from tests.forgeries import encode, forgeries, inner_forgeries
from tests.otel.collector import Collector
from tests.running import ROOT, RunningSidecar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = (sys.executable, "-m", "tests.e2e.odd_sidecar", "serve")
TIMES = """
[profiles.default]
issuer = "urn:tokensidecar:local"
audiences = ["orders"]
refresh_ttl = "1h"

[keys]
propagation = "2s"
refresh_interval = "1s"

[audit]
sink = "file:{folder}/audit.jsonl"

[traces]
endpoint = "{endpoint}"
"""


class Marks:
    """Fresh secrets that nothing else looks like, and where they could turn up."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.left: dict[str, bytes] = {}

    def mark(self, name: str) -> str:
        """A new secret of that name."""
        text = f"canary-{secrets.token_hex(8)}"
        self.values[name] = text.encode()
        return text

    def found(self) -> list[tuple[str, str]]:
        """(secret, place) wherever a secret is, in the clear or in a usual encoding."""
        return [
            (name, place)
            for place, data in self.left.items()
            for name, value in self.values.items()
            if any(form in data for form in _forms(value))
        ]


def _forms(value: bytes) -> set[bytes]:
    base64_forms = {base64.b64encode(value[skip:]).rstrip(b"=")[:-1] for skip in range(3)} if len(value) > 11 else set()
    url = {form.replace(b"+", b"-").replace(b"/", b"_") for form in base64_forms}
    return {value, value.hex().encode(), repr(value).encode()[2:-1], *base64_forms, *url}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as one:
        yield one


@pytest.fixture
def odd(tmp_path: Path, collector: Collector) -> Iterator[tuple[RunningSidecar, Path]]:
    """A sidecar whose store fails with the text of a file, while that is there. It tells what it can when it crashes."""
    failing = tmp_path / "failing"
    environment = {"PYTHONPATH": str(ROOT), "FAIL_FILE": str(failing), "TOKENSIDECAR_LOG_LEVEL": "debug"}
    running = RunningSidecar(None, environment | {"PYTHONFAULTHANDLER": "1"}, COMMAND)
    config = running.directory / "config.toml"
    config.write_text(TIMES.format(folder=running.directory, endpoint=collector.endpoint))
    running.command += ["--config", str(config)]
    running.start()
    try:
        running.wait_until_ready()
        yield running, failing
    finally:
        running.kill()
        running.remove()


def crashed(running: RunningSidecar) -> bool:
    """Crash it, as a fault in native code would; whether it left a core, in a file or in the pipe of kernel.core_pattern."""
    os.kill(running.process.pid, signal.SIGABRT)
    found = os.waitid(os.P_PID, running.process.pid, os.WEXITED | os.WNOWAIT)
    running.process.wait(SECONDS)
    assert found
    assert found.si_status == signal.SIGABRT
    return bool(found.si_code == os.CLD_DUMPED)


def test_a_search_finds_what_is_there() -> None:
    marks = Marks()
    secret = marks.mark("secret")
    for number, data in enumerate(
        (
            f"log: {secret}".encode(),
            secret.encode().hex().encode(),
            *(base64.b64encode(b"x" * number + secret.encode()) for number in range(3)),
            encode('{"sub":"' + secret + '"}').encode(),
        )
    ):
        marks.left[f"place {number}"] = data
    marks.left["elsewhere"] = b"canary-of-another"
    assert {place for _, place in marks.found()} == {f"place {number}" for number in range(6)}


def test_no_secret_is_left_anywhere(odd: tuple[RunningSidecar, Path], collector: Collector) -> None:
    running, failing = odd
    marks = Marks()
    errors: list[str] = []

    def call(rpc: Any, request: Any, **metadata: str) -> Any:
        try:
            return rpc(request, timeout=SECONDS, metadata=tuple(metadata.items()))
        except grpc.RpcError as error:
            errors.append(f"{error.code()} {error.details()} {error.initial_metadata()} {error.trailing_metadata()}")
            errors.extend(value.decode("latin-1") for _, value in error.trailing_metadata() if isinstance(value, bytes))
            return None

    with Plane(running.app_socket) as app, Plane(running.admin_socket) as admin:
        subject, client, scope = marks.mark("subject"), marks.mark("client id"), marks.mark("scope")
        claims = {marks.mark("claim name"): marks.mark("claim"), "list": [marks.mark("claim in a list")]}
        struct = Struct()
        struct.update(claims)
        further = {"claims_json": json.dumps(claims)}
        grant: dict[str, Any] = {"subject": subject, "audiences": ["orders"], "client_id": client, "scopes": [scope]}
        issued = [
            call(app.issue, pb.IssueRequest(**grant, **further)),
            call(app.issue, pb.IssueRequest(**grant, claims=struct)),
        ]
        batch = call(app.batch_issue, pb.BatchIssueRequest(requests=[pb.IssueRequest(**grant, **further)] * 3))
        tokens = [answer.token for answer in issued] + [result.response.token for result in batch.results]
        insider = Insider.read(running.state_dir)
        assert insider.signature is not None
        inner = insider.sign(insider.payload(sub=subject, **claims))
        tokens += [insider.wrap(inner.encode())]
        login = call(app.issue, pb.IssueRequest(**grant, with_refresh_token=True))
        tokens += [login.token, login.refresh_token]

        def mark_token(token: str, number: int) -> None:
            for index, segment in enumerate(token.split(".")[1:]):
                if len(segment) > 20:
                    marks.values[f"segment {index + 1} of token {number}"] = segment.encode()

        for number, token in enumerate(tokens):
            mark_token(token, number)
        marks.values["inner signature"] = inner.rsplit(".", 1)[1].encode()

        def every_call() -> None:
            for token in tokens:
                for audience, scopes in (("orders", []), ("elsewhere", []), ("orders", ["more"]), ("orders", [scope])):
                    check = {"token": token, "audiences": [audience], "required_scopes": scopes}
                    call(app.validate, pb.ValidateRequest(**check, with_claims=True))
                    call(app.batch_validate, pb.BatchValidateRequest(requests=[pb.ValidateRequest(**check)] * 2))
                call(admin.validate, pb.ValidateRequest(token=token, audiences=["orders"]))
                if refreshed := call(app.refresh, pb.RefreshRequest(refresh_token=token)):
                    mark_token(refreshed.tokens.token, 100)
                    mark_token(refreshed.tokens.refresh_token, 101)
                call(app.revoke, pb.RevokeRequest(token=f"{token}x"))
                call(admin.revoke_subject, admin_pb.RevokeSubjectRequest(subject=token))
                call(admin.revoke_token_id, admin_pb.RevokeTokenIdRequest(token_id=token))
                context = {"traceparent": f"00-{token}", "tracestate": f"a={token}"}
                call(app.validate, pb.ValidateRequest(token="x", audiences=["orders"]), **context)
                call(admin.list_keys, admin_pb.ListKeysRequest(page_token=token))
                call(app.validate, pb.ValidateRequest(token="x", audiences=["orders"]), authorization=f"Bearer {token}")
                call(
                    app.validate, pb.ValidateRequest(token="x", audiences=["orders"]), **{"x-request-id": f"<{token}>"}
                )
                call(app.channel.unary_unary("/tokensidecar.v1.TokenService/Validate"), token.encode())
            for changes in (
                {"subject": f"{subject}\n"},
                {"subject": subject * 20},
                {"audiences": [f"{subject}\n"]},
                {"audiences": [subject]},
                {"scopes": [f"{scope} {scope}"]},
                {"client_id": f"{client}\0"},
                {"claims_json": f'{{"a":"{subject}","a":"{subject}"}}'},
                {"claims_json": f'{{"a":"{subject * 300}"}}'},
                {"claims_json": subject},
                {"profile": "none"},
                {"with_refresh_token": True},
            ):
                call(app.issue, pb.IssueRequest(**grant | further | changes))
                call(app.batch_issue, pb.BatchIssueRequest(requests=[pb.IssueRequest(**grant | further | changes)]))
            call(admin.issue, pb.IssueRequest(**grant))
            call(admin.rotate, pb.RotateRequest(expected_ring_revision=99))

        every_call()
        for _, text in (
            *forgeries(tokens[0], insider.public_jwk()),
            *inner_forgeries(insider.wrap, inner, insider.public_jwk()),
        ):
            call(app.validate, pb.ValidateRequest(token=text, audiences=["orders"]))

        failing.write_text(marks.mark("text of an unexpected exception"))
        time.sleep(1.5)  # also the sidecar's own look at the store meets it
        with contextlib.suppress(grpc.RpcError):
            call(admin.rotate, pb.RotateRequest())
        named = [insider.encryption.key_id]
        call(admin.revoke_keys, admin_pb.RevokeKeysRequest(profile="default", key_ids=named))
        unknown = f"{encode(json.dumps({'alg': 'A256KW', 'enc': 'A256GCM', 'kid': 'A' * 22, 'cty': 'JWT'}))}."
        call(app.validate, pb.ValidateRequest(token=unknown + tokens[0].split(".", 1)[1], audiences=["orders"]))
        assert any("INTERNAL" in error for error in errors)
        every_call()
        failing.unlink()

        call(admin.rotate, pb.RotateRequest())
        call(admin.revoke_keys, admin_pb.RevokeKeysRequest(profile="default", key_ids=named))
        every_call()
        for token in tokens[:2]:
            call(app.revoke, pb.RevokeRequest(token=token))
        token_id = marks.mark("token id")
        call(admin.revoke_token_id, admin_pb.RevokeTokenIdRequest(profile="default", token_id=token_id))
        call(admin.revoke_subject, admin_pb.RevokeSubjectRequest(profile="default", subject=subject))
        every_call()
        status, metrics = running.get("/metrics")
        assert status == 200
        jwks = running.get("/.well-known/jwks.json")[1]

    after = Insider.read(running.state_dir)
    for ring in (insider.opened, after.opened):
        for key_id, material in ring.issue.items():
            members = json.loads(material.private_bytes())
            secret = members.get("k") or members["d"]
            marks.values[f"key {key_id}"] = secret.encode()
            marks.values[f"raw key {key_id}"] = base64.urlsafe_b64decode(secret + "==")
    kek = (running.state_dir / "kek").read_text().strip()
    marks.values |= {"KEK": kek.encode(), "raw KEK": bytes.fromhex(kek)}

    def at_rest(when: str) -> dict[str, bytes]:
        files = [path for path in running.directory.rglob("*") if path.is_file() and path.name != "kek"]
        return {f"{when} {path.name}": path.read_bytes() for path in files}

    marks.left |= at_rest("running:")
    assert not crashed(running)
    marks.left |= at_rest("crashed:")
    assert b"Fatal Python error: Aborted" in marks.left["crashed: stderr"]
    running.start()
    running.wait_until_ready()
    running.stop()
    marks.left |= at_rest("ended:")
    marks.left |= {"metrics": metrics.encode(), "JWKS": jwks.encode(), "errors": "\n".join(errors).encode()}
    marks.left |= {"traces": collector.received}
    assert {"running: state.db-wal", "ended: state.db", "ended: stdout"} <= marks.left.keys()
    for large in ("ended: stderr", "ended: audit.jsonl", "traces"):
        assert len(marks.left[large]) > 10_000, large
    assert len(errors) > 100
    assert {"segment 3 of token 100", "segment 3 of token 101"} <= marks.values.keys()  # one was refreshed
    assert [path for path in marks.left if "core" in path] == []
    assert marks.found() == []
