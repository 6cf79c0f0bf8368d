"""A client that remembers what a sidecar acknowledged, over all its starts, and holds it to that.

What it checks are the rules of the key ring that a fault must not break: one active key of each use, no state goes backwards, the revision
only grows, and every token that was handed out is good until it expires, unless the end of its key was acknowledged.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tokensidecar.v1 import (
    admin_service_pb2 as admin,
    admin_service_pb2_grpc as admin_grpc,
    keys_pb2,
    token_service_pb2 as pb,
    token_service_pb2_grpc as pb_grpc,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from google.protobuf.timestamp_pb2 import Timestamp

    from tests.running import RunningSidecar

AUDIENCE = "orders"
CALL_SECONDS = 10.0
ORDER = ("PENDING", "ACTIVE", "RETIRING", "DESTROYED", "COMPROMISED")
"""States in the only direction that they may go; a compromised key is taken out at last, as a destroyed one is."""

_CHANNEL = (
    ("grpc.use_local_subchannel_pool", 1),  # nothing is shared with a channel to the process before
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)


@dataclass(frozen=True)
class Token:
    """A token that was handed out."""

    text: str
    key_id: str
    expire_time: int


def reason_of(call: Callable[[], object]) -> str:
    """OK, or the contract's reason, or gRPC's own status where the call never reached the sidecar."""
    try:
        call()
    except grpc.RpcError as error:
        found = dict(error.trailing_metadata() or ()).get("tokensidecar-reason")
        return str(found or error.code().name)
    return "OK"


class Witness:
    """One profile of one sidecar. Calls may come from several threads; `check` and `list_keys` from one at a time."""

    def __init__(self, running: RunningSidecar, profile: str = "default", *, ttl: int | None = None) -> None:
        self.profile = profile
        self.tokens: list[Token] = []
        self.revision = 0  # the highest that was acknowledged
        self._ttl = ttl
        self._running = running
        self._states: dict[str, str] = {}
        self._compromised: set[str] = set()  # acknowledged
        self._lock = threading.Lock()
        self._channels: list[grpc.Channel] = []
        self.connect()

    def connect(self) -> None:
        """Fresh connections, as after a restart of the sidecar."""
        self.close()
        app = grpc.insecure_channel(self._running.app_socket, _CHANNEL)
        plane = grpc.insecure_channel(self._running.admin_socket, _CHANNEL)
        self._channels = [app, plane]
        self._app = pb_grpc.TokenServiceStub(app)
        self._rotator = pb_grpc.TokenServiceStub(plane)
        self._admin = admin_grpc.AdminServiceStub(plane)
        self._health = health_pb2_grpc.HealthStub(app)

    def close(self) -> None:
        """Let go of the connections."""
        for channel in self._channels:
            channel.close()
        self._channels = []

    # Calls. What is acknowledged is remembered; an error is grpc.RpcError.

    def issue(self, *, remember: bool = True) -> Token:
        request = pb.IssueRequest(profile=self.profile, subject="user-1", audiences=[AUDIENCE])
        if self._ttl is not None:
            request.ttl.seconds = self._ttl
        answer = self._app.Issue(request, timeout=CALL_SECONDS)
        token = Token(answer.token, answer.key_id, answer.expire_time.seconds)
        if remember:
            with self._lock:
                self.tokens.append(token)
        return token

    def validate(self, token: Token) -> str:
        """OK, or the reason why not."""
        request = pb.ValidateRequest(token=token.text, audiences=[AUDIENCE], profiles=[self.profile])
        return reason_of(lambda: self._app.Validate(request, timeout=CALL_SECONDS))

    def rotate(self, request_id: str = "", *, expected: int = 0) -> Any:
        request = pb.RotateRequest(profile=self.profile, request_id=request_id, expected_ring_revision=expected)
        answer = self._rotator.Rotate(request, timeout=CALL_SECONDS)
        self._acknowledged(answer.ring_revision)
        return answer

    def revoke_keys(self, key_ids: Iterable[str]) -> Any:
        named = list(key_ids)
        request = admin.RevokeKeysRequest(profile=self.profile, key_ids=named, reason="a test")
        answer = self._admin.RevokeKeys(request, timeout=CALL_SECONDS)
        self._compromised.update(named)
        self._acknowledged(answer.ring_revision)
        return answer

    def health(self, service: str = "tokensidecar.state") -> str:
        answer = self._health.Check(health_pb2.HealthCheckRequest(service=service), timeout=CALL_SECONDS)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    def _acknowledged(self, revision: int) -> None:
        with self._lock:
            self.revision = max(self.revision, revision)

    # Checks

    def list_keys(self) -> list[keys_pb2.Key]:
        """The profile's keys, held against each other and against what was seen before."""
        answer = self._admin.ListKeys(admin.ListKeysRequest(profile=self.profile, page_size=1000), timeout=CALL_SECONDS)
        keys = list(answer.keys)
        revisions = {key.ring_revision for key in keys}
        assert len(revisions) == 1, f"one answer of several revisions: {revisions}"
        (revision,) = revisions
        assert revision >= self.revision, f"revision {revision} after {self.revision} was acknowledged"
        self.revision = revision
        self._check_states(keys)
        for use in (keys_pb2.KEY_USE_ENCRYPTION, keys_pb2.KEY_USE_SIGNATURE):
            of_use = [key for key in keys if key.key_use == use]
            active = [key.key_id for key in of_use if key.state == keys_pb2.KEY_STATE_ACTIVE]
            assert len(active) == 1, f"active keys of one use: {active}"
            _check_no_overlap(of_use)
        return keys

    def _check_states(self, keys: list[keys_pb2.Key]) -> None:
        now = {key.key_id: keys_pb2.KeyState.Name(key.state).removeprefix("KEY_STATE_") for key in keys}
        for key_id, before in self._states.items():
            after = now.get(key_id, "DESTROYED" if before != "COMPROMISED" else "COMPROMISED")
            assert ORDER.index(after) >= ORDER.index(before), f"key {key_id} went from {before} back to {after}"
            now[key_id] = after
        for key_id in self._compromised:
            assert now[key_id] == "COMPROMISED", f"key {key_id} was revoked and is {now[key_id]}"
        self._states = now

    def active(self) -> dict[int, str]:
        """The ids of the active keys by use."""
        return {key.key_use: key.key_id for key in self.list_keys() if key.state == keys_pb2.KEY_STATE_ACTIVE}

    def check(self) -> None:
        """Every rule, now; and the sidecar issues."""
        self.list_keys()
        self.issue()
        with self._lock:
            tokens = list(self.tokens)
        for token in tokens:
            revoked = token.key_id in self._compromised
            answer = self.validate(token)
            if revoked:
                assert answer == "TOKEN_INVALID", f"a token under a revoked key: {answer}"
            elif answer != "OK":
                assert time.time() >= token.expire_time, f"a token that was handed out is {answer} before it expires"


def _seconds(stamp: Timestamp) -> float:
    return stamp.seconds + stamp.nanos / 1e9


def _check_no_overlap(keys: list[keys_pb2.Key]) -> None:
    """At no time, past or to come, are two of them active: their spans from activation to retirement are disjoint."""
    spans = []
    for key in keys:
        ends = [_seconds(getattr(key, name)) for name in ("retire_time", "compromise_time") if key.HasField(name)]
        start, end = _seconds(key.activate_time), min(ends, default=float("inf"))
        if start < end:
            spans.append((start, end, key.key_id))
    spans.sort()
    for (_, end, one), (start, _, other) in pairwise(spans):
        assert start >= end - 0.0015, f"{one} and {other} are active at once"  # times are shown to the millisecond
