"""`tokensidecar doctor` beside a real sidecar and without one: what it says, that it changes nothing, and that it shows no secret."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.fleet.conftest import fleet, new_fleet
from tests.fleet.fleet import revision
from tests.kms.aws_servers import IDENTITY, Aws
from tests.running import RunningSidecar
from tests.test_cli import on_terminal, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fleet.fleet import Fleet

__all__ = ["fleet", "new_fleet"]
CONFIG = """
[profiles.default]
issuer = "urn:test"
audiences = ["orders"]
[policy.web]
caller = "unix:app"
issue = { profiles = ["default"] }
[policy.operators]
caller = "unix:admin"
rotate = { profiles = ["default"] }
"""


@pytest.fixture
def place() -> Iterator[RunningSidecar]:
    """A sidecar that has run, and runs no more."""
    running = RunningSidecar(CONFIG)
    try:
        running.start()
        running.wait_until_ready()
        running.stop()
        yield running
    finally:
        running.kill()
        running.remove()


def _told(running: RunningSidecar, *arguments: str, code: int = 0) -> list[dict[str, str]]:
    """The findings that are not ok."""
    done = run(running, "doctor", "--config", str(running.directory / "config.toml"), "--json", *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stderr == ""
    told: dict[str, Any] = json.loads(done.stdout)
    return [each for each in told["findings"] if each["verdict"] != "ok"]


def _files(running: RunningSidecar) -> dict[str, str]:
    """What is in the state directory; SQLite's index of a log that is in use apart, in which readers are noted."""
    files = [path for path in running.directory.rglob("*") if path.is_file() and path.suffix != ".db-shm"]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.name[:3] != "std"}


def test_nothing_is_wrong_and_nothing_changes_before_while_and_after_a_sidecar_runs(place: RunningSidecar) -> None:
    for prepare in (lambda: shutil.rmtree(place.state_dir), place.start, place.stop, place.start, place.kill):
        prepare()
        place.state_dir.mkdir(mode=0o700, exist_ok=True)
        if place.running:
            place.wait_until_ready()
        before = _files(place)
        assert _told(place) == []
        assert _files(place) == before


def test_a_store_of_the_version_before_is_read_as_it_is(place: RunningSidecar) -> None:
    with closing(sqlite3.connect(place.state_dir / "state.db")) as database:
        known = {"store", "documents"}
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            if name not in known:
                database.execute(f"DROP TABLE {name}")
        database.execute("PRAGMA user_version = 1")
        database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = _files(place)
    assert _told(place) == []
    assert _files(place) == before


def _damage(place: RunningSidecar) -> None:
    database = place.state_dir / "state.db"
    database.write_bytes(database.read_bytes()[:6000])


def _roll_back(place: RunningSidecar) -> None:
    database = place.state_dir / "state.db"
    copy = place.directory / "copy.db"
    shutil.copy(database, copy)
    place.start()
    place.wait_until_ready()
    done = run(place, "rotate", "--address", place.admin_socket)
    assert done.returncode == 0, done.stderr
    assert revision(place) == 2
    place.stop()
    shutil.copy(copy, database)


@pytest.mark.parametrize(
    ("break_", "area", "words", "advice"),
    [
        (lambda place: (place.state_dir / "kek").chmod(0o644), "kms", "role issue and open: .*chmod 600", "no sidecar starts"),
        (lambda place: (place.state_dir / "kek").write_text("00" * 32), "kms", "does not open the keys of profile 'default'", ""),
        (lambda place: (place.state_dir / "kek").unlink(), "kms", "there is no key-encryption key", "no sidecar starts"),
        (_damage, "store", "is damaged: restore it from a backup", "until that is mended"),
        (_roll_back, "state", "gone back to an older state: revision 1 after 2", "accept-rollback"),
        (lambda place: (place.state_dir / "pins.json").write_text("{}"), "state", "the file of pins is damaged", "accept-rollback"),
    ],
)  # fmt: skip
def test_what_is_broken_is_named_with_what_to_do(
    place: RunningSidecar, break_: Any, area: str, words: str, advice: str
) -> None:
    break_(place)
    before = _files(place)
    told = _told(place, code=1)
    assert [(each["area"], each["verdict"]) for each in told] == [(area, "problem")]
    assert re.search(words, told[0]["says"])
    assert advice in told[0]["advice"]
    assert _files(place) == before


def test_no_secret_is_shown_and_a_person_sees_a_table_of_eighty_columns(place: RunningSidecar) -> None:
    kek = (place.state_dir / "kek").read_text().strip()
    (place.state_dir / "kek").chmod(0o640)
    config = str(place.directory / "config.toml")
    coloured = on_terminal(place, "doctor", "--config", config)
    plain = on_terminal(place, "doctor", "--config", config, NO_COLOR="1")
    piped = run(place, "doctor", "--config", config).stdout
    assert re.search(r"\x1b\[[0-9;]*31m", coloured)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", plain)
    assert "\x1b" not in piped
    for text in (coloured, plain, piped):
        shown = re.sub(r"\x1b\[[0-9;]*m", "", text)
        assert max(map(len, shown.splitlines())) <= 80
        assert "✘ problem" in shown
        assert "1 problem" in shown
        assert kek not in text
        assert kek[:16] not in text


def test_a_bad_file_is_told_by_its_keys(place: RunningSidecar) -> None:
    (place.directory / "config.toml").write_text('[keys]\nstore = "floppy:/a"\nkeck = "file:/x"\n')
    told = _told(place, code=2)
    assert {each["says"].partition(":")[0] for each in told} == {"keys.store", "keys.keck"}


def test_a_fleet_s_reader_and_its_keeper(fleet: Fleet) -> None:
    validator = fleet.prepared(fleet.config("validator"))
    told = _told(validator, code=1)
    assert [(each["area"], each["verdict"]) for each in told if each["verdict"] == "problem"] == [("store", "problem")]
    fleet.once()
    validator.start()
    validator.wait_until_ready()
    usual = ["config", "times", "times"]  # without policies, and with the times of a test
    assert [each["area"] for each in _told(validator)] == usual
    assert [each["area"] for each in _told(fleet.prepared(fleet.config("both")), "--keeper")] == usual
    fleet.keks["open"] = fleet.keks["issue"]
    thief = fleet.prepared(fleet.config("validator"))
    assert [each["area"] for each in _told(thief, code=1)] == ["config", "kms", "times", "times"]


def test_a_kms_that_is_away_is_told_beside_a_sidecar_that_runs_on() -> None:
    aws = Aws()
    aws.start()
    config = f'{CONFIG}[keys]\nkek = "awskms:{aws.make_key()}"\n[keys.aws]\nendpoint = "{aws.endpoint}"\n'
    try:
        with RunningSidecar(config, env=IDENTITY) as running:
            assert _told(running) == []
            aws.stop()
            told = _told(running, code=1)
            assert [(each["area"], each["verdict"]) for each in told] == [("kms", "problem")]
            assert f"AWS KMS cannot be reached at {aws.endpoint}" in told[0]["says"]
            assert "one that runs goes on, through rotations too" in told[0]["advice"]
    finally:
        aws.stop()


def test_something_else_at_the_port_is_told(place: RunningSidecar) -> None:
    aws = Aws()
    aws.start()
    try:
        place.env["TOKENSIDECAR_LISTEN_HTTP"] = aws.endpoint.removeprefix("http://")
        assert ["something else than a sidecar" in each["says"] for each in _told(place, code=1)] == [True]
    finally:
        aws.stop()
