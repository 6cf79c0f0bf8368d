"""The salt of the audit log's hashes. It stays the same over restarts, so that what one instance wrote can be joined; who has it can guess subjects."""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path

SALT_BYTES = 32


class UnusableSaltError(Exception):
    """There is no salt to be had; the text says why and what to do."""


def audit_salt(state_dir: Path, given: Path | None = None) -> bytes:
    """32 bytes: those of the file that is given, in hexadecimal; else the state directory's own, made there once.

    `UnusableSaltError`: the file cannot be made or read, or holds something else.
    """
    if given:
        return _read(given)
    path = state_dir / "audit-salt"
    try:
        if not path.exists():
            _write_salt(path)
        salt = path.read_bytes()
    except OSError as error:
        raise UnusableSaltError(f"the audit salt {path} cannot be used: {error.strerror}") from error
    if len(salt) != SALT_BYTES:
        raise UnusableSaltError(
            f"the audit salt {path} is damaged: remove it, and a new one is made; hashes in later audit records then differ from earlier ones"
        )
    return salt


def _read(path: Path) -> bytes:
    try:
        text = path.read_text("ascii").strip()
        salt = bytes.fromhex(text)
    except OSError as error:
        raise UnusableSaltError(f"audit.salt {path} cannot be read: {error.strerror}") from error
    except ValueError:
        salt = b""
    if len(salt) != SALT_BYTES:
        raise UnusableSaltError(
            f"audit.salt {path}: must be 64 hexadecimal digits, as `openssl rand -hex 32` makes them"
        )
    return salt


def _write_salt(path: Path) -> None:
    """One process makes it, whole, under another name first; then it gets its own."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        if path.exists():
            return
        unfinished = path.with_name(path.name + ".unfinished")
        unfinished.unlink(missing_ok=True)  # of a start that was killed
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as target:
            target.write(secrets.token_bytes(SALT_BYTES))
            target.flush()
            os.fsync(target.fileno())
        unfinished.rename(path)
        os.fsync(directory)
    finally:
        os.close(directory)
