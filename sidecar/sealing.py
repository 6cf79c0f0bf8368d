"""A ring as a document: public facts in the clear, one sealed part for each key and role, the whole of it authenticated.

Rules (keys.md, 1 and 2):
 1. Roles: *issue* (private signature keys; what encrypts) and *open* (what decrypts; public signature keys). A symmetric key is in both.
 2. Each role has one data key for each ring, wrapped by the KMS for this profile, role and store, and kept across revisions.
 3. A part is AES-256-GCM (NIST SP 800-38D) under that role's data key, bound to profile, kid, role, algorithm and use.
 4. The document, revision included, carries one HMAC-SHA-256 for each role. Keys for parts and for the HMAC are derived from the data
    key by HKDF (RFC 5869).
 5. A compromised key has no parts.
 6. Whatever is not exactly what this module writes is damage, and damage is never repaired here.

Not promised: that a document is the newest one. Whoever can write the store can put an older one back; see `keeper`.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
from base64 import b64decode, b64encode
from dataclasses import dataclass, fields
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sidecar.jose import keys as jose_keys
from sidecar.keyring import Answered, Key, KeyUse, Ring, Settings
from sidecar.profile import Format

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.jose.keys import Material
    from sidecar.ports import Kms

VERSION = 1
CONTENT_MAX = 4 * 1024 * 1024  # bytes
NONCE_BYTES = 12
DATA_KEY_BYTES = 32


class DamagedRingError(Exception):
    """A stored ring is not what was written, or not by this version. Says what to do; holds no secret."""

    def __init__(self, profile: str, problem: str) -> None:
        super().__init__(
            f"the stored ring of profile {profile!r} cannot be used: {problem}. Restore the store from a backup, or run the version "
            "that wrote it; a ring is never replaced by a fresh one"
        )
        self.profile = profile


class Role(Enum):
    """What a part lets its holder do."""

    ISSUE = "issue"
    OPEN = "open"


class DataKeys:
    """The data keys of one ring by role, unwrapped and as the KMS wrapped them. Cannot be printed or pickled."""

    __slots__ = ("_keys", "wrapped")

    def __init__(self, keys: Mapping[Role, bytes], wrapped: Mapping[Role, bytes]) -> None:
        self._keys = {role: _Derived(key) for role, key in keys.items()}
        self.wrapped = MappingProxyType(dict(wrapped))

    def derived(self, role: Role) -> _Derived:
        """The keys that are derived from the role's data key."""
        return self._keys[role]

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("data keys are neither copied nor pickled")


class _Derived:
    __slots__ = ("_seal_key", "parts")

    def __init__(self, data_key: bytes) -> None:
        self.parts = AESGCM(_hkdf(data_key, b"tokensidecar ring 1 parts"))
        self._seal_key = _hkdf(data_key, b"tokensidecar ring 1 document")

    def seal(self, document: bytes) -> bytes:
        """HMAC-SHA-256 of the document."""
        return hmac.digest(self._seal_key, document, "sha256")


@dataclass(frozen=True, slots=True)
class Opened:
    """A ring with its key material, by role and kid: what `open_ring` made of a document."""

    ring: Ring
    issue: Mapping[str, Material]
    open: Mapping[str, Material]
    data_keys: DataKeys
    content: bytes


async def fresh_data_keys(kms: Kms, profile: str, store_id: str) -> DataKeys:
    """One random data key for each role, wrapped. Raises `UnavailableKmsError`."""
    keys = {role: os.urandom(DATA_KEY_BYTES) for role in Role}
    return DataKeys(keys, {role: await kms.wrap(key, _context(profile, role, store_id)) for role, key in keys.items()})


def seal_ring(ring: Ring, material: Mapping[str, Material], data_keys: DataKeys) -> bytes:
    """The document. `material` holds a private `Material` for each key of the ring that is not compromised."""
    document: dict[str, Any] = {
        "version": VERSION,
        "profile": ring.profile,
        "revision": ring.revision,
        "keys": [_facts(key) for key in ring.keys],
        "answered": [_members(answered) for answered in ring.answered],
        "data_keys": {role.value: _text(data_keys.wrapped[role]) for role in Role},
        "parts": {
            key.key_id: {
                role.value: _text(_seal_part(ring.profile, key, role, material[key.key_id], data_keys)) for role in Role
            }
            for key in ring.keys
            if key.compromise_time is None
        },
    }
    text = _canonical(document)
    document["seals"] = {role.value: _text(data_keys.derived(role).seal(text)) for role in Role}
    return _canonical(document)


async def open_ring(
    content: bytes, profile: str, revision: int, *, store_id: str, kms: Kms, known: DataKeys | None = None
) -> Opened:
    """The ring of that document, which must be the profile's and of that revision.

    `known` data keys are used where the document still carries them, and the KMS is not asked then. Raises `DamagedRingError`;
    `UnavailableKmsError`: the KMS does not answer, or does not open the data keys (another KEK, another store).
    """
    document = _parse(content, profile)
    wrapped = {role: _bytes(document["data_keys"][role.value], profile) for role in Role}
    data_keys = (
        known if known is not None and known.wrapped == wrapped else await _unwrap(kms, wrapped, profile, store_id)
    )
    seals = document.pop("seals")
    text = _canonical(document)
    for role in Role:
        if not hmac.compare_digest(_bytes(seals[role.value], profile), data_keys.derived(role).seal(text)):
            raise DamagedRingError(profile, f"its seal of role {role.value!r} is broken")
    if document["profile"] != profile:
        raise DamagedRingError(profile, "it belongs to another profile")
    if document["revision"] != revision:
        raise DamagedRingError(profile, f"it is stored as revision {revision} and is another one")
    # Key parsing is slow enough to hold up the event loop.
    return await asyncio.to_thread(_opened, document, profile, data_keys, content)


