"""What `tokensidecar doctor` makes of what it saw: findings, each with a verdict, what was found, and what to do about it.

Each area of the world has a function in `CHECKS`; a further one is a function and a line there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sidecar import findings_host, findings_store
from sidecar.seen import Finding, Seen, Verdict

Check = Callable[[Seen], Iterator[Finding]]
CHECKS: tuple[Check, ...] = (
    findings_host.configuration,
    findings_host.sidecar,
    findings_store.store,
    findings_store.kms,
    findings_store.clock,
    findings_host.permissions,
    findings_host.serving,
    findings_store.times,
    findings_store.state,
    findings_store.keys,
)
"""In the order in which they are told. What is examined later is one more."""


def findings(seen: Seen) -> list[Finding]:
    """All of them."""
    return [finding for check in CHECKS for finding in check(seen)]


def worst(found: list[Finding]) -> Verdict:
    """The verdict of all of them together."""
    return max((each.verdict for each in found), key=list(Verdict).index, default=Verdict.OK)
