"""What a state directory holds on disk, read and changed behind the sidecar's back."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from sidecar import duties
from sidecar.stores import sqlite

if TYPE_CHECKING:
    from pathlib import Path

FILES = frozenset({"audit-salt", "kek", "pins.json", "state.db", "state.db-members", "state.db-shm", "state.db-wal"})
"""Every file that a state directory may hold, each 0600."""


def check_files(directory: Path) -> None:
    """Nothing half-made is left, and nobody else may read what is there."""
    modes = {file.name: file.stat().st_mode & 0o777 for file in directory.iterdir()}
    assert modes.keys() <= FILES, f"left behind: {sorted(modes.keys() - FILES)}"
    assert set(modes.values()) == {0o600}, modes


def ring(directory: Path, profile: str = "default") -> dict[str, Any]:
    """The stored ring, as `sealing` writes it."""
    document: dict[str, Any] = json.loads(contents(directory)[profile])
    return document


def contents(directory: Path) -> dict[str, bytes]:
    """Every stored ring."""
    with closing(sqlite3.connect(f"file:{directory}/state.db?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT name, content FROM documents").fetchall()
    return {name: content for name, content in rows if name != duties.DOCUMENT}


def put(directory: Path, name: str, content: bytes) -> None:
    """Replace a document at its revision, with a checksum that fits: what somebody does who knows the store, but no key."""
    with closing(sqlite3.connect(directory / "state.db")) as connection, connection:
        (revision,) = connection.execute("SELECT revision FROM documents WHERE name = ?", (name,)).fetchone()
        checksum = sqlite._digest(name, str(revision), content)
        connection.execute("UPDATE documents SET content = ?, checksum = ? WHERE name = ?", (content, checksum, name))


def end_claims(directory: Path) -> None:
    """As if the minute had passed for which whoever died has claimed its duty."""
    with closing(sqlite3.connect(directory / "state.db")) as connection, connection:
        connection.execute("DELETE FROM documents WHERE name = ?", (duties.DOCUMENT,))


def holds(directory: Path, text: str) -> bool:
    """Whether any file of the directory has these bytes in it."""
    return any(text.encode() in file.read_bytes() for file in directory.iterdir())
