"""A store in one Kubernetes Secret, for keepers: written through the API server, read by sidecars where it is mounted.

What the Secret holds is what `FileStore` reads once the kubelet has made a folder of it (`layout.py`).
https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/secret-v1/

Rules:
 1. Every write is an update of the whole Secret with the `resourceVersion` (and uid) that was read: the API server refuses it with 409 if
    anything changed meanwhile. Then the Secret is read again: another revision of the ring is another's win, anything else a retry.
 2. The service account needs `get` and `update` on this one Secret, by name. `create` cannot be granted by name, so deploy the Secret
    empty; a keeper that may create makes it where there is none. One that is filled by something else is never written.
 3. Store time is the keeper's clock (`store_time.py`), as in a folder: sidecars see no other. The API server's `Date` header is a check on
    it: where the two differ for certain by more than `DATE_SECONDS`, store time is moved to the API server's, so that the keeper sees its
    own clock as skewed and neither rotates nor destroys by it.
 4. The service account's token and the cluster's CA are read again for each request (both are renewed while the pod runs). TLS only,
    and only with a certificate of that CA. No redirect is followed and no proxy used.
 5. A request whose answer is lost may have been done: whoever asked was told that the store is unavailable, and asks again.

What was overwritten stays in etcd until it is compacted, and in its backups; the kubelet takes up to a minute or more to renew a mount.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import http.client
import json
import os
import re
import secrets
import ssl
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from sidecar.errors import UnavailableStoreError
from sidecar.ports import Document
from sidecar.stores import layout
from sidecar.stores.layout import DamagedFileError, StoreFile
from sidecar.stores.store_time import StoreTime

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from email.message import Message

    from sidecar.ports import Clock

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT = 10.0  # seconds for a whole request
DATE_SECONDS = 1.0  # the header's grain
ATTEMPTS = 10  # at an update that others keep winning
_ANSWER_MAX = 4 * 1024 * 1024  # bytes; a full Secret has 1 MiB, a third more in base64, and its metadata
_TOKEN_MAX = 64 * 1024
_DNS_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)  # RFC 1123; the API server is stricter

_T = TypeVar("_T")


class _ConflictError(Exception):
    """The API server answered 409."""


@dataclass(frozen=True, slots=True)
class _Secret:
    """The Secret as it was read, and its values decoded."""

    whole: Mapping[str, Any]
    data: Mapping[str, bytes]


class KubernetesStore:
    """See `ports.Store`. Every call is safe from any task: each is one request or a few, in a thread."""

    private = False
    writable = True

    def __init__(self, namespace: str, name: str, clock: Clock, *, server: str, token: Path, ca: Path) -> None:
        """Reads the clock and asks nothing; `open` does.

        server: the API server, `https://HOST:PORT`. token, ca: the files with the service account's token and the CA's certificates.
        `UnavailableStoreError`: one of them cannot be what it is for.
        """
        for what, text in (("namespace", namespace), ("secret", name)):
            if not _DNS_NAME.fullmatch(text):
                raise UnavailableStoreError(f"kubernetes://{namespace}/{name}: this is no name of a {what}")
        try:
            address = urlsplit(server)
            host, port = address.hostname or "", address.port or 443
        except ValueError:
            host, port = "", 0
        if not host or not server.startswith("https://"):
            raise UnavailableStoreError(f"the API server's address is https://HOST:PORT, and not {server!r}")
        self._where = f"kubernetes://{namespace}/{name}"
        self._name = name
        self._namespace = namespace
        self._host, self._port = host, port
        self._token, self._ca = token, ca
        self._clock = clock
        self._time = StoreTime(clock)
        self._date_ahead = 0.0  # seconds by which the API server's clock is ahead of ours, as far as is certain
        self._store_id: str | None = None
        self._closed = False

    @classmethod
    async def open(
        cls, namespace: str, name: str, clock: Clock, *, server: str, token: Path, ca: Path
    ) -> KubernetesStore:
        """The store in that Secret, made where there is none. `UnavailableStoreError`, with words for an operator."""
        store = cls(namespace, name, clock, server=server, token=token, ca=ca)
        await store._run(store._open)
        return store

    @classmethod
    async def open_in_cluster(
        cls,
        namespace: str,
        name: str,
        clock: Clock,
        environment: Mapping[str, str] = os.environ,
        account: Path = ACCOUNT,
        *,
        make: bool = True,
    ) -> KubernetesStore:
        """As `open`, with what Kubernetes gives to each pod. `UnavailableStoreError` outside a cluster too.

        Without `make` a store that is not there is unavailable, and nothing is written.
        """
        host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
        if not host or not port.isdecimal():
            raise UnavailableStoreError(
                f"kubernetes://{namespace}/{name} works inside a cluster only: KUBERNETES_SERVICE_HOST is not set"
            )
        server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        store = cls(namespace, name, clock, server=server, token=account / "token", ca=account / "ca.crt")
        await store._run(store._open if make else store._look)
        return store

    async def store_id(self) -> str:
        """See `ports.Store`."""
        return (await self._run(lambda: self._store_of(self._get()))).store_id

    async def now(self) -> float:
        """See `ports.Store`, and rule 3."""
        return await self._run(lambda: self._now(self._get()))

    async def written(self) -> float:
        """Store time of the last write, heartbeats included, in seconds since the epoch."""
        return await self._run(lambda: self._written(self._get()))

    async def revisions(self) -> dict[str, int]:
        """See `ports.Store`."""
        return await self._run(self._revisions)

    async def load(self, name: str) -> Document | None:
        """See `ports.Store`."""
        return await self._run(lambda: self._ring(self._get(), name))

    async def save(self, name: str, content: bytes, *, expected: int) -> bool:
        """See `ports.Store`. True: the API server has it, which writes it to etcd's disks before it answers."""
        return await self._run(lambda: self._save(name, content, expected))

    async def heartbeat(self) -> None:
        """Write the time, so that readers know how old their state can be. Every mount of the Secret is renewed for it: not too often."""
        await self._run(self._beat)

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        """False: every pod may mount the Secret at any time."""
        yield False

    async def scrub(self) -> None:
        """Nothing that a client of the API can do; see the end of the text above."""

    async def close(self) -> None:
        """See `ports.Store`."""
        self._closed = True

    def __repr__(self) -> str:
        return f"KubernetesStore({self._where})"

    # What follows runs in threads.

    async def _run(self, work: Callable[[], _T]) -> _T:
        if self._closed:
            raise UnavailableStoreError("the store is closed")
        return await asyncio.to_thread(work)

    def _open(self) -> None:
        for _ in range(ATTEMPTS):
            with contextlib.suppress(_ConflictError):  # somebody was quicker: look at what they made
                secret = self._find()
                made = StoreFile(secrets.token_hex(16), max(self._own_time(), 0.0))
                if secret is None:
                    self._create({layout.STORE: layout.store_bytes(made)})
                elif not secret.data:
                    self._update(secret, layout.STORE, layout.store_bytes(made))
                elif layout.STORE not in secret.data:
                    raise UnavailableStoreError(
                        f"the Secret {self._where} holds something, but no {layout.STORE!r}: name another Secret, or restore it; it is "
                        "never made anew over what is there"
                    )
                self._store_id = self._store_of(self._get()).store_id
                return
        raise UnavailableStoreError(f"the Secret {self._where} is changed by others all the time")

    def _look(self) -> None:
        secret = self._find()
        if secret is None or not secret.data:
            raise UnavailableStoreError(
                f"the Secret {self._where} holds no store yet: a keeper makes it when it starts"
            )
        self._store_id = self._store_of(secret).store_id

    def _revisions(self) -> dict[str, int]:
        secret = self._get()
        revisions = {}
        for key in secret.data:
            profile = layout.profile_of(key)
            ring = self._ring(secret, profile) if profile else None
            if profile and ring:
                revisions[profile] = ring.revision
        return revisions

    def _save(self, profile: str, content: bytes, expected: int) -> bool:
        key = layout.file_name(profile)
        for _ in range(ATTEMPTS):
            secret = self._get()
            self._demand_same(secret)
            found = self._ring(secret, profile)
            if (found.revision if found else 0) != expected:
                return False
            with contextlib.suppress(_ConflictError):
                ring = layout.ring_bytes(profile, Document(expected + 1, content), self._now(secret))
                self._update(secret, key, ring)
                return True
        raise UnavailableStoreError(f"the Secret {self._where} is changed by others all the time")

    def _beat(self) -> None:
        secret = self._get()
        store = self._demand_same(secret)
        with contextlib.suppress(_ConflictError):  # somebody wrote just now: that was as good as a heartbeat
            self._update(secret, layout.STORE, layout.store_bytes(StoreFile(store.store_id, self._now(secret))))

    # What the Secret holds

    def _store_of(self, secret: _Secret) -> StoreFile:
        if layout.STORE not in secret.data:
            raise UnavailableStoreError(
                f"the Secret {self._where} was emptied or replaced while in use: restore it, or start again"
            )
        with self._no_damage(layout.STORE):
            return layout.read_store(secret.data[layout.STORE])

    def _demand_same(self, secret: _Secret) -> StoreFile:
        store = self._store_of(secret)
        if store.store_id != self._store_id:
            raise UnavailableStoreError(
                f"the Secret {self._where} holds another store than at the start: start again to use it"
            )
        return store

    def _ring(self, secret: _Secret, profile: str) -> Document | None:
        key = layout.file_name(profile)
        if key not in secret.data:
            return None
        with self._no_damage(key):
            return layout.read_ring(profile, secret.data[key])[0]

    @contextlib.contextmanager
    def _no_damage(self, key: str) -> Iterator[None]:
        try:
            yield
        except DamagedFileError as error:
            raise UnavailableStoreError(
                f"{key!r} in the Secret {self._where} {error}: restore it from a backup; it is never repaired or replaced by itself"
            ) from error

    def _written(self, secret: _Secret) -> float:
        times = [self._store_of(secret).written]
        for key, value in secret.data.items():
            profile = layout.profile_of(key)
            if profile:
                with contextlib.suppress(DamagedFileError):  # told when it is loaded
                    times.append(layout.read_ring_line(value[: layout.LINE_MAX], len(value)).written)
        return max(times)

    # Time

    def _own_time(self) -> float:
        return self._time.now() + self._date_ahead

    def _now(self, secret: _Secret) -> float:
        return max(self._own_time(), self._written(secret))

    def _compare_date(self, date: str | None, sent: float) -> None:
        """`date` was made between `sent` (own time) and now, by a clock that shows whole seconds."""
        try:
            theirs = parsedate_to_datetime(date or "").timestamp()
        except (TypeError, ValueError):
            return
        behind, ahead = theirs - self._time.now(), sent - (theirs + 1)
        certain = behind if behind > 0 else min(-ahead, 0.0)
        self._date_ahead = certain if abs(certain) > DATE_SECONDS else 0.0

    # The API

    def _get(self) -> _Secret:
        secret = self._find()
        if secret is None:
            raise UnavailableStoreError(f"there is no Secret {self._where}: it was removed, or this is another cluster")
        return secret

    def _find(self) -> _Secret | None:
        status, answer = self._ask("GET", f"/{self._name}", None)
        return None if status == 404 else self._secret(answer)

    def _create(self, data: Mapping[str, bytes]) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": {"name": self._name, "labels": {"app.kubernetes.io/managed-by": "tokensidecar"}},
            "data": _encoded(data),
        }
        status, _ = self._ask("POST", "", body)
        if status == 404:
            raise UnavailableStoreError(f"there is no namespace {self._namespace!r}")

    def _update(self, secret: _Secret, key: str, value: bytes) -> None:
        """Everything as it was read, with that one value. `_ConflictError`: it has changed since."""
        if secret.whole.get("immutable"):
            raise UnavailableStoreError(f"the Secret {self._where} is immutable: deploy it without `immutable: true`")
        data = {**secret.data, key: value}
        size = sum(map(len, data.values()))
        if size > layout.LARGEST:
            raise UnavailableStoreError(
                f"the Secret {self._where} would have {size} bytes, and Kubernetes allows {layout.LARGEST}: keep fewer profiles in it"
            )
        status, _ = self._ask("PUT", f"/{self._name}", {**secret.whole, "data": _encoded(data)})
        if status == 404:
            raise UnavailableStoreError(
                f"the Secret {self._where} was removed while in use: restore it, or start again"
            )

    def _secret(self, answer: Mapping[str, Any]) -> _Secret:
        try:
            version = answer["metadata"]["resourceVersion"]
            if (
                answer["kind"] != "Secret"
                or answer["metadata"]["name"] != self._name
                or not (version and isinstance(version, str))
            ):
                raise ValueError
            data = {key: base64.b64decode(value, validate=True) for key, value in (answer.get("data") or {}).items()}
        except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
            raise UnavailableStoreError(f"the API server's answer about {self._where} is no Secret") from error
        return _Secret(answer, data)

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> tuple[int, Mapping[str, Any]]:
        """Status and body; only 200, 201 and 404 come back."""
        sent = self._time.now()
        try:
            status, headers, raw = self._exchange(method, f"/api/v1/namespaces/{self._namespace}/secrets{path}", body)
        except ssl.SSLCertVerificationError as error:
            raise UnavailableStoreError(
                f"the API server {self._host}:{self._port} has no certificate of the CA in {self._ca}: {error.verify_message}"
            ) from error
        except TimeoutError as error:
            raise UnavailableStoreError(
                f"the API server {self._host}:{self._port} does not answer in {TIMEOUT:.0f} s"
            ) from error
        except (OSError, http.client.HTTPException, UnicodeError) as error:  # the last: a host that can be none
            raise UnavailableStoreError(
                f"the API server {self._host}:{self._port} cannot be reached or broke off: {getattr(error, 'strerror', None) or type(error).__name__}"
            ) from error
        self._compare_date(headers.get("Date"), sent)
        try:
            answer = json.loads(raw)
        except (ValueError, RecursionError):
            answer = None
        answer = answer if isinstance(answer, dict) else {}
        if status == 409 and body is not None:
            raise _ConflictError
        if status not in (200, 201, 404):
            raise self._refusal(method, status, headers, answer)
        return status, answer

    def _refusal(self, method: str, status: int, headers: Message, answer: Mapping[str, Any]) -> UnavailableStoreError:
        verb = {"GET": "get", "PUT": "update", "POST": "create"}[method]
        advice = {
            401: f"it does not accept the service account's token in {self._token}: is the account there, and the token current?",
            403: f"grant the service account `{verb}` on this Secret"
            + (
                ", or deploy the Secret empty: then `get` and `update` by name are enough"
                if verb == "create"
                else " by name (Role)"
            ),
            429: "it has too much to do",
        }.get(status, "see its own log" if status >= 500 else "")
        said = answer.get("message")
        parts = [
            f"the API server answers {status} to {verb} {self._where}",
            advice,
            _printable(said) if isinstance(said, str) else "",
        ]
        wait = headers.get("Retry-After", "")
        return UnavailableStoreError(
            ": ".join(filter(None, parts)), retry_after=min(float(wait), 60.0) if wait.isdecimal() else None
        )

    def _exchange(self, method: str, path: str, body: Mapping[str, Any] | None) -> tuple[int, Message, bytes]:
        deadline = time.monotonic() + TIMEOUT
        headers = {
            "Authorization": f"Bearer {_token(self._token)}",
            "Accept": "application/json",
            "User-Agent": "tokensidecar",
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT, context=_context(self._ca))
        try:
            connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
            answer = connection.getresponse()
            raw = b""
            while part := answer.read1(65536):
                raw += part
                if len(raw) > _ANSWER_MAX:
                    raise http.client.HTTPException
                if time.monotonic() > deadline:
                    raise TimeoutError
            return answer.status, answer.headers, raw
        finally:
            connection.close()


def _token(path: Path) -> str:
    try:
        with path.open("rb") as file:
            token = file.read(_TOKEN_MAX).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UnavailableStoreError(
            f"the service account's token in {path} cannot be read: {getattr(error, 'strerror', None) or 'it is no token'}"
        ) from None
    if not re.fullmatch(r"[!-~]+", token):
        raise UnavailableStoreError(f"the service account's token in {path} is no token")
    return token


def _context(ca: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(ca))
    except (OSError, ssl.SSLError) as error:
        raise UnavailableStoreError(
            f"the cluster's CA in {ca} cannot be used: {error.strerror or 'no certificate'}"
        ) from None


def _encoded(data: Mapping[str, bytes]) -> dict[str, str]:
    return {key: base64.b64encode(value).decode("ascii") for key, value in data.items()}


def _printable(text: str) -> str:
    return "".join(c for c in text[:300] if c.isprintable())
