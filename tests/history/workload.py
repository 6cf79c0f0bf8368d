"""Clients: each lives through one token's life after the other, at any sidecar, and writes down what happened."""

from __future__ import annotations

import random
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from tokensidecar.v1 import (
    admin_service_pb2 as admin_pb,
    admin_service_pb2_grpc as admin_rpc,
    token_service_pb2 as pb,
    token_service_pb2_grpc as rpc,
)

from tests.history.record import Call, History

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.history.stage import Stage

SECONDS = {"validate": 2.0}
OTHERS = 5.0
TRIES = 60  # of a refresh whose end nobody knows


class Clients:
    """So many threads. `stop` ends them after the life that they are at."""

    def __init__(self, stage: Stage, history: History, threads: int, seed: int) -> None:
        self._stage = stage
        self._history = history
        self._apps = [rpc.TokenServiceStub(channel) for channel in stage.apps]
        self._rotators = [rpc.TokenServiceStub(channel) for channel in stage.admins]
        self._admins = [admin_rpc.AdminServiceStub(channel) for channel in stage.admins]
        self._families = iter(range(1, 1 << 62))
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._racers = ThreadPoolExecutor(threads, thread_name_prefix="racer")
        self._threads = [threading.Thread(target=self._live, args=(seed * 1000 + n,)) for n in range(threads)]
        self.errors: list[BaseException] = []

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(120)
        self._racers.shutdown()

    def _live(self, seed: int) -> None:
        rng = random.Random(seed)
        lives: list[Callable[[random.Random], None]] = [
            self._plain, self._plain, self._once, self._session, self._session, self._subject, self._rotation,
        ]  # fmt: skip
        try:
            while not self._stopping.is_set():
                rng.choice(lives)(rng)
        except BaseException as error:  # noqa: BLE001 - told at the end
            self.errors.append(error)

    # Calls

    def _call(self, verb: str, stubs: list[Any], method: str, request: Any, at: int, **about: Any) -> Call:
        call = Call(verb, at, request, time.time(), **about)
        try:
            call.answer = getattr(stubs[at], method)(request, timeout=SECONDS.get(verb, OTHERS))
            call.outcome = "OK"
        except grpc.RpcError as error:
            reason = dict(error.trailing_metadata() or ()).get("tokensidecar-reason")
            call.outcome = str(reason or error.code().name)
        call.ended = time.time()
        self._history.calls.append(call)
        if call.outcome in ("UNAVAILABLE", "CANCELLED"):
            time.sleep(0.1)
        return call

    def _anywhere(self, rng: random.Random) -> int:
        return rng.randrange(len(self._apps))

    def issue(self, rng: random.Random, profile: str, subject: str, *, family: int = 0) -> Call:
        request = pb.IssueRequest(profile=profile, subject=subject, audiences=["orders"], with_refresh_token=family > 0)
        return self._call("issue", self._apps, "Issue", request, self._anywhere(rng), family=family)

    def validate(self, rng: random.Random, token: str, profile: str = "default", **more: Any) -> Call:
        at = more.pop("at", None)
        request = pb.ValidateRequest(token=token, audiences=["orders"], profiles=[profile], **more)
        return self._call(
            "validate", self._apps, "Validate", request, self._anywhere(rng) if at is None else at, token=token
        )

    def revoke(self, rng: random.Random, token: str) -> Call:
        return self._call(
            "revoke", self._apps, "Revoke", pb.RevokeRequest(token=token), self._anywhere(rng), token=token
        )

    def refresh(self, rng: random.Random, token: str, family: int) -> Call:
        request = pb.RefreshRequest(refresh_token=token)
        return self._call("refresh", self._apps, "Refresh", request, self._anywhere(rng), token=token, family=family)

    # Lives

    def _plain(self, rng: random.Random) -> None:
        """Issued, validated here and there; some are revoked, some are tampered with."""
        issued = self.issue(rng, "", f"user-{uuid.uuid4()}")
        if not issued.ok:
            return
        token = issued.answer.token
        for _ in range(rng.randint(1, 4)):
            self.validate(rng, token)
        if rng.random() < 0.2:
            at = rng.randrange(len(token))
            self.validate(rng, token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :])
        if rng.random() < 0.5:
            self._revoked(rng, token, self.revoke(rng, token))

    def _revoked(self, rng: random.Random, token: str, revoked: Call, profile: str = "default") -> None:
        for _ in range(rng.randint(1, 3)):
            demanded = revoked.answer.revocation_revision if revoked.ok and rng.random() < 0.5 else 0
            self.validate(rng, token, profile, min_revocation_revision=demanded)
            time.sleep(rng.choice((0.0, 0.0, 0.5)))

    def _once(self, rng: random.Random) -> None:
        """Spent by several at once, each of whom may ask again."""
        issued = self.issue(rng, "once", f"user-{uuid.uuid4()}")
        if not issued.ok:
            return

        def spend(seed: int) -> None:
            own, request_id = random.Random(seed), str(uuid.uuid4())
            for _ in range(own.randint(1, 3)):
                self.validate(own, issued.answer.token, "once", request_id=request_id)

        list(self._racers.map(spend, [rng.getrandbits(32) for _ in range(rng.randint(1, 4))]))

    def _session(self, rng: random.Random) -> None:
        """Refreshed again and again; some refresh tokens are stolen and used again, some sessions log out."""
        with self._lock:
            family = next(self._families)
        issued = self.issue(rng, "session", f"user-{uuid.uuid4()}", family=family)
        if not issued.ok:
            return
        made, spent = issued.answer, []
        for _ in range(rng.randint(1, 6)):
            self.validate(rng, made.token, "session")
            found = self._refreshed(rng, made.refresh_token, family)
            if found is None:
                return
            spent.append(made.refresh_token)
            made = found.tokens
            if rng.random() < 0.1 and len(spent) > 1:  # a thief, later than its owner
                self.refresh(rng, spent[0], family)
        if rng.random() < 0.5:
            revoked = self.revoke(rng, made.refresh_token)
            self.refresh(rng, made.refresh_token, family)
            self._revoked(rng, made.token, revoked, "session")

    def _refreshed(self, rng: random.Random, token: str, family: int) -> Any:
        """Ask until the end is known; at once by two, sometimes. None: it is the end of the session."""
        if rng.random() < 0.2:
            seeds = [rng.getrandbits(32) for _ in range(2)]
            calls = list(self._racers.map(lambda seed: self.refresh(random.Random(seed), token, family), seeds))
            if good := [call for call in calls if call.ok]:
                return good[0].answer
        for _ in range(TRIES):
            call = self.refresh(rng, token, family)
            if call.ok:
                return call.answer
            if call.outcome.startswith(("TOKEN_", "REFRESH_")) or self._stopping.is_set():
                return None
            time.sleep(0.1)
        return None

    def _subject(self, rng: random.Random) -> None:
        """All of a subject's tokens are ended; new ones are made later."""
        subject = f"user-{uuid.uuid4()}"
        tokens = [call.answer.token for _ in range(2) if (call := self.issue(rng, "", subject)).ok]
        at = self._anywhere(rng)
        now = Timestamp(seconds=int(time.time()))
        request = admin_pb.RevokeSubjectRequest(profile="default", subject=subject, issued_before=now, reason="history")
        revoked = self._call("revoke_subject", self._admins, "RevokeSubject", request, at)
        for token in tokens:
            self._revoked(rng, token, revoked)
        again = self.issue(rng, "", subject)
        if again.ok:
            self.validate(rng, again.answer.token)

    def _rotation(self, rng: random.Random) -> None:
        """Rotated by one request that is sent twice, to whoever is there."""
        if rng.random() < 0.7:  # rarely: a ring holds each key until its last token has expired
            return
        request = pb.RotateRequest(request_id=str(uuid.uuid4()), reason="history")
        for _ in range(2):
            self._call("rotate", self._rotators, "Rotate", request, self._anywhere(rng))

    # At the end, when everything is mended

    def look_back(self, seed: int, most: int = 200) -> None:
        """Whatever was acknowledged, once more and at every sidecar."""
        rng = random.Random(seed)
        issued, now = self._history.issued(), time.time()
        asked = [text for text, token in issued.items() if token.expire_time > now + 30]
        for text in rng.sample(asked, min(most, len(asked))):
            for at in range(len(self._apps)):
                self.validate(rng, text, issued[text].profile, at=at, request_id=str(uuid.uuid4()))
        for at in range(len(self._apps)):
            request = admin_pb.ListKeysRequest(profile="default")
            self._call("list_keys", self._admins, "ListKeys", request, at)
