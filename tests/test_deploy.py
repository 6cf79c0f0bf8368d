"""The manifests are valid on three Kubernetes versions and hardened, and each container sees what it needs and no more."""

from __future__ import annotations

import re

import pytest
from kubernetes_validate.utils import ValidationError, validate

import sidecar
from tests.deploy.manifests import BUILDS, KUBERNETES, build, containers, mounts, of_kind, pods, secrets_in
from tests.running import ROOT

SIDECAR_UID = 65532
KUBERNETES_VERSIONS = ("1.33", "1.35", "1.37")  # native sidecars are stable since 1.33
APP_SOCKET, ADMIN_SOCKET, STATE, CONFIG = (
    "/run/tokensidecar/app",
    "/run/tokensidecar/admin",
    "/var/lib/tokensidecar",
    "/etc/tokensidecar",
)
RINGS, ISSUE, OPEN = "tokensidecar-rings", "tokensidecar-kek-issue", "tokensidecar-kek-open"

pytestmark = pytest.mark.needs("kustomize")
every_build = pytest.mark.parametrize("name", BUILDS)


@every_build
@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_every_object_is_valid(name: str, version: str) -> None:
    objects = build(name)
    assert {"Namespace", "ServiceAccount", "ConfigMap", "NetworkPolicy", "Deployment"} <= {
        each["kind"] for each in objects
    }
    for each in objects:
        assert validate(each, version, strict=True) == version


def test_a_misspelt_field_is_invalid() -> None:
    pod = pods(build("base"))["orders"]
    misspelt = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {**pod, "hostNetwrk": False}}
    with pytest.raises(ValidationError):
        validate(misspelt, KUBERNETES_VERSIONS[-1], strict=True)


