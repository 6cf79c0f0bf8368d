"""The manifests are valid on three Kubernetes versions and hardened; their configuration and demo app really work."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import yaml  # type: ignore[import-untyped]
from kubernetes_validate.utils import ValidationError, validate

import sidecar
from tests.running import ROOT

if TYPE_CHECKING:
    from tests.conftest import StartSidecar

BASE = ROOT / "deploy/kubernetes/base"
SIDECAR_UID = 65532
KUBERNETES_VERSIONS = ("1.33", "1.35", "1.37")  # native sidecars are stable since 1.33
APP_SOCKET, ADMIN_SOCKET = "/run/tokensidecar/app", "/run/tokensidecar/admin"

Manifest = dict[str, Any]

pytestmark = pytest.mark.needs("kustomize")


@pytest.fixture(scope="module")
def rendered() -> list[Manifest]:
    done = subprocess.run(["kustomize", "build", str(BASE)], capture_output=True, text=True, timeout=60, check=True)
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module")
def pod(rendered: list[Manifest]) -> Manifest:
    (deployment,) = (each for each in rendered if each["kind"] == "Deployment")
    spec: Manifest = deployment["spec"]["template"]["spec"]
    return spec


@pytest.fixture(scope="module")
def containers(pod: Manifest) -> dict[str, Manifest]:
    return {each["name"]: each for each in pod["initContainers"] + pod["containers"]}


def mounts(container: Manifest) -> dict[str, str]:
    return {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}


def address(container: Manifest) -> str:
    (value,) = (each["value"] for each in container["env"] if each["name"] == "TOKENSIDECAR_ADDRESS")
    return str(value)


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_every_object_is_valid(rendered: list[Manifest], version: str) -> None:
    kinds = {each["kind"] for each in rendered}
    assert kinds == {"Namespace", "ServiceAccount", "ConfigMap", "NetworkPolicy", "Deployment"}
    for each in rendered:
        assert validate(each, version, strict=True) == version


def test_a_misspelt_field_is_invalid(pod: Manifest) -> None:
    misspelt = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {**pod, "hostNetwrk": False}}
    with pytest.raises(ValidationError):
        validate(misspelt, KUBERNETES_VERSIONS[-1], strict=True)


def test_namespace_enforces_the_restricted_pod_security_standard(rendered: list[Manifest]) -> None:
    (namespace,) = (each for each in rendered if each["kind"] == "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert all(
        each["metadata"]["namespace"] == namespace["metadata"]["name"] for each in rendered if each is not namespace
    )


def test_containers_have_no_privileges(pod: Manifest, containers: dict[str, Manifest]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & pod.keys()
    for container in containers.values():
        context = container["securityContext"]
        assert context["runAsUser"] >= 10_000
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "privileged" not in context


def test_app_and_sidecar_are_different_users_of_one_group(pod: Manifest, containers: dict[str, Manifest]) -> None:
    users = {name: each["securityContext"]["runAsUser"] for name, each in containers.items()}
    assert users["app"] != users["tokensidecar"] == SIDECAR_UID
    assert pod["securityContext"]["fsGroup"] == SIDECAR_UID


def test_no_service_account_token_is_mounted(rendered: list[Manifest], pod: Manifest) -> None:
    (account,) = (each for each in rendered if each["kind"] == "ServiceAccount")
    assert account["automountServiceAccountToken"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == account["metadata"]["name"]
    assert not any("projected" in volume for volume in pod["volumes"])


def test_app_sees_its_socket_and_neither_admin_nor_state(pod: Manifest, containers: dict[str, Manifest]) -> None:
    app, server = mounts(containers["app"]), mounts(containers["tokensidecar"])
    assert app[APP_SOCKET] == server[APP_SOCKET]
    assert set(app) == {APP_SOCKET, "/demo"}
    assert all(mount["readOnly"] for mount in containers["app"]["volumeMounts"])
    private = {server[path] for path in (ADMIN_SOCKET, "/var/lib/tokensidecar", "/etc/tokensidecar")}
    assert len(private) == 3
    assert not private & set(app.values())
    memory = {each["name"] for each in pod["volumes"] if each.get("emptyDir", {}).get("medium") == "Memory"}
    assert memory >= {server[APP_SOCKET], server[ADMIN_SOCKET], server["/var/lib/tokensidecar"]}


def test_sidecar_is_native_and_probed_over_http(pod: Manifest, containers: dict[str, Manifest]) -> None:
    assert [(each["name"], each["restartPolicy"]) for each in pod["initContainers"]] == [("tokensidecar", "Always")]
    server = containers["tokensidecar"]
    probes = {name: server[name]["httpGet"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert probes == {
        "startupProbe": {"path": "/readyz", "port": 8792},
        "readinessProbe": {"path": "/readyz", "port": 8792},
        "livenessProbe": {"path": "/livez", "port": 8792},
    }
    assert [each["containerPort"] for each in server["ports"]] == [8792]


def test_images_carry_the_version_of_the_project(containers: dict[str, Manifest]) -> None:
    assert {each["image"] for each in containers.values()} == {f"tokensidecar:{sidecar.__version__}"}


def test_versions_are_the_same_in_all_places() -> None:
    texts = {file.name: file.read_text(encoding="utf-8") for file in (ROOT / "deploy").iterdir() if file.is_file()}
    assert set(re.findall(r"tokensidecar:(\d\S+)", "\n".join(texts.values()))) == {sidecar.__version__}
    uv = re.findall(r"uv==\S+", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert re.findall(r"uv==\S+", texts["Dockerfile"]) == uv != []


def test_every_container_has_requests_and_a_memory_limit(containers: dict[str, Manifest]) -> None:
    for container in containers.values():
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


def test_network_is_closed_but_for_metrics(rendered: list[Manifest]) -> None:
    (policy,) = (each["spec"] for each in rendered if each["kind"] == "NetworkPolicy")
    (deployment,) = (each for each in rendered if each["kind"] == "Deployment")
    assert policy["podSelector"]["matchLabels"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"]
    assert "egress" not in policy
    assert [rule["ports"] for rule in policy["ingress"]] == [[{"port": 8792, "protocol": "TCP"}]]
    assert all(rule["from"] for rule in policy["ingress"])


def test_sidecar_reads_the_configuration_that_is_mounted(pod: Manifest, containers: dict[str, Manifest]) -> None:
    server = containers["tokensidecar"]
    assert server["args"] == ["serve", "--config", "/etc/tokensidecar/config.toml"]
    (volume,) = (each for each in pod["volumes"] if each["name"] == mounts(server)["/etc/tokensidecar"])
    assert volume["configMap"]["name"].startswith("sidecar-config-")


def test_configuration_is_accepted_and_serves_the_probes() -> None:
    file = BASE / "config.toml"
    listen = tomllib.loads(file.read_text(encoding="utf-8"))["listen"]
    assert (listen["http"], listen["allow_http_beyond_loopback"]) == ("0.0.0.0:8792", True)
    assert listen["app"] == [f"unix:{APP_SOCKET}/app.sock"]
    assert listen["admin"] == [f"unix:{ADMIN_SOCKET}/admin.sock"]
    command = [str(ROOT / ".venv/bin/tokensidecar"), "check", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_demo_app_gets_a_token_from_the_configured_sidecar(
    start_sidecar: StartSidecar, containers: dict[str, Manifest]
) -> None:
    config = (BASE / "config.toml").read_text(encoding="utf-8")
    running = start_sidecar(config)  # its addresses come from the environment, which outranks the file
    assert address(containers["app"]) == f"unix:{APP_SOCKET}/app.sock"
    done = subprocess.run(
        [sys.executable, str(BASE / "app.py"), "1"],
        env={**os.environ, "TOKENSIDECAR_ADDRESS": running.app_socket},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert " of user-42: good until " in done.stdout
