"""The store in a Secret: the contract on both API servers, rights, conflicts, refusals and the time."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.clocks import SystemClock
from sidecar.errors import UnavailableStoreError
from sidecar.ports import Clock, Document, Store
from sidecar.stores import kubernetes
from sidecar.stores.file import FileStore
from sidecar.stores.kubernetes import KubernetesStore
from tests.stores.clusters import NAMESPACE, Cluster, RealCluster, StandIn, make_certificates
from tests.stores.contract import OpenStore, ReaderContract, Renew, SharedStoreContract
from tests.stores.kubelet import mount

REAL = pytest.param(RealCluster, marks=pytest.mark.needs("kube-apiserver", "etcd", ci=False), id="kube-apiserver")
STAND_IN = pytest.param(StandIn, id="stand-in")


@pytest.fixture(scope="module", params=[STAND_IN, REAL])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with request.param() as running:
        yield running


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with StandIn() as running:
        yield running


@pytest.fixture
def name() -> str:
    """Of a Secret that nobody else uses."""
    return f"rings-{secrets.token_hex(6)}"


async def _open(
    cluster: Cluster, name: str, account: str = "creator", clock: Clock | None = None, namespace: str = NAMESPACE
) -> KubernetesStore:
    return await KubernetesStore.open(
        namespace,
        name,
        clock or SystemClock(),
        server=cluster.server,
        token=cluster.token(account),
        ca=cluster.ca,
    )


class TestKubernetesStore(SharedStoreContract):
    @pytest.fixture
    def open_store(self, cluster: Cluster, name: str) -> OpenStore:
        async def opened() -> Store:
            return await _open(cluster, name)

        return opened


class TestFileStoreOnTheMountedSecret(ReaderContract):
    @pytest.fixture
    def open_store(self, cluster: Cluster, name: str) -> OpenStore:
        async def opened() -> Store:
            return await _open(cluster, name)

        return opened

    @pytest.fixture
    def open_reader(self, tmp_path: Path) -> OpenStore:
        async def opened() -> Store:
            return await FileStore.open(tmp_path / "mounted", SystemClock(), writable=False)

        return opened

    @pytest.fixture
    def renew(self, cluster: Cluster, name: str, tmp_path: Path) -> Renew:
        async def kubelet() -> None:
            mount(tmp_path / "mounted", await asyncio.to_thread(cluster.data, name))

        return kubelet


# Where there is no store yet


async def test_get_and_update_by_name_are_enough_for_a_secret_that_was_deployed_empty(cluster: Cluster) -> None:
    cluster.create("named", {})
    try:
        store = await _open(cluster, "named", "named")
        assert await store.save("default", b"one", expected=0)
        assert await store.load("default") == Document(1, b"one")
    finally:
        cluster.remove("named")


async def test_secret_is_not_made_without_the_right_to(cluster: Cluster) -> None:
    with pytest.raises(UnavailableStoreError, match=r"answers 403 to create .*deploy the Secret empty.*cannot create"):
        await _open(cluster, "named", "named")


async def test_another_secret_stays_closed(cluster: Cluster, name: str) -> None:
    cluster.create(name, {})
    with pytest.raises(UnavailableStoreError, match=r"answers 403 to get .*grant the service account `get`"):
        await _open(cluster, name, "named")


async def test_starting_all_at_once_makes_one_store(cluster: Cluster, name: str) -> None:
    stores = await asyncio.gather(*(_open(cluster, name) for _ in range(10)))
    assert len({await store.store_id() for store in stores}) == 1


async def test_secret_of_something_else_is_never_written(cluster: Cluster, name: str) -> None:
    cluster.create(name, {"password": b"x"})
    with pytest.raises(UnavailableStoreError, match="holds something, but no 'store'"):
        await _open(cluster, name)
    assert cluster.data(name) == {"password": b"x"}


async def test_unknown_namespace_is_named(cluster: Cluster, name: str) -> None:
    with pytest.raises(UnavailableStoreError, match="there is no namespace 'elsewhere'"):
        await _open(cluster, name, "admin", namespace="elsewhere")


@pytest.mark.parametrize("named", ["../secrets", "a/b", "", "UPPER", "x?y=z", "-a"])
async def test_what_is_no_name_never_gets_into_a_path(stand_in: StandIn, name: str, named: str) -> None:
    with pytest.raises(UnavailableStoreError, match="no name of a"):
        await _open(stand_in, named)
    with pytest.raises(UnavailableStoreError, match="no name of a"):
        await _open(stand_in, name, namespace=named)


# Changes


async def test_what_others_put_on_the_secret_stays(cluster: Cluster, name: str) -> None:
    cluster.create(name, {}, metadata={"name": name, "labels": {"team": "a"}, "annotations": {"note": "b"}})
    store = await _open(cluster, name)
    cluster.replace(name, lambda secret: secret["data"].update(README="aGk="))
    assert await store.save("default", b"one", expected=0)
    secret = cluster.read(name)
    assert secret["metadata"]["labels"]["team"] == "a"
    assert secret["metadata"]["annotations"]["note"] == "b"
    assert cluster.data(name)["README"] == b"hi"
    assert await store.revisions() == {"default": 1}


async def test_changes_to_several_rings_at_once_all_succeed(cluster: Cluster, name: str) -> None:
    stores = [await _open(cluster, name) for _ in range(4)]
    saved = await asyncio.gather(*(s.save(f"p{i}", b"one", expected=0) for i, s in enumerate(stores)))
    assert saved == [True] * 4
    assert await stores[0].revisions() == {f"p{i}": 1 for i in range(4)}


async def test_change_between_read_and_update_is_noticed(stand_in: StandIn, name: str) -> None:
    store, other = await _open(stand_in, name), await _open(stand_in, name)
    loop = asyncio.get_running_loop()

    def between(method: str, _path: str) -> None:
        if method == "PUT":
            stand_in.before = lambda _method, _path: None
            assert asyncio.run_coroutine_threadsafe(other.save("default", b"theirs", expected=0), loop).result(10)

    stand_in.before = between
    assert not await store.save("default", b"mine", expected=0)
    assert await store.load("default") == Document(1, b"theirs")


async def test_endless_conflict_is_an_error(stand_in: StandIn, name: str) -> None:
    store = await _open(stand_in, name)
    stand_in.before = lambda method, _path: (409, {}, b"{}") if method == "PUT" else None
    with pytest.raises(UnavailableStoreError, match="changed by others all the time"):
        await store.save("default", b"one", expected=0)


async def test_secret_that_was_removed_in_use_is_not_made_again(cluster: Cluster, name: str) -> None:
    store = await _open(cluster, name)
    cluster.remove(name)
    for call in (store.save("default", b"one", expected=0), store.revisions(), store.now(), store.heartbeat()):
        with pytest.raises(UnavailableStoreError, match="there is no Secret"):
            await call
    assert cluster.ask("GET", f"secrets/{name}")[0] == 404


async def test_secret_that_was_replaced_in_use_is_not_written(cluster: Cluster, name: str) -> None:
    store = await _open(cluster, name)
    cluster.remove(name)
    other = await _open(cluster, name)
    for call in (store.save("default", b"one", expected=0), store.heartbeat()):
        with pytest.raises(UnavailableStoreError, match="another store than at the start"):
            await call
    assert await other.revisions() == {}


async def test_secret_that_was_emptied_in_use_is_not_filled_again(cluster: Cluster, name: str) -> None:
    store = await _open(cluster, name)
    cluster.replace(name, lambda secret: secret.pop("data"))
    with pytest.raises(UnavailableStoreError, match="emptied or replaced while in use"):
        await store.save("default", b"one", expected=0)


async def test_immutable_secret_is_named(cluster: Cluster, name: str) -> None:
    store = await _open(cluster, name)
    cluster.replace(name, lambda secret: secret.update(immutable=True))
    with pytest.raises(UnavailableStoreError, match="deploy it without `immutable: true`"):
        await store.save("default", b"one", expected=0)


async def test_more_than_kubernetes_allows_is_refused_with_advice(cluster: Cluster, name: str) -> None:
    store = await _open(cluster, name)
    assert await store.save("a", bytes(900_000), expected=0)
    with pytest.raises(UnavailableStoreError, match="keep fewer profiles in it"):
        await store.save("b", bytes(200_000), expected=0)
    assert await store.revisions() == {"a": 1}


async def test_damaged_ring_is_an_error_and_stays(cluster: Cluster, name: str) -> None:
    store = await _open(cluster, name)
    await store.save("default", b"one", expected=0)
    cluster.replace(name, lambda secret: secret["data"].update({"default.ring": "eHh4"}))
    for call in (store.load("default"), store.revisions(), store.save("default", b"two", expected=1)):
        with pytest.raises(UnavailableStoreError, match="restore it from a backup"):
            await call
    assert await store.save("other", b"one", expected=0)
    assert cluster.data(name)["default.ring"] == b"xxx"


# Credentials


async def test_token_is_read_again_for_each_request(stand_in: StandIn, name: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("stale")
    where: dict[str, Any] = {"server": stand_in.server, "token": token, "ca": stand_in.ca}
    with pytest.raises(UnavailableStoreError, match=r"answers 401 .*does not accept the service account's token"):
        await KubernetesStore.open(NAMESPACE, name, SystemClock(), **where)
    token.write_bytes(stand_in.token("creator").read_bytes())
    store = await KubernetesStore.open(NAMESPACE, name, SystemClock(), **where)
    token.write_text("stale")
    with pytest.raises(UnavailableStoreError, match="401"):
        await store.revisions()
    token.write_bytes(stand_in.token("creator").read_bytes())
    assert await store.revisions() == {}


@pytest.mark.parametrize("text", [b"", b"\n", b"two words", b"line\r\nX-More: 1", b"\xff\xfe"])
async def test_what_is_no_token_is_never_sent(stand_in: StandIn, name: str, tmp_path: Path, text: bytes) -> None:
    (tmp_path / "token").write_bytes(text)
    asked = []
    stand_in.before = lambda method, _path: asked.append(method)
    with pytest.raises(UnavailableStoreError, match=r"is no token|cannot be read"):
        await KubernetesStore.open(
            NAMESPACE, name, SystemClock(), server=stand_in.server, token=tmp_path / "token", ca=stand_in.ca
        )
    assert asked == []


async def test_missing_files_are_named(stand_in: StandIn, name: str, tmp_path: Path) -> None:
    for gone in ("token", "ca"):
        files = {"token": stand_in.token("creator"), "ca": stand_in.ca, gone: tmp_path / "gone"}
        with pytest.raises(UnavailableStoreError, match=r"gone .*No such file"):
            await KubernetesStore.open(NAMESPACE, name, SystemClock(), server=stand_in.server, **files)


async def test_token_goes_to_nobody_without_a_certificate_of_the_ca(
    stand_in: StandIn, name: str, tmp_path: Path
) -> None:
    asked = []
    stand_in.before = lambda method, _path: asked.append(method)
    other = make_certificates(tmp_path)
    with pytest.raises(UnavailableStoreError, match="has no certificate of the CA"):
        await KubernetesStore.open(
            NAMESPACE, name, SystemClock(), server=stand_in.server, token=stand_in.token("creator"), ca=other
        )
    with pytest.raises(UnavailableStoreError, match="has no certificate of the CA"):
        await KubernetesStore.open(
            NAMESPACE,
            name,
            SystemClock(),
            server=stand_in.server.replace("127.0.0.1", "localhost"),  # not in the certificate
            token=stand_in.token("creator"),
            ca=stand_in.ca,
        )
    assert asked == []


@pytest.mark.parametrize(
    "server", ["http://127.0.0.1:1", "127.0.0.1:1", "https://", "", "https://[::1", "https://h:99999"]
)
async def test_nothing_goes_out_in_plain_text(stand_in: StandIn, name: str, server: str) -> None:
    with pytest.raises(UnavailableStoreError, match="https://HOST:PORT"):
        await KubernetesStore.open(
            NAMESPACE, name, SystemClock(), server=server, token=stand_in.token("creator"), ca=stand_in.ca
        )


async def test_host_that_can_be_none_is_named(stand_in: StandIn, name: str) -> None:
    with pytest.raises(UnavailableStoreError, match="cannot be reached"):
        await KubernetesStore.open(
            NAMESPACE,
            name,
            SystemClock(),
            server=f"https://{'a' * 70}.b",
            token=stand_in.token("creator"),
            ca=stand_in.ca,
        )


async def test_in_a_cluster_everything_is_found(stand_in: StandIn, name: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(stand_in.token("creator").read_bytes())
    (tmp_path / "ca.crt").write_bytes(stand_in.ca.read_bytes())
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(stand_in.port)}
    store = await KubernetesStore.open_in_cluster(NAMESPACE, name, SystemClock(), environment, tmp_path)
    assert await store.revisions() == {}
    with pytest.raises(UnavailableStoreError, match="inside a cluster only"):
        await KubernetesStore.open_in_cluster(NAMESPACE, name, SystemClock(), {}, tmp_path)
    with pytest.raises(UnavailableStoreError, match=r"\[?::1\]?:1 cannot be reached"):
        await KubernetesStore.open_in_cluster(
            NAMESPACE, name, SystemClock(), {"KUBERNETES_SERVICE_HOST": "::1", "KUBERNETES_SERVICE_PORT": "1"}, tmp_path
        )


# An API server that is not well


@pytest.mark.parametrize(
    ("status", "headers", "body", "words", "wait"),
    [
        (429, {"Retry-After": "7"}, b"", "answers 429 .*too much to do", 7.0),
        (429, {"Retry-After": "soon"}, b"\xff", "answers 429", None),
        (500, {}, b'{"message": "etcd\\nfailed"}', "answers 500 .*see its own log: etcdfailed", None),
        (503, {"Retry-After": "86400"}, b"[]", "answers 503", 60.0),
        (302, {"Location": "https://127.0.0.1:1/"}, b"", "answers 302", None),
        (422, {}, b'{"message": ["x"]}', "answers 422", None),
        (200, {}, b"", "is no Secret", None),
        (200, {}, b"<html>", "is no Secret", None),
        (200, {}, b'{"kind": "Secret", "metadata": {"name": "x", "resourceVersion": "1"}}', "is no Secret", None),
        (200, {}, b"[" * 100_000, "is no Secret", None),
        (200, {}, bytes(5 * 1024 * 1024), "cannot be reached", None),
        (409, {}, b"{}", "answers 409", None),
    ],
)
async def test_odd_answers_are_named(
    stand_in: StandIn, name: str, status: int, headers: dict[str, str], body: bytes, words: str, wait: float | None
) -> None:
    store = await _open(stand_in, name)
    stand_in.before = lambda _method, _path: (status, headers, body)
    with pytest.raises(UnavailableStoreError, match=words) as found:
        await store.revisions()
    assert found.value.retry_after == wait
    stand_in.before = lambda _method, _path: None
    assert await store.revisions() == {}


@pytest.mark.parametrize(
    "change",
    [
        {"resourceVersion": ""},
        {"resourceVersion": None},
        {"resourceVersion": 7},
        {"name": "another"},
    ],
)
async def test_secret_without_a_version_of_its_own_is_never_updated(
    stand_in: StandIn, name: str, change: dict[str, Any]
) -> None:
    store = await _open(stand_in, name)
    whole = stand_in.read(name)
    whole["metadata"].update(change)
    asked = []

    def answer(method: str, _path: str) -> tuple[int, dict[str, str], bytes]:
        asked.append(method)
        return 200, {}, json.dumps(whole).encode()

    stand_in.before = answer
    with pytest.raises(UnavailableStoreError, match="is no Secret"):
        await store.save("default", b"one", expected=0)
    assert asked == ["GET"]


async def test_api_server_that_does_not_answer_is_given_up(
    stand_in: StandIn, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await _open(stand_in, name)
    monkeypatch.setattr(kubernetes, "TIMEOUT", 0.3)
    stand_in.before = lambda _method, _path: time.sleep(1)
    with pytest.raises(UnavailableStoreError, match="does not answer in"):
        await store.revisions()
    stand_in.before = lambda _method, _path: None
    assert await store.revisions() == {}


async def test_change_whose_answer_is_lost_shows_at_the_next_look(stand_in: StandIn, name: str) -> None:
    store = await _open(stand_in, name)

    def lose(method: str, _path: str) -> None:
        stand_in.loses_answers = method == "PUT"

    stand_in.before = lose
    with pytest.raises(UnavailableStoreError, match="broke off"):
        await store.save("default", b"one", expected=0)
    assert await store.load("default") == Document(1, b"one")
    assert not await store.save("default", b"one", expected=0)


async def test_api_server_that_is_away_is_named(name: str, tmp_path: Path) -> None:
    with StandIn() as gone:
        store = await _open(gone, name)
        token = gone.token("creator").read_text()
        files = {path: path.read_bytes() for path in (gone.token("creator"), gone.ca)}
    gone.folder.mkdir()
    for path, content in files.items():
        path.write_bytes(content)
    with pytest.raises(UnavailableStoreError, match="cannot be reached or broke off: Connection refused") as found:
        await store.revisions()
    for path in files:
        path.unlink()
    gone.folder.rmdir()
    assert token.strip() not in repr(found.value) + repr(store)


async def test_closed_store_answers_nothing(stand_in: StandIn, name: str) -> None:
    store = await _open(stand_in, name)
    await store.close()
    with pytest.raises(UnavailableStoreError, match="closed"):
        await store.revisions()


# Time


class Shifted:
    """The machine's clocks, with the wall clock ahead by so many seconds."""

    def __init__(self, ahead: float) -> None:
        self.ahead = ahead

    def wall(self) -> float:
        return time.time() + self.ahead

    def boot(self) -> float:
        return time.monotonic()