@every_build
def test_namespace_enforces_the_restricted_pod_security_standard(name: str) -> None:
    objects = build(name)
    ((namespace, found),) = of_kind(objects, "Namespace").items()
    assert found["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {each["metadata"]["namespace"] for each in objects if each["kind"] != "Namespace"} == {namespace}


@every_build
def test_containers_have_no_privileges(name: str) -> None:
    for pod in pods(build(name)).values():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & pod.keys()
        for container in containers(pod).values():
            context = container["securityContext"]
            assert context["runAsUser"] >= 10_000
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "privileged" not in context


@every_build
def test_every_container_has_requests_and_a_memory_limit(name: str) -> None:
    for pod in pods(build(name)).values():
        for container in containers(pod).values():
            assert set(container["resources"]["requests"]) == {"cpu", "memory", "ephemeral-storage"}
            assert set(container["resources"]["limits"]) == {"memory", "ephemeral-storage"}


@every_build
def test_app_and_sidecar_are_different_users_of_one_group(name: str) -> None:
    for workload, pod in pods(build(name)).items():
        users = {each: container["securityContext"]["runAsUser"] for each, container in containers(pod).items()}
        assert pod["securityContext"]["fsGroup"] == SIDECAR_UID
        assert users == (
            {"keeper": SIDECAR_UID}
            if workload == "tokensidecar-keeper"
            else {"tokensidecar": SIDECAR_UID, "app": users["app"]}
        )
        assert workload == "tokensidecar-keeper" or users["app"] != SIDECAR_UID


@every_build
def test_only_the_keeper_has_a_service_account_token(name: str) -> None:
    objects = build(name)
    for account in of_kind(objects, "ServiceAccount").values():
        assert account["automountServiceAccountToken"] is False
    for workload, pod in pods(objects).items():
        assert pod["automountServiceAccountToken"] is False
        assert pod["serviceAccountName"] == workload
        with_token = {each for each in containers(pod) if "a token" in secrets_in(pod, each)}
        assert with_token == ({"keeper"} if workload == "tokensidecar-keeper" else set())


@pytest.mark.parametrize("name", ["base", "overlays/cronjob"])
def test_each_container_reads_the_secrets_of_its_role_alone(name: str) -> None:
    found = pods(build(name))
    seen = {(workload, each): secrets_in(pod, each) for workload, pod in found.items() for each in containers(pod)}
    assert seen == {
        ("orders", "app"): set(),
        ("orders", "tokensidecar"): {RINGS, ISSUE},
        ("billing", "app"): set(),
        ("billing", "tokensidecar"): {RINGS, OPEN},
        ("tokensidecar-keeper", "keeper"): {ISSUE, OPEN, "a token"},
    }


def test_on_eks_no_container_reads_a_key_and_the_sidecar_alone_gets_the_role() -> None:
    objects = build("overlays/eks")
    found = pods(objects)
    seen = {(workload, each): secrets_in(pod, each) for workload, pod in found.items() for each in containers(pod)}
    assert seen == {
        ("orders", "app"): set(),
        ("orders", "tokensidecar"): {RINGS},
        ("billing", "app"): set(),
        ("billing", "tokensidecar"): {RINGS},
        ("tokensidecar-keeper", "keeper"): {"a token"},
    }
    roles = {
        account: each["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].rpartition("/")[2]
        for account, each in of_kind(objects, "ServiceAccount").items()
    }
    assert roles == {
        "orders": "tokensidecar-issuer",
        "billing": "tokensidecar-validator",
        "tokensidecar-keeper": "tokensidecar-keeper",
    }
    for each in of_kind(objects, "Deployment").values():
        template = each["spec"]["template"]
        skipped = template["metadata"].get("annotations", {}).get("eks.amazonaws.com/skip-containers", "").split(",")
        served = set(containers(template["spec"])) - set(skipped)
        assert served == ({"keeper"} if each["metadata"]["name"] == "tokensidecar-keeper" else {"tokensidecar"})


def test_a_single_pod_mounts_no_secret() -> None:
    pod = pods(build("overlays/dev"))["orders"]
    assert not any("secret" in volume or "projected" in volume for volume in pod["volumes"])


@every_build
def test_app_sees_its_socket_and_nothing_else_of_the_sidecar(name: str) -> None:
    for workload, pod in pods(build(name)).items():
        if workload == "tokensidecar-keeper":
            continue
        app, server = containers(pod)["app"], containers(pod)["tokensidecar"]
        shared = set(mounts(app).values()) & set(mounts(server).values())
        assert shared == {mounts(app)[APP_SOCKET]} == {mounts(server)[APP_SOCKET]}
        assert set(mounts(app)) <= {APP_SOCKET, "/demo"}
        assert all(each["readOnly"] for each in app["volumeMounts"])
        memory = {each["name"] for each in pod["volumes"] if each.get("emptyDir", {}).get("medium") == "Memory"}
        assert memory == {mounts(server)[path] for path in (APP_SOCKET, ADMIN_SOCKET, STATE)}
        written = {each["mountPath"] for each in server["volumeMounts"] if not each.get("readOnly")}
        assert written == {APP_SOCKET, ADMIN_SOCKET, STATE}


@every_build
def test_sidecar_is_native_and_probed_over_http(name: str) -> None:
    for workload, pod in pods(build(name)).items():
        if workload == "tokensidecar-keeper":
            assert "initContainers" not in pod
            continue
        assert [(each["name"], each["restartPolicy"]) for each in pod["initContainers"]] == [("tokensidecar", "Always")]
        server = containers(pod)["tokensidecar"]
        probes = {each: server[each]["httpGet"] for each in ("startupProbe", "readinessProbe", "livenessProbe")}
        assert probes == {
            "startupProbe": {"path": "/readyz", "port": 8792},
            "readinessProbe": {"path": "/readyz", "port": 8792},
            "livenessProbe": {"path": "/livez", "port": 8792},
        }
        assert [each["containerPort"] for each in server["ports"]] == [8792]


def test_a_sidecar_may_wait_for_its_keeper_before_it_is_restarted() -> None:
    from sidecar.app import KEEPER_WAIT

    for pod in (pods(build("base"))[name] for name in ("orders", "billing")):
        probe = containers(pod)["tokensidecar"]["startupProbe"]
        assert probe["failureThreshold"] * probe["periodSeconds"] > KEEPER_WAIT


@pytest.mark.parametrize("name", ["base", "overlays/cronjob"])
def test_the_cluster_grants_two_verbs_on_one_secret_to_the_keeper(name: str) -> None:
    objects = build(name)
    assert not {each["kind"] for each in objects} & {"ClusterRole", "ClusterRoleBinding"}
    (role,), (binding,) = of_kind(objects, "Role").values(), of_kind(objects, "RoleBinding").values()
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [RINGS], "verbs": ["get", "update"]}
    ]
    assert binding["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "Role",
        "name": role["metadata"]["name"],
    }
    assert [(each["kind"], each["name"]) for each in binding["subjects"]] == [("ServiceAccount", "tokensidecar-keeper")]


def test_the_rings_are_deployed_empty_and_no_key_is_in_a_manifest() -> None:
    secrets = of_kind(build("base"), "Secret")
    assert set(secrets) == {RINGS}
    assert not {"data", "stringData", "immutable"} & secrets[RINGS].keys()


def test_a_single_pod_asks_nothing_of_the_cluster() -> None:
    assert not {each["kind"] for each in build("overlays/dev")} & {"Role", "RoleBinding", "Secret"}


