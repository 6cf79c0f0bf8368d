"""What the fault tests share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.faults.witness import Witness
from tests.running import SERVE, RunningSidecar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

REPEATS = 100 if os.environ.get("TOKENSIDECAR_TEST_ALL") == "true" else 1


PROFILES = """
[profiles.default]
issuer = "urn:test"
audiences = ["orders"]
audit_validations = true
"""


class NewSidecar(Protocol):
    """A sidecar of the test's own that is not started yet; see RunningSidecar."""

    def __call__(
        self, config: str | None = None, env: Mapping[str, str | None] | None = None, command: Sequence[str] = SERVE
    ) -> RunningSidecar: ...


class NewWitness(Protocol):
    """A witness of a running sidecar; see Witness."""

    def __call__(self, running: RunningSidecar, profile: str = "default", *, ttl: int | None = None) -> Witness: ...


@pytest.fixture
def new_sidecar() -> Iterator[NewSidecar]:
    """Sidecars to prepare before their start; what runs at the end must exit with 0."""
    made: list[RunningSidecar] = []

    def new(
        config: str | None = None, env: Mapping[str, str | None] | None = None, command: Sequence[str] = SERVE
    ) -> RunningSidecar:
        made.append(RunningSidecar(config, env, command))
        return made[-1]

    yield new
    problems = []
    for running in made:
        try:
            running.stop()
        except AssertionError as problem:
            problems.append(str(problem))
        finally:
            running.kill()
            running.remove()
    if problems:
        pytest.fail("\n".join(problems))


@pytest.fixture
def new_witness() -> Iterator[NewWitness]:
    """Witnesses, whose connections are closed at the end."""
    made: list[Witness] = []

    def new(running: RunningSidecar, profile: str = "default", *, ttl: int | None = None) -> Witness:
        made.append(Witness(running, profile, ttl=ttl))
        return made[-1]

    yield new
    for witness in made:
        witness.close()


@pytest.fixture
def sidecar_with_file(new_sidecar: NewSidecar) -> RunningSidecar:
    """One that must put everything on record in the file `audit/audit.jsonl` of its directory."""
    running = new_sidecar()
    folder = running.directory / "audit"
    folder.mkdir()
    config = running.directory / "config.toml"
    config.write_text(f'{PROFILES}\n[audit]\nsink = "file:{folder}/audit.jsonl"\nrequired = true\n', encoding="utf-8")
    running.command += ["--config", str(config)]
    return running
