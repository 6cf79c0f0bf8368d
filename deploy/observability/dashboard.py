"""Makes the Grafana dashboard: `python deploy/observability/dashboard.py > deploy/observability/dashboard.json`.

A row of panels for each question that somebody on call asks. `$__rate_interval` is Grafana's.
"""

from __future__ import annotations

import json
import sys

Json = dict[str, object]
ONE = 'instance=~"$instance"'
RATE = "[$__rate_interval]"


def _rate(metric: str, by: str, labels: str = "") -> str:
    return f"sum by ({by}) (rate({metric}{{{', '.join(filter(None, (ONE, labels)))}}}{RATE}))"


def _quantile(share: float, metric: str, by: str) -> str:
    return f"histogram_quantile({share}, sum by (le, {by}) (rate({metric}_bucket{{{ONE}}}{RATE})))"


# Row, then panels: title, what it says, unit, and (query, legend) of each curve.
ROWS: list[tuple[str, list[tuple[str, str, str, list[tuple[str, str]]]]]] = [
    (
        "Is it well?",
        [
            ("Ready", "1 when calls are taken.", "short", [(f"tokensidecar_ready{{{ONE}}}", "{{instance}}")]),
            (
                "State",
                "Since the store was last read. At keys.max_staleness calls get STATE_STALE.",
                "s",
                [
                    (f"max by (profile) (tokensidecar_state_age_seconds{{{ONE}}})", "{{profile}}"),
                    (f"tokensidecar_state_stale{{{ONE}}} == 1", "stale: {{profile}} {{instance}}"),
                    (f"tokensidecar_ring_rolled_back{{{ONE}}} == 1", "rolled back: {{profile}} {{instance}}"),
                ],
            ),
            (
                "Clocks and keeper",
                "This machine's clock less the store's; since a keeper was heard.",
                "s",
                [
                    (f"tokensidecar_clock_skew_seconds{{{ONE}}}", "skew {{instance}}"),
                    (f"max(tokensidecar_keeper_silence_seconds{{{ONE}}})", "keeper silent"),
                ],
            ),
            (
                "Configuration",
                "What is in force, and what failed to be.",
                "short",
                [
                    (f"count by (version) (tokensidecar_build_info{{{ONE}}})", "version {{version}}"),
                    (f"sum(1 - tokensidecar_config_good{{{ONE}}})", "refused files"),
                    (f"sum by (outcome) (tokensidecar_config_reloads_total{{{ONE}}})", "reloads {{outcome}}"),
                    (f"max by (profile) (tokensidecar_settings_differing{{{ONE}}})", "settings differing {{profile}}"),
                ],
            ),
        ],
    ),
    (
        "What is asked of it?",
        [
            ("Calls", "By method.", "reqps", [(_rate("tokensidecar_rpcs_total", "method"), "{{method}}")]),
            (
                "Refusals",
                "By reason.",
                "reqps",
                [(_rate("tokensidecar_rpcs_total", "code, reason", 'code!="OK"'), "{{code}} {{reason}}")],
            ),
            (
                "Time of a call",
                "Median and 99th percentile, from the first line of our code.",
                "s",
                [
                    (_quantile(0.5, "tokensidecar_rpc_duration_seconds", "method"), "50 % {{method}}"),
                    (_quantile(0.99, "tokensidecar_rpc_duration_seconds", "method"), "99 % {{method}}"),
                ],
            ),
            ("In work", "512 at most.", "short", [(f"tokensidecar_rpcs_in_flight{{{ONE}}}", "{{instance}}")]),
            (
                "Tokens",
                "Items of batches count each.",
                "short",
                [(_rate("tokensidecar_tokens_total", "profile, verb, outcome"), "{{profile}} {{verb}} {{outcome}}")],
            ),
            (
                "Plain JWS",
                "Tokens of nested profiles that were signed alone: who still sends them.",
                "short",
                [(_rate("tokensidecar_plain_tokens_total", "profile, caller, accepted"), "{{profile}} {{caller}}")],
            ),
        ],
    ),
    (
        "Keys",
        [
            (
                "Age of the active key",
                "",
                "s",
                [(f"max by (profile, use) (tokensidecar_key_age_seconds{{{ONE}}})", "{{profile}} {{use}}")],
            ),
            (
                "Until the next change",
                "Below 0: overdue.",
                "s",
                [
                    (f"min by (profile, use) (tokensidecar_rotation_due_seconds{{{ONE}}})", "rotate {{profile}} {{use}}"),
                    (
                        f"min by (profile, use) (tokensidecar_destruction_due_seconds{{{ONE}}})",
                        "destroy {{profile}} {{use}}",
                    ),
                    (f"min by (address) (tokensidecar_tls_certificate_expiry_seconds{{{ONE}}})", "TLS {{address}}"),
                ],
            ),
            (
                "Revision of the ring",
                "One line for each profile, once all have seen a change.",
                "short",
                [(f"tokensidecar_ring_revision{{{ONE}}}", "{{profile}} {{instance}}")],
            ),
            (
                "Revocations",
                "Held in memory; and up to which revision they are obeyed: one line, once all have seen them.",
                "short",
                [
                    (f"tokensidecar_revocations_held{{{ONE}}}", "held {{instance}}"),
                    (f"tokensidecar_revocation_revision{{{ONE}}}", "revision {{instance}}"),
                ],
            ),
            (
                "Duties",
                "Scheduled rotation, destruction, renewal of data keys.",
                "short",
                [(f"sum by (duty, outcome) (tokensidecar_duties_total{{{ONE}}})", "{{duty}} {{outcome}}")],
            ),
        ],
    ),
    (
        "What it depends on",
        [
            (
                "Store, 99th percentile",
                "",
                "s",
                [(_quantile(0.99, "tokensidecar_store_duration_seconds", "operation"), "{{operation}}")],
            ),
            (
                "KMS, average",
                "Rare: at a start, a rotation, a renewal.",
                "s",
                [
                    (
                        f"sum by (operation) (tokensidecar_kms_duration_seconds_sum{{{ONE}}})"
                        f" / sum by (operation) (tokensidecar_kms_duration_seconds_count{{{ONE}}})",
                        "{{operation}}",
                    )
                ],
            ),
            (
                "Errors",
                "Of store and KMS; and reads of the store for news.",
                "short",
                [
                    (_rate("tokensidecar_store_errors_total", "operation, reason"), "store {{operation}} {{reason}}"),
                    (_rate("tokensidecar_kms_errors_total", "operation, reason"), "KMS {{operation}} {{reason}}"),
                    (_rate("tokensidecar_refreshes_total", "outcome", 'outcome!="OK"'), "news {{outcome}}"),
                ],
            ),
            (
                "Audit",
                "Records that wait for the disk, and for how long; those that were lost.",
                "short",
                [
                    (f"tokensidecar_audit_waiting_records{{{ONE}}}", "waiting {{instance}}"),
                    (f"tokensidecar_audit_lag_seconds{{{ONE}}}", "oldest, in s {{instance}}"),
                    (f"tokensidecar_audit_lost_records{{{ONE}}}", "lost {{instance}}"),
                ],
            ),
        ],
    ),
]


