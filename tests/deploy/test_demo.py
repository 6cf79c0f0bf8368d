"""The configurations of the manifests are accepted, agree with each other, and the demo apps run on sidecars that have them."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartSidecar
from tests.deploy.manifests import KUBERNETES, build, containers, pods
from tests.running import ROOT, RunningSidecar, free_port

CONFIGS = {
    "issuer": KUBERNETES / "base/config/issuer.toml",
    "validator": KUBERNETES / "base/config/validator.toml",
    "keeper": KUBERNETES / "base/config/keeper.toml",
    "alone": KUBERNETES / "overlays/dev/alone.toml",
}
EKS = {role: KUBERNETES / f"overlays/eks/config/{role}.toml" for role in ("issuer", "validator", "keeper")}
APP = KUBERNETES / "orders/app.py"
TOKENSIDECAR = str(ROOT / ".venv/bin/tokensidecar")


def parsed(role: str) -> dict[str, Any]:
    return tomllib.loads(CONFIGS[role].read_text(encoding="utf-8"))


@pytest.mark.parametrize("role", CONFIGS)
def test_configuration_is_accepted(role: str) -> None:
    done = subprocess.run(
        [TOKENSIDECAR, "check", str(CONFIGS[role])], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("role", EKS)
def test_on_eks_keys_alone_differ_and_each_role_has_its_own(role: str) -> None:
    found, expected = tomllib.loads(EKS[role].read_text(encoding="utf-8")), parsed(role)
    keks = {part: kek.rpartition("/")[2] for part, kek in found["keys"].pop("kek").items()}
    assert keks.keys() == expected["keys"].pop("kek").keys()
    assert len(set(keks.values())) == len(keks)
    assert found == expected
    done = subprocess.run(
        [TOKENSIDECAR, "check", str(EKS[role])], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_roles_agree_on_profiles_and_times() -> None:
    assert parsed("issuer")["profiles"] == parsed("validator")["profiles"] == parsed("keeper")["profiles"]
    assert {parsed(role)["keys"]["propagation"] for role in ("issuer", "validator", "keeper")} == {"3m"}


@pytest.mark.parametrize("role", CONFIGS)
def test_probes_reach_it_and_sockets_are_where_the_volumes_are(role: str) -> None:
    listen = parsed(role)["listen"]
    assert (listen["http"], listen["allow_http_beyond_loopback"]) == ("0.0.0.0:8792", True)
    assert listen["admin"] == ["unix:/run/tokensidecar/admin/admin.sock"]
    assert listen.get("app") == (None if role == "keeper" else ["unix:/run/tokensidecar/app/app.sock"])


@pytest.mark.needs("kustomize")
def test_keys_are_where_the_secrets_are_mounted() -> None:
    for workload, role, parts in (("orders", "issuer", {"issue"}), ("billing", "validator", {"open"})):
        keys = parsed(role)["keys"]
        pod = pods(build("base"))[workload]
        paths = {mount["name"]: mount["mountPath"] for mount in containers(pod)["tokensidecar"]["volumeMounts"]}
        assert keys["role"] == role
        assert keys["store"] == f"file:{paths['rings']}"
        assert keys["kek"] == {part: f"file:{paths['kek']}/{part}" for part in parts}
    store = parsed("keeper")["keys"]["store"]
    assert store == "kubernetes://tokensidecar-demo/tokensidecar-rings"


needs_go = pytest.mark.needs("go")
first_build = pytest.mark.timeout(600)


class Fleet:
    """A keeper's folder, and the base's issuer and validator on it, with times and paths for a test."""

    def __init__(self, folder: Path, start: StartSidecar) -> None:
        self.folder = folder
        (folder / "rings").mkdir()
        for part in ("issue", "open"):
            (folder / part).write_text(os.urandom(32).hex())
            (folder / part).chmod(0o600)
        config = folder / "keeper.toml"
        config.write_text(self.text("keeper"), encoding="utf-8")
        environment = {**os.environ, "TOKENSIDECAR_STATE_DIR": str(folder / "state")}
        command = [TOKENSIDECAR, "keeper", "--once", "--config", str(config)]
        subprocess.run(command, env=environment, capture_output=True, timeout=60, check=True)
        self.issuer, self.validator = start(self.text("issuer")), start(self.text("validator"))

    def text(self, role: str) -> str:
        text = CONFIGS[role].read_text(encoding="utf-8")
        text = text.replace("kubernetes://tokensidecar-demo/tokensidecar-rings", f"file:{self.folder}/rings")
        text = text.replace("/run/secrets/tokensidecar/rings", f"{self.folder}/rings")
        return text.replace("/run/secrets/tokensidecar/kek", str(self.folder))


def run_app(address: str, billing: str | None) -> str:
    environment = {**os.environ, "TOKENSIDECAR_ADDRESS": address, **({"BILLING_URL": billing} if billing else {})}
    command = [sys.executable, str(APP), "1"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout


def test_demo_app_gets_a_token_from_a_sidecar_alone(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(CONFIGS["alone"].read_text(encoding="utf-8"))
    assert " of user-42: good until " in run_app(running.app_socket, None)


@pytest.fixture(scope="session")
def billing_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo service, built as its Dockerfile does."""
    program = tmp_path_factory.mktemp("billing") / "billing"
    subprocess.run(
        ["go", "build", "-trimpath", "-ldflags=-s", "-o", str(program), "."],
        cwd=ROOT / "deploy/demo/billing",
        env={**os.environ, "CGO_ENABLED": "0"},
        timeout=600,
        check=True,
    )
    return program


@pytest.fixture
def fleet(tmp_path: Path, start_sidecar: StartSidecar) -> Fleet:
    return Fleet(tmp_path, start_sidecar)


@pytest.fixture
def billing(billing_program: Path, fleet: Fleet) -> Iterator[str]:
    """The address of the demo service, beside the validator."""
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [str(billing_program)],
        env={"TOKENSIDECAR_ADDRESS": fleet.validator.app_socket, "LISTEN": address},
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 20
        while status(address, "/readyz") != 200:
            assert time.monotonic() < end
            time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        assert process.wait(20) == 0


def status(address: str, path: str, token: str = "") -> int | None:
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


@needs_go
@first_build
def test_a_token_made_beside_the_python_app_is_good_beside_the_go_service(fleet: Fleet, billing: str) -> None:
    assert run_app(fleet.issuer.app_socket, f"http://{billing}") == "billing answers 200: the bill of user-42\n"


@needs_go
@first_build
@pytest.mark.parametrize("token", ["", "no.token", "a.b.c.d.e", "x" * 5000])
def test_the_go_service_refuses_whoever_has_no_token(billing: str, token: str) -> None:
    assert status(billing, "/bill", token) == 401


@needs_go
@first_build
def test_the_go_service_lets_nobody_through_while_its_sidecar_is_down(
    fleet: Fleet, billing: str, start_sidecar: StartSidecar
) -> None:
    token = issued(fleet.issuer)
    assert status(billing, "/bill", token) == 200
    fleet.validator.kill()
    assert status(billing, "/bill", token) == 503
    assert "billing refuses: 503" in run_app(fleet.issuer.app_socket, f"http://{billing}")


def issued(running: RunningSidecar) -> str:
    command = [TOKENSIDECAR, "issue", "--subject", "user-42", "--audience", "billing", "--address", running.app_socket]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
