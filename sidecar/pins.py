"""What this process has seen of its store, so that an older state is noticed: in memory, and in a file where there is a disk.

Rules (keys.md, 13):
 1. Of each ring the newest document is pinned: history, revision, digest, signer; and the store's id.
 2. Older, gone, another document of the same revision, not from the row of its signers, another store: a step back. It stays one, over
    restarts too, until the pinned document itself is back or the rollback is accepted.
 3. To accept is to start a new history, which only who can write a ring can, or to pin what is there, in this file.
 4. With each ring goes how far the revocations were seen; a ledger behind that is a step back of every ring. It ends as any other: when
    the newest of the known revocations is back, at its revision, or with a ring's new history.
 5. The file is replaced whole, durably, under a lock: several processes of one machine share it, and a newer pin is never lost to an
    older one. A file that is damaged is an alarm too.

The file has a checksum against accidents and no MAC: who can write it can also remove it, and a process without pins trusts what it
sees first.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from base64 import b64encode
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from sidecar.failpoints import failpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from sidecar.sealing import Opened

FILE = "pins.json"
_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Pin:
    """The newest document of one ring that was seen. `alarm`: why the store was found gone back since; empty: it was not."""

    history: int
    revision: int
    digest: str  # SHA-256 of the document, in hex
    signer: str  # base64 of the Ed25519 public key
    alarm: str = ""
    revocations: int = 0  # how far they were seen under this history
    revoked: str = ""  # digest of the newest of them, in hex; empty: not known
    forgot: bool = False  # the ledger was found gone back since

    @classmethod
    def of(cls, opened: Opened) -> Pin:
        """The pin of that document, of no revocations."""
        return cls(
            opened.ring.history,
            opened.ring.revision,
            hashlib.sha256(opened.content).hexdigest(),
            _text(opened.signers[-1].public),
        )

    @property
    def age(self) -> tuple[int, int]:
        """The larger, the newer."""
        return self.history, self.revision

    def problem(self, opened: Opened | None) -> str:
        """Why what the store has now is a step back from this pin; empty: it is not."""
        if opened is None:
            return "the ring is gone"
        found = Pin.of(opened)
        if self.signer not in map(_text, (signer.public for signer in opened.signers)):
            return "it is not signed by a keeper of this ring"
        if found.age < self.age:
            return f"revision {found.revision} after {self.revision}"
        if found.age == self.age:
            return (
                "" if found.digest == self.digest else f"another revision {found.revision} than the one that is known"
            )
        # Who changed an older document has begun a history of their own, however long it gets.
        return "it goes on from an older state" if self.alarm and found.history == self.history else ""

    def following(self, opened: Opened) -> Pin:
        """The pin of that newer document. Within one history what was seen of the revocations goes on."""
        found = Pin.of(opened)
        return found.seeing(self.revocations, self.revoked) if found.history == self.history else found

    def seeing(self, revision: int, revoked: str) -> Pin:
        """The pin once the revocations were seen up to there."""
        return replace(self, revocations=revision, revoked=revoked) if revision > self.revocations else self

    def merged(self, other: Pin) -> Pin:
        """What two processes of one machine know together; of the same document this one's alarm."""
        newer, older = (self, other) if other.age <= self.age else (other, self)
        if newer.history != older.history or newer.revocations >= older.revocations:
            return newer
        return replace(newer, revocations=older.revocations, revoked=older.revoked, forgot=older.forgot)

    def forgotten(self, revision: int, held: str | None) -> str:
        """Why a ledger at that revision is a step back from this pin; empty: it is not.

        `held`: digest of the revocation that it has at the pinned revision, in hex; None: none, or it was not asked (see `doubtful`).
        """
        if revision < self.revocations:
            return f"revocations {revision} after {self.revocations}"
        if self.revoked and held is not None and held != self.revoked:
            return "other revocations than those that are known"
        return "the revocations go on from an older state" if self.forgot and (held is None or not self.revoked) else ""


