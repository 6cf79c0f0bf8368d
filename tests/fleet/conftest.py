"""Fleets that are ended after their test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from tests.fleet.fleet import PROFILE, QUICK, Fleet

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class NewFleet(Protocol):
    """A fleet with times of its own; see Fleet."""

    def __call__(self, keys: Mapping[str, str] = QUICK, profile: Mapping[str, str] = PROFILE) -> Fleet: ...


@pytest.fixture
def new_fleet() -> Iterator[NewFleet]:
    made: list[Fleet] = []

    def new(keys: Mapping[str, str] = QUICK, profile: Mapping[str, str] = PROFILE) -> Fleet:
        made.append(Fleet(keys, profile))
        return made[-1]

    yield new
    if problems := [problem for fleet in made for problem in fleet.end()]:
        pytest.fail("\n".join(problems))


@pytest.fixture
def fleet(new_fleet: NewFleet) -> Fleet:
    return new_fleet()
