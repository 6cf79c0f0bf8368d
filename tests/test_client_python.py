"""The Python client: what it asks, how long it waits, and what it makes of each answer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import tokensidecar
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from tokensidecar import KeyState, KeyUse, Reason, RejectedError
from tokensidecar.address import ADMIN, APP, addresses, parse
from tokensidecar.v1 import errors_pb2, keys_pb2, token_service_pb2, token_service_pb2_grpc

from tests.running import ROOT, RunningSidecar, free_port


class Fake(token_service_pb2_grpc.TokenServiceServicer):
    """A plane that answers as the test says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any, float]] = []  # method, request, seconds left
        self.answer: Callable[[int, grpc.ServicerContext], object] = lambda _count, _context: None

    def _handle(self, method: str, request: object, context: grpc.ServicerContext, good: object) -> object:
        self.seen.append((method, request, context.time_remaining() or -1.0))
        return self.answer(len(self.seen), context) or good

    def Issue(self, request, context):  # noqa: N802 # the contract's name
        return self._handle("Issue", request, context, token_service_pb2.IssueResponse(token="a.b.c.d.e", token_id="t"))

    def Validate(self, request, context):  # noqa: N802 # the contract's name
        claims = '{"sub":"u","n":9223372036854775807,"name":"Zoë"}'
        return self._handle(
            "Validate", request, context, token_service_pb2.ValidateResponse(subject="u", claims_json=claims)
        )

    def Rotate(self, request, context):  # noqa: N802 # the contract's name
        return self._handle("Rotate", request, context, token_service_pb2.RotateResponse(ring_revision=2))


