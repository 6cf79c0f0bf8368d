"""Tokens passed both ways between the engine and the libraries, and what came of it as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sidecar.errors import InvalidTokenError
from sidecar.jose.suites import KEY_MANAGEMENT
from tests.forgeries import decode, encode, forgeries, inner_forgeries
from tests.interop import engine
from tests.interop.agreements import agreements
from tests.interop.library import FOLDER, LIBRARIES, Driver, Library, RefusedError
from tests.interop.mutations import KEYS, NESTED, compact, mutations, seal_nested, sign
from tests.interop.suites import TYP, Keys, Suite, public_half, suites

if TYPE_CHECKING:
    from collections.abc import Iterator

README = FOLDER / "README.md"

CLAIMS = (
    '{"iss":"https://issuer.example","sub":"user-42","aud":["orders","blå"],"exp":1700000300,"iat":1700000000,"jti":"Q2hhbmdl",'
    '"big":18446744073709551615,"small":-9223372036854775808,"ratio":0.1,"text":"\\u00e9 é 🔑 \\"\\\\","none":null,"act":{"sub":"a","n":[1,[]]}}'
).encode()  # fmt: skip
"""What a careless JSON library loses."""

BOTH, OPENED, UNKNOWN = "✓ ✓", "✓", "–"  # noqa: RUF001 # a dash for nothing


class Exchange:
    """The drivers, started when first asked for, and what is known by now; `close` ends them."""

    def __init__(self) -> None:
        self._drivers: dict[str, Driver] = {}
        self._cells: dict[tuple[str, Suite], str] = {}

    def driver(self, library: Library) -> Driver:
        """The running driver of this library."""
        if library.name not in self._drivers:
            self._drivers[library.name] = Driver(library)
        return self._drivers[library.name]

    def close(self) -> None:
        """Ends all drivers."""
        for driver in self._drivers.values():
            driver.close()

    def cell(self, library: Library, suite: Suite) -> str:
        """What the matrix says, once it is so: `BOTH` ways, `OPENED` by us alone, as we make none, or `UNKNOWN` to the library.

        A library that does not make and open its own token of a suite does not know it. `AssertionError` where tokens do not pass.
        """
        if (library.name, suite) not in self._cells:
            self._cells[library.name, suite] = self._pass(self.driver(library), suite)
        return self._cells[library.name, suite]

    def _pass(self, driver: Driver, suite: Suite) -> str:
        keys = suite.keys()
        try:
            theirs = driver.ask(suite.request("make", keys, payload=encode(CLAIMS)))
            assert decode(driver.ask(suite.request("open", keys, token=theirs))) == CLAIMS
        except RefusedError:
            return UNKNOWN
        try:
            assert engine.open_token(suite, keys, theirs) == CLAIMS
        except InvalidTokenError as refused:
            raise AssertionError(f"we refuse ({refused.stage}) {suite} by {driver.library.name}: {theirs}") from None
        if suite.opened_only:
            return OPENED
        ours = engine.make(suite, keys, CLAIMS)
        try:
            assert decode(driver.ask(suite.request("open", keys, token=ours))) == CLAIMS
        except RefusedError as refused:
            raise AssertionError(f"{driver.library.name} refuses our {suite} ({refused}): {ours}") from None
        return BOTH

    def opens(self, library: Library, suite: Suite, keys: Keys, token: str) -> bool:
        """Whether the library opens this token."""
        try:
            self.driver(library).ask(suite.request("open", keys, token=token))
        except RefusedError:
            return False
        return True

    def matrix(self) -> str:
        """The table of all suites and libraries."""
        rows = [
            f"| suite | {' | '.join(library.name for library in LIBRARIES)} |",
            f"| --- |{' --- |' * len(LIBRARIES)}",
        ]
        rows += [
            f"| {suite} | {' | '.join(self.cell(library, suite) for library in LIBRARIES)} |" for suite in suites()
        ]
        return "\n".join(rows)


def strictness(exchange: Exchange) -> str:
    """How many tokens of unsound structure each reader opens."""
    tokens = [(suite, keys, token) for suite, keys, name, token in unsound() if name != "genuine"]
    opened = {"this engine": sum(we_open(*token) for token in tokens)}
    for library in LIBRARIES:
        opened[library.name] = sum(exchange.opens(library, *token) for token in tokens)
    rows = [f"| | of {len(tokens)} tokens it opens |", "| --- | ---: |"]
    return "\n".join([*rows, *(f"| {name} | {count} |" for name, count in opened.items())])


def we_open(suite: Suite, keys: Keys, token: str) -> bool:
    """Whether the engine opens this token."""
    try:
        engine.open_token(suite, keys, token)
    except InvalidTokenError:
        return False
    return True


def unsound() -> Iterator[tuple[Suite, Keys, str, str]]:
    """Tokens that are sound in their cryptography alone, and among them some that are sound: (suite, keys, name, token)."""
    for suite, name, token in mutations():
        yield suite, KEYS, name, token
    for suite, keys, name, token in agreements():
        if suite.alg in KEY_MANAGEMENT:
            yield suite, keys, name, token


def forged() -> Iterator[tuple[Suite, Keys, str, str]]:
    """All that is known to be tried, sound in nothing: (suite, keys, name, token)."""
    inner = sign(compact({"alg": "ES256", "kid": KEYS["signature"]["kid"], "typ": TYP}))
    public = public_half(KEYS["signature"])
    for name, token in forgeries(seal_nested(inner.encode()), public):
        yield NESTED, KEYS, name, token
    for name, token in inner_forgeries(seal_nested, inner, public):
        yield NESTED, KEYS, name, token


def filled(text: str, tables: dict[str, str]) -> str:
    """The text with each table between its two markers. `ValueError`: there are none."""
    for name, table in tables.items():
        begin, end = f"<!-- {name}: made by python -m tests.interop -->", f"<!-- end of {name} -->"
        head, found, rest = text.partition(f"{begin}\n")
        _, ended, tail = rest.partition(end)
        if not found or not ended:
            raise ValueError(f"no markers for {name}")
        text = f"{head}{found}{table}\n{end}{tail}"
    return text
