"""Turns rendered Deployments into the commands that run their pods under podman.

What confines a container is taken over: user, groups, capabilities, the read-only root, the memory limit, mounts. What podman 4.3 does not
know is replaced, the way the kubelet would have made it: a native sidecar is the pod's first container, probes are left out, and
each volume is a folder that belongs to root and the pod's fsGroup (which `podman kube play` ignores: hence these commands).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

Manifest = dict[str, Any]


def containers(deployment: Manifest, volumes: dict[str, Path], environment: dict[str, str]) -> dict[str, list[str]]:
    """Arguments of `podman run`, by container name, in the order of start.

    `volumes`: the folder that stands for each; a mount of another one is left out. `environment`: replaces variables of these names.
    """
    spec = deployment["spec"]["template"]["spec"]
    return {
        each["name"]: _arguments(each, spec["securityContext"], volumes, environment)
        for each in [*spec.get("initContainers", []), *spec["containers"]]
    }


def _arguments(container: Manifest, pod: Manifest, volumes: dict[str, Path], environment: dict[str, str]) -> list[str]:
    context = container["securityContext"]
    if context["allowPrivilegeEscalation"] or context["capabilities"] != {"drop": ["ALL"]}:
        raise ValueError(f"{container['name']} is not confined")
    if pod["seccompProfile"] != {"type": "RuntimeDefault"}:  # podman's own default
        raise ValueError("the pod has no seccomp profile")
    memory = container["resources"]["limits"]["memory"].replace("Mi", "m")
    words = [f"--user={context['runAsUser']}:{context['runAsGroup']}", f"--memory={memory}", f"--memory-swap={memory}"]
    words += ["--cap-drop=all", "--security-opt=no-new-privileges", "--restart=always"]
    if context["readOnlyRootFilesystem"]:
        words += ["--read-only", "--read-only-tmpfs=false"]
    if "fsGroup" in pod:
        words.append(f"--group-add={pod['fsGroup']}")
    for mount in container["volumeMounts"]:
        if mount["name"] in volumes:
            mode = "ro" if mount.get("readOnly") else "rw"
            words.append(f"--volume={volumes[mount['name']]}:{mount['mountPath']}:{mode}")
    for variable in container.get("env", []):
        words.append(f"--env={variable['name']}={environment.get(variable['name'], variable['value'])}")
    program, *rest = container.get("command", [""])
    words += [f"--entrypoint={program}"] if program else []
    return [*words, container["image"], *rest, *container.get("args", [])]


def memory_folder(path: Path, group: int) -> Path:
    """An emptyDir, as the kubelet makes it for a pod with that fsGroup."""
    path.mkdir(parents=True)
    os.chown(path, 0, group)
    path.chmod(0o2777)
    return path


def filled_folder(path: Path, files: dict[str, bytes], mode: int, group: int) -> Path:
    """A ConfigMap's or a Secret's folder."""
    path.mkdir(parents=True)
    for name, content in files.items():
        file = path / name
        file.touch(mode=0o600)
        file.write_bytes(content)
        os.chown(file, 0, group)
        file.chmod(mode)
    os.chown(path, 0, group)
    path.chmod(0o2755)
    return path