@pytest.fixture
def fake() -> Iterator[tuple[Fake, str]]:
    service = Fake()
    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads, options=[("grpc.so_reuseport", 0)])
        token_service_pb2_grpc.add_TokenServiceServicer_to_server(service, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield service, f"127.0.0.1:{port}"
        server.stop(None).wait()


def fail(context: grpc.ServicerContext, code: grpc.StatusCode, reason: str, *details: object) -> None:
    """End the call as the sidecar does, with google.rpc.Status in the trailing metadata."""
    status = status_pb2.Status(code=code.value[0], message="in words")
    for detail in (error_details_pb2.ErrorInfo(domain="tokensidecar", reason=reason), *details):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    context.set_trailing_metadata(
        (("grpc-status-details-bin", status.SerializeToString()), ("tokensidecar-reason", reason))
    )
    context.abort(code, "in words")


def test_reasons_uses_and_states_are_those_of_the_contract() -> None:
    assert {reason.value for reason in Reason} == set(errors_pb2.ErrorReason.keys()) - {"ERROR_REASON_UNSPECIFIED"}
    assert {f"KEY_USE_{use.name}" for use in KeyUse} == set(keys_pb2.KeyUse.keys()) - {"KEY_USE_UNSPECIFIED"}
    assert {f"KEY_STATE_{state.name}" for state in KeyState} == set(keys_pb2.KeyState.keys()) - {
        "KEY_STATE_UNSPECIFIED"
    }


# -- what is asked


def test_every_call_has_a_deadline_and_the_first_validate_a_longer_one(fake: tuple[Fake, str]) -> None:
    service, address = fake
    with tokensidecar.connect(address) as client:
        client.issue("u", ["a"])
        client.validate("t", ["a"])
        client.validate("t", ["a"])
    with tokensidecar.connect_admin(address) as admin:
        admin.rotate()
    issue, first, second, rotate = (left for _, _, left in service.seen)
    assert 0.25 < issue < 1.2
    assert 1.2 < first < 2.4
    assert 0 < second < 0.3
    assert 0.25 < rotate < 1.2


def test_deadlines_can_be_set(fake: tuple[Fake, str]) -> None:
    service, address = fake
    with tokensidecar.connect(address, validate_timeout=3, timeout=30) as client:
        client.issue("u", ["a"])
        client.validate("t", ["a"])
    assert 10 < service.seen[0][2] < 33
    assert 2 < service.seen[1][2] < 3.3


def test_the_authority_of_a_socket_is_localhost(tmp_path: Path) -> None:
    path = tmp_path / "s"
    heard = bytearray()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def listen() -> None:
            """Just enough HTTP/2 that the client sends its HEADERS: a SETTINGS frame, which is empty."""
            while b"Issue" not in heard:
                with listener.accept()[0] as connection, suppress(OSError):  # of the client's first look
                    connection.sendall(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
                    while b"Issue" not in heard and (data := connection.recv(4096)):
                        heard.extend(data)

        with ThreadPoolExecutor(1) as threads:
            done = threads.submit(listen)
            with tokensidecar.connect(f"unix:{path}") as client, pytest.raises(tokensidecar.UnavailableError):
                client.issue("u", ["a"])
            done.result(10)
    assert b"localhost" in heard  # gRPC core spells :authority out, without Huffman code
    assert str(path).encode() not in heard


def test_validate_and_rotate_carry_fresh_request_ids(fake: tuple[Fake, str]) -> None:
    service, address = fake
    with tokensidecar.connect(address) as client, tokensidecar.connect_admin(address) as admin:
        for _ in range(2):
            client.validate("t", ["a"])
            admin.rotate()
        client.validate("t", ["a"], request_id="mine")
    ids = [request.request_id for _, request, _ in service.seen]
    assert len(set(ids)) == 5
    assert all(ids)
    assert ids[-1] == "mine"


def test_validate_is_repeated_with_its_request_id_and_issue_is_not(fake: tuple[Fake, str]) -> None:
    service, address = fake

    def once_unavailable(count: int, context: grpc.ServicerContext) -> None:
        if count == 1:
            fail(context, grpc.StatusCode.UNAVAILABLE, "STATE_STALE")

    service.answer = once_unavailable
    with tokensidecar.connect(address) as client:
        assert client.validate("t", ["a"]).subject == "u"
        first, second = (request.request_id for _, request, _ in service.seen)
        assert first == second
        service.seen.clear()
        with pytest.raises(tokensidecar.UnavailableError) as caught:
            client.issue("u", ["a"])
    assert caught.value.reason is Reason.STATE_STALE
    assert len(service.seen) == 1


def test_claims_are_sent_exactly(fake: tuple[Fake, str]) -> None:
    service, address = fake
    with tokensidecar.connect(address) as client:
        client.issue("u", ["a"], claims={"n": 2**63 - 1, "name": "Zoë"})
        client.issue("u", ["a"], claims='{"x": 1.10}')
        client.issue("u", ["a"], claims=b"{}", ttl=timedelta(minutes=2), scopes=["r"], client_id="c", profile="p")
    first, second, third = (request for _, request, _ in service.seen)
    assert first.claims_json == '{"n":9223372036854775807,"name":"Zoë"}'
    assert second.claims_json == '{"x": 1.10}'
    assert third == token_service_pb2.IssueRequest(
        profile="p", subject="u", audiences=["a"], ttl={"seconds": 120}, client_id="c", scopes=["r"], claims_json="{}"
    )


@pytest.mark.parametrize("claims", [{"a": float("nan")}, {"a": object()}, {"a": "\ud800"}, b"\xff", '"\ud800"'])
def test_claims_that_are_no_json_are_an_invalid_request_and_not_sent(
    fake: tuple[Fake, str], claims: tokensidecar.Claims
) -> None:
    service, address = fake
    with tokensidecar.connect(address) as client, pytest.raises(tokensidecar.InvalidRequestError) as caught:
        client.issue("u", ["a"], claims=claims)
    assert [violation.field for violation in caught.value.violations] == ["claims_json"]
    assert service.seen == []


def test_one_text_is_not_taken_for_a_list_of_audiences(fake: tuple[Fake, str]) -> None:
    with tokensidecar.connect(fake[1]) as client, pytest.raises(TypeError, match="audiences"):
        client.validate("t", "orders")


# -- what is made of the answers


def test_claims_come_back_exactly(fake: tuple[Fake, str]) -> None:
    with tokensidecar.connect(fake[1]) as client:
        found = client.validate("t", ["a"])
    assert found.claims == {"sub": "u", "n": 2**63 - 1, "name": "Zoë"}


def test_tokens_and_claims_are_not_in_any_repr(fake: tuple[Fake, str]) -> None:
    with tokensidecar.connect(fake[1]) as client:
        shown = repr((client.issue("u", ["a"]), client.validate("t", ["a"]), client))
    assert "a.b.c.d.e" not in shown
    assert "Zoë" not in shown


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED", RejectedError),
        (grpc.StatusCode.UNAUTHENTICATED, "A_REASON_OF_TOMORROW", RejectedError),
        (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID", tokensidecar.InvalidRequestError),
        (grpc.StatusCode.PERMISSION_DENIED, "CALLER_DENIED", tokensidecar.DeniedError),
        (grpc.StatusCode.ABORTED, "RING_CHANGED", tokensidecar.ChangedRingError),
        (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", tokensidecar.UnavailableError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", tokensidecar.UnavailableError),
        (grpc.StatusCode.UNIMPLEMENTED, "NOT_IMPLEMENTED", tokensidecar.CallError),
        (grpc.StatusCode.INTERNAL, "INTERNAL", tokensidecar.CallError),
    ],
)
def test_each_code_is_one_kind_of_error(
    fake: tuple[Fake, str], code: grpc.StatusCode, reason: str, kind: type[tokensidecar.CallError]
) -> None:
    service, address = fake
    service.answer = lambda _count, context: fail(context, code, reason)
    with tokensidecar.connect(address) as client, pytest.raises(tokensidecar.CallError) as caught:
        client.validate("t", ["a"])
    assert type(caught.value) is kind
    assert caught.value.reason == (reason if reason in Reason.__members__ else None)
    assert caught.value.code is code
    assert caught.value.message == "in words"


def test_fields_at_fault_and_the_time_to_wait_are_passed_on(fake: tuple[Fake, str]) -> None:
    service, address = fake
    bad = error_details_pb2.BadRequest(field_violations=[{"field": "ttl", "description": "too long"}])
    wait = error_details_pb2.RetryInfo(retry_delay={"seconds": 1, "nanos": 500_000_000})
    service.answer = lambda _count, context: fail(
        context, grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID", bad, wait
    )
    with tokensidecar.connect(address) as client, pytest.raises(tokensidecar.InvalidRequestError) as caught:
        client.issue("u", ["a"])
    assert caught.value.violations == (tokensidecar.Violation("ttl", "too long"),)
    assert caught.value.retry_after == timedelta(seconds=1.5)


def test_a_reason_of_another_domain_is_not_ours(fake: tuple[Fake, str]) -> None:
    service, address = fake

    def foreign(_count: int, context: grpc.ServicerContext) -> None:
        detail = AnyMessage()
        detail.Pack(error_details_pb2.ErrorInfo(domain="proxy.example", reason="TOKEN_EXPIRED"))
        status = status_pb2.Status(code=16, message="x", details=[detail])
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "x")

    service.answer = foreign
    with tokensidecar.connect(address) as client, pytest.raises(RejectedError) as caught:
        client.validate("t", ["a"])
    assert caught.value.reason is None


