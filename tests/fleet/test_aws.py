"""Keys sealed by AWS KMS, in real processes: KMS goes away under a running fleet, and rings go from one key-encryption key to another."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING

import pytest
from tokensidecar.v1 import token_service_pb2 as pb

from tests.e2e.calls import SECONDS, Plane
from tests.fleet.fleet import KEEPER, TOOL, Load, revision, started
from tests.kms.aws_servers import IDENTITY, Aws, http_server, reply
from tests.running import RunningSidecar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fleet.fleet import Fleet


@pytest.fixture
def aws() -> Iterator[Aws]:
    server = Aws()
    server.start()
    yield server
    server.stop()


def _at(address: str) -> str:
    return f'[keys.aws]\nendpoint = "{address}"'


def _wait_for(seconds: float, revision_: int, *processes: RunningSidecar) -> None:
    end = time.monotonic() + seconds
    while any(revision(process) < revision_ for process in processes):
        assert time.monotonic() < end, [revision(process) for process in processes]
        time.sleep(0.1)


def test_a_fleet_runs_and_rotates_without_its_kms_and_no_new_one_starts(fleet: Fleet, aws: Aws) -> None:
    fleet.keks = {part: f"awskms:{aws.make_key()}" for part in ("issue", "open")}
    there = _at(aws.endpoint)
    keeper = started(fleet.prepared(fleet.config("both", further=there), KEEPER, IDENTITY))
    issuer = started(fleet.prepared(fleet.config("issuer", further=there), env=IDENTITY))
    validator = started(fleet.prepared(fleet.config("validator", further=there), env=IDENTITY))
    asked = len(aws.seen)
    aws.stop()
    with Load(issuer.app_socket, validator.app_socket, threads=1) as load, Plane(keeper.admin_socket) as admin:
        for number in (2, 3):
            admin.rotate(pb.RotateRequest(profile="default", reason="KMS is down"), timeout=SECONDS)
            _wait_for(10, number, keeper, issuer, validator)
            time.sleep(4.2)  # propagation and twice the skew: the new key issues
    assert load.failures == []
    assert len(set(load.key_ids)) == 3
    assert len(aws.seen) == asked

    silence = threading.Event()

    def silent(request: BaseHTTPRequestHandler, body: bytes) -> None:
        silence.wait(30)
        reply(request, 503, b"")

    with http_server(silent) as address:
        late = [
            fleet.prepared(fleet.config("validator", further=_at(where)), env=IDENTITY)
            for where in (aws.endpoint, address)
        ]
        for process in late:
            process.start()
        # Ten seconds for the KMS, and no more for threads that still wait for it.
        assert [process.process.wait(20) for process in late] == [1, 1]
        silence.set()
    assert f"AWS KMS cannot be reached at {aws.endpoint}" in late[0].stderr()
    assert f"AWS KMS did not answer within 10 s at {address}" in late[1].stderr()
    aws.start()
    started(fleet.prepared(fleet.config("validator", further=there), env=IDENTITY))


def test_a_thief_of_one_role_s_rights_at_kms_has_no_other_role(fleet: Fleet, aws: Aws) -> None:
    fleet.keks = {part: f"awskms:{aws.make_key()}" for part in ("issue", "open")}
    assert fleet.once(config=fleet.config("both", further=_at(aws.endpoint)), env=IDENTITY)[0]["duty"] == "make"
    fleet.keks["issue"] = fleet.keks["open"]
    thief = fleet.prepared(fleet.config("issuer", further=_at(aws.endpoint)), env=IDENTITY)
    thief.start()
    assert thief.process.wait(20) == 1
    assert "for profile 'default'" in thief.stderr()


def test_rings_go_from_a_file_to_aws_to_another_key_and_back_under_a_running_sidecar(aws: Aws, tmp_path: Path) -> None:
    first, second = (f"awskms:{aws.make_key()}" for _ in range(2))
    config = tmp_path / "config.toml"
    running = RunningSidecar("", env=IDENTITY)

    def configure(kek: str, *, further: str = "") -> None:
        more = f'further_kek = "{further}"' if further else ""
        profile = '[profiles.default]\nissuer = "urn:test"\naudiences = ["orders"]\nmax_ttl = "1h"\nttl = "1h"'
        text = f'{profile}\n[keys]\nkek = "{kek}"\n{more}\nrefresh_interval = "1s"\n{_at(aws.endpoint)}\n'
        for file in (config, running.directory / "config.toml"):
            file.write_text(text)

    def rekey(*arguments: str) -> str:
        command = [TOOL, "rekey", "--all", "--config", str(config), *arguments]
        done = subprocess.run(command, env=running.env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stderr

    file = f"file:{running.state_dir}/kek"
    try:
        configure(file, further=first)
        started(running)
        with Plane(running.app_socket) as plane:
            token = plane.token()
            configure(first, further=file)
            assert "[1/1] default: done, ring revision 2" in rekey()
            _wait_for(10, 2, running)  # opens by its further key
            plane.accepts(token)
        for kek, former in ((first, ""), (second, first), (file, second)):
            running.stop()
            configure(kek)
            if former:
                rekey("--former-kek", former)
            if kek == file:
                aws.stop()
            started(running)
            with Plane(running.app_socket) as plane:
                plane.accepts(token)
    finally:
        running.kill()
        running.remove()


def test_without_boto3_a_start_says_what_to_install(fleet: Fleet, aws: Aws, tmp_path: Path) -> None:
    (tmp_path / "boto3.py").write_text("raise ImportError('no boto3', name='boto3')")
    fleet.keks = dict.fromkeys(("issue", "open"), f"awskms:{aws.make_key()}")
    env = {**IDENTITY, "PYTHONPATH": os.pathsep.join([str(tmp_path)])}
    keeper = fleet.prepared(fleet.config("both", further=_at(aws.endpoint)), KEEPER, env)
    keeper.start()
    assert keeper.process.wait(20) == 1
    assert "needs boto3, which is not installed (boto3): install tokensidecar-server[aws]" in keeper.stderr()
