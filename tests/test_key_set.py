"""The keys of another issuer: from a file or over https, bounded in size, time and number, and the old ones kept where the new are no good."""

# ruff: noqa: ASYNC110 - nothing else runs on these loops

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from sidecar.http import key_set as module
from sidecar.http.key_set import KeySet, UnusableKeySetError
from sidecar.service_accounts import ALGORITHMS
from tests.authority import Authority
from tests.cluster_tokens import KeySetServer, Signer, key_set

FIRST, SECOND = Signer("ES256"), Signer("ES256")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority()
    (tmp_path / "ca.crt").write_bytes(made.certificate)
    return made


@pytest.fixture
def server(authority: Authority, tmp_path: Path) -> Iterator[KeySetServer]:
    with KeySetServer(authority, tmp_path, key_set(FIRST)) as made:
        yield made


@asynccontextmanager
async def watched(found: KeySet) -> AsyncIterator[KeySet]:
    await found.start()
    task = asyncio.create_task(found.watch())
    try:
        yield found
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(what: object, found: KeySet) -> None:
    end = time.monotonic() + 10
    while found.keys.keys() != what:
        assert time.monotonic() < end, found._failure
        await asyncio.sleep(0.02)


def good(found: KeySet) -> float:
    return {name: value for name, _, value in found.readings()}["tokensidecar_service_account_keys_good"]


async def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(key_set(FIRST))
    async with watched(KeySet(f"file:{file}", ALGORITHMS)) as found:
        assert found.keys.keys() == {FIRST.key_id}
        before = found.keys
        file.write_bytes(key_set(FIRST)[:100])  # half-written
        while good(found):
            await asyncio.sleep(0.02)
        assert found.keys is before
        file.unlink()
        await asyncio.sleep(module.FILE_EVERY * 1.2)
        assert found.keys is before
        assert not found.stale
        file.write_bytes(key_set(SECOND))
        await until({SECOND.key_id}, found)
        assert good(found) == 1


async def test_a_file_that_is_no_good_at_the_start_is_refused(tmp_path: Path) -> None:
    for data, words in ((None, "No such file"), (b"<html>", "neither"), (b" " * (module.SIZE_MOST + 1), "more than")):
        if data is not None:
            (tmp_path / "keys.json").write_bytes(data)
        with pytest.raises(UnusableKeySetError, match=words):
            await KeySet(f"file:{tmp_path}/keys.json", ALGORITHMS).start()


async def test_keys_come_over_https_with_a_token_to_show(server: KeySetServer, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a.b.c\n")
    found = KeySet(server.address, ALGORITHMS, ca=tmp_path / "ca.crt", token=tmp_path / "token")
    await found.start()
    assert found.keys.keys() == {FIRST.key_id}
    assert server.shown == "Bearer a.b.c"


async def test_an_address_that_is_away_at_the_start_is_tried_again(
    server: KeySetServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_FIRST", 0.05)
    server.status = 503
    async with watched(KeySet(server.address, ALGORITHMS, ca=tmp_path / "ca.crt")) as found:
        assert found.keys == {}
        assert found.stale
        assert good(found) == 0
        server.status = 200
        await until({FIRST.key_id}, found)
        assert not found.stale


@pytest.mark.parametrize("fault", ["stranger", "status", "redirect", "large", "nonsense", "slow", "short"])
async def test_an_answer_that_is_no_good_leaves_the_old_keys(
    server: KeySetServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(module, "FETCH_SECONDS", 0.5)
    monkeypatch.setattr(module, "LOOK_LEAST", 0.0)
    found = KeySet(server.address, ALGORITHMS, ca=tmp_path / "ca.crt")
    await found.start()
    before, gets = found.keys, server.gets
    if fault == "stranger":
        (tmp_path / "ca.crt").write_bytes(Authority().certificate)
    elif fault == "status":
        server.status = 404
    elif fault == "redirect":
        server.status = 302
    elif fault == "large":
        server.body = b" " * (module.SIZE_MOST + 1) + key_set(SECOND)
    elif fault == "nonsense":
        server.body = b"<html>"
    elif fault == "slow":
        server.slow = 3.0
    elif fault == "short":
        server.body = b""
    began = time.monotonic()
    assert await found.look_again() is False
    assert time.monotonic() - began < 2
    assert found.keys is before
    assert good(found) == 0
    assert server.gets <= gets + 1


async def test_a_flood_of_unknown_keys_fetches_once(server: KeySetServer, tmp_path: Path) -> None:
    now = [1000.0]
    found = KeySet(server.address, ALGORITHMS, ca=tmp_path / "ca.crt", now=lambda: now[0])
    await found.start()
    assert server.gets == 1
    assert [await found.look_again() for _ in range(1000)] == [True] * 1000
    assert server.gets == 1  # it was read a moment ago
    now[0] += module.LOOK_LEAST
    server.body = key_set(FIRST, SECOND)
    answers = await asyncio.gather(*(found.look_again() for _ in range(1000)))
    assert server.gets == 2
    assert answers.count(True) == module.WAITING_MOST  # the others are told to come again, and nobody of them fetches
    assert found.keys.keys() == {FIRST.key_id, SECOND.key_id}
    now[0] += module.LOOK_LEAST
    server.status = 500
    assert not any(await asyncio.gather(*(found.look_again() for _ in range(100))))
    assert [await found.look_again() for _ in range(1000)] == [False] * 1000
    assert server.gets == 3


async def test_nobody_waits_for_a_slow_address_longer_than_the_bound(
    server: KeySetServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(module, "LOOK_LEAST", 0.0)
    found = KeySet(server.address, ALGORITHMS, ca=tmp_path / "ca.crt")
    await found.start()
    server.slow = 1.0
    began = time.monotonic()
    assert await found.look_again() is False
    assert time.monotonic() - began < 0.9
    server.released.set()
    while found._looking is not None:  # the look goes on without who asked
        await asyncio.sleep(0.02)
    assert good(found) == 1


async def test_keys_are_not_kept_for_ever(server: KeySetServer, tmp_path: Path) -> None:
    now = [1000.0]
    found = KeySet(server.address, ALGORITHMS, ca=tmp_path / "ca.crt", now=lambda: now[0])
    await found.start()
    now[0] += module.OLDEST + 1
    assert found.stale


async def test_the_same_keys_in_another_order_are_no_change(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(key_set(FIRST, SECOND))
    found = KeySet(f"file:{file}", ALGORITHMS)
    await found.start()
    before = found.keys
    file.write_bytes(key_set(SECOND, FIRST))
    await found.start()
    assert found.keys is before
    other = {**SECOND.jwk(), "kid": FIRST.key_id}
    file.write_bytes(json.dumps({"keys": [other]}).encode())
    await found.start()
    assert found.keys is not before
