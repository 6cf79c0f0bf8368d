"""Reads the [[routes]] of the config file into the routes of `sidecar.routes`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from sidecar.profile import Format, Profile
from sidecar.routes import Place, Route, Upstream, is_pattern
from sidecar.sections_routes import ROUTE, ROUTES_MOST

Table = Callable[..., dict[str, Any]]
Problem = Callable[[str, str], None]

_OF_TOKENS = ("profiles", "audiences", "scopes", "token", "upstream", "claims", "phantom", "origin", "dpop_nonce")


def read(
    found: object,
    profiles: Mapping[str, Profile],
    *,
    asked: bool,
    table: Table,
    problem: Problem,
    note: Callable[[str], None],
) -> tuple[Route, ...]:
    """The routes in the order of the file.

    Args:
        found: what stands under `routes`.
        profiles: those that are configured.
        asked: there is an address where a gateway can ask.
        table: reads one table by its section; what is no good becomes a problem.
        problem: takes a key and a sentence.
        note: takes a sentence that serve says at its start.
    """
    if not isinstance(found, list) or len(found) > ROUTES_MOST:
        problem("routes", f"must be a list of at most {ROUTES_MOST} routes: [[routes]]")
        return ()
    if found and not asked:
        note("routes: no gateway can ask about them: listen.envoy and listen.forward_auth are empty")
    if asked and not found:
        note("routes: there are none, so every request that a gateway asks about is denied")
    routes: list[Route] = []
    for index, one in enumerate(found):
        key = f"routes[{index}]"
        values = table(key, one, ROUTE)
        if "name" not in values:
            continue
        if values["name"] in {route.name for route in routes}:
            problem(f"{key}.name", f"another route is named {values['name']!r} already")
        routes.append(_route(key, values, one.keys(), profiles, problem))
    return tuple(routes)


def _route(
    key: str, values: dict[str, Any], given: Collection[str], profiles: Mapping[str, Profile], problem: Problem
) -> Route:
    for pattern in values.get("paths", ()):
        if not is_pattern(pattern):
            problem(f"{key}.paths", f"{pattern!r} is not a path in normal form, alone or followed by /*")
    if values.get("open"):
        for unused in _OF_TOKENS:
            if unused in given:
                problem(f"{key}.{unused}", "is about tokens, and an open route asks for none")
        return Route(**_made(values))
    if "audiences" not in given:
        problem(
            f"{key}.audiences", "is required: one of these must be in the token's aud; open = true asks for no token"
        )
    for name in values.get("profiles", ("default",)):
        if name not in profiles:
            problem(f"{key}.profiles", f"names {name!r}, which is not configured")
    upstream = Upstream(values.get("upstream", Upstream.STRIP.value))
    if (upstream is Upstream.CLAIMS) != ("claims" in given) and upstream in (Upstream.CLAIMS, Upstream.STRIP):
        problem(f"{key}.claims", 'and upstream = "claims" go together: name the headers, and the claim that each gets')
    if (upstream is Upstream.PHANTOM) != ("phantom" in given):
        problem(f"{key}.phantom", 'and upstream = "phantom" go together: name the profile of what goes upstream')
    elif "phantom" in values:
        _check_phantom(f"{key}.phantom", values["phantom"], values.get("audiences", ()), profiles, problem)
    return Route(**_made(values))


def _check_phantom(
    key: str, name: str, audiences: tuple[str, ...], profiles: Mapping[str, Profile], problem: Problem
) -> None:
    profile = profiles.get(name)
    if profile is None:
        problem(key, f"names {name!r}, which is not configured")
    elif profile.format is not Format.SIGNED or profile.imported is not None:
        problem(key, f"profile {name!r} is not of format signed, which upstreams that know JWS and JWKS alone can read")
    elif missing := sorted(set(audiences) - set(profile.audiences)):
        problem(key, f"profile {name!r} does not allow the audience {missing[0]!r} of this route")


def _made(values: dict[str, Any]) -> dict[str, Any]:
    made = dict(values)
    if "methods" in made:
        made["methods"] = frozenset(made["methods"])
    if "token" in made:
        made["token"] = tuple(Place(*text.split(":", 1)) for text in made["token"])
    if "upstream" in made:
        made["upstream"] = Upstream(made["upstream"])
    return made
