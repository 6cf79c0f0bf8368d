"""The shortest way to a violation that was found: whatever can be left out is."""

from __future__ import annotations

from dataclasses import replace

from tests.model.fleet import simulate
from tests.model.scenario import Event, Scenario

TRIES = 150


def shrunk(found: Scenario, rule: str) -> Scenario:
    """The scenario with as few events as still break that rule, looked for by halves, then by quarters, and so on."""
    events = list(found.events)
    tries, part = 0, max(1, len(events) // 2)
    while part >= 1 and tries < TRIES:
        start = 0
        while start < len(events) and tries < TRIES:
            fewer = events[:start] + events[start + part :]
            tries += 1
            if _breaks(_with(found, fewer), rule):
                events = fewer
            else:
                start += part
        part = part // 2 if part > 1 else 0
    return _with(found, events)


def told(scenario: Scenario) -> list[str]:
    """Its trace, without what those do who have no part in it."""
    result = simulate(scenario, tracing=True)
    last = result.trace[-1] if result.trace else ""
    # Who is named in the violation, and who made, rotated or revoked anything.
    named = {word.rstrip(":,") for word in last.split() if word.startswith("#")}
    token = next((word.rstrip(",") for word in last.split() if word.startswith(("jwe-", "jws-"))), "-")
    doing = (" has ", " rotate", " revoke", "duty", "VIOLATED", f"{token} ")
    return [line for line in result.trace if any(d in line for d in doing) or any(f"  {who} " in line for who in named)]


def _with(scenario: Scenario, events: list[Event]) -> Scenario:
    return replace(scenario, events=tuple(events))


def _breaks(scenario: Scenario, rule: str) -> bool:
    violations = simulate(scenario).violations
    return bool(violations) and violations[0].rule == rule