class Pins:
    """The pins of one process, and of its file if it has one."""

    def __init__(self, path: Path | None) -> None:
        """Touches nothing; `load` does."""
        self._path = path
        self._written: tuple[str, dict[str, Pin]] | None = None
        self.store_id = ""  # none yet
        self.rings: dict[str, Pin] = {}
        self.damaged = False

    def load(self) -> None:
        """Take over what the file says; nothing changes where there is none. Raises `OSError`."""
        if self._path is None:
            return
        try:
            with self._locked():
                found = self._read()
        except FileNotFoundError:
            return
        self.damaged = found is None
        if found is not None:
            self.store_id, self.rings = found
            self._written = (self.store_id, dict(self.rings))

    @classmethod
    def look(cls, path: Path) -> Pins:
        """What the file says, for who changes nothing: in memory only. Raises `OSError`."""
        seen = cls(path)
        with contextlib.suppress(FileNotFoundError):
            found = seen._read()  # it is replaced whole, so no lock is needed
            seen.damaged = found is None
            if found is not None:
                seen.store_id, seen.rings = found
        seen._path = None
        return seen

    @property
    def unwritten(self) -> bool:
        """Whether the file does not say yet what is pinned in memory."""
        known = bool(self.store_id)  # of a store without a ring nothing is
        return self._path is not None and not self.damaged and known and self._written != (self.store_id, self.rings)

    def write(self) -> None:
        """Bring the file up to date, durably; newer pins in it stay. Raises `OSError`."""
        if self._path is None or self.damaged or not self.store_id:
            return
        wanted = (self.store_id, dict(self.rings))
        with self._locked():
            try:
                found = self._read()
            except FileNotFoundError:
                found = (self.store_id, {})
            if found is None or found[0] not in ("", self.store_id):
                return  # an alarm, here or at the next start: only `replace` writes over it
            merged = dict(found[1])
            for name, pin in wanted[1].items():
                merged[name] = pin.merged(merged[name]) if name in merged else pin
            if merged != found[1] or not self._path.exists():
                self._put(self.store_id, merged)
        self._written = wanted

    def replace(self, store_id: str, rings: Mapping[str, Pin | None]) -> None:
        """Pin these instead of whatever was pinned of them (None: nothing), in memory and durably. Raises `OSError`."""
        merged = {} if self.store_id != store_id else dict(self.rings)
        merged.update({name: replace(pin, alarm="", forgot=False) for name, pin in rings.items() if pin})
        self.store_id = store_id
        self.rings = {name: pin for name, pin in merged.items() if rings.get(name, pin)}
        self.damaged = False
        if self._path is not None:
            with self._locked():
                self._put(store_id, self.rings)
            self._written = (store_id, dict(self.rings))
        failpoint("accept_rollback.pinned")

    # The file

    def _read(self) -> tuple[str, dict[str, Pin]] | None:
        """What it says; None: it is damaged."""
        assert self._path is not None  # noqa: S101 - asked before
        with self._path.open("rb") as file:
            raw = file.read(_BYTES_MAX)
        try:
            document = json.loads(raw)
            body = document["pins"]
            if document["version"] != 1 or document["checksum"] != _checksum(body):
                return None
            return str(body["store_id"]), {name: Pin(**pin) for name, pin in body["rings"].items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def _put(self, store_id: str, rings: Mapping[str, Pin]) -> None:
        assert self._path is not None  # noqa: S101 - asked before
        body = {"store_id": store_id, "rings": {name: asdict(pin) for name, pin in rings.items()}}
        unfinished = self._path.with_name(f"{self._path.name}.unfinished")
        with contextlib.suppress(FileNotFoundError):  # of a process that was killed
            unfinished.unlink()
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(json.dumps({"version": 1, "pins": body, "checksum": _checksum(body)}, indent=1).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        failpoint("pins.written")
        unfinished.rename(self._path)
        with _directory(self._path) as directory:
            os.fsync(directory)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time. The lock is the directory's; the kernel lets go of it if we die."""
        assert self._path is not None  # noqa: S101 - asked before
        with _directory(self._path) as directory:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield


@contextlib.contextmanager
def _directory(path: Path) -> Iterator[int]:
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _checksum(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _text(data: bytes) -> str:
    return b64encode(data).decode("ascii")
