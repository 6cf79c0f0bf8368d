"""Alerts, dashboard and run-book: every query names metrics that a sidecar has, each alert fires when it should, and each has its line."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import re
import subprocess
import time
import urllib.parse
from typing import TYPE_CHECKING, Any

import pytest
import yaml  # type: ignore[import-untyped]
from tokensidecar.v1 import token_service_pb2 as pb

from tests.e2e.calls import Plane, refused
from tests.e2e.insider import Insider
from tests.running import ROOT, RunningSidecar, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLDER = ROOT / "deploy/observability"
RULES = yaml.safe_load((FOLDER / "rules.yaml").read_text())
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in RULES["groups"][0]["rules"]}
NAME = re.compile(r"\btokensidecar_[a-z_]+")
RPCS = 'tokensidecar_rpcs_total{{instance="a", method="Issue", code="C", reason="{}"}}'

# Alert: a series, its values when all is well, and when it is not (a value a minute, from the start), and after how many minutes it fires.
CASES: dict[str, tuple[str, str, str, int]] = {
    "TokensidecarNotReady": ('tokensidecar_ready{instance="a"}', "1x60", "1x10 0x60", 17),
    "TokensidecarStateStale": ('tokensidecar_state_stale{profile="p"}', "0x60", "1x60", 2),
    "TokensidecarStateAgeing": ('tokensidecar_state_age_seconds{profile="p"}', "5x60", "0+60x60", 9),
    "TokensidecarRollbackSeen": ('tokensidecar_ring_rolled_back{profile="p"}', "0x60", "0x10 1x60", 12),
    "TokensidecarRotationOverdue": ('tokensidecar_rotation_due_seconds{profile="p"}', "-500x60", "0-60x120", 67),
    "TokensidecarDestructionOverdue": ('tokensidecar_destruction_due_seconds{profile="p"}', "-500x60", "0-60x120", 67),
    "TokensidecarDutyFailing": (
        'tokensidecar_duties_total{duty="rotate", outcome="STORE_UNAVAILABLE"}',
        "3x60",
        "0+1x60",
        16,
    ),
    "TokensidecarKeeperSilent": ("tokensidecar_keeper_silence_seconds", "300x60", "0+60x60", 37),
    "TokensidecarSettingsDiffer": ('tokensidecar_settings_differing{profile="p"}', "0x60", "2x120", 61),
    "TokensidecarClockSkew": ("tokensidecar_clock_skew_seconds", "0.2x60", "-3x60", 6),
    "TokensidecarStoreErrors": (
        'tokensidecar_store_errors_total{operation="load", reason="STORE_UNAVAILABLE"}',
        "7x60",
        "0+12x60",
        5,
    ),
    "TokensidecarKmsErrors": (
        'tokensidecar_kms_errors_total{operation="wrap", reason="KMS_UNAVAILABLE"}',
        "1x60",
        "0x10 1x60",
        12,
    ),
    "TokensidecarAuditFailing": ("tokensidecar_audit_lost_records", "4x60", "4x10 9x60", 12),
    "TokensidecarAuditLagging": ("tokensidecar_audit_lag_seconds", "0.01x60", "3x60", 2),
    "TokensidecarConfigRefused": ("tokensidecar_config_good", "1x60", "0x60", 2),
    "TokensidecarOverload": (RPCS.format("OVERLOADED"), "100x60", "0+60x60", 11),
    "TokensidecarInternalErrors": (RPCS.format("INTERNAL"), "1x60", "0x10 1x60", 12),
    "TokensidecarForgedTokens": (
        'tokensidecar_tokens_total{profile="", verb="validate", outcome="TOKEN_INVALID"}',
        "0+60x60",
        "0+600x60",
        16,
    ),
    "TokensidecarPlainTokens": (
        'tokensidecar_plain_tokens_total{profile="p", caller="unix:app", accepted="true"}',
        "5x180",
        "0+1x180",
        65,
    ),
    "TokensidecarClientCaExpiring": ('tokensidecar_tls_client_ca_expiry_seconds{address="a"}', "90000x60", "300x60", 6),
    "TokensidecarTlsRefused": ('tokensidecar_tls_good{address="a"}', "1x60", "0x60", 6),
    "TokensidecarServiceAccountKeysLost": ("tokensidecar_service_account_keys_good", "1x60", "0x60", 11),
    "TokensidecarRefreshReused": (RPCS.format("REFRESH_REUSED"), "1x60", "0x10 1x60", 12),
    "TokensidecarCertificateExpiring": (
        'tokensidecar_tls_certificate_expiry_seconds{address="a"}',
        "1000x60",
        "1000-60x60",
        19,
    ),
}
BESIDE = [{"series": 'tokensidecar_tls_certificate_age_seconds{address="a"}', "values": "100+60x180"}]
FURTHER = [("TokensidecarAuditFailing", RPCS.format("AUDIT_UNAVAILABLE"), "0x10 1+1x60", 12)]


def case(alert: str, series: str, values: str, minutes: int, expected: list[str]) -> dict[str, Any]:
    query = f'count by (alertname) (ALERTS{{alertname="{alert}", alertstate="firing"}})'
    samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in expected]
    return {
        "interval": "1m",
        "name": f"{alert} {values}",
        "input_series": [{"series": series, "values": values}, *BESIDE],
        "promql_expr_test": [{"expr": query, "eval_time": f"{minutes}m", "exp_samples": samples}],
    }


@pytest.mark.needs("promtool")
def test_each_alert_fires_when_it_should_and_not_before(tmp_path: Path) -> None:
    cases = []
    for alert, (series, well, ill, minutes) in CASES.items():
        cases += [case(alert, series, well, 55, []), case(alert, series, ill, minutes, [alert])]
        if "for" in ALERTS[alert]:
            cases.append(case(alert, series, ill, minutes - int(_minutes(ALERTS[alert]["for"])) - 1, []))
    cases += [case(alert, series, ill, minutes, [alert]) for alert, series, ill, minutes in FURTHER]
    file = tmp_path / "test.yaml"
    file.write_text(
        yaml.safe_dump({"rule_files": [str(FOLDER / "rules.yaml")], "evaluation_interval": "1m", "tests": cases})
    )
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert CASES.keys() == ALERTS.keys()


@pytest.mark.needs("promtool")
def test_rules_are_ones_that_prometheus_takes() -> None:
    command = ["promtool", "check", "rules", "--lint=all", "--lint-fatal", str(FOLDER / "rules.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_its_line_in_the_run_book_and_each_line_an_alert() -> None:
    text = (ROOT / "deploy/README.md").read_text()
    section = text[text.index("\n## Alerts") :]
    lines = re.findall(r"^\| `(Tokensidecar\w+)` \| \S.*\S \|$", section, re.MULTILINE)
    assert sorted(lines) == sorted(ALERTS)
    for alert in ALERTS.values():
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}
        assert alert["annotations"]["summary"]


def test_the_operators_object_has_the_same_rules() -> None:
    found = yaml.safe_load((FOLDER / "prometheusrule.yaml").read_text())
    assert (found["kind"], found["spec"]) == ("PrometheusRule", RULES)


def test_the_dashboard_is_the_one_that_is_made() -> None:
    spec = importlib.util.spec_from_file_location("dashboard", FOLDER / "dashboard.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert json.loads((FOLDER / "dashboard.json").read_text()) == module.dashboard(), (
        "run: python deploy/observability/dashboard.py > deploy/observability/dashboard.json"
    )


def panels() -> dict[str, list[str]]:
    """The queries of each panel."""
    found = json.loads((FOLDER / "dashboard.json").read_text())["panels"]
    return {panel["title"]: [target["expr"] for target in panel.get("targets", [])] for panel in found}


def test_every_query_names_metrics_that_a_sidecar_has(sidecar: RunningSidecar) -> None:
    _, text = sidecar.get("/metrics")
    there: set[str] = set()
    for name, kind in re.findall(r"# TYPE (\S+) (\S+)", text):
        there |= {name, *(f"{name}_{part}" for part in ("bucket", "sum", "count") if kind == "histogram")}
    queries = [query for each in panels().values() for query in each]
    queries += [alert["expr"] for alert in ALERTS.values()]
    named = {name for query in queries for name in NAME.findall(query)}
    named |= set(NAME.findall((ROOT / "deploy/README.md").read_text()))
    assert named - there == set()
    assert len(named) > 20


def test_the_pod_monitor_looks_for_the_ports_that_the_pods_have() -> None:
    (endpoint,) = yaml.safe_load((FOLDER / "podmonitor.yaml").read_text())["spec"]["podMetricsEndpoints"]
    kept = endpoint["relabelings"][0]["regex"].split("|")
    for file, container in (("components/sidecar/sidecar.yaml", kept[0]), ("keeper/deployment.yaml", kept[1])):
        spec = yaml.safe_load((ROOT / "deploy/kubernetes" / file).read_text())["spec"]["template"]["spec"]
        ports = {
            each["name"]: [port["name"] for port in each.get("ports", [])]
            for each in (*spec.get("containers", []), *spec.get("initContainers", []))
        }
        assert endpoint["port"] in ports[container]


CONFIG = """
[profiles.default]
issuer = "urn:tokensidecar:local"
audiences = ["orders"]
report_only = true
max_ttl = "5m"

