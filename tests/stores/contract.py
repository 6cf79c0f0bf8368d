"""What every store must do. A test module of a store inherits `StoreContract` and gives it a fixture `open_store`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from sidecar.ports import Document, Store

OpenStore = Callable[[], Awaitable[Store]]
"""Another member of the same store, each time."""


class StoreContract:
    """The tests; `open_store` opens one more member, and closes them all at the end."""

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
