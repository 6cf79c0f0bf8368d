"""How sealed rings lie in a folder, or in a Kubernetes Secret that becomes that folder when it is mounted.

Rules:
 1. A ring is one file, `PROFILE.ring`: a line of facts, then the document as `sealing` made it. `store` is one more file, with the
    store's id. Other names are none of ours and are left alone.
 2. The line names format, revision, store time of the write, and SHA-256 over all of that, the profile's name and the document: a file
    that is cut, flipped or renamed is noticed. Against accidents; forgery is what sealing is for.
 3. Each file is whole by itself. No rule ties two of them together, so one rename, or one update of the Secret, is a whole change.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from sidecar.errors import UnavailableStoreError
from sidecar.ports import Document

STORE = "store"
SUFFIX = ".ring"
LARGEST = 1024 * 1024  # bytes of a file; Kubernetes allows a Secret no more in all its values together
LINE_MAX = 256  # bytes

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
_LINE = re.compile(
    rb"tokensidecar-(ring|store) 1 ([0-9a-f]{32}|[1-9][0-9]{0,14}) ([0-9]{1,12}\.[0-9]{3}) ([0-9]{1,7}) ([0-9a-f]{64})\n"
)


class DamagedFileError(Exception):
    """Not a file that this module made. The text is the rest of a sentence: `is cut short`."""


@dataclass(frozen=True, slots=True)
class RingFile:
    """What is in a ring's file. `written` is store time, in seconds since the epoch."""

    revision: int
    written: float
    length: int  # of the document, in bytes
    digest: str


@dataclass(frozen=True, slots=True)
class StoreFile:
    """What is in the file `store`. `written` is store time, in seconds since the epoch."""

    store_id: str
    written: float


def file_name(profile: str) -> str:
    """The file, or key of the Secret, that holds this profile's ring. `UnavailableStoreError`: none can."""
    if not _NAME.fullmatch(profile):
        raise UnavailableStoreError(f"no file can hold the ring of a profile called {profile!r}")
    return profile + SUFFIX


def profile_of(name: str) -> str | None:
    """The profile whose ring is in a file of that name; None: not a ring's file."""
    profile = name.removesuffix(SUFFIX)
    return profile if name != profile and _NAME.fullmatch(profile) else None


def ring_bytes(profile: str, document: Document, written: float) -> bytes:
    """The whole file. `UnavailableStoreError`: larger than a file may be."""
    whole = _line("ring", str(document.revision), written, profile, document.content) + document.content
    if len(whole) > LARGEST:
        raise UnavailableStoreError(
            f"the ring of profile {profile!r} has {len(whole)} bytes, and {LARGEST} is the most"
        )
    return whole


def store_bytes(store: StoreFile) -> bytes:
    """The whole file `store`."""
    return _line("store", store.store_id, store.written, STORE, b"")


def read_ring_line(start: bytes, size: int) -> RingFile:
    """The facts of a ring's file, from its first `LINE_MAX` bytes and its size. `DamagedFileError`."""
    found = _LINE.match(start)
    if not found or found[1] != b"ring" or len(found[2]) > 15:
        raise DamagedFileError("is not a ring that this version knows")
    facts = RingFile(int(found[2]), float(found[3]), int(found[4]), found[5].decode())
    if size != found.end() + facts.length:
        raise DamagedFileError("is cut short, or has something after its end")
    return facts


def read_ring(profile: str, whole: bytes) -> tuple[Document, RingFile]:
    """The document and its facts. `DamagedFileError`."""
    facts = read_ring_line(whole[:LINE_MAX], len(whole))
    document = Document(facts.revision, whole[len(whole) - facts.length :])
    if whole != _line("ring", str(facts.revision), facts.written, profile, document.content) + document.content:
        raise DamagedFileError("is damaged, or the ring of another profile")
    return document, facts


def read_store(whole: bytes) -> StoreFile:
    """What the file `store` says. `DamagedFileError`."""
    found = _LINE.fullmatch(whole)
    if found and found[1] == b"store" and len(found[2]) == 32:
        store = StoreFile(found[2].decode(), float(found[3]))
        if store_bytes(store) == whole:
            return store
    raise DamagedFileError("is damaged, or not of this program")


def _line(kind: str, what: str, written: float, name: str, content: bytes) -> bytes:
    facts = f"tokensidecar-{kind} 1 {what} {written:.3f} {len(content)}"
    hashed = hashlib.sha256(f"{facts} {name}\n".encode())
    hashed.update(content)
    return f"{facts} {hashed.hexdigest()}\n".encode()