@pytest.mark.parametrize("details", [b"\xff\xff", b""])
def test_broken_details_do_not_hide_the_code(fake: tuple[Fake, str], details: bytes) -> None:
    service, address = fake

    def broken(_count: int, context: grpc.ServicerContext) -> None:
        context.set_trailing_metadata((("grpc-status-details-bin", details),))
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "x")

    service.answer = broken
    with tokensidecar.connect(address) as client, pytest.raises(RejectedError):
        client.validate("t", ["a"])


def test_a_sidecar_that_is_too_slow_is_unavailable(fake: tuple[Fake, str]) -> None:
    service, address = fake
    release = threading.Event()
    service.answer = lambda _count, _context: release.wait(5) and None
    with tokensidecar.connect(address, timeout=0.1) as client:
        start = time.monotonic()
        with pytest.raises(tokensidecar.UnavailableError) as caught:
            client.issue("u", ["a"])
        assert time.monotonic() - start < 2
        release.set()
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


# -- where it is looked for


def test_addresses_are_tried_in_the_order_of_the_server() -> None:
    home = os.getuid()
    assert [str(a) for a in addresses(APP, None, {"XDG_RUNTIME_DIR": "/x"})] == [
        "unix:/run/tokensidecar/app/app.sock",
        "unix:/x/tokensidecar/app/app.sock",
        f"unix:/tmp/tokensidecar-{home}/app/app.sock",
        "127.0.0.1:8790",
    ]
    assert [str(a) for a in addresses(ADMIN, None, {"TOKENSIDECAR_RUNTIME_DIR": "/r"})] == [
        "unix:/r/admin/admin.sock",
        "127.0.0.1:8791",
    ]


def test_a_named_address_is_the_only_one_that_is_tried() -> None:
    env = {"TOKENSIDECAR_ADDRESS": "unix:///a.sock", "TOKENSIDECAR_ADMIN_ADDRESS": "[::1]:5"}
    assert [str(a) for a in addresses(APP, None, env)] == ["unix:/a.sock"]
    assert [str(a) for a in addresses(ADMIN, None, env)] == ["[::1]:5"]
    assert [str(a) for a in addresses(APP, "localhost:7", env)] == ["localhost:7"]


