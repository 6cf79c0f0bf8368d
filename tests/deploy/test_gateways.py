"""The manifests for meshes and gateways: valid by their own schemas where these can be had, and what the sidecar's side of them says."""

from __future__ import annotations

import json
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from kubernetes_validate.utils import validate

from sidecar.config import load
from tests.gateway.envoys import BINARY
from tests.running import ROOT

DEPLOY = ROOT / "deploy"
ISTIO = ("istio.io/api@v1.27.0", "kubernetes/customresourcedefinitions.gen.yaml")
ENVOY_GATEWAY = ("github.com/envoyproxy/gateway@v1.5.0", "charts/gateway-helm/crds/generated/*policies.yaml")
OTHERS = [(ISTIO, DEPLOY / "istio"), (ENVOY_GATEWAY, DEPLOY / "envoy-gateway")]


@cache
def schemas(module: str, pattern: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The OpenAPI schemas of a Go module's CustomResourceDefinitions, by apiVersion and kind."""
    done = subprocess.run(
        ["go", "mod", "download", "-json", module], capture_output=True, text=True, check=True, cwd="/"
    )
    found = {}
    for file in Path(json.loads(done.stdout)["Dir"]).glob(pattern):
        for each in yaml.load_all(file.read_text(), yaml.CSafeLoader):
            if each and each["kind"] == "CustomResourceDefinition":
                spec = each["spec"]
                for version in spec["versions"]:
                    name = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
                    found[name] = closed(version["schema"]["openAPIV3Schema"])
    return found


def closed(schema: Any) -> Any:
    """The schema without tolerance for unknown fields, as `kubectl --validate=strict` has it; what JSON Schema does not know is left out."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {}
    made = {
        key: closed(value) for key, value in schema.items() if not key.startswith("x-kubernetes") and key != "format"
    }
    if isinstance(made.get("properties"), dict) and "additionalProperties" not in made:
        made["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    return made


def documents(folder: Path) -> list[dict[str, Any]]:
    return [each for file in sorted(folder.glob("*.yaml")) for each in yaml.safe_load_all(file.read_text())]


@pytest.mark.needs("go")
@pytest.mark.parametrize(("source", "folder"), OTHERS, ids=["istio", "envoy-gateway"])
def test_objects_are_valid_by_the_schemas_of_their_own_project(source: tuple[str, str], folder: Path) -> None:
    known, found = schemas(*source), documents(folder)
    assert len(found) >= 2
    for each in found:
        schema = known[each["apiVersion"], each["kind"]]
        free = {**schema, "properties": {**schema["properties"], "metadata": {}, "apiVersion": {}, "kind": {}}}
        valid = jsonschema.Draft4Validator(free).is_valid  # as OpenAPI 3.0
        assert valid(each)
        assert not valid({**each, "spec": {**each["spec"], "misspelt": 1}})


def test_the_deployment_for_gateways_is_valid_and_hardened() -> None:
    found = documents(DEPLOY / "authz")
    for each in found:
        assert validate(each, "1.35", strict=True) == "1.35"
    (pod,) = (each["spec"]["template"]["spec"] for each in found if each["kind"] == "Deployment")
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }


def test_its_configuration_is_accepted(tmp_path: Path) -> None:
    (text,) = (each["data"]["config.toml"] for each in documents(DEPLOY / "authz") if each["kind"] == "ConfigMap")
    file = tmp_path / "config.toml"
    file.write_text(text)
    assert [route.name for route in load(str(file), {}).routes] == ["orders"]


@pytest.mark.needs(BINARY)
@pytest.mark.parametrize("name", ["envoy.yaml", "phantom.yaml"])
def test_envoy_accepts_its_configurations(name: str) -> None:
    command = [ROOT / BINARY, "--mode", "validate", "-c", DEPLOY / "envoy" / name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_gateways_take_out_the_headers_that_the_examples_routes_fill() -> None:
    filled = {
        name
        for route in tomllib.loads((DEPLOY / "gateway/sidecar.toml").read_text())["routes"]
        for name in route.get("claims", {})
    }
    assert filled
    for name in ("envoy.yaml", "phantom.yaml"):
        text = (DEPLOY / "envoy" / name).read_text()
        assert all(f"- remove: {header}\n" in text for header in filled)
    nginx = (DEPLOY / "nginx/nginx.conf").read_text().lower()
    assert all(nginx.count(f"proxy_set_header {header} ") == 2 for header in filled)
    (policy,) = (one for one in documents(DEPLOY / "envoy-gateway") if one["kind"] == "ClientTrafficPolicy")
    assert filled <= set(policy["spec"]["headers"]["earlyRequestHeaders"]["remove"])