def dashboard() -> Json:
    """The model that Grafana imports."""
    panels: list[Json] = []
    y = 0
    for row, members in ROWS:
        panels.append({"type": "row", "title": row, "id": len(panels) + 1, "gridPos": _place(0, y, 24, 1), "panels": []})
        y += 1
        for number, (title, says, unit, curves) in enumerate(members):
            panels.append(
                {
                    "type": "timeseries",
                    "title": title,
                    "description": says,
                    "id": len(panels) + 1,
                    "datasource": _SOURCE,
                    "gridPos": _place(12 * (number % 2), y + 7 * (number // 2), 12, 7),
                    "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
                    "targets": [
                        {"refId": chr(ord("A") + i), "expr": expr, "legendFormat": legend, "datasource": _SOURCE}
                        for i, (expr, legend) in enumerate(curves)
                    ],
                }
            )
        y += 7 * ((len(members) + 1) // 2)
    return {
        "uid": "tokensidecar",
        "title": "Token Sidecar",
        "tags": ["tokensidecar"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                {"name": "source", "label": "Data source", "type": "datasource", "query": "prometheus"},
                {
                    "name": "instance",
                    "type": "query",
                    "datasource": _SOURCE,
                    "query": {"query": "label_values(tokensidecar_build_info, instance)", "refId": "instances"},
                    "refresh": 2,
                    "multi": True,
                    "includeAll": True,
                    "allValue": ".*",
                    "current": {"text": "All", "value": "$__all"},
                },
            ]
        },
        "panels": panels,
    }


_SOURCE: Json = {"type": "prometheus", "uid": "${source}"}


def _place(x: int, y: int, width: int, height: int) -> Json:
    return {"x": x, "y": y, "w": width, "h": height}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dashboard(), indent=1) + "\n")