def _opened(document: dict[str, Any], profile: str, data_keys: DataKeys, content: bytes) -> Opened:
    try:
        ring = _ring(document)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedRingError(profile, "its facts are not of this version") from error
    live = [key for key in ring.keys if key.compromise_time is None]
    if document["parts"].keys() != {key.key_id for key in live}:
        raise DamagedRingError(profile, "its sealed parts are not those of its keys")
    found: dict[Role, dict[str, Material]] = {role: {} for role in Role}
    for key in live:
        parts = {role: _open_part(profile, key, role, document["parts"][key.key_id], data_keys) for role in Role}
        for role, part in parts.items():
            found[role][key.key_id] = _material(profile, key, part)
        private = found[Role.ISSUE][key.key_id]
        if parts != {role: _part(private, role) for role in Role}:
            raise DamagedRingError(profile, f"the parts of key {key.key_id} do not belong together")
    return Opened(ring, MappingProxyType(found[Role.ISSUE]), MappingProxyType(found[Role.OPEN]), data_keys, content)


async def _unwrap(kms: Kms, wrapped: Mapping[Role, bytes], profile: str, store_id: str) -> DataKeys:
    keys = {role: await kms.unwrap(blob, _context(profile, role, store_id)) for role, blob in wrapped.items()}
    if any(len(key) != DATA_KEY_BYTES for key in keys.values()):
        raise DamagedRingError(profile, "its data keys have another length")
    return DataKeys(keys, wrapped)


def _context(profile: str, role: Role, store_id: str) -> dict[str, str]:
    return {"profile": profile, "role": role.value, "store_id": store_id}


def _part(material: Material, role: Role) -> bytes:
    """What the role gets of a signature key or a symmetric encryption key."""
    public = material.public_bytes()
    return material.private_bytes() if role is Role.ISSUE or public is None else public


def _seal_part(profile: str, key: Key, role: Role, material: Material, data_keys: DataKeys) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return nonce + data_keys.derived(role).parts.encrypt(nonce, _part(material, role), _bound(profile, key, role))


def _open_part(profile: str, key: Key, role: Role, parts: dict[str, str], data_keys: DataKeys) -> bytes:
    try:
        sealed = _bytes(parts[role.value], profile)
        return data_keys.derived(role).parts.decrypt(
            sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _bound(profile, key, role)
        )
    except (InvalidTag, KeyError, TypeError, ValueError) as error:
        raise DamagedRingError(
            profile, f"the part of key {key.key_id} for role {role.value!r} does not open"
        ) from error


def _material(profile: str, key: Key, part: bytes) -> Material:
    try:
        material = jose_keys.load(part, key.algorithm)
    except ValueError as error:
        raise DamagedRingError(profile, f"key {key.key_id} is not a key for {key.algorithm}") from error
    if material.key_id != key.key_id:
        raise DamagedRingError(profile, f"key {key.key_id} holds another key")
    return material


def _bound(profile: str, key: Key, role: Role) -> bytes:
    return _canonical(["tokensidecar part 1", profile, key.key_id, role.value, key.algorithm, key.use.value])


def _facts(key: Key) -> dict[str, Any]:
    settings = _members(key.settings)
    settings["format"] = key.settings.format.value
    return {**_members(key), "use": key.use.value, "settings": settings}


def _members(value: Key | Settings | Answered) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _parse(content: bytes, profile: str) -> dict[str, Any]:
    """The document's outer form. Only the canonical text of a document is one, so that no byte of it is free."""
    problem = "it is damaged"
    try:
        document = json.loads(content) if len(content) <= CONTENT_MAX else None
        if not isinstance(document, dict):
            raise DamagedRingError(profile, problem)
        if document.get("version") != VERSION:
            raise DamagedRingError(
                profile, f"its format has version {document.get('version')!r:.20}, and this version knows {VERSION}"
            )
        canonical = _canonical(document) == content
    except (ValueError, RecursionError) as error:
        raise DamagedRingError(profile, problem) from error
    names = {"version", "profile", "revision", "keys", "answered", "data_keys", "parts", "seals"}
    roles = {role.value for role in Role}
    whole = canonical and document.keys() == names and isinstance(document["parts"], dict)
    if not whole or any(
        not isinstance(document[n], dict) or document[n].keys() != roles for n in ("data_keys", "seals")
    ):
        raise DamagedRingError(profile, problem)
    return document


def _ring(document: dict[str, Any]) -> Ring:
    """From facts that are authenticated already: what is odd here was written by another version."""
    return Ring(
        profile=document["profile"],
        revision=_number(document["revision"]),
        keys=tuple(_key(facts) for facts in document["keys"]),
        answered=tuple(Answered(**facts) for facts in document["answered"]),
    )


def _key(facts: dict[str, Any]) -> Key:
    settings = dict(facts["settings"])
    settings["format"] = Format(settings["format"])
    return Key(**{**facts, "use": KeyUse(facts["use"]), "settings": Settings(**settings)})


def _number(value: object) -> int:
    if type(value) is not int or value < 1:
        raise ValueError("not a revision")
    return value


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")


def _text(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def _bytes(text: object, profile: str) -> bytes:
    try:
        if isinstance(text, str) and _text(data := b64decode(text, validate=True)) == text:
            return data
    except ValueError:
        pass
    raise DamagedRingError(profile, "it is damaged")


def _hkdf(data_key: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=purpose).derive(data_key)
