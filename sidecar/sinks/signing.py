"""The key that signs an audit file's checkpoints: Ed25519 (RFC 8032), made in the state directory, its public half for whoever verifies."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from sidecar.chain import Check, Sign

KEY, PUBLIC_KEY, HEAD = "audit-key.pem", "audit-key-public.pem", "audit-head"
"""Files of the state directory."""


class Signer:
    """Signs. `instance`: the first 16 hexadecimal digits of the SHA-256 of the public key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self.sign: Sign = key.sign
        public = key.public_key()
        self.instance = hashlib.sha256(public.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]
        self.public_pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @classmethod
    def open_or_make(cls, state_dir: Path) -> Signer:
        """The key of this state directory; a fresh one, 0600, if there is none. `OSError`, `ValueError`: it cannot be read."""
        path = state_dir / KEY
        try:
            key = load_pem_private_key(path.read_bytes(), None)
            if not isinstance(key, Ed25519PrivateKey):
                raise ValueError(f"{path} is not an Ed25519 key")  # noqa: TRY004 - of the file, not of an argument
        except FileNotFoundError:
            key = Ed25519PrivateKey.generate()
            _make(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
        signer = cls(key)
        public = state_dir / PUBLIC_KEY
        if not public.exists():
            _make(public, signer.public_pem, 0o644)
        return signer


def checker(pem: bytes) -> Check:
    """What checks signatures of the public key. `ValueError`: it is not one."""
    key = load_pem_public_key(pem)
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not an Ed25519 public key")  # noqa: TRY004 - of the file, not of an argument

    def check(signature: bytes, message: bytes) -> bool:
        try:
            key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    return check


def _make(path: Path, data: bytes, mode: int) -> None:
    # Whole or not at all: a file that is cut short would keep the sidecar from starting.
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as target:
        target.write(data)
        target.flush()
        os.fsync(descriptor)
    draft.rename(path)
