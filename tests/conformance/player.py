"""Plays scenarios: each step to the driver, each answer compared with what the step says."""

from __future__ import annotations

import json
import re
import time
import tomllib
from typing import TYPE_CHECKING, Any

from tests.conformance.driven import FOLDER

if TYPE_CHECKING:
    from tests.conformance.driven import Driver
    from tests.conformance.stage import Stage

NAME = re.compile(r"\$([a-z_]+)")
# Of a step, but not of the command: what is expected of its answer.
EXPECTED = frozenset(
    {"keep", "expect", "other", "claims", "error", "fields", "results", "ends", "at_least", "after", "within", "until"}
)
REGISTERED = frozenset({"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "scope", "cnf", "sid"})


class LacksError(Exception):
    """The driver said that its client has no such thing."""


def scenarios() -> list[dict[str, Any]]:
    """All of clients/conformance/scenarios.toml, in order."""
    with (FOLDER / "scenarios.toml").open("rb") as file:
        found: list[dict[str, Any]] = tomllib.load(file)["scenario"]
    return found


def play(scenario: dict[str, Any], driver: Driver, stage: Stage) -> None:
    """AssertionError, naming the step, where the client does not do as it should; LacksError where it cannot."""
    names = stage.set()
    try:
        for number, step in enumerate(scenario["steps"], 1):
            try:
                _step(_filled(step, names), driver, stage, names)
            except AssertionError as problem:
                what = step.get("do") or step["happens"]
                raise AssertionError(f"step {number}, {what}: {problem}") from problem
    finally:
        stage.clear()


def _filled(part: Any, names: dict[str, str]) -> Any:
    """With each $name replaced."""
    if isinstance(part, str):
        return NAME.sub(lambda found: names[found[1]], part)
    if isinstance(part, list):
        return [_filled(each, names) for each in part]
    if isinstance(part, dict):
        return {name: _filled(each, names) for name, each in part.items()}
    return part


def _step(step: dict[str, Any], driver: Driver, stage: Stage, names: dict[str, str]) -> None:
    if "happens" in step:
        made = stage.happens(step)
        if made is not None:
            names[step["keep"]] = made
        return
    command = {name: each for name, each in step.items() if name not in EXPECTED}
    begin = time.monotonic()
    answer = driver.ask(command)
    while "until" in step and end(answer) != step["until"] and time.monotonic() - begin < step["within"]:
        time.sleep(0.05)
        answer = driver.ask(command)
    took = time.monotonic() - begin
    if answer.get("error") == "lacks":
        raise LacksError(answer["reason"])
    wanted = step.get("until") or step.get("error") or "ok"
    assert end(answer) == wanted or (wanted == "unavailable" and kind(end(answer)) == wanted), (
        f"ended as {end(answer)}, not as {wanted}"
    )
    assert took <= step.get("within", took), f"took {took:.2f} s, not at most {step['within']} s"
    assert took >= step.get("after", 0), f"took {took:.2f} s, not at least {step['after']} s"
    if "fields" in step:
        assert answer["fields"] == step["fields"], f"the fields are {answer['fields']}, not {step['fields']}"
    _compare(step, answer.get("ok", {}))
    for name, path in step.get("keep", {}).items():
        names[name] = _at(answer["ok"], path)


def _compare(step: dict[str, Any], facts: dict[str, Any]) -> None:
    for name, value in step.get("expect", {}).items():
        assert facts[name] == value, f"{name} is {facts[name]!r}, not {value!r}"
    for name, value in step.get("other", {}).items():
        assert facts[name], f"{name} is empty"
        assert facts[name] != value, f"{name} is the same as before"
    if "claims" in step:
        assert further(facts["claims_json"]) == pairs(step["claims"]), "the claims are not those that were given"
    if "results" in step:
        assert [end(each) for each in facts["results"]] == step["results"]
    if "ends" in step:
        assert {kind(each) for each in facts["ends"]} <= set(step["ends"]), facts["ends"]
        assert facts["ends"].get("ok", 0) > 0, facts["ends"]
        assert sum(facts["ends"].values()) >= step["at_least"], facts["ends"]


def end(answer: dict[str, Any]) -> str:
    """How a call ended: ok, or the kind of error and its reason."""
    return "ok" if "ok" in answer else f"{answer['error']} {answer['reason']}".strip()


def kind(ended: str) -> str:
    """Without the reason."""
    return ended.partition(" ")[0]


def pairs(text: str) -> list[tuple[str, Any]]:
    """The members of an object, in order, and numbers as they were written."""
    found: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list, parse_int=str, parse_float=str)
    return [(name, value) for name, value in found]


def further(text: str) -> list[tuple[str, Any]]:
    """Those that are not registered: what the caller gave."""
    return [(name, value) for name, value in pairs(text) if name not in REGISTERED]


def _at(facts: Any, path: str) -> str:
    for name in path.split("."):
        facts = facts[int(name) if isinstance(facts, list) else name]
    return str(facts)
