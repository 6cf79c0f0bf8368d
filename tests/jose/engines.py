"""The same key under each engine."""

from __future__ import annotations

from sidecar.jose import keys


def reference(key: keys.Material) -> keys.Material:
    """This key, served by jwcrypto."""
    return under(keys.REFERENCE, key)


def under(engine: str, key: keys.Material) -> keys.Material:
    """This key, served by that engine."""
    before = keys.choose_engine(engine)
    try:
        data = key.private_bytes() if key.private else key.public_bytes()
        return keys.load(data or b"", key.algorithm)
    finally:
        keys.choose_engine(before)
