"""The Java client: stubs as generated, formatted, compiled without a warning, and tested against a real sidecar."""

from __future__ import annotations

import filecmp
import http.client
import os
import re
import subprocess
import time
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import pytest

from tests.running import ROOT, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.conftest import StartSidecar
    from tests.running import RunningSidecar

CLIENT = ROOT / "clients/java"
STUBS = CLIENT / "src/generated/java"

pytestmark = [pytest.mark.needs("mvn", "javac"), pytest.mark.timeout(900)]  # the first time, Maven fetches everything


def run(*command: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=CLIENT, env=os.environ | (env or {}), capture_output=True, text=True, timeout=880, check=False
    )


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def maven(*arguments: str, env: Mapping[str, str] | None = None) -> None:
    """Without the network, unless something has never been fetched."""
    one = ("flock", "pom.xml", "mvn", "-q", "-B")  # at a time: the conformance kit compiles here too
    done = run(*one, "-o", *arguments, env=env)
    if done.returncode and "offline" in done.stdout:
        done = run(*one, *arguments, env=env)
    ok(done)


@pytest.fixture(scope="module")
def classpath(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The compiled client and what its tests use, for a java command."""
    file = tmp_path_factory.mktemp("java") / "classpath"
    maven("compile", "dependency:build-classpath", f"-Dmdep.outputFile={file}")
    return f"{CLIENT / 'target/classes'}{os.pathsep}{file.read_text(encoding='utf-8').strip()}"


def sources(directory: Path) -> list[str]:
    return sorted(str(file.relative_to(directory)) for file in directory.rglob("*") if file.is_file())


def test_stubs_are_what_generate_writes(tmp_path: Path) -> None:
    ok(run("./generate.sh", str(tmp_path)))
    written = sources(tmp_path)
    assert "dev/tokensidecar/v1/TokenServiceGrpc.java" in written
    assert sources(STUBS) == written
    assert filecmp.cmpfiles(STUBS, tmp_path, written, shallow=False) == (written, [], [])


def test_source_is_formatted() -> None:
    maven("spotless:check")


def test_client_works_with_a_real_sidecar(start_sidecar: StartSidecar) -> None:
    sidecar = start_sidecar()  # of its own: the keys are revoked
    env = {
        "TOKENSIDECAR_TEST_SOCKET": sidecar.app_socket,
        "TOKENSIDECAR_TEST_TCP": sidecar.app_tcp,
        "TOKENSIDECAR_TEST_ADMIN": sidecar.admin_socket,
    }
    maven("test", env=env)  # javac -Xlint:all -Xdoclint:all -Werror
    reports = [ET.parse(file).getroot() for file in (CLIENT / "target/surefire-reports").glob("TEST-*.xml")]
    assert len(reports) == len(list((CLIENT / "src/test/java").rglob("*Test.java")))
    for name in ("errors", "failures", "skipped"):
        assert [report.get(name) for report in reports] == ["0"] * len(reports), name
    ran = {case.get("name") for report in reports for case in report.iter("testcase")}
    assert "sidecarRotatesWithoutLosingATokenAndRejectsThoseOfARevokedKey" in ran


def java(classpath: str, program: str, *arguments: str) -> list[str]:
    return ["java", "-cp", classpath, str(CLIENT / "examples" / program), *arguments]


def test_example_issues_and_validates(classpath: str, sidecar: RunningSidecar) -> None:
    told = ok(run(*java(classpath, "Issue.java"), env={"TOKENSIDECAR_ADDRESS": sidecar.app_socket}))
    assert told == "user-17 of acme, account 18446744073709551615\nfor mail: TOKEN_AUDIENCE_MISMATCH\n"


def test_sidecar_is_found_in_the_runtime_directory(classpath: str, sidecar: RunningSidecar) -> None:
    env = {"TOKENSIDECAR_ADDRESS": "", "TOKENSIDECAR_RUNTIME_DIR": str(sidecar.runtime_dir)}
    assert ok(run(*java(classpath, "Issue.java"), env=env)).startswith("user-17 of acme")


def test_readme_shows_code_of_the_examples() -> None:
    text = "".join(file.read_text(encoding="utf-8") for file in (CLIENT / "examples").glob("*.java"))
    examples = "".join(text.split())  # which are formatted, and the README as it reads best
    shown = re.findall(r"```java\n(.*?)```", (CLIENT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(shown) == 4
    statements = ["".join(statement.split()) for code in shown for statement in code.strip().rstrip(";").split(";")]
    assert [statement for statement in statements if statement not in examples] == []


@pytest.fixture
def orders(classpath: str, start_sidecar: StartSidecar) -> Iterator[tuple[RunningSidecar, str]]:
    """The Servlet example, and the sidecar that it asks."""
    sidecar = start_sidecar()
    port = free_port()
    with subprocess.Popen(
        java(classpath, "Orders.java", str(port)),
        env=os.environ | {"TOKENSIDECAR_ADDRESS": sidecar.app_socket},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as service:
        try:
            assert service.stdout is not None
            assert service.stdout.readline() == "a token without a tenant: 401\n"
            assert service.stdout.readline() == f"listening on 127.0.0.1:{port}\n"
            yield sidecar, f"127.0.0.1:{port}"
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
    return ok(run(*command, env={"TOKENSIDECAR_ADDRESS": sidecar.app_socket})).strip()


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
