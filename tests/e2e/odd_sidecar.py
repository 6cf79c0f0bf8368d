"""`tokensidecar serve` over a store that counts its calls, or fails as no store should. A program: `python -m tests.e2e.odd_sidecar serve …`.

Environment: COUNT_FILE gets a letter for each call, "s" of the store and "k" of the KMS. While the file FAIL_FILE is there, the store's
`save` and `revisions` raise RuntimeError with its text.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar import app
from sidecar.cli.main import main
from sidecar.kms import file
from sidecar.ports import Ledger

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from sidecar.config import Keys
    from sidecar.ports import Clock, Document, Kms, Revocation, Revocations, Spending, Spent, Store


def _count(letter: str) -> None:
    if path := os.environ.get("COUNT_FILE"):
        with Path(path).open("a") as counts:
            counts.write(letter)


def _fail() -> None:
    path = Path(os.environ.get("FAIL_FILE", "/nonexistent"))
    if path.exists():
        raise RuntimeError(path.read_text())


class OddStore:
    """See `ports.Store`."""

    def __init__(self, inner: Store) -> None:
        assert isinstance(inner, Ledger)
        self._inner, self._ledger = inner, inner
        self.private = inner.private
        self.writable = inner.writable

    async def store_id(self) -> str:
        _count("s")
        return await self._inner.store_id()

    async def now(self) -> float:
        _count("s")
        return await self._inner.now()

    async def revisions(self) -> dict[str, int]:
        _count("s")
        _fail()
        return await self._inner.revisions()

    async def load(self, name: str) -> Document | None:
        _count("s")
        return await self._inner.load(name)

    async def save(self, name: str, content: bytes, *, expected: int) -> bool:
        _count("s")
        _fail()
        return await self._inner.save(name, content, expected=expected)

    def alone(self) -> AbstractAsyncContextManager[bool]:
        return self._inner.alone()

    async def scrub(self) -> None:
        await self._inner.scrub()

    # A ledger too, whose calls are not counted.

    async def revoke(self, revocation: Revocation) -> int:
        return await self._ledger.revoke(revocation)

    async def revocations(self, after: int, limit: int) -> Revocations:
        return await self._ledger.revocations(after, limit)

    async def consume(self, token: bytes, request: bytes, until: int) -> bool:
        return await self._ledger.consume(token, request, until)

    async def spend(self, spending: Spending) -> Spent:
        return await self._ledger.spend(spending)

    async def forget(self, limit: int) -> int:
        return await self._ledger.forget(limit)

    async def close(self) -> None:
        await self._inner.close()


class CountingKms:
    """See `ports.Kms`."""

    def __init__(self, inner: Kms) -> None:
        self._inner = inner

    async def wrap(self, data_key: bytes, context: dict[str, str]) -> bytes:
        _count("k")
        return await self._inner.wrap(data_key, context)

    async def unwrap(self, wrapped: bytes, context: dict[str, str]) -> bytes:
        _count("k")
        return await self._inner.unwrap(wrapped, context)


def _serve() -> int:
    open_store, open_or_make = app.open_store, file.open_or_make

    async def odd_store(keys: Keys, clock: Clock, *, keeping: bool) -> OddStore:
        return OddStore(await open_store(keys, clock, keeping=keeping))

    async def counting_kms(path: Path, store: Store) -> CountingKms:
        return CountingKms(await open_or_make(path, store))

    app.open_store = odd_store
    file.open_or_make = counting_kms  # type: ignore[assignment]
    return main()


if __name__ == "__main__":
    sys.exit(_serve())
