"""The log: JSON lines with constant names, few in a flood, and never in the way of the work."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tokensidecar.v1 import admin_service_pb2 as admin_pb, token_service_pb2 as pb

from sidecar.logs import LINE_MAX
from tests.e2e import http2
from tests.e2e.calls import REQUEST_ID, SECONDS, Plane, refused
from tests.e2e.pipes import Piped
from tests.running import ROOT, SERVE, RunningSidecar

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartSidecar

BAD = pb.ValidateRequest(token="x", audiences=["orders"])


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def events() -> set[str]:
    """Every event name in the source: constants, or this finds fewer than there are."""
    source = "".join(path.read_text() for path in (ROOT / "sidecar").rglob("*.py"))
    return set(re.findall(r'(?:_log|emit|get_logger\(\))(?:\.\w+)?\(\s*(?:record\.levelno,\s*)?"([a-z_.]+)"', source))


def test_the_log_is_json_lines_with_constant_event_names(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(env={"TOKENSIDECAR_LOG_LEVEL": "debug"})
    with Plane(running.app_socket) as app, Plane(running.admin_socket) as admin:
        app.accepts(app.token())
        refused(app.validate, BAD)
        admin.rotate(pb.RotateRequest(), timeout=SECONDS)
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", bytes(2000), http2.PREFACE + b"\xff" * 1000):
        for target in (running.app_tcp, running.app_socket, running.http):
            with http2.Wire(target, greet=False) as wire:
                wire.send(garbage)
                for _ in wire.frames():
                    pass
    running.stop()
    known = events()
    assert len(known) > 10
    for line in lines(running.stderr()):
        assert list(line)[:3] == ["time", "level", "event"]
        assert line["event"] in known
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["time"])
    assert {"sidecar.serving", "call.done", "sidecar.stopped"} <= {line["event"] for line in lines(running.stderr())}


def test_a_call_is_one_line_under_its_request_id(start_sidecar: StartSidecar) -> None:
    running = start_sidecar()
    with Plane(running.app_tcp) as app, Plane(running.admin_socket) as admin:
        made = refused(app.validate, BAD).request_id
        refused(app.issue, pb.IssueRequest(), ((REQUEST_ID, "given-1"),))
        admin.rotate(pb.RotateRequest(), timeout=SECONDS, metadata=((REQUEST_ID, "given-2"),))
    found = {line["request_id"]: line for line in lines(running.stderr()) if line["event"] == "call.done"}
    assert list(found) == [made, "given-1", "given-2"]
    for request_id, service, code, reason, caller in (
        (made, "TokenService/Validate", "UNAUTHENTICATED", "TOKEN_INVALID", "tcp:app"),
        ("given-1", "TokenService/Issue", "INVALID_ARGUMENT", "REQUEST_INVALID", "tcp:app"),
        ("given-2", "TokenService/Rotate", "OK", None, "unix:admin"),
    ):
        line = found[request_id]
        assert (line["method"], line["code"]) == (f"tokensidecar.v1.{service}", code)
        assert (line.get("reason"), line["caller"]) == (reason, caller)
        assert 0 < line["ms"] < 10_000


def test_good_calls_of_the_hot_verbs_are_lines_for_debug_alone(sidecar: RunningSidecar, app: Plane) -> None:
    token = app.token()
    before = sidecar.stderr()
    for _ in range(20):
        app.accepts(token)
    app.get_jwks(pb.GetJwksRequest(), timeout=SECONDS)
    assert sidecar.stderr() == before


def test_a_flood_of_rejections_is_few_lines_and_all_are_counted(start_sidecar: StartSidecar) -> None:
    running = start_sidecar()
    with Plane(running.app_socket) as app:
        started = time.monotonic()
        for _ in range(10):
            calls = [app.validate.future(BAD, timeout=SECONDS) for _ in range(100)]
            assert {call.code() for call in calls} == {grpc.StatusCode.UNAUTHENTICATED}
        seconds = time.monotonic() - started
        time.sleep(1.1)
        refused(app.validate, BAD)
    found = [line for line in lines(running.stderr()) if line["event"] == "call.done"]
    assert 20 < len(found) <= 20 * (seconds + 2) + 1
    assert len(found) + sum(line.get("suppressed", 0) for line in found) == 1001


def test_a_reader_that_has_stopped_stops_nobody() -> None:
    """Neither log nor audit waits: what does not fit is dropped and the next line is whole again."""
    with Piped(None, {"TOKENSIDECAR_LOG_LEVEL": "debug"}) as piped, Plane(piped.sidecar.app_socket) as app:
        piped.fill("stdout")
        piped.fill("stderr")
        started = time.monotonic()
        token = app.token()
        for _ in range(200):
            app.accepts(token)
            refused(app.validate, BAD)
        assert time.monotonic() - started < 10
        piped.read("stdout")
        piped.read("stderr")
        for _ in range(400):
            app.accepts(token)
            app.token()
        for stream in ("stdout", "stderr"):
            text = piped.read(stream).lstrip("\n")
            assert text.endswith("\n")
            assert len(lines(text)) > 50
            assert max(len(line) for line in text.encode().splitlines()) < LINE_MAX


def test_a_reader_that_has_gone_stops_nobody() -> None:
    with Piped(None, {"TOKENSIDECAR_LOG_LEVEL": "debug"}) as piped, Plane(piped.sidecar.app_socket) as app:
        piped.hang_up("stdout")
        piped.hang_up("stderr")
        token = app.token()
        for _ in range(50):
            app.accepts(token)
            refused(app.validate, BAD)


def test_on_a_terminal_the_log_is_readable_and_commands_it_nothing() -> None:
    master, slave = os.openpty()
    try:
        command = ("/bin/sh", "-c", 'exec "$@" 2>"$TERMINAL"', "sh", *SERVE)
        with RunningSidecar(None, {"TERMINAL": os.ttyname(slave)}, command) as running:
            with Plane(running.app_socket) as app:
                request = pb.IssueRequest(subject="\x1b[2Jcleared", audiences=["\x9b1m"], profile="\x1b]0;title\a")
                refused(app.issue, request)
            text = os.read(master, 65536).decode()
    finally:
        os.close(master)
        os.close(slave)
    assert "{" not in text
    assert re.search(r"\d\d:\d\d:\d\d info +sidecar\.serving +plane=app", text)
    assert "reason=CALLER_DENIED" in text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text.replace("\r\n", "\n"))


def test_a_fault_of_ours_is_told_by_place_and_not_by_text(tmp_path: Path) -> None:
    failing = tmp_path / "failing"
    environment = {"PYTHONPATH": str(ROOT), "FAIL_FILE": str(failing)}
    with RunningSidecar(None, environment, (sys.executable, "-m", "tests.e2e.odd_sidecar", "serve")) as running:
        with Plane(running.admin_socket) as admin:
            before = admin.list_keys(admin_pb.ListKeysRequest(), timeout=SECONDS)
            failing.write_text("MARKED")
            refusal = refused(admin.rotate, pb.RotateRequest())
            assert (refusal.code, refusal.reason) == ("INTERNAL", "INTERNAL")
            assert refusal.message == "internal error; the sidecar's log has it under the request id"
            failing.unlink()
            assert admin.list_keys(admin_pb.ListKeysRequest(), timeout=SECONDS) == before
        (failed,) = (line for line in lines(running.stderr()) if line["event"] == "call.failed")
        assert (failed["level"], failed["request_id"], failed["error_type"]) == (
            "error",
            refusal.request_id,
            "RuntimeError",
        )
        assert failed["frames"][-1].startswith("odd_sidecar.py:")
        assert "MARKED" not in running.log()


@pytest.mark.parametrize("statement", ["loop.create_task(fail())", "loop.call_soon(fail_now)"])
def test_what_libraries_log_is_json_without_their_words(statement: str) -> None:
    """asyncio quotes a lost exception's text; gRPC does too."""
    program = textwrap.dedent(f"""
        import asyncio, gc, uvloop
        from sidecar import logs
        logs.configure("info")
        async def fail():
            raise RuntimeError("MARKED")
        def fail_now():
            raise RuntimeError("MARKED")
        async def main():
            loop = asyncio.get_running_loop()
            {statement}
            await asyncio.sleep(0.01)
            gc.collect()
        uvloop.run(main())
    """)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = lines(done.stderr)
    assert (line["level"], line["event"], line["library"]) == ("error", "library.spoke", "asyncio")
    assert line["error_type"] == "RuntimeError"
    assert "MARKED" not in done.stdout + done.stderr
