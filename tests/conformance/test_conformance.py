"""Every client does what the scenarios say, against a real sidecar; what one cannot do, it says, and so does the matrix."""

from __future__ import annotations

import pytest

from tests.conformance.driven import Driver, Language, build, languages
from tests.conformance.matrix import README, filled
from tests.conformance.player import LacksError, play, scenarios
from tests.conformance.stage import Stage


@pytest.mark.timeout(1000)  # a first build fetches and compiles everything
@pytest.mark.parametrize(
    "language",
    [pytest.param(each, id=each.name, marks=pytest.mark.needs(*each.needs)) for each in languages()],
)
def test_client_plays_every_scenario(language: Language) -> None:
    build(language)
    problems = {}
    stage = Stage()
    try:
        with Driver(language) as driver:
            for scenario in scenarios():
                name = scenario["name"]
                try:
                    play(scenario, driver, stage)
                except AssertionError as problem:
                    problems[name] = str(problem)
                except LacksError as lack:
                    if name not in language.lacks:
                        problems[name] = f"the driver lacks {lack}, and languages.toml does not say so"
                else:
                    if name in language.lacks:
                        problems[name] = "languages.toml says that the client cannot, and it can"
    finally:
        stage.close()
    assert problems == {}


def test_only_scenarios_are_lacked() -> None:
    names = [scenario["name"] for scenario in scenarios()]
    assert len(set(names)) == len(names)
    assert [lack for language in languages() for lack in language.lacks if lack not in names] == []


def test_matrix_of_the_readme_is_that_of_languages_and_scenarios() -> None:
    text = README.read_text(encoding="utf-8")
    assert filled(text) == text, "run: python -m tests.conformance"
