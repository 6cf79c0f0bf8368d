"""Metrics have as many series as names in the contract and the configuration, and no more."""

from __future__ import annotations

from sidecar.metrics import CALLERS, Metrics


def test_callers_that_certificates_name_without_end_share_one_series() -> None:
    metrics = Metrics(("default",), "1")
    for number in range(CALLERS + 50):
        metrics.count_plain("default", f"spiffe://example.org/{number}", accepted=True)
    metrics.count_plain("default", "spiffe://example.org/0", accepted=True)
    lines = [
        line for line in metrics.text().decode().splitlines() if line.startswith("tokensidecar_plain_tokens_total{")
    ]
    assert len(lines) == CALLERS + 1
    assert sum('caller="others"' in line and line.endswith(" 50.0") for line in lines) == 1
    assert sum('caller="spiffe://example.org/0"' in line and line.endswith(" 2.0") for line in lines) == 1
