"""A ring as a document: public facts in the clear, one sealed part for each key and role, the whole of it authenticated.

Rules (keys.md, 1 and 2):
 1. Roles: *issue* (private signature keys; what encrypts) and *open* (what decrypts; public signature keys). A symmetric key is in both,
    but that of refresh tokens: it is the issuers' alone.
 2. A part is AES-256-GCM (NIST SP 800-38D) under that role's data key, bound to profile, kid, role, algorithm and use.
 3. The document, revision included, carries one HMAC-SHA-256 for each role. Keys for parts and for the HMAC are derived from the data
    key by HKDF (RFC 5869). A process checks the seals, and opens the parts, of the roles that it has.
 4. It is also signed (Ed25519, RFC 8032) by a key that only who has both data keys can derive. So who has one role can read the ring, but
    write none that another process takes for the keeper's: with the seal alone, a stolen validator could add a signature key of its own.
 5. New data keys mean a new signer, which the one before it introduces. Who knows one signer of the row knows the last.
 6. A compromised key has no parts.
 7. Whatever is not exactly what this module writes is damage, and damage is never repaired here.

Not promised: that a document is the newest one. Whoever can write the store can put an older one back; see `pins`. Nor can a process that
has one role, and sees the ring for the first time, know whether its first signer was the keeper.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import json
import os
from base64 import b64decode, b64encode
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from sidecar.data_keys import DamagedRingError, DataKeys, unwrapped
from sidecar.jose import keys as jose_keys
from sidecar.keyring import Answered, Key, KeyUse, Ring, Role, Settings
from sidecar.profile import Format

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.jose.keys import Material
    from sidecar.ports import Kms

VERSION = 1
CONTENT_MAX = 4 * 1024 * 1024  # bytes
NONCE_BYTES = 12
SIGNERS_KEPT = 24  # two years of monthly renewals; who was away for longer sees a stranger
_NAMES = {
    "version", "profile", "revision", "history", "keys", "answered", "parts", "data_keys", "data_keys_time", "signers", "seals", "signature",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signed, from some revision on: an Ed25519 public key, and the signature of the one before it (empty: the first)."""

    public: bytes
    introduction: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """A ring with its key material, by role and kid: what `open_ring` made of a document. A role that was not asked for is empty."""

    ring: Ring
    issue: Mapping[str, Material]
    open: Mapping[str, Material]
    data_keys: DataKeys
    signers: tuple[Signer, ...]
    content: bytes

    def whole(self) -> dict[str, Material]:
        """Each key that is not compromised with its private half, which one of the roles has."""
        return {kid: held if held.private else self.open[kid] for kid, held in self.issue.items()}

    def public(self, key_id: str) -> bytes | None:
        """The public JWK of a key, from whichever role is at hand; None for a symmetric key."""
        return (self.open or self.issue)[key_id].public_bytes()


def seal_ring(ring: Ring, material: Mapping[str, Material], data_keys: DataKeys, before: Opened | None = None) -> bytes:
    """The document. `data_keys` are of both roles, and `material` holds a private `Material` for each key that is not compromised.

    `before`: what this replaces; its signer introduces the new one if the data keys are new.
    """
    document: dict[str, Any] = {
        "version": VERSION,
        "profile": ring.profile,
        "revision": ring.revision,
        "history": ring.history,
        "keys": [_facts(key) for key in ring.keys],
        "answered": [_members(answered) for answered in ring.answered],
        "data_keys": {role.value: _text(data_keys.wrapped[role]) for role in Role},
        "data_keys_time": data_keys.create_time,
        "signers": [
            {"public": _text(signer.public), "introduction": _text(signer.introduction)}
            for signer in _signers(ring.profile, data_keys, before)
        ],
        "parts": {
            key.key_id: {
                role.value: _text(_seal_part(ring.profile, key, role, material[key.key_id], data_keys))
                for role in key.use.roles
            }
            for key in ring.keys
            if key.compromise_time is None
        },
    }
    text = _canonical(document)
    document["seals"] = {role.value: _text(data_keys.derived(role).seal(text)) for role in Role}
    document["signature"] = _text(data_keys.sign(_signed(text)))
    return _canonical(document)


async def open_ring(
    content: bytes,
    profile: str,
    revision: int,
    *,
    store_id: str,
    kms: Mapping[Role, Kms],
    further: Mapping[Role, Kms] | None = None,
    known: DataKeys | None = None,
) -> Opened:
    """The ring of that document, which must be the profile's and of that revision, for the roles in `kms`.

    `known` data keys are used where the document still carries them, and the KMS is not asked then; `further` is asked where `kms` does
    not open them. Raises `DamagedRingError`; `UnavailableKmsError`: no KMS answers, or none opens the data keys (another KEK, another
    store).
    """
    document = _parse(content, profile)
    wrapped = {role: _bytes(document["data_keys"][role.value], profile) for role in Role}
    created = document["data_keys_time"]
    if known is not None and known.wrapped == wrapped and known.create_time == created:
        data_keys = known
    else:
        data_keys = await unwrapped(kms, further or {}, wrapped, created, profile, store_id)
    seals, signature = document.pop("seals"), document.pop("signature")
    text = _canonical(document)
    for role in data_keys.roles:
        if not hmac.compare_digest(_bytes(seals[role.value], profile), data_keys.derived(role).seal(text)):
            raise DamagedRingError(profile, f"its seal of role {role.value!r} is broken")
    if document["profile"] != profile:
        raise DamagedRingError(profile, "it belongs to another profile")
    if document["revision"] != revision:
        raise DamagedRingError(profile, f"it is stored as revision {revision} and is another one")
    signature = _bytes(signature, profile)
    # Signatures and key parsing are slow enough to hold up the event loop.
    return await asyncio.to_thread(_opened, document, profile, data_keys, content, text, signature)


