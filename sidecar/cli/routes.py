"""The effective [envoy], [forward_auth] and [[routes]], as `check --print` shows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sidecar.config import Config
from sidecar.routes import Place, Route


def lines(config: Config, toml: Callable[[Any], str]) -> list[str]:
    """TOML, as far as it says more than the defaults; `toml` writes one value."""
    found: list[str] = []
    if config.listen.envoy:
        found += ["", "[envoy]", f"certificate = {toml(config.envoy_certificate)}"]
    if config.listen.forward_auth:
        spoken = config.forward_auth
        found += ["", "[forward_auth]", f"request = {toml(spoken.family)}"]
        found += [f"certificate = {toml(spoken.certificate)}"] if spoken.certificate else []
    for route in config.routes:
        found += ["", "[[routes]]", *_route(route, toml)]
    return found


def _route(route: Route, toml: Callable[[Any], str]) -> list[str]:
    lists = {"hosts": route.hosts, "paths": route.paths, "methods": sorted(route.methods)}
    shown = [f"name = {toml(route.name)}", *(f"{name} = {toml(value)}" for name, value in lists.items() if value)]
    if route.extensions:
        shown.append(f"extensions = {_table(route.extensions, toml)}")
    if route.open:
        return [*shown, "open = true"]
    shown += [f"profiles = {toml(route.profiles)}", f"audiences = {toml(route.audiences)}"]
    shown += [f"scopes = {toml(route.scopes)}", f"token = {toml([_place(place) for place in route.token])}"]
    shown.append(f"upstream = {toml(route.upstream.value)}")
    if route.claims:
        shown.append(f"claims = {_table(route.claims, toml)}")
    further = {"phantom": route.phantom, "origin": route.origin}
    shown += [f"{name} = {toml(value)}" for name, value in further.items() if value]
    return [*shown, f"dpop_nonce = {toml(route.dpop_nonce)}"]


def _table(values: Any, toml: Callable[[Any], str]) -> str:
    return f"{{ {', '.join(f'{toml(name)} = {toml(value)}' for name, value in values.items())} }}"


def _place(place: Place) -> str:
    return f"{place.kind}:{place.name}" if place.name else place.kind