@pytest.mark.parametrize("ahead", [3600, -3600, 5, -5])
async def test_keeper_whose_clock_is_not_the_api_servers_sees_the_skew(
    cluster: Cluster, name: str, ahead: float
) -> None:
    clock = Shifted(ahead)
    store = await _open(cluster, name, clock=clock)
    await store.heartbeat()
    skew = clock.wall() - await store.now()
    assert abs(skew - ahead) <= 1.6  # the header shows whole seconds
    assert abs(await store.written() - time.time()) <= 1.6


@pytest.mark.parametrize("ahead", [0, 0.9, -0.9])
async def test_keeper_goes_by_its_own_clock_within_the_headers_grain(cluster: Cluster, name: str, ahead: float) -> None:
    clock = Shifted(ahead)
    store = await _open(cluster, name, clock=clock)
    for _ in range(5):
        assert abs(clock.wall() - await store.now()) < 0.1


async def test_wall_clock_that_is_set_changes_nothing(stand_in: StandIn, name: str) -> None:
    clock = Shifted(0)
    store = await _open(stand_in, name, clock=clock)
    clock.ahead = 3600
    assert abs(clock.wall() - await store.now() - 3600) < 1


async def test_keeper_behind_the_last_word_goes_by_it(stand_in: StandIn, name: str) -> None:
    stand_in.date_ahead = 1000
    first = await _open(stand_in, name, clock=Shifted(1000))
    await first.save("default", b"one", expected=0)
    stand_in.date_ahead = 0
    second = await _open(stand_in, name)
    assert 990 < await second.now() - time.time() <= 1000.1


@pytest.mark.parametrize("date", ["", "soon", "Thu, 99 Nov 2026 00:00:00 GMT"])
async def test_date_that_is_none_is_left_aside(
    stand_in: StandIn, name: str, monkeypatch: pytest.MonkeyPatch, date: str
) -> None:
    monkeypatch.setattr("tests.stores.clusters.formatdate", lambda *_args, **_more: date)
    store = await _open(stand_in, name)
    assert abs(time.time() - await store.now()) < 1


async def test_heartbeat_moves_the_last_word_and_no_ring(cluster: Cluster, name: str) -> None:
    store = await _open(cluster, name)
    await store.save("default", b"one", expected=0)
    before = await store.written()
    await asyncio.sleep(0.05)
    await store.heartbeat()
    assert await store.written() > before
    assert await store.revisions() == {"default": 1}


async def test_heartbeat_that_comes_second_is_none(stand_in: StandIn, name: str) -> None:
    store = await _open(stand_in, name)
    stand_in.before = lambda method, _path: (409, {}, b"{}") if method == "PUT" else None
    await store.heartbeat()


async def test_tls_is_of_this_decade(stand_in: StandIn, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await _open(stand_in, name)
    context = kubernetes._context(stand_in.ca)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    assert await store.revisions() == {}
