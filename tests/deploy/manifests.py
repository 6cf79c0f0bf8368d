"""The manifests as kustomize renders them, and what the tests ask of them."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from tests.running import ROOT

KUBERNETES = ROOT / "deploy/kubernetes"
BUILDS = ("base", "overlays/cronjob", "overlays/dev", "overlays/eks")

Manifest = dict[str, Any]


@functools.cache
def _text(folder: Path) -> str:
    done = subprocess.run(["kustomize", "build", str(folder)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(folder: Path) -> list[Manifest]:
    """Every object, fresh for each call."""
    return list(yaml.safe_load_all(_text(folder)))


def build(name: str) -> list[Manifest]:
    """Every object of one of `BUILDS`."""
    return render(KUBERNETES / name)


def of_kind(objects: list[Manifest], kind: str) -> dict[str, Manifest]:
    """By name."""
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


def pods(objects: list[Manifest]) -> dict[str, Manifest]:
    """The pod's specification of each workload, by the workload's name."""
    found = {}
    for each in objects:
        if each["kind"] in ("Deployment", "StatefulSet", "DaemonSet"):
            found[each["metadata"]["name"]] = each["spec"]["template"]["spec"]
        elif each["kind"] == "CronJob":
            found[each["metadata"]["name"]] = each["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return found


def containers(pod: Manifest) -> dict[str, Manifest]:
    """By name, the sidecar included."""
    return {each["name"]: each for each in [*pod.get("initContainers", []), *pod["containers"]]}


def mounts(container: Manifest) -> dict[str, str]:
    """The volume's name, by path."""
    return {each["mountPath"]: each["name"] for each in container["volumeMounts"]}


def secrets_of(volume: Manifest) -> set[str]:
    """The Secrets that a volume shows, and "a token" for a service account's."""
    found = {volume["secret"]["secretName"]} if "secret" in volume else set()
    for source in volume.get("projected", {}).get("sources", []):
        if "secret" in source:
            found.add(source["secret"]["name"])
        if "serviceAccountToken" in source:
            found.add("a token")
    return found


def secrets_in(pod: Manifest, container: str) -> set[str]:
    """The Secrets that this container can read."""
    volumes = {each["name"]: each for each in pod["volumes"]}
    return set().union(*(secrets_of(volumes[name]) for name in mounts(containers(pod)[container]).values()))
