"""The data keys of one ring: one for each role, wrapped by the KMS, and what is derived from them.

Rules (keys.md, 1 and 2):
 1. Each role has one random data key for each ring, wrapped for this profile, role and store, and kept across revisions: a running
    process opens a new revision while the KMS is down. `rekey` makes new ones.
 2. A process unwraps those of its own roles. The wrapped ones of both are public facts.
 3. Keys for parts, seals and the signature are derived by HKDF (RFC 5869). The signature's comes from both data keys together.
"""

from __future__ import annotations

import hmac
import os
from types import MappingProxyType
from typing import TYPE_CHECKING, NoReturn

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sidecar.errors import UnavailableKmsError
from sidecar.keyring import Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.ports import Kms

DATA_KEY_BYTES = 32


class DamagedRingError(Exception):
    """A stored ring is not what was written, or not by this version. Says what to do; holds no secret."""

    def __init__(self, profile: str, problem: str) -> None:
        super().__init__(
            f"the stored ring of profile {profile!r} cannot be used: {problem}. Restore the store from a backup, or run the version "
            "that wrote it; a ring is never replaced by a fresh one"
        )
        self.profile = profile


class DataKeys:
    """The data keys of one ring: unwrapped for the roles at hand, and as the KMS wrapped them. Cannot be printed or pickled.

    `create_time` is store time. `further`: some were opened by the further KMS, so not by the one that wraps now. `public`: the Ed25519
    key that the ring is signed with; None without both roles.
    """

    __slots__ = ("_keys", "_signer", "create_time", "further", "public", "wrapped")

    def __init__(
        self, keys: Mapping[Role, bytes], wrapped: Mapping[Role, bytes], create_time: float, *, further: bool = False
    ) -> None:
        self._keys = {role: _Derived(key) for role, key in keys.items()}
        self._signer = None
        self.public = None
        if all(role in keys for role in Role):
            seed = _hkdf(b"".join(keys[role] for role in Role), b"tokensidecar ring 1 signer")
            self._signer = Ed25519PrivateKey.from_private_bytes(seed)
            self.public = self._signer.public_key().public_bytes_raw()
        self.wrapped = MappingProxyType(dict(wrapped))
        self.create_time = create_time
        self.further = further

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles at hand."""
        return tuple(self._keys)

    def derived(self, role: Role) -> _Derived:
        """The keys that are derived from the role's data key."""
        return self._keys[role]

    def sign(self, text: bytes) -> bytes:
        """Ed25519 signature. `ValueError` without both roles."""
        if self._signer is None:
            raise ValueError("only who has both roles signs a ring")
        return self._signer.sign(text)

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


async def fresh_data_keys(kms: Mapping[Role, Kms], profile: str, store_id: str, now: float) -> DataKeys:
    """One random data key for each role, wrapped. Raises `UnavailableKmsError`."""
    keys = {role: os.urandom(DATA_KEY_BYTES) for role in Role}
    wrapped = {role: await kms[role].wrap(key, _context(profile, role, store_id)) for role, key in keys.items()}
    return DataKeys(keys, wrapped, now)


async def unwrapped(
    kms: Mapping[Role, Kms],
    further: Mapping[Role, Kms],
    wrapped: Mapping[Role, bytes],
    create_time: object,
    profile: str,
    store_id: str,
) -> DataKeys:
    """The data keys of the roles in `kms`. Raises `UnavailableKmsError`, `DamagedRingError`."""
    if not isinstance(create_time, float):
        raise DamagedRingError(profile, "it is damaged")
    keys, by_further = {}, False
    for role in kms:
        context = _context(profile, role, store_id)
        try:
            keys[role] = await kms[role].unwrap(wrapped[role], context)
        except UnavailableKmsError as error:
            if role not in further:
                raise
            try:
                keys[role] = await further[role].unwrap(wrapped[role], context)
            except UnavailableKmsError:
                raise error from None
            by_further = True
    if any(len(key) != DATA_KEY_BYTES for key in keys.values()):
        raise DamagedRingError(profile, "its data keys have another length")
    return DataKeys(keys, wrapped, create_time, further=by_further)


def _context(profile: str, role: Role, store_id: str) -> dict[str, str]:
    return {"profile": profile, "role": role.value, "store_id": store_id}


def _hkdf(secret: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=purpose).derive(secret)
