"""The engine's README says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sidecar.jose.encrypt import encrypt
from sidecar.jose.suites import CONTENT, KEY_MANAGEMENT, SIGNATURES
from tests.jose.reading import Reader

ENGINE = Path(__file__).parents[2] / "sidecar" / "jose"
README = (ENGINE / "README.md").read_text()


def test_the_suites_are_those_of_the_tables() -> None:
    rows = re.findall(r"^\| (JWS `alg`|JWE `alg`|JWE `enc`) \| (\S+) \|", README, re.MULTILINE)
    tables = {"JWS `alg`": SIGNATURES, "JWE `alg`": KEY_MANAGEMENT, "JWE `enc`": CONTENT}
    assert sorted(rows) == sorted((layer, name) for layer, table in tables.items() for name in table)


def test_the_stages_are_those_of_the_code() -> None:
    raised = {stage for path in ENGINE.glob("*.py") for stage in re.findall(r'"(jose\.\w+)"', path.read_text())}
    assert set(re.findall(r"^\| `(jose\.\w+)` \|", README, re.MULTILINE)) == raised


def test_the_modules_are_those_of_the_package() -> None:
    named = set(re.findall(r"^\| `(\w+\.py)` \|", README, re.MULTILINE))
    assert named == {path.name for path in ENGINE.glob("*.py")} - {"__init__.py"}


@pytest.mark.parametrize("length", [100, 500, 2000])
def test_tokens_have_the_sizes_that_are_said(length: int) -> None:
    reader, payload = Reader(), b"a" * length
    found = re.search(r"about 1\.33 \*n\* \+ (\d+); nested about 1\.78 \*n\* \+ (\d+)", README)
    assert found is not None
    alone, nested = int(found[1]), int(found[2])
    token = encrypt(payload, reader.encryption, content="A256GCM", typ="at+jwt")
    assert len(token) == pytest.approx(4 / 3 * length + alone, abs=3)
    assert len(reader.make(payload)) == pytest.approx(16 / 9 * length + nested, abs=3)
