"""Words of `tokensidecar doctor`: what it saw of a sidecar's surroundings, and what it finds of that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from sidecar.config import Config
from sidecar.keeper import Keeper
from sidecar.keyring import Role


class Verdict(Enum):
    """From good to bad."""

    OK = "ok"
    WARN = "warn"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. `advice` is empty where there is nothing to do."""

    area: str
    verdict: Verdict
    says: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    """What answers at the http plane. `gauges`: (name, labels, value). `stranger`: something answers that is no sidecar."""

    ready: bool = False
    says: str = ""
    gauges: tuple[tuple[str, Mapping[str, str], float], ...] = ()
    stranger: bool = False

    def values(self, name: str) -> list[tuple[str, float]]:
        """Profile (empty: of none) and value of each series of that gauge."""
        return [(labels.get("profile", ""), value) for series, labels, value in self.gauges if series == name]

    def value(self, name: str) -> float | None:
        """The one value of that gauge."""
        return next((value for _, value in self.values(name)), None)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen. Problems are sentences; empty: none.

    `keepers`: by profile, its ring as a sidecar of this configuration holds it; `damaged`: by profile, why it cannot be used. `absent`:
    there is no store yet, and a start makes it. `now` is store time, `wall` this machine's. `written`: store time of a keeper's last write, where the store tells. `kms`: by role,
    what its key-encryption key could not do; `wrapped`: whether it was asked to wrap, as a keeper does. `keeping`: as a keeper.
    """

    config: Config
    keeping: bool = False
    running: Running | None = None
    store_problem: str = ""
    absent: bool = False
    revisions: Mapping[str, int] = field(default_factory=dict)
    keepers: Mapping[str, Keeper] = field(default_factory=dict)
    damaged: Mapping[str, str] = field(default_factory=dict)
    written: float | None = None
    now: float = 0.0
    wall: float = 0.0
    kms: Mapping[Role, str] = field(default_factory=dict)
    wrapped: bool = False
    pins_problem: str = ""