[keys]
propagation = "2s"
refresh_interval = "1s"
"""
SCRAPES = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs: [{{job_name: tokensidecar, static_configs: [{{targets: ["{target}"]}}]}}]
"""


@contextlib.contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """A Prometheus that scrapes it; "127.0.0.1:PORT" inside."""
    address, config = f"127.0.0.1:{free_port()}", folder / "prometheus.yml"
    config.write_text(SCRAPES.format(rules=FOLDER / "rules.yaml", target=target))
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--web.listen-address={address}",
        f"--storage.tsdb.path={folder}/data",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        yield address
    finally:
        process.terminate()
        process.wait(20)


def asked(address: str, path: str, **query: str) -> Any:
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", f"/api/v1/{path}?{urllib.parse.urlencode(query)}")
        answer = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    assert answer["status"] == "success", answer
    return answer["data"]


def drawn(address: str, query: str) -> int:
    """How many curves a query of the dashboard has now."""
    filled = query.replace("$__rate_interval", "10s").replace("$instance", ".*")
    return len(asked(address, "query", query=filled)["result"])


@pytest.mark.needs("prometheus")
def test_each_panel_has_data_from_a_real_prometheus(tmp_path: Path) -> None:
    with RunningSidecar(CONFIG) as sidecar, prometheus(tmp_path, sidecar.http) as address:
        with Plane(sidecar.app_socket) as app, Plane(sidecar.admin_socket) as admin:
            insider = Insider.read(sidecar.state_dir)
            plain = insider.sign(insider.payload())
            end, empty = time.monotonic() + 60, ["all"]
            admin.rotate(pb.RotateRequest())
            while empty != ["Duties"] and time.monotonic() < end:  # there were none
                app.accepts(app.token())
                app.accepts(plain)
                refused(app.validate, pb.ValidateRequest(token="x", audiences=["orders"]))
                time.sleep(0.2)
                with contextlib.suppress(OSError):
                    empty = [
                        title
                        for title, queries in panels().items()
                        if queries and not any(drawn(address, query) for query in queries)
                    ]
        assert empty == ["Duties"]
        groups = asked(address, "rules")["groups"]
        health = {rule["name"]: (rule["health"], rule.get("lastError")) for rule in groups[0]["rules"]}
        assert {each for each in health.values() if each[0] == "err"} == set()
        assert health.keys() == ALERTS.keys()


def _minutes(duration: str) -> float:
    return int(duration[:-1]) * {"m": 1, "h": 60}[duration[-1]]
