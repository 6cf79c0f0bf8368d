"""Tokens pass between the engine and other libraries both ways, and what all of them refuse for its structure is refused here."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import pytest

from tests.interop import engine
from tests.interop.exchange import CLAIMS, README, UNKNOWN, Exchange, filled, forged, strictness, unsound, we_open
from tests.interop.library import LIBRARIES, Library
from tests.interop.suites import Suite, suites

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(900)  # a first build downloads and compiles
every_library = pytest.mark.needs(*sorted({tool for library in LIBRARIES for tool in library.needs}))


@pytest.fixture(scope="session")
def exchange() -> Iterator[Exchange]:
    exchange = Exchange()
    yield exchange
    exchange.close()


@pytest.mark.parametrize("suite", list(suites()), ids=str)
@pytest.mark.parametrize(
    "library", [pytest.param(known, marks=pytest.mark.needs(*known.needs), id=known.folder) for known in LIBRARIES]
)
def test_tokens_pass_both_ways(exchange: Exchange, library: Library, suite: Suite) -> None:
    exchange.cell(library, suite)


def test_no_token_is_made_under_an_algorithm_for_opening() -> None:
    for suite in suites():
        if suite.opened_only:
            with pytest.raises(ValueError, match="does not"):
                engine.make(suite, suite.keys(), CLAIMS)


@every_library
def test_what_every_library_refuses_is_refused_here(exchange: Exchange) -> None:
    refused_by_all = 0
    for suite, keys, name, token in chain(unsound(), forged()):
        knowing = [library for library in LIBRARIES if exchange.cell(library, suite) != UNKNOWN]
        opened = [exchange.opens(library, suite, keys, token) for library in knowing]
        ours = we_open(suite, keys, token)
        assert all(opened) or not ours, f"{suite}, {name}: opened here, refused elsewhere: {token}"
        assert ours or name != "genuine", f"{suite} is refused here: {token}"
        refused_by_all += not any(opened)
    assert refused_by_all > 100


@every_library
def test_tables_are_what_ran(exchange: Exchange) -> None:
    text = README.read_text()
    assert text == filled(text, {"matrix": exchange.matrix(), "structure": strictness(exchange)})
