"""The admin plane: rotate and look after keys."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import TracebackType
from typing import Self

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from tokensidecar.address import ADMIN, Address, addresses
from tokensidecar.client import START_TIMEOUT, TIMEOUT, fresh_id
from tokensidecar.connecting import first_ready
from tokensidecar.errors import from_rpc
from tokensidecar.tls import Metadata, Tls
from tokensidecar.tokens import Revocation, utc
from tokensidecar.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    keys_pb2,
    token_service_pb2,
    token_service_pb2_grpc,
)


class KeyUse(StrEnum):
    """What a key does in its profile."""

    ENCRYPTION = "encryption"
    SIGNATURE = "signature"
    REFRESH = "refresh"


class KeyState(StrEnum):
    """Follows from a key's times (NIST SP 800-57 Part 1)."""

    PENDING = "pending"
    ACTIVE = "active"
    RETIRING = "retiring"
    DESTROYED = "destroyed"
    COMPROMISED = "compromised"


@dataclass(frozen=True, slots=True)
class Key:
    """What is public about a key. Times are UTC, None where not set; `content_encryption` is empty for signature keys."""

    key_id: str
    profile: str
    use: KeyUse
    algorithm: str
    content_encryption: str
    state: KeyState
    create_time: datetime
    activate_time: datetime
    retire_time: datetime | None
    destroy_time: datetime | None
    compromise_time: datetime | None
    ring_revision: int


@dataclass(frozen=True, slots=True)
class Rotation:
    """The ring after a rotation, and when the successors start to issue."""

    keys: tuple[Key, ...]
    activate_time: datetime
    ring_revision: int


@dataclass(frozen=True, slots=True)
class Compromise:
    """The ring after keys were declared compromised. By `effective_time` every sidecar obeys; this one does already."""

    keys: tuple[Key, ...]
    effective_time: datetime
    ring_revision: int


def connect_admin(
    address: str | None = None,
    *,
    start_timeout: float = START_TIMEOUT,
    timeout: float = TIMEOUT,
    tls: Tls | None = None,
    metadata: Metadata | None = None,
) -> AdminClient:
    """`connect` for the admin plane: TOKENSIDECAR_ADMIN_ADDRESS, `admin/admin.sock` in the same directories, 127.0.0.1:8791."""
    found, channel = first_ready(addresses(ADMIN, address, os.environ), start_timeout, tls, metadata)
    return AdminClient(found, channel, timeout=timeout)


class AdminClient:
    """Looks after keys. Safe to share between threads. Made by `connect_admin`. Raises `CallError`s like `Client`."""

    def __init__(self, address: Address, channel: grpc.Channel, *, timeout: float) -> None:
        self.address = str(address)
        # Also at the program's end: a channel that is left to the interpreter's can wait for ever for a thread of its own.
        self._close = weakref.finalize(self, channel.close)
        self._tokens = token_service_pb2_grpc.TokenServiceStub(channel)
        self._admin = admin_service_pb2_grpc.AdminServiceStub(channel)
        self._timeout = timeout

    def rotate(
        self,
        profile: str = "",
        *,
        use: KeyUse | None = None,
        expected_ring_revision: int = 0,
        request_id: str | None = None,
        reason: str = "",
    ) -> Rotation:
        """Prepare successors. No token becomes invalid by it. `ChangedRingError`: another change won, or one is pending.

        Args:
            profile: whose keys; empty: "default".
            use: one use alone; None: encryption and signature.
            expected_ring_revision: the ring must be at this revision; 0: any.
            request_id: makes repeats of this call the same call; None: a fresh one, kept over retries.
            reason: for the audit log.
        """
        request = token_service_pb2.RotateRequest(
            profile=profile,
            key_use=keys_pb2.KeyUse.Value(f"KEY_USE_{use.name if use else 'UNSPECIFIED'}"),
            expected_ring_revision=expected_ring_revision,
            request_id=fresh_id() if request_id is None else request_id,
            reason=reason,
        )
        try:
            answer = self._tokens.Rotate(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise from_rpc(error) from error
        return Rotation(tuple(map(_key, answer.keys)), utc(answer.activate_time), answer.ring_revision)

    def keys(self, profile: str = "") -> tuple[Key, ...]:
        """All keys of a profile, or of all profiles; destroyed ones are left out."""
        found: list[Key] = []
        page = ""
        while True:
            request = admin_service_pb2.ListKeysRequest(profile=profile, page_size=1000, page_token=page)
            try:
                answer = self._admin.ListKeys(request, timeout=self._timeout)
            except grpc.RpcError as error:
                raise from_rpc(error) from error
            found += map(_key, answer.keys)
            page = answer.next_page_token
            if not page:
                return tuple(found)

    def revoke_keys(self, profile: str, key_ids: Iterable[str], *, reason: str = "") -> Compromise:
        """Declare keys compromised: they neither issue nor open from now on, and every token under them is dead. Not repeated by itself."""
        request = admin_service_pb2.RevokeKeysRequest(profile=profile, key_ids=key_ids, reason=reason)
        try:
            answer = self._admin.RevokeKeys(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise from_rpc(error) from error
        return Compromise(tuple(map(_key, answer.keys)), utc(answer.effective_time), answer.ring_revision)

    def revoke_subject(
        self, profile: str, subject: str, *, issued_before: datetime | None = None, reason: str = ""
    ) -> Revocation:
        """End all tokens of a subject with `iat` up to a time (None: now), and what is refreshed from them. Good to repeat."""
        request = admin_service_pb2.RevokeSubjectRequest(profile=profile, subject=subject, reason=reason)
        if issued_before is not None:
            request.issued_before.FromDatetime(issued_before)
        try:
            answer = self._admin.RevokeSubject(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise from_rpc(error) from error
        return Revocation(answer.revocation_revision, utc(answer.effective_time))

    def revoke_token_id(
        self, profile: str, token_id: str, *, expire_time: datetime | None = None, reason: str = ""
    ) -> Revocation:
        """End one token by its id (`jti`). `expire_time`: its `exp`; None: the latest that can be. Good to repeat."""
        request = admin_service_pb2.RevokeTokenIdRequest(profile=profile, token_id=token_id, reason=reason)
        if expire_time is not None:
            request.expire_time.FromDatetime(expire_time)
        try:
            answer = self._admin.RevokeTokenId(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise from_rpc(error) from error
        return Revocation(answer.revocation_revision, utc(answer.effective_time))

    def close(self) -> None:
        """End the connection; calls under way fail."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _key(key: keys_pb2.Key) -> Key:
    def at(name: str) -> datetime | None:
        time: Timestamp = getattr(key, name)
        return utc(time) if key.HasField(name) else None  # type: ignore[arg-type]

    return Key(
        key_id=key.key_id,
        profile=key.profile,
        use=KeyUse[keys_pb2.KeyUse.Name(key.key_use).removeprefix("KEY_USE_")],
        algorithm=key.algorithm,
        content_encryption=key.content_encryption,
        state=KeyState[keys_pb2.KeyState.Name(key.state).removeprefix("KEY_STATE_")],
        create_time=utc(key.create_time),
        activate_time=utc(key.activate_time),
        retire_time=at("retire_time"),
        destroy_time=at("destroy_time"),
        compromise_time=at("compromise_time"),
        ring_revision=key.ring_revision,
    )
