"""The component adds the sidecar to workloads of every kind, with what its role needs; what asks for none stays as it is."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import pytest
from kubernetes_validate.utils import validate

from tests.deploy.manifests import KUBERNETES, Manifest, containers, mounts, pods, render, secrets_in

KEKS = {"issuer": {"issue"}, "validator": {"open"}, "both": {"issue", "open"}, "alone": set()}
KINDS = ("Deployment", "StatefulSet", "DaemonSet")

pytestmark = pytest.mark.needs("kustomize")


def with_component(folder: Path, kind: str, role: str | None) -> list[Manifest]:
    """A workload of somebody's, who knows nothing of the sidecar but the label and the socket."""
    label = f"labels: {{tokensidecar.dev/sidecar: {role}}}" if role else "labels: {}"
    extra = {
        "Deployment": "",
        "StatefulSet": "serviceName: shop",
        "DaemonSet": "updateStrategy: {type: RollingUpdate}",
    }[kind]
    component = os.path.relpath(KUBERNETES / "components/sidecar", folder)
    (folder / "kustomization.yaml").write_text(
        textwrap.dedent(
            f"""\
            apiVersion: kustomize.config.k8s.io/v1beta1
            kind: Kustomization
            resources: [workload.yaml]
            components: [{component}]
            configMapGenerator:
              - name: sidecar-config
                literals: [issuer.toml=, validator.toml=, both.toml=, alone.toml=]
            images: [{{name: tokensidecar, newName: registry.example.com/tokensidecar, newTag: 0.1.0}}]
            """
        )
    )
    (folder / "workload.yaml").write_text(
        textwrap.dedent(
            f"""\
            apiVersion: apps/v1
            kind: {kind}
            metadata: {{name: shop, {label}}}
            spec:
              {extra}
              selector: {{matchLabels: {{app: shop}}}}
              template:
                metadata: {{labels: {{app: shop}}}}
                spec:
                  initContainers:
                    - {{name: migrate, image: "shop:1"}}
                  containers:
                    - name: shop
                      image: shop:1
                      volumeMounts:
                        - {{name: app-socket, mountPath: /run/tokensidecar/app, readOnly: true}}
                        - {{name: cache, mountPath: /cache}}
                    - {{name: exporter, image: "exporter:1"}}
                  volumes:
                    - {{name: cache, emptyDir: {{}}}}
            """
        )
    )
    return render(folder)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("role", ["issuer", "validator", "both", "alone"])
def test_any_workload_gets_a_sidecar_of_its_role(tmp_path: Path, kind: str, role: str) -> None:
    objects = with_component(tmp_path, kind, role)
    for each in objects:
        validate(each, "1.37", strict=True)
    pod = pods(objects)["shop"]
    server = containers(pod)["tokensidecar"]
    assert server["restartPolicy"] == "Always"
    assert server["image"] == "registry.example.com/tokensidecar:0.1.0"
    assert server["args"] == ["serve", "--config", f"/etc/tokensidecar/{role}.toml"]
    keks = {f"tokensidecar-kek-{part}" for part in KEKS[role]}
    assert secrets_in(pod, "tokensidecar") == ({"tokensidecar-rings", *keks} if keks else set())
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["fsGroup"] == 65532


def test_what_the_workload_had_is_still_there(tmp_path: Path) -> None:
    pod = pods(with_component(tmp_path, "Deployment", "validator"))["shop"]
    assert [each["name"] for each in pod["containers"]] == ["shop", "exporter"]
    assert {each["name"] for each in pod["initContainers"]} == {"migrate", "tokensidecar"}
    assert mounts(containers(pod)["shop"]) == {"/run/tokensidecar/app": "app-socket", "/cache": "cache"}
    assert "volumeMounts" not in containers(pod)["exporter"]
    assert {"name": "cache", "emptyDir": {}} in pod["volumes"]


def test_the_config_that_the_sidecar_mounts_is_the_workloads(tmp_path: Path) -> None:
    pod = pods(with_component(tmp_path, "DaemonSet", "issuer"))["shop"]
    (volume,) = (each for each in pod["volumes"] if each["name"] == "config")
    assert volume["configMap"]["name"].startswith("sidecar-config-")


@pytest.mark.parametrize("role", [None, "other"])
def test_without_a_role_nothing_is_added(tmp_path: Path, role: str | None) -> None:
    pod = pods(with_component(tmp_path, "Deployment", role))["shop"]
    assert set(containers(pod)) == {"migrate", "shop", "exporter"}
    assert [each["name"] for each in pod["volumes"]] == ["cache"]