def _opened(
    document: dict[str, Any], profile: str, data_keys: DataKeys, content: bytes, text: bytes, signature: bytes
) -> Opened:
    signers = _checked_signers(document["signers"], profile)
    if data_keys.public is not None and data_keys.public != signers[-1].public:
        raise DamagedRingError(profile, "it is not signed by who has its data keys")
    if not _verifies(signers[-1].public, signature, _signed(text)):
        raise DamagedRingError(profile, "its signature is broken")
    try:
        ring = _ring(document)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedRingError(profile, "its facts are not of this version") from error
    live = [key for key in ring.keys if key.compromise_time is None]
    if document["parts"].keys() != {key.key_id for key in live}:
        raise DamagedRingError(profile, "its sealed parts are not those of its keys")
    found: dict[Role, dict[str, Material]] = {role: {} for role in Role}
    for key in live:
        parts = {
            role: _open_part(profile, key, role, document["parts"][key.key_id], data_keys)
            for role in data_keys.roles
            if role in key.use.roles
        }
        if not parts:  # nothing of it is for who has these roles
            continue
        material = {role: _material(profile, key, part) for role, part in parts.items()}
        _check_together(profile, key, parts, material)
        for role in parts:
            found[role][key.key_id] = material[role]
    return Opened(
        ring, MappingProxyType(found[Role.ISSUE]), MappingProxyType(found[Role.OPEN]), data_keys, signers, content
    )


def _check_together(profile: str, key: Key, parts: Mapping[Role, bytes], material: Mapping[Role, Material]) -> None:
    """Each part is what its role gets of the key, and no more."""
    whole = next((m for m in material.values() if m.private), next(iter(material.values())))
    try:
        if all(part == _part(whole, role, key.use) for role, part in parts.items()):
            return
    except ValueError:  # a private half that is not there
        pass
    raise DamagedRingError(profile, f"the parts of key {key.key_id} do not belong together")


def _part(material: Material, role: Role, use: KeyUse) -> bytes:
    """What the role gets of a key: all of a symmetric one; who issues signs and encrypts, who opens verifies and decrypts."""
    public = material.public_bytes()
    private_role = Role.ISSUE if use is KeyUse.SIGNATURE else Role.OPEN
    return material.private_bytes() if public is None or role is private_role else public


def _seal_part(profile: str, key: Key, role: Role, material: Material, data_keys: DataKeys) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    part = _part(material, role, key.use)
    return nonce + data_keys.derived(role).parts.encrypt(nonce, part, _bound(profile, key, role))


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


# Signers


def _signers(profile: str, data_keys: DataKeys, before: Opened | None) -> tuple[Signer, ...]:
    if data_keys.public is None:
        raise ValueError("only who has both roles writes a ring")
    if before is None:
        return (Signer(data_keys.public, b""),)
    if data_keys.public == before.signers[-1].public:
        return before.signers
    introduction = before.data_keys.sign(_introduced(profile, data_keys.public))
    return (*before.signers, Signer(data_keys.public, introduction))[-SIGNERS_KEPT:]


def _checked_signers(found: object, profile: str) -> tuple[Signer, ...]:
    """The row, if each but the first is introduced by the one before it."""
    try:
        if not isinstance(found, list) or not 0 < len(found) <= SIGNERS_KEPT:
            raise ValueError("not a row of signers")
        row = tuple(Signer(**{name: _bytes(text, profile) for name, text in one.items()}) for one in found)
    except (AttributeError, TypeError, ValueError) as error:
        raise DamagedRingError(profile, "its signers are not of this version") from error
    for signer, following in itertools.pairwise(row):
        if not _verifies(signer.public, following.introduction, _introduced(profile, following.public)):
            raise DamagedRingError(profile, "one of its signers was not introduced by the one before it")
    return row


def _verifies(public: bytes, signature: bytes, text: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True


def _signed(text: bytes) -> bytes:
    return b"tokensidecar ring 1 document\n" + text


def _introduced(profile: str, public: bytes) -> bytes:
    return b"tokensidecar ring 1 signer\n" + _canonical([profile, _text(public)])


# Form


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
    roles = {role.value for role in Role}
    whole = canonical and document.keys() == _NAMES and isinstance(document["parts"], dict)
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
        history=_number(document["history"]),
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
