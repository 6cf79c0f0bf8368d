"""Whoever holds the sidecar's keys: read from its state directory with the project's own code, to make what an insider could make."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sidecar.clocks import SystemClock
from sidecar.jose.encrypt import encrypt
from sidecar.jose.sign import sign
from sidecar.keyring import KeyUse, Role
from sidecar.kms.file import FileKms
from sidecar.sealing import Opened, open_ring
from sidecar.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from pathlib import Path

    from sidecar.jose.keys import Material

DEFAULT_ISSUER = "urn:tokensidecar:local"


@dataclass(frozen=True)
class Insider:
    """The active keys of one profile. `signature` is None where its format has no inner layer."""

    opened: Opened
    encryption: Material
    signature: Material | None

    @classmethod
    def read(cls, state_dir: Path, profile: str = "default") -> Insider:
        """Opens the ring as it is stored now; the sidecar that owns it may be running."""
        opened = asyncio.run(_opened(state_dir, profile))
        now = time.time()

        def active(use: KeyUse) -> Material | None:
            key = opened.ring.active(use, now)
            return opened.issue[key.key_id] if key else None

        encryption = active(KeyUse.ENCRYPTION)
        assert encryption is not None
        return cls(opened, encryption, active(KeyUse.SIGNATURE))

    def payload(self, issuer: str = DEFAULT_ISSUER, **changes: Any) -> bytes:
        """Good claims, changed. None takes one away."""
        now = int(time.time())
        claims = {
            "iss": issuer, "sub": "user-42", "aud": ["orders"], "client_id": "unix:app", "jti": "made-by-an-insider", "iat": now, "exp": now + 300,
        }  # fmt: skip
        claims |= changes
        return json.dumps({name: value for name, value in claims.items() if value is not None}).encode()

    def wrap(self, plaintext: bytes, *, cty: str = "JWT", typ: str = "") -> str:
        """An outer layer, as the sidecar makes it, around any bytes."""
        return encrypt(plaintext, self.encryption, content="A256GCM", cty=cty, typ=typ)

    def sign(self, payload: bytes, typ: str = "at+jwt") -> str:
        """An inner layer, as the sidecar makes it, over any bytes."""
        assert self.signature is not None
        return sign(payload, self.signature, typ=typ)

    def make(self, payload: bytes, typ: str = "at+jwt") -> str:
        """A token that is genuine in all its cryptography."""
        return self.wrap(self.sign(payload, typ).encode())

    def public_jwk(self) -> dict[str, object]:
        """The signature key's public half."""
        assert self.signature is not None
        public: dict[str, object] = json.loads(self.signature.public_bytes() or b"")
        return public


async def _opened(state_dir: Path, profile: str) -> Opened:
    store = await SqliteStore.open(state_dir / "state.db", SystemClock())
    try:
        document = await store.load(profile)
        assert document is not None
        store_id = await store.store_id()
    finally:
        await store.close()
    kms = dict.fromkeys(Role, FileKms(state_dir / "kek"))
    return await open_ring(document.content, profile, document.revision, store_id=store_id, kms=kms)
