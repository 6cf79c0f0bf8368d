"""What every KMS must do. A test module of a KMS inherits `KmsContract` and gives it the fixtures `kms` and `other_kms`."""

from __future__ import annotations

import pytest

from sidecar.errors import UnavailableKmsError
from sidecar.ports import Kms

KEY = bytes(range(32))
CONTEXT = {"profile": "default", "role": "issue", "store_id": "ab"}


class KmsContract:
    """`other_kms` has another key-encryption key."""

    async def test_wrapped_key_comes_back(self, kms: Kms) -> None:
        assert await kms.unwrap(await kms.wrap(KEY, CONTEXT), CONTEXT) == KEY

    async def test_wrapped_key_hides_the_key(self, kms: Kms) -> None:
        wrapped = await kms.wrap(KEY, CONTEXT)
        assert all(KEY[i : i + 4] not in wrapped for i in range(29))

    async def test_wrapping_twice_differs(self, kms: Kms) -> None:
        assert await kms.wrap(KEY, CONTEXT) != await kms.wrap(KEY, CONTEXT)

    async def test_order_of_the_context_does_not_matter(self, kms: Kms) -> None:
        assert await kms.unwrap(await kms.wrap(KEY, CONTEXT), dict(reversed(CONTEXT.items()))) == KEY

    async def test_another_context_does_not_unwrap(self, kms: Kms) -> None:
        wrapped = await kms.wrap(KEY, CONTEXT)
        shorter = {name: value for name, value in CONTEXT.items() if name != "role"}
        for other in ({}, shorter, {**CONTEXT, "role": "open"}, {**CONTEXT, "more": ""}):
            with pytest.raises(UnavailableKmsError):
                await kms.unwrap(wrapped, other)

    async def test_another_key_does_not_unwrap(self, kms: Kms, other_kms: Kms) -> None:
        wrapped = await kms.wrap(KEY, CONTEXT)
        with pytest.raises(UnavailableKmsError):
            await other_kms.unwrap(wrapped, CONTEXT)

    async def test_no_changed_byte_unwraps(self, kms: Kms) -> None:
        wrapped = await kms.wrap(KEY, CONTEXT)
        for i in range(len(wrapped)):
            with pytest.raises(UnavailableKmsError):
                await kms.unwrap(wrapped[:i] + bytes([wrapped[i] ^ 1]) + wrapped[i + 1 :], CONTEXT)

    async def test_no_other_length_unwraps(self, kms: Kms) -> None:
        wrapped = await kms.wrap(KEY, CONTEXT)
        for blob in (b"", wrapped[:1], wrapped[:12], wrapped[:-1], wrapped + b"\x00"):
            with pytest.raises(UnavailableKmsError):
                await kms.unwrap(blob, CONTEXT)

    async def test_only_data_keys_are_wrapped(self, kms: Kms) -> None:
        for length in (0, 16, 31, 33):
            with pytest.raises(ValueError, match="32 bytes"):
                await kms.wrap(bytes(length), CONTEXT)