@every_build
def test_network_is_closed_but_for_what_each_pod_needs(name: str) -> None:
    objects = build(name)
    metrics = (8792, "TCP")
    ingress = {"orders": [metrics], "billing": [(8080, "TCP"), metrics], "tokensidecar-keeper": [metrics]}
    names, aws = [(53, "UDP"), (53, "TCP")], [(443, "TCP")]
    egress = {
        "orders": [] if name == "overlays/dev" else [(8080, "TCP"), *names],
        "billing": [],
        "tokensidecar-keeper": [(443, "TCP"), (6443, "TCP")],
    }
    if name == "overlays/eks":
        egress = {
            "orders": egress["orders"] + aws,
            "billing": aws + names,
            "tokensidecar-keeper": egress["tokensidecar-keeper"] + names,
        }
    policies = of_kind(objects, "NetworkPolicy")
    assert set(policies) == set(pods(objects))
    for workload, policy in policies.items():
        spec = policy["spec"]
        assert spec["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": workload}}
        assert sorted(spec["policyTypes"]) == ["Egress", "Ingress"]
        for direction, allowed in (("ingress", ingress), ("egress", egress)):
            rules = spec.get(direction, [])
            assert [(each["port"], each["protocol"]) for rule in rules for each in rule["ports"]] == allowed[workload]
        assert all(rule["from"] for rule in spec["ingress"])


@every_build
def test_policies_select_the_pods(name: str) -> None:
    for each in build(name):
        if each["kind"] in ("Deployment", "CronJob"):
            spec = each["spec"] if each["kind"] == "Deployment" else each["spec"]["jobTemplate"]["spec"]
            assert spec["template"]["metadata"]["labels"]["app.kubernetes.io/name"] == each["metadata"]["name"]


def test_the_cronjob_replaces_the_keepers_deployment_and_has_its_pod() -> None:
    always, at_times = build("base"), build("overlays/cronjob")
    assert "tokensidecar-keeper" in of_kind(always, "Deployment")
    assert "tokensidecar-keeper" not in of_kind(at_times, "Deployment")
    first, second = pods(always)["tokensidecar-keeper"], pods(at_times)["tokensidecar-keeper"]
    for key in ("serviceAccountName", "automountServiceAccountToken", "securityContext", "enableServiceLinks"):
        assert first[key] == second[key]
    serving, once = containers(first)["keeper"], containers(second)["keeper"]
    for key in ("image", "imagePullPolicy", "resources", "securityContext"):
        assert serving[key] == once[key]
    assert once["args"] == ["keeper", "--once", *serving["args"][1:]]
    assert {path: name for path, name in mounts(serving).items() if path != ADMIN_SOCKET} == mounts(once)
    assert [each for each in first["volumes"] if each["name"] != "admin-socket"] == second["volumes"]
    job = of_kind(at_times, "CronJob")["tokensidecar-keeper"]["spec"]
    assert (job["schedule"], job["concurrencyPolicy"]) == ("*/10 * * * *", "Forbid")


@every_build
def test_sidecar_reads_the_configuration_that_is_mounted(name: str) -> None:
    objects = build(name)
    for pod in pods(objects).values():
        for each in containers(pod).values():
            if "--config" not in each.get("args", []):
                continue
            (volume,) = (found for found in pod["volumes"] if found["name"] == mounts(each)[CONFIG])
            folder, _, file = each["args"][-1].rpartition("/")
            assert folder == CONFIG
            assert file in of_kind(objects, "ConfigMap")[volume["configMap"]["name"]]["data"]


@every_build
def test_images_carry_the_version_of_the_project(name: str) -> None:
    images = {each["image"] for pod in pods(build(name)).values() for each in containers(pod).values()}
    assert images <= {f"tokensidecar:{sidecar.__version__}", f"billing-demo:{sidecar.__version__}"}
    assert images


def test_versions_are_the_same_in_all_places() -> None:
    files = [
        file for file in (ROOT / "deploy").rglob("*") if file.is_file() and file.suffix in ("", ".md", ".py", ".yaml")
    ]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    assert set(re.findall(r"(?:tokensidecar|billing-demo):(\d[\d.]*\d)", text)) == {sidecar.__version__}
    assert set(re.findall(r"newTag: ([0-9.]+)", text)) == {sidecar.__version__}
    uv = re.findall(r"uv==\S+", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert re.findall(r"uv==\S+", (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")) == uv != []


def test_every_folder_of_manifests_is_built_by_a_test() -> None:
    folders = {file.parent.relative_to(KUBERNETES).as_posix() for file in KUBERNETES.rglob("kustomization.yaml")}
    parts = {"keeper", "orders", "billing", "components/sidecar", "components/keeper-cronjob", "overlays/dev/orders"}
    assert folders == {*BUILDS, *parts}
