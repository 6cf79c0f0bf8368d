"""What every store must do. A test module of a store inherits what fits it and gives it the fixtures that it names.

`StoreContract`: a store private to this machine. `SharedStoreContract`: one that others may read unseen. `ReaderContract`: a member that
may only read what a writer writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from sidecar.errors import DeniedCallerError
from sidecar.ports import Document, Store

OpenStore = Callable[[], Awaitable[Store]]
"""Another member of the same store, each time."""


Renew = Callable[[], Awaitable[None]]
"""Bring what writers wrote to the readers, where that takes a third party."""


class WriterContract:
    """What members that write promise; `open_store` opens one more of them, and closes them all at the end."""

    async def test_unknown_document_is_none(self, open_store: OpenStore) -> None:
        store = await open_store()
        assert await store.load("default") is None
        assert await store.revisions() == {}

    async def test_first_save_makes_revision_one(self, open_store: OpenStore) -> None:
        store = await open_store()
        assert await store.save("default", b"\x00one", expected=0)
        assert await store.load("default") == Document(1, b"\x00one")

    async def test_save_at_another_revision_changes_nothing(self, open_store: OpenStore) -> None:
        store = await open_store()
        await store.save("default", b"one", expected=0)
        for expected in (0, 2, -1, 7):
            assert not await store.save("default", b"other", expected=expected)
        assert await store.load("default") == Document(1, b"one")

    async def test_save_where_there_is_none_needs_zero(self, open_store: OpenStore) -> None:
        store = await open_store()
        assert not await store.save("default", b"one", expected=1)
        assert await store.revisions() == {}

    async def test_documents_do_not_touch_each_other(self, open_store: OpenStore) -> None:
        store = await open_store()
        await store.save("a", b"one", expected=0)
        await store.save("b", b"two", expected=0)
        await store.save("b", b"three", expected=1)
        assert await store.revisions() == {"a": 1, "b": 2}
        assert await store.load("a") == Document(1, b"one")

    async def test_members_see_each_others_writes(self, open_store: OpenStore) -> None:
        one, two = await open_store(), await open_store()
        await one.save("default", b"one", expected=0)
        assert await two.load("default") == Document(1, b"one")
        assert await two.save("default", b"two", expected=1)
        assert await one.revisions() == {"default": 2}
        assert await one.store_id() == await two.store_id()

    async def test_of_ten_racers_one_wins(self, open_store: OpenStore) -> None:
        stores = [await open_store() for _ in range(10)]
        for revision in range(5):
            results = await asyncio.gather(
                *(s.save("default", str(i).encode(), expected=revision) for i, s in enumerate(stores))
            )
            assert results.count(True) == 1
            assert await stores[0].load("default") == Document(revision + 1, str(results.index(True)).encode())

    async def test_store_time_goes_on(self, open_store: OpenStore) -> None:
        one, two = await open_store(), await open_store()
        readings = [await (one, two)[i % 2].now() for i in range(20)]
        assert readings == sorted(readings)
        assert readings[-1] - readings[0] < 60

    async def test_scrub_keeps_what_is_current(self, open_store: OpenStore) -> None:
        store = await open_store()
        await store.save("default", b"one", expected=0)
        await store.save("default", b"two", expected=1)
        await store.scrub()
        assert await store.load("default") == Document(2, b"two")

    async def test_close_may_be_called_twice(self, open_store: OpenStore) -> None:
        store = await open_store()
        await store.close()
        await store.close()


class StoreContract(WriterContract):
    """A store private to this machine knows its members."""

    async def test_one_member_is_alone(self, open_store: OpenStore) -> None:
        store = await open_store()
        async with store.alone() as alone:
            assert alone
        async with store.alone() as again:
            assert again

    async def test_two_members_are_not_alone(self, open_store: OpenStore) -> None:
        one, two = await open_store(), await open_store()
        async with one.alone() as alone:
            assert not alone
        async with two.alone() as alone:
            assert not alone

    async def test_who_is_left_is_alone_again(self, open_store: OpenStore) -> None:
        one, two = await open_store(), await open_store()
        await two.close()
        async with one.alone() as alone:
            assert alone


class SharedStoreContract(WriterContract):
    """Others may read a shared store at any time, and it cannot know."""

    async def test_nobody_is_ever_alone(self, open_store: OpenStore) -> None:
        store = await open_store()
        async with store.alone() as alone:
            assert not alone

    async def test_it_says_that_it_is_shared(self, open_store: OpenStore) -> None:
        assert not (await open_store()).private


class ReaderContract:
    """What members that only read promise; `open_store` opens a writer of the same store, `open_reader` a reader."""

    async def test_reader_sees_what_a_writer_wrote(
        self, open_store: OpenStore, open_reader: OpenStore, renew: Renew
    ) -> None:
        writer = await open_store()
        await writer.save("default", b"\x00one\n", expected=0)
        await renew()
        reader = await open_reader()
        assert await reader.load("default") == Document(1, b"\x00one\n")
        await writer.save("default", b"two", expected=1)
        await writer.save("other", b"", expected=0)
        await renew()
        assert await reader.revisions() == {"default": 2, "other": 1}
        assert await reader.load("default") == Document(2, b"two")
        assert await reader.load("other") == Document(1, b"")
        assert await reader.load("third") is None
        assert await reader.store_id() == await writer.store_id()

    async def test_reader_does_not_write(self, open_store: OpenStore, open_reader: OpenStore, renew: Renew) -> None:
        writer = await open_store()
        await writer.save("default", b"one", expected=0)
        await renew()
        reader = await open_reader()
        for expected in (0, 1):
            with pytest.raises(DeniedCallerError, match="no write credentials"):
                await reader.save("default", b"mine", expected=expected)
        await reader.scrub()
        assert await writer.load("default") == Document(1, b"one")

    async def test_reader_goes_by_the_writers_time(
        self, open_store: OpenStore, open_reader: OpenStore, renew: Renew
    ) -> None:
        writer = await open_store()
        await renew()
        reader = await open_reader()
        assert abs(await reader.now() - await writer.now()) < 2

    async def test_reader_is_never_alone(self, open_store: OpenStore, open_reader: OpenStore, renew: Renew) -> None:
        await open_store()
        await renew()
        async with (await open_reader()).alone() as alone:
            assert not alone
