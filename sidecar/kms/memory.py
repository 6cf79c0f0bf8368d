"""A key-encryption key in memory, for `tokensidecar fake`: AES-256-GCM under a key that nobody else ever has."""

from __future__ import annotations

import contextlib
import json
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from sidecar.errors import UnavailableKmsError

KEY_BYTES = 32
NONCE_BYTES = 12


class MemoryKms:
    """See `ports.Kms`."""

    def __init__(self) -> None:
        """Makes the key."""
        self._aead = AESGCM(AESGCM.generate_key(256))

    async def wrap(self, data_key: bytes, context: dict[str, str]) -> bytes:
        """Nonce, ciphertext and tag."""
        if len(data_key) != KEY_BYTES:
            raise ValueError(f"a data key has {KEY_BYTES} bytes")
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, data_key, _bound(context))

    async def unwrap(self, wrapped: bytes, context: dict[str, str]) -> bytes:
        """The data key. `UnavailableKmsError`: not wrapped here, or for another context."""
        with contextlib.suppress(InvalidTag, ValueError):
            return self._aead.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], _bound(context))
        raise UnavailableKmsError("the data key was not wrapped by this process, or for something else")


def _bound(context: dict[str, str]) -> bytes:
    return json.dumps(context, sort_keys=True, separators=(",", ":")).encode()
