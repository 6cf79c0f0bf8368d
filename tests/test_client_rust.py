"""The Rust client: stubs as generated, formatted, linted, documented, and tested against a real sidecar."""

from __future__ import annotations

import filecmp
import http.client
import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.running import ROOT, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.conftest import StartSidecar
    from tests.running import RunningSidecar

CLIENT = ROOT / "clients/rust"
STUBS = ("src/tokensidecar.v1.rs", "tests/fake/tokensidecar.v1.rs")
FEATURES = ("--locked", "--features", "axum")

pytestmark = [pytest.mark.needs("cargo"), pytest.mark.timeout(900)]  # a first build compiles all of tonic


def run(*command: str, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command, cwd=CLIENT, env=environment(env), capture_output=True, text=True, timeout=880, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Builds go to clients/rust/target, whatever the caller's settings; flags of the caller's would build all anew."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CARGO_TARGET", "RUSTFLAGS"))}
    return kept | dict(more or {})


@pytest.mark.needs(".venv/bin/python")
def test_stubs_are_what_generate_writes(tmp_path: Path) -> None:
    run("./generate.sh", str(tmp_path))
    assert filecmp.cmpfiles(CLIENT, tmp_path, STUBS, shallow=False) == (list(STUBS), [], [])


@pytest.mark.needs("rustfmt")
def test_source_is_formatted() -> None:
    run("cargo", "fmt", "--all", "--check")


@pytest.mark.needs("cargo-clippy")
@pytest.mark.parametrize(
    "what", [("--lib",), ("--lib", "--features", "tower"), ("--all-targets", "--features", "axum")]
)
def test_clippy_finds_nothing(what: tuple[str, ...]) -> None:
    run("cargo", "clippy", "--locked", *what, "--", "-D", "warnings")


def test_documentation_has_no_broken_link() -> None:
    run("cargo", "doc", "--no-deps", *FEATURES, env={"RUSTDOCFLAGS": "-D warnings"})


def test_client_works_with_a_real_sidecar(start_sidecar: StartSidecar) -> None:
    sidecar = start_sidecar()  # of its own: the keys are revoked
    env = {
        "TOKENSIDECAR_TEST_SOCKET": sidecar.app_socket,
        "TOKENSIDECAR_TEST_TCP": sidecar.app_tcp,
        "TOKENSIDECAR_TEST_ADMIN": sidecar.admin_socket,
    }
    told = run("cargo", "test", *FEATURES, "--", "--include-ignored", env=env)
    assert "sidecar_rotates_without_losing_a_token_and_rejects_those_of_a_revoked_key ... ok" in told
    assert "- Readme (line" in told  # the code of README.md
    assert " ignored" not in told.replace(" 0 ignored", "")


def test_example_issues_and_validates(sidecar: RunningSidecar) -> None:
    told = run("cargo", "run", *FEATURES, "--example", "issue", env={"TOKENSIDECAR_ADDRESS": sidecar.app_socket})
    assert told == "user-17 of acme, account 18446744073709551615\nfor mail: TOKEN_AUDIENCE_MISMATCH\n"


def test_sidecar_is_found_in_the_runtime_directory(sidecar: RunningSidecar) -> None:
    env = {"TOKENSIDECAR_ADDRESS": "", "TOKENSIDECAR_RUNTIME_DIR": str(sidecar.runtime_dir)}
    assert run("cargo", "run", *FEATURES, "--example", "issue", env=env).startswith("user-17 of acme")


@pytest.fixture
def orders(start_sidecar: StartSidecar) -> Iterator[tuple[RunningSidecar, str]]:
    """The axum example, and the sidecar that it asks."""
    sidecar = start_sidecar()
    run("cargo", "build", *FEATURES, "--example", "axum")
    address = f"127.0.0.1:{free_port()}"
    program = str(CLIENT / "target/debug/examples/axum")
    with subprocess.Popen(
        [program, address],
        env=environment({"TOKENSIDECAR_ADDRESS": sidecar.app_socket}),
        stdout=subprocess.PIPE,
        text=True,
    ) as service:
        try:
            assert service.stdout is not None
            assert service.stdout.readline() == f"listening on {address}\n"
            yield sidecar, address
        finally:
            service.kill()


def get(address: str, authorization: str | None = None) -> tuple[int, str, str]:
    """Status, challenge and body."""
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", "/orders", headers={"Authorization": authorization} if authorization else {})
        answer = connection.getresponse()
        return answer.status, answer.headers.get("WWW-Authenticate", ""), answer.read().decode()
    finally:
        connection.close()


def issue(sidecar: RunningSidecar, *scopes: str) -> str:
    command = [str(ROOT / ".venv/bin/tokensidecar"), "issue", "--subject", "user-17", "--audience", "orders"]
    command += ["--claim", "tenant=acme", *(word for scope in scopes for word in ("--scope", scope))]
    env = environment({"TOKENSIDECAR_ADDRESS": sidecar.app_socket})
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_example_protects_a_route(orders: tuple[RunningSidecar, str]) -> None:
    sidecar, address = orders
    token = f"Bearer {issue(sidecar, 'read')}"
    assert get(address, token) == (200, "", "orders of user-17 at acme\n")
    assert get(address) == (401, 'Bearer realm="tokensidecar"', "")
    status, challenge, _ = get(address, f"{token}x")
    assert (status, 'error="invalid_token"' in challenge) == (401, True)
    status, challenge, _ = get(address, f"Bearer {issue(sidecar)}")
    assert (status, 'error="insufficient_scope", scope="read"' in challenge) == (403, True)

    sidecar.kill()
    assert get(address, token) == (503, "", "")
    sidecar.start()
    sidecar.wait_until_ready()
    end = time.monotonic() + 10
    while get(address, token)[0] != 200 and time.monotonic() < end:
        time.sleep(0.05)
    assert get(address, token)[0] == 200
