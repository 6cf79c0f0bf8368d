"""A key-encryption key in a file: AES-256-GCM (NIST SP 800-38D) under 32 bytes that only this user, or root, can read.

Rules:
 1. The file holds 32 bytes as text, hex or base64url, and nothing else but white space.
 2. It belongs to root or to this user, and nobody else may read or write it. One exception: a root-owned file that is read through a
    group of this process, the way a Kubernetes Secret reaches a process that is not root.
 3. It is made complete or not at all, and never over another file.
 4. It is made only where there is no ring yet: a fresh key beside rings that need the lost one would only hide the loss.
"""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import fcntl
import json
import os
import re
import secrets
import stat
import time
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sidecar.errors import UnavailableKmsError
from sidecar.failpoints import failpoint

if TYPE_CHECKING:
    from sidecar.ports import Store

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
_HEX = re.compile(r"[0-9A-Fa-f]{64}")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]{43}=?")
_TEXT_MAX = 256
_LOCK_SECONDS = 10.0
_READERS = stat.S_IRGRP | stat.S_IROTH
_WRITERS = stat.S_IWGRP | stat.S_IWOTH


class FileKms:
    """Wraps data keys under the key in one file, which is read once; see `ports.Kms`."""

    def __init__(self, path: Path) -> None:
        """Reads the key. `UnavailableKmsError`, with words for an operator: there is no such file, or it breaks a rule above."""
        self._path = path
        self._aead = AESGCM(_read(path))

    async def wrap(self, data_key: bytes, context: dict[str, str]) -> bytes:
        """Nonce, ciphertext and tag."""
        if len(data_key) != KEY_BYTES:
            raise ValueError(f"a data key has {KEY_BYTES} bytes")
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, data_key, _bound(context))

    async def unwrap(self, wrapped: bytes, context: dict[str, str]) -> bytes:
        """The data key. `UnavailableKmsError`: not wrapped by this key for this context, or damaged."""
        if len(wrapped) == NONCE_BYTES + KEY_BYTES + TAG_BYTES:
            with contextlib.suppress(InvalidTag):
                return self._aead.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], _bound(context))
        raise UnavailableKmsError(
            f"the key-encryption key in {self._path} does not open the keys of profile {context.get('profile', '')!r}: "
            "it is another key, or the store is another one or damaged. Put back the key or the store that belongs to it"
        )

    def __repr__(self) -> str:
        return f"FileKms({self._path})"


async def open_or_make(path: Path, store: Store) -> FileKms:
    """The key in the file; where there is none, and no ring either, a fresh one.

    `UnavailableKmsError`: the file is missing beside rings that were sealed under it, or it is no good.
    """
    if _missing(path) and store.private:
        sealed = sorted(await store.revisions())
        # Another process may have made both, key and rings, since the first look: hence a second one.
        if _missing(path):
            if sealed:
                raise UnavailableKmsError(
                    f"the key-encryption key {path} is missing, but the store holds rings sealed under it ({', '.join(sealed[:8])}): "
                    "put the key back. If it is lost, so are these rings: move the database away to start anew; "
                    "every token issued so far is then invalid"
                )
            with contextlib.suppress(FileExistsError):
                await asyncio.to_thread(make, path)
            failpoint("start.kek_made")
    return await asyncio.to_thread(FileKms, path)


def make(path: Path) -> None:
    """Write a fresh key, durable on return. `FileExistsError`: there is one; `UnavailableKmsError`: the file cannot be written."""
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UnavailableKmsError(f"cannot make the key-encryption key {path}: {error.strerror}") from error
    try:
        _lock(directory)
        if not _missing(path):
            raise FileExistsError(path)
        _write(path, secrets.token_hex(KEY_BYTES).encode() + b"\n")
        os.fsync(directory)
    except FileExistsError:
        raise
    except OSError as error:
        raise UnavailableKmsError(f"cannot make the key-encryption key {path}: {error.strerror}") from error
    finally:
        os.close(directory)


def _missing(path: Path) -> bool:
    """True only if there is certainly nothing of that name, not even a link that leads nowhere."""
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except OSError as error:
        raise UnavailableKmsError(f"cannot look for the key-encryption key {path}: {error.strerror}") from error
    return False


def _lock(directory: int) -> None:
    """One maker at a time; the kernel lets go of the lock if we die."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _write(path: Path, text: bytes) -> None:
    """Under another name first: a file of the right name is always whole, even after a power cut."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.unlink(missing_ok=True)  # of a start that was killed; nothing was ever sealed under it
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)  # the umask may have taken bits away
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise


def _read(path: Path) -> bytes:
    try:
        # Not to wait for the writer of a pipe.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            _check_owner(path, os.fstat(file.fileno()))
            raw = file.read(_TEXT_MAX + 1)
    except FileNotFoundError as error:
        raise UnavailableKmsError(f"there is no key-encryption key at {path}") from error
    except OSError as error:
        raise UnavailableKmsError(f"cannot read the key-encryption key {path}: {error.strerror}") from error
    text = raw.decode("ascii", "replace").strip()
    if len(raw) <= _TEXT_MAX:
        if _HEX.fullmatch(text):
            return bytes.fromhex(text)
        if _BASE64URL.fullmatch(text):
            with contextlib.suppress(binascii.Error):
                return urlsafe_b64decode(text[:43] + "=")
    raise UnavailableKmsError(
        f"{path} is not a key-encryption key: it must hold {KEY_BYTES} random bytes as 64 hex digits or 43 characters of base64url, "
        "and nothing else (openssl rand -hex 32 makes one)"
    )


def _check_owner(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UnavailableKmsError(f"the key-encryption key {path} is not a regular file")
    user = os.geteuid()
    if found.st_uid not in (0, user):
        raise UnavailableKmsError(
            f"the key-encryption key {path} belongs to user {found.st_uid}: it must belong to this user ({user}) or root"
        )
    mode = stat.S_IMODE(found.st_mode)
    mounted = found.st_uid == 0 != user and found.st_gid in {os.getegid(), *os.getgroups()}
    forbidden = _WRITERS | (stat.S_IROTH if mounted else _READERS)
    if mode & forbidden:
        raise UnavailableKmsError(
            f"the key-encryption key {path} can be read or written by others (mode {mode:04o}): make it private (chmod 600 {path}), "
            "and if others may have read it, replace it"
        )


def _bound(context: dict[str, str]) -> bytes:
    """One text for one context: sorted, so that the order of making does not matter."""
    return json.dumps({"tokensidecar": "kek v1", **context}, sort_keys=True, separators=(",", ":")).encode()
