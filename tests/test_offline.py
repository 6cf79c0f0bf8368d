"""`tokensidecar rekey` and `accept-rollback` on a real store, and each step of them, of duties and of pins cut by a kill."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

import pytest

from sidecar import failpoints
from sidecar.duties import DOCUMENT
from sidecar.kms.file import make
from tests.running import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = [sys.executable, "-m", "sidecar"]
CONFIG = """
[keys]
store = "sqlite:{0}/state/state.db"
kek = "file:{0}/{1}"
{2}

[profiles.first]
issuer = "https://first.example.com"
audiences = ["orders"]

[profiles.second]
issuer = "https://second.example.com"
audiences = ["orders"]
"""
_MAKE = """
import asyncio, os, sys
from sidecar.config import load
from sidecar.clocks import SystemClock
from sidecar.duties import Duties, Duty
from sidecar.keeper import Keeper
from sidecar.keyring import KeyUse, Role
from sidecar.kms.file import open_or_make
from sidecar.pins import FILE, Pins
from sidecar.stores.sqlite import SqliteStore
from pathlib import Path
async def main():
    path = Path(sys.argv[1])
    store = await SqliteStore.open(path / "state/state.db", SystemClock())
    kms = dict.fromkeys(Role, await open_or_make(path / "kek", store))
    profiles = load(str(path / "config.toml"), os.environ).profiles
    keeper = Keeper(profiles, store, kms, SystemClock(), pins=Pins(path / "state" / FILE))
    await keeper.start()
    if sys.argv[2] == "rotate":
        for name in profiles:
            await keeper.rotate(name, None, expected=0, request_id="")
    elif sys.argv[2] == "claim":
        duties = Duties(keeper, store, holder=sys.argv[3], spread=0.0)
        keeper.scrub_due = True
        print((await duties.claim(Duty("first", "destroy"))).value)
    await store.close()
asyncio.run(main())
"""


class Place:
    """A state directory, its configuration, and the processes that work there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "state").mkdir()
        self.database = path / "state" / "state.db"
        self.configure("kek")
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT}:{ROOT / 'clients/python'}",
            "TOKENSIDECAR_STATE_DIR": str(path / "state"),
            "TOKENSIDECAR_RUNTIME_DIR": str(path),
        }

    def configure(self, kek: str, further: str = "") -> None:
        """With that key-encryption key, and one more that may open."""
        more = f'further_kek = "file:{self.path}/{further}"' if further else ""
        (self.path / "config.toml").write_text(CONFIG.format(self.path, kek, more))

    def run(self, *command: str, failpoint: str = "") -> subprocess.CompletedProcess[str]:
        environment = self.environment | ({"TOKENSIDECAR_FAILPOINT": failpoint} if failpoint else {})
        return subprocess.run(
            command, cwd=self.path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    def command(self, name: str, *arguments: str, failpoint: str = "") -> subprocess.CompletedProcess[str]:
        return self.run(*COMMAND, name, "--config", str(self.path / "config.toml"), *arguments, failpoint=failpoint)

    def make(self, what: str = "start", *arguments: str, failpoint: str = "") -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-c", _MAKE, str(self.path), what, *arguments, failpoint=failpoint)

    def roll_back(self) -> None:
        """Rings at revision 1, although revision 2 was seen."""
        copy = self.path / "copy.db"
        shutil.copy(self.database, copy)
        assert self.make("rotate").returncode == 0
        for suffix in ("-wal", "-shm"):
            self.database.with_name(self.database.name + suffix).unlink(missing_ok=True)
        copy.replace(self.database)

    def documents(self) -> dict[str, tuple[int, dict[str, object]]]:
        with sqlite3.connect(self.database) as connection:
            rows = connection.execute("SELECT name, revision, content FROM documents").fetchall()
        connection.close()
        return {name: (revision, json.loads(content)) for name, revision, content in rows}

    def revisions(self) -> dict[str, int]:
        return {name: revision for name, (revision, _) in self.documents().items()}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    done = made.make()
    assert done.returncode == 0, done.stderr
    yield made
    assert made.make().returncode == 0  # whatever was done or cut, the rings still open


def _steps(operation: str) -> list[str]:
    return [name for name in failpoints.NAMES if name.partition(".")[0] == operation]


def _audit(done: subprocess.CompletedProcess[str]) -> list[tuple[str, str, str]]:
    records = map(json.loads, done.stdout.splitlines())
    return [(r["verb"], r["phase"], r["profile"]) for r in records if r["caller"] == "operator"]


def test_rekey_shows_a_bar_where_a_terminal_shows_nothing_else(place: Place) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 80, 0, 0))
    command = [*COMMAND, "rekey", "--all", "--config", str(place.path / "config.toml")]
    with subprocess.Popen(
        command, cwd=place.path, env={**place.environment, "TERM": "xterm"}, stdout=subprocess.PIPE, stderr=theirs
    ) as process:
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(ours, 4096):
                seen += data
        assert process.stdout is not None
        records = process.stdout.read()
    os.close(ours)
    assert process.returncode == 0, seen
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode())
    assert "second" in shown
    assert "2/2" in shown
    assert max(map(len, re.split(r"[\r\n]+", shown))) <= 80
    assert len(records.splitlines()) == 4


