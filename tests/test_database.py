"""Where a database is: what the URL and its table may say, and that no secret goes with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.config import ConfigError, load
from sidecar.database import Database, read


def _read(url: str, **table: object) -> tuple[Database | None, list[tuple[str, str]]]:
    problems: list[tuple[str, str]] = []
    found = read(url, table, lambda key, sentence: problems.append((key, sentence)))
    return found, problems


@pytest.mark.parametrize(
    ("url", "hosts", "local", "shown"),
    [
        ("postgresql://r@db/n", (("db", 5432),), False, "postgresql://r@db/n"),
        ("postgresql://r@db.example.com:6432/n", (("db.example.com", 6432),), False, None),
        ("postgresql://r@a,b:5433/n", (("a", 5432), ("b", 5433)), False, "postgresql://r@a,b:5433/n"),
        ("postgresql://r@127.0.0.1/n", (("127.0.0.1", 5432),), True, None),
        ("postgresql://r@localhost/n", (("localhost", 5432),), True, None),
        ("postgresql://r@127.0.0.1,db/n", (("127.0.0.1", 5432), ("db", 5432)), False, None),
        ("postgresql://r@[::1]:5433/n", (("::1", 5433),), True, "postgresql://r@[::1]:5433/n"),
        ("postgresql://r@/n?host=/run/postgresql", (("/run/postgresql", 5432),), True, None),
        ("postgresql://r@/n?host=/run/pg&port=5433", (("/run/pg", 5433),), True, None),
    ],
)
def test_url_names_hosts_role_and_database(
    url: str, hosts: tuple[tuple[str, int], ...], local: bool, shown: str | None
) -> None:
    found, problems = _read(url)
    assert problems == []
    assert found is not None
    assert (found.hosts, found.role, found.name, found.local, found.plaintext) == (hosts, "r", "n", local, local)
    assert shown is None or str(found) == shown


def test_names_may_be_percent_encoded() -> None:
    found, _ = _read("postgresql://a%40b@db/my%2Fdb")
    assert found is not None
    assert (found.role, found.name) == ("a@b", "my/db")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://r:hunter2@db/n",
        "postgresql://r:hunter%32@db/n",
        "postgresql://r@db/n?password=hunter2",
        "postgresql://r@/n?host=/run&password=hunter2",
        "postgresql://r:hunter2@127.0.0.1/n",
    ],
)
def test_password_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    found, problems = _read(url)
    assert found is None
    assert problems[0][0] == "keys.store"
    assert "holds a password" in problems[0][1]
    assert "keys.postgresql.password_file" in problems[0][1]
    assert "hunter" not in str(problems)


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("postgresql://db/n", "must name a role"),
        ("postgresql://@db/n", "must name a role"),
        ("postgresql://r@db", "must name a database"),
        ("postgresql://r@db/", "must name a database"),
        ("postgresql://r@/n", "must name a host"),
        ("postgresql://r@db:0/n", "must name a host"),
        ("postgresql://r@db:65536/n", "must name a host"),
        ("postgresql://r@a,,b/n", "must name a host"),
        ("postgresql://r@a b/n", "must name a host"),
        ("postgresql://r@/n?host=relative", "must name a host"),
        ("postgresql://r@/n?host=/run&port=x", "must name a host"),
        ("postgresql://r@db/n?host=/run", "must name a host"),
        ("postgresql://r@db/n?sslmode=disable", "must not have the parameter 'sslmode'"),
        ("postgresql://r@db/n?options=-c%20x", "must not have the parameter 'options'"),
        (f"postgresql://{'r' * 64}@db/n", "must name a role"),
    ],
)
def test_url_that_is_no_good_is_told(url: str, word: str) -> None:
    found, problems = _read(url)
    assert found is None
    assert any(word in sentence for _, sentence in problems), problems


def test_what_excludes_or_needs_each_other_is_told() -> None:
    assert _read("postgresql://r@db/n", password_file="/a", passfile="/b")[1][0][0] == "keys.postgresql.passfile"
    assert _read("postgresql://r@db/n", certificate="/a")[1][0][0] == "keys.postgresql.certificate_key"
    assert _read("postgresql://r@db/n", certificate_key="/a")[1][0][0] == "keys.postgresql.certificate"


def test_plaintext_beyond_this_machine_must_be_said() -> None:
    found, _ = _read("postgresql://r@db/n", allow_plaintext=True)
    assert found is not None
    assert (found.local, found.plaintext) == (False, True)


def _load(tmp_path: Path, text: str) -> Database | None:
    file = tmp_path / "config.toml"
    file.write_text('[profiles.default]\nissuer = "urn:test"\naudiences = ["a"]\n' + text)
    return load(str(file), {}).keys.database


def test_file_names_a_database(tmp_path: Path) -> None:
    found = _load(
        tmp_path,
        '[keys]\nstore = "postgresql://orders@db/tokens"\n[keys.postgresql]\npassword_file = "/run/secrets/db"\nlisten = true\n',
    )
    assert found is not None
    assert (found.role, str(found.password_file), found.listen) == ("orders", "/run/secrets/db", True)


def test_settings_of_a_database_that_is_not_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"keys\.postgresql\.listen: is for keys\.store"):
        _load(tmp_path, "[keys.postgresql]\nlisten = true\n")


def test_password_in_the_file_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds a password") as caught:
        _load(tmp_path, '[keys]\nstore = "postgresql://orders:hunter2@db/tokens"\n')
    assert "hunter2" not in str(caught.value)
