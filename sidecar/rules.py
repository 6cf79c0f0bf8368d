"""Reads the [policy.NAME] tables of the config file into the rules of `sidecar.policy`, and finds the line of a key in the file."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from typing import Any

from sidecar.addresses import Listen
from sidecar.caller import Identified, Plane
from sidecar.fields import Section, spell
from sidecar.kinds import PROFILE_NAME
from sidecar.policy import SERVED, Names, Rule, Verb
from sidecar.profile import Profile
from sidecar.rates import Rate
from sidecar.sections_policy import POLICY, POLICY_ISSUE, POLICY_VERB

Table = Callable[..., dict[str, Any]]
Problem = Callable[[str, str], None]

_VERBS = {verb.value: verb for verb in SERVED}


def read(
    found: object,
    profiles: Mapping[str, Profile],
    listen: Listen,
    *,
    table: Table,
    problem: Problem,
    note: Callable[[str], None],
) -> tuple[Rule, ...]:
    """The rules in the order of the file.

    Args:
        found: what stands under `policy`.
        profiles: those that are configured.
        listen: where callers come from.
        table: reads one table by its section; what is no good becomes a problem.
        problem: takes a key and a sentence.
        note: takes a sentence that serve says at its start.
    """
    if not isinstance(found, dict):
        problem("policy", "must be a table of policies: [policy.web]")
        return ()
    rules: list[Rule] = []
    for name, one in found.items():
        key = f"policy.{name}"
        try:
            PROFILE_NAME.read(name)
        except ValueError as error:
            problem(key, f"the name of a policy {error}")
            continue
        values = table(key, one, POLICY, further=tuple(_VERBS))
        caller = values.get("caller")
        if not isinstance(one, dict) or caller is None:
            continue
        planes = listen.planes_of(caller)
        if not planes:
            note(f"{key}.caller: no address of [listen] has the caller {caller}")
        asked = [verb for verb in one if verb in _VERBS]
        if not asked:
            problem(key, f"names no verb: it would allow nothing. Verbs are {', '.join(_VERBS)}")
        for word in asked:
            verb = _VERBS[word]
            if planes and not set(planes).intersection(SERVED[verb]):
                served = " and ".join(each.value for each in SERVED[verb])
                problem(f"{key}.{word}", f"is served on the {served} plane alone, and {caller} calls on the other")
            rules.append(_rule(f"{key}.{word}", caller, verb, one[word], profiles, table, problem, note))
    _tell_gaps(rules, listen, problem, note)
    return tuple(rules)


def _rule(
    key: str,
    caller: str,
    verb: Verb,
    found: object,
    profiles: Mapping[str, Profile],
    table: Table,
    problem: Problem,
    note: Callable[[str], None],
) -> Rule:
    section: Section = POLICY_ISSUE if verb is Verb.ISSUE else POLICY_VERB
    values = table(key, found, section)
    for profile in values.get("profiles", ()):
        if profile not in profiles:
            problem(f"{key}.profiles", f"names {profile!r}, which is not configured")
    max_ttl: int | None = values.get("max_ttl")
    for profile in values.get("profiles", ()):
        if max_ttl is not None and profile in profiles and profiles[profile].ttl > max_ttl:
            said = spell(profiles[profile].ttl)
            note(
                f"{key}.max_ttl: a request without a ttl would get profile {profile}'s, {said}, and is refused: it must name one"
            )
    names = {
        name: Names.of(values[name]) for name in ("audiences", "scopes", "subjects", "client_ids") if name in values
    }
    return Rule(
        key,
        caller,
        verb,
        frozenset(values.get("profiles", ())),
        **names,
        max_ttl=max_ttl,
        claims=frozenset(values["claims"]) if "claims" in values else None,
        rate=Rate.parsed(values["rate"]) if "rate" in values else None,
    )


def _tell_gaps(rules: list[Rule], listen: Listen, problem: Problem, note: Callable[[str], None]) -> None:
    """Default deny is meant, and surprises all the same; its absence must not."""
    if not rules:
        note("no policy: every caller of the app plane may issue and validate, under every profile")
    named = {rule.caller for rule in rules}
    gateways = (*listen.envoy, *listen.forward_auth)
    for plane, addresses in ((Plane.APP, (*listen.app, *gateways)), (Plane.ADMIN, listen.admin)):
        for address in addresses:
            if address.identified is Identified.ADDRESS:
                if rules and address.caller not in named:
                    note(
                        f"no policy names {address.caller}: whoever calls so on the {plane.value} plane may do nothing"
                    )
            elif not rules and plane is Plane.ADMIN:
                problem(
                    "listen.admin",
                    f"{address} needs a [policy]: without any, everybody whom it knows could rotate and revoke keys",
                )
            elif rules and not any(address.may_have(caller) for caller in named):
                note(f"no policy names anybody of {address}: whoever calls there may do nothing")


def line_of(text: str, key: str) -> int | None:
    """The line, from 1, on which a dotted key of a TOML file begins; None: it is not there.

    A prefix of whole statements is TOML too: the key begins right after the longest one that does not have it yet.
    """
    path, begins, lines = key.split("."), 1, text.splitlines(keepends=True)
    for number in range(1, len(lines) + 1):
        try:
            tree: Any = tomllib.loads("".join(lines[:number]))
        except tomllib.TOMLDecodeError:
            continue  # within a statement of several lines
        if _has(tree, path):
            return begins
        begins = number + 1
    return None


def _has(tree: Any, path: list[str]) -> bool:
    for step in path:
        if not isinstance(tree, dict) or step not in tree:
            return False
        tree = tree[step]
    return True