@pytest.mark.parametrize("text", ["unix:relative", "host", "host:0", "host:70000", "http://h:1", "", "::1:5"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"socket starts|none of"):
        parse(text)


def test_without_a_sidecar_every_address_that_was_tried_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENSIDECAR_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(tokensidecar.client, "APP", type(APP)(APP.variable, APP.socket, free_port()))
    with pytest.raises(tokensidecar.ConnectError) as caught:
        tokensidecar.connect(start_timeout=0.1)
    assert dict(caught.value.tried).keys() == {
        f"unix:{tmp_path}/app/app.sock",
        str(addresses(tokensidecar.client.APP, None, os.environ)[-1]),
    }
    assert "No such file" in str(caught.value)
    assert "Connection refused" in str(caught.value)
    assert isinstance(caught.value, tokensidecar.UnavailableError)


def test_what_does_not_speak_grpc_is_told() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with pytest.raises(tokensidecar.ConnectError, match=r"no answer in time|does not speak gRPC"):
            tokensidecar.connect(f"127.0.0.1:{listener.getsockname()[1]}", start_timeout=0.3)


@pytest.mark.parametrize("what", ["file", "stranger"])
def test_a_found_socket_that_is_not_ours_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    path = tmp_path / "app" / "app.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        if what == "file":
            path.touch()
        else:
            listener.bind(str(path))
            monkeypatch.setattr(os, "getuid", lambda: path.stat().st_uid + 1)
            monkeypatch.setattr(Path, "lstat", _as_user(Path.lstat, 4242))
        (found, _) = addresses(APP, None, {"TOKENSIDECAR_RUNTIME_DIR": str(tmp_path)})
        assert found.problem() == (
            "not a socket" if what == "file" else "belongs to another user: name it if that is right"
        )
        named = parse(str(found))
        assert named.problem() is None


def _as_user(lstat: Callable[[Path], os.stat_result], user: int) -> Callable[[Path], os.stat_result]:
    def of(path: Path) -> os.stat_result:
        found = list(lstat(path))
        found[4] = user
        return os.stat_result(found)

    return of


def test_a_sidecar_that_is_still_starting_is_waited_for() -> None:
    port = free_port()
    server = grpc.server(ThreadPoolExecutor(1))
    token_service_pb2_grpc.add_TokenServiceServicer_to_server(Fake(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    starting = threading.Timer(0.3, server.start)
    starting.start()
    try:
        with tokensidecar.connect(f"127.0.0.1:{port}", start_timeout=5) as client:
            assert client.issue("u", ["a"]).token_id == "t"
    finally:
        starting.join()
        server.stop(None).wait()


# -- with a real sidecar


@pytest.mark.parametrize("way", ["socket", "tcp"])
def test_a_token_goes_round(sidecar: RunningSidecar, way: str) -> None:
    with tokensidecar.connect(sidecar.app_socket if way == "socket" else sidecar.app_tcp) as client:
        issued = client.issue(
            "user-42", ["orders"], scopes=["read", "write"], claims={"n": 2**63 - 1, "name": "Zoë 漢字"}
        )
        found = client.validate(issued.token, ["orders", "other"], required_scopes=["read"])
        assert found.claims["n"] == 2**63 - 1
        assert found.claims["name"] == "Zoë 漢字"
        assert (found.subject, found.token_id, found.scopes) == ("user-42", issued.token_id, ("read", "write"))
        assert found.expire_time - found.issue_time == timedelta(minutes=5)
        with pytest.raises(RejectedError) as caught:
            client.validate(issued.token, ["elsewhere"])
        assert caught.value.reason is Reason.TOKEN_AUDIENCE_MISMATCH
        with pytest.raises(RejectedError) as caught:
            client.validate(issued.token[:-2] + "AA", ["orders"])
        assert caught.value.reason is Reason.TOKEN_INVALID
        with pytest.raises(tokensidecar.InvalidRequestError) as refused:
            client.validate(issued.token, [])
        assert [violation.field for violation in refused.value.violations] == ["audiences"]


def test_one_bad_item_of_a_batch_fails_alone(sidecar: RunningSidecar) -> None:
    with tokensidecar.connect(sidecar.app_socket) as client:
        good, bad, late = client.batch_issue(
            [
                tokensidecar.IssueRequest("u", ["a"], claims={"n": 2**63 - 1}),
                tokensidecar.IssueRequest("", ["a"]),
                tokensidecar.IssueRequest("u", ["a"], ttl=timedelta(days=1)),
            ]
        )
        assert isinstance(good, tokensidecar.IssuedToken)
        assert isinstance(bad, tokensidecar.InvalidRequestError)
        assert [violation.field for violation in bad.violations] == ["subject"]
        assert isinstance(late, tokensidecar.InvalidRequestError)
        first, second, third = client.batch_validate([good.token, "nonsense", good.token], ["a"])
        assert isinstance(first, tokensidecar.ValidatedToken)
        assert first.claims["n"] == 2**63 - 1
        assert isinstance(second, RejectedError)
        assert second.reason is Reason.TOKEN_INVALID
        assert isinstance(third, tokensidecar.ValidatedToken)
        with pytest.raises(tokensidecar.InvalidRequestError):
            client.batch_validate([], ["a"])


def test_rotation_keeps_tokens_good(start_sidecar: Callable[..., RunningSidecar]) -> None:
    running = start_sidecar()
    with tokensidecar.connect(running.app_socket) as client, tokensidecar.connect_admin(running.admin_socket) as admin:
        before = admin.keys()
        assert {(key.use, key.state) for key in before} == {
            (KeyUse.ENCRYPTION, KeyState.ACTIVE),
            (KeyUse.SIGNATURE, KeyState.ACTIVE),
        }
        old = client.issue("u", ["a"])
        rotation = admin.rotate(expected_ring_revision=before[0].ring_revision, reason="test")
        assert rotation.ring_revision == before[0].ring_revision + 1
        assert client.validate(old.token, ["a"]).token_id == old.token_id
        new = client.issue("u", ["a"])
        assert new.key_id != old.key_id
        assert {key.state for key in admin.keys("default")} == {KeyState.ACTIVE, KeyState.RETIRING}
        with pytest.raises(tokensidecar.ChangedRingError):
            admin.rotate(expected_ring_revision=before[0].ring_revision)
        compromise = admin.revoke_keys("default", [old.key_id], reason="test")
        assert KeyState.COMPROMISED in {key.state for key in compromise.keys if key.key_id == old.key_id}
        with pytest.raises(RejectedError):
            client.validate(old.token, ["a"])
        assert client.jwks() == '{"keys":[]}' or "private" not in client.jwks()


def test_the_app_plane_does_not_rotate(sidecar: RunningSidecar) -> None:
    with (
        tokensidecar.connect_admin(sidecar.app_socket) as wrong,
        pytest.raises(tokensidecar.DeniedError, match="admin"),
    ):
        wrong.rotate()


def test_the_client_finds_its_sidecar_again_after_a_restart(start_sidecar: Callable[..., RunningSidecar]) -> None:
    running = start_sidecar()
    with tokensidecar.connect(running.app_socket) as client:
        token = client.issue("u", ["a"]).token
        running.kill()
        with pytest.raises(tokensidecar.UnavailableError):
            client.validate(token, ["a"])
        running.start()
        running.wait_until_ready()
        end = time.monotonic() + 10
        while True:
            try:
                assert client.validate(token, ["a"]).subject == "u"
                break
            except tokensidecar.UnavailableError:
                assert time.monotonic() < end


@pytest.mark.parametrize("ending", ["", "raise SystemExit('at once')", "del client"])
def test_a_program_that_closes_nothing_ends(sidecar: RunningSidecar, ending: str) -> None:
    program = f"import tokensidecar\nclient = tokensidecar.connect()\nadmin = tokensidecar.connect_admin()\n{ending}"
    env = sidecar.env | {
        "TOKENSIDECAR_ADDRESS": sidecar.app_socket,
        "TOKENSIDECAR_ADMIN_ADDRESS": sidecar.admin_socket,
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=20, check=False
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == ("raise" in ending)


def test_a_program_that_is_interrupted_while_it_connects_ends() -> None:
    program = (
        "import signal, socket, threading, os, time\n"
        "import tokensidecar\n"
        "quiet = socket.create_server(('127.0.0.1', 0))\n"  # takes connections, and says nothing
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "tokensidecar.connect(f'127.0.0.1:{quiet.getsockname()[1]}', start_timeout=20)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=15, check=False)
    assert "KeyboardInterrupt" in done.stderr


def test_the_readme_runs(sidecar: RunningSidecar, tmp_path: Path) -> None:
    readme = (ROOT / "clients/python/README.md").read_text(encoding="utf-8")
    blocks = [block.partition("```")[0] for block in readme.split("```python\n")[1:]]
    assert blocks
    script = tmp_path / "readme.py"
    script.write_text("\n".join(blocks), encoding="utf-8")
    env = {
        **sidecar.env,
        "TOKENSIDECAR_ADDRESS": sidecar.app_socket,
        "TOKENSIDECAR_ADMIN_ADDRESS": sidecar.admin_socket,
    }
    done = subprocess.run(
        [sys.executable, str(script)], env=env, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "user-42" in done.stdout