def test_rekey_goes_to_the_next_key_encryption_key_and_shows_its_progress(place: Place) -> None:
    make(place.path / "next")
    before = place.documents()
    place.configure("next")
    refused = place.command("rekey")
    assert (refused.returncode, place.documents()) == (1, before)
    done = place.command("rekey", "--former-kek", str(place.path / "kek"))
    assert done.returncode == 0, done.stderr
    assert "[1/2] first: done, ring revision 2" in done.stderr
    assert "[2/2] second: done, ring revision 2" in done.stderr
    assert _audit(done) == [("rekey", phase, name) for name in ("first", "second") for phase in ("intent", "outcome")]
    after = place.documents()
    for name in ("first", "second"):
        assert after[name][1]["keys"] == before[name][1]["keys"]
        for part in ("data_keys", "parts", "seals"):
            assert after[name][1][part] != before[name][1][part]
    held = b"".join(file.read_bytes() for file in (place.path / "state").iterdir())
    assert not any(str(key).encode() in held for key in before["first"][1]["data_keys"].values())  # type: ignore[attr-defined]
    # The former key-encryption key opens nothing any more, and is not needed.
    (place.path / "kek").rename(place.path / "kek.gone")
    assert place.command("rekey", "--all").returncode == 0
    (place.path / "next").rename(place.path / "kek")


def test_key_encryption_keys_change_without_an_end_of_service(place: Place) -> None:
    """First everybody may open by the next one too, then the keeper seals by it, then the former one goes."""
    make(place.path / "next")
    for kek, further in (("kek", "next"), ("next", "kek")):
        place.configure(kek, further)
        done = place.command("rekey", "--all")
        assert done.returncode == 0, done.stderr
    place.configure("next")
    assert place.command("rekey").returncode == 0
    (place.path / "next").replace(place.path / "kek")


def test_profile_cannot_have_the_name_of_the_stores_own_document(place: Place) -> None:
    text = (place.path / "config.toml").read_text().replace("profiles.second", f"profiles.{DOCUMENT}")
    (place.path / "config.toml").write_text(text)
    done = place.command("rekey")
    assert (done.returncode, DOCUMENT in done.stderr) == (2, True)
    place.configure("kek")


@pytest.mark.parametrize("step", _steps("rekey"))
def test_rekey_that_was_killed_goes_on_where_it_stopped(place: Place, step: str) -> None:
    make(place.path / "next")
    place.configure("next")
    # Within the second ring, so that there is one that is done.
    killed = place.command("rekey", "--former-kek", str(place.path / "kek"), failpoint=f"{step}:2")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    saved = step not in ("rekey.intended", "rekey.before_save")
    assert place.revisions() == {"first": 2, "second": 2 if saved else 1}
    again = place.command("rekey", "--former-kek", str(place.path / "kek"))
    assert again.returncode == 0, again.stderr
    assert "first: done already" in again.stderr
    assert ("second: done already" in again.stderr) == saved
    assert place.revisions() == {"first": 2, "second": 2}
    (place.path / "next").replace(place.path / "kek")


def test_rekey_of_a_ring_that_went_back_is_refused(place: Place) -> None:
    place.roll_back()
    done = place.command("rekey", "--all")
    assert done.returncode == 1
    assert "gone back to an older state" in done.stderr
    assert place.revisions() == {"first": 1, "second": 1}


def test_commands_make_neither_store_nor_key(tmp_path: Path) -> None:
    empty = Place(tmp_path)
    for command in ("rekey", "accept-rollback"):
        done = empty.command(command)
        assert done.returncode == 1
        assert done.stderr.startswith(f"tokensidecar {command}: ")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["config.toml", "state"]


def test_rekey_of_an_unknown_profile_is_wrong_usage(place: Place) -> None:
    assert place.command("rekey", "--profile", "third").returncode == 2


def test_rollback_is_shown_and_accepted_only_when_told_to(place: Place) -> None:
    assert "nothing has gone back" in place.command("accept-rollback").stderr
    place.roll_back()
    for _ in range(2):
        shown = place.command("accept-rollback")
        assert shown.returncode == 1
        assert "first: revision 1 after 2\nsecond: revision 1 after 2\n" in shown.stderr
        assert _audit(shown) == []
    done = place.command("accept-rollback", "--yes", "--reason", "restored by hand")
    assert done.returncode == 0, done.stderr
    assert _audit(done) == [("accept_rollback", "intent", ""), ("accept_rollback", "outcome", "")]
    record = json.loads(done.stdout.splitlines()[0])
    assert record["why"] == "restored by hand"
    assert record["rolled_back"] == {"first": "revision 1 after 2", "second": "revision 1 after 2"}
    assert {name: document["history"] for name, (_, document) in place.documents().items()} == {"first": 2, "second": 2}
    assert "nothing has gone back" in place.command("accept-rollback").stderr
    assert place.make("rotate").returncode == 0


@pytest.mark.parametrize("step", _steps("accept_rollback"))
def test_acceptance_that_was_killed_is_done_again_and_leaves_no_alarm(place: Place, step: str) -> None:
    place.roll_back()
    killed = place.command("accept-rollback", "--yes", failpoint=step)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    again = place.command("accept-rollback", "--yes")
    assert again.returncode == 0, again.stderr
    assert "nothing has gone back" in place.command("accept-rollback").stderr
    histories = {document["history"] for _, document in place.documents().values()}
    assert histories == {2}
    assert place.make("rotate").returncode == 0


@pytest.mark.parametrize("step", _steps("duty"))
def test_claim_of_a_killed_keeper_holds_nobody_up_for_long(place: Place, step: str) -> None:
    killed = place.make("claim", "one", failpoint=step)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    other = place.make("claim", "two")
    assert other.stdout.strip() == ("WON" if step == "duty.before_claim" else "CLAIM_LOST"), other.stderr


@pytest.mark.parametrize("step", _steps("pins"))
def test_pins_that_were_cut_are_those_of_before(place: Place, step: str) -> None:
    pins = place.path / "state" / "pins.json"
    before = pins.read_bytes()
    killed = place.make("rotate", failpoint=step)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert pins.read_bytes() == before
    assert place.make().returncode == 0
    assert json.loads(pins.read_text())["pins"]["rings"]["first"]["revision"] == 2
