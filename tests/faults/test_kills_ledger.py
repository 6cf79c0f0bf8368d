"""kill -9 at every named step of revoke, consume and refresh, then the client's retry: one effect, and none that was acknowledged is lost.

Each named step once; a hundred times with TOKENSIDECAR_TEST_ALL=true.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tokensidecar.v1 import token_service_pb2 as pb

from tests.e2e.calls import SECONDS, Plane
from tests.faults.conftest import REPEATS
from tests.faults.test_kills import revive, steps, wait_for_death
from tests.faults.witness import reason_of

if TYPE_CHECKING:
    from tests.faults.conftest import NewSidecar

CONFIG = """
[profiles.default]
issuer = "urn:test"
audiences = ["orders"]
refresh_ttl = "1h"

[profiles.ticket]
issuer = "urn:test"
audiences = ["orders"]
one_time = true
"""

pytestmark = pytest.mark.timeout(600)


def outcome(app: Plane, token: str, profile: str = "default", request_id: str = "") -> str:
    request = pb.ValidateRequest(token=token, audiences=["orders"], profiles=[profile], request_id=request_id)
    return reason_of(lambda: app.validate(request, timeout=SECONDS))


@pytest.mark.parametrize("step", steps("revoke"))
def test_killed_revocation_holds_or_never_was(step: str, new_sidecar: NewSidecar) -> None:
    for _ in range(REPEATS):
        running = new_sidecar(CONFIG, env={"TOKENSIDECAR_FAILPOINT": step})
        running.start()
        running.wait_until_ready()
        with Plane(running.app_socket) as app:
            token, other = app.token(), app.token()
            revoke = pb.RevokeRequest(token=token)
            assert reason_of(lambda a=app, r=revoke: a.revoke(r, timeout=SECONDS)) == "UNAVAILABLE"
            wait_for_death(running)
        revive(running)
        with Plane(running.app_socket) as app:
            assert outcome(app, token) == ("OK" if step == "revoke.intended" else "TOKEN_REVOKED")
            assert app.revoke(revoke, timeout=SECONDS).revocation_revision == 1
            assert outcome(app, token) == "TOKEN_REVOKED"
            assert outcome(app, other) == "OK"
        running.stop()


@pytest.mark.parametrize("step", steps("consume"))
def test_killed_consumption_is_answered_again_to_the_same_request(step: str, new_sidecar: NewSidecar) -> None:
    for _ in range(REPEATS):
        running = new_sidecar(CONFIG, env={"TOKENSIDECAR_FAILPOINT": step})
        running.start()
        running.wait_until_ready()
        with Plane(running.app_socket) as app:
            token = app.token(profile="ticket")
            assert outcome(app, token, "ticket", "one") == "UNAVAILABLE"
            wait_for_death(running)
        revive(running)
        with Plane(running.app_socket) as app:
            if step != "consume.judged":
                assert outcome(app, token, "ticket", "two") == "TOKEN_ALREADY_CONSUMED"
            assert outcome(app, token, "ticket", "one") == "OK"
            assert outcome(app, token, "ticket", "two") == "TOKEN_ALREADY_CONSUMED"
        running.stop()


@pytest.mark.parametrize("step", steps("refresh"))
def test_killed_refresh_is_answered_again_with_one_successor(step: str, new_sidecar: NewSidecar) -> None:
    for _ in range(REPEATS):
        running = new_sidecar(CONFIG, env={"TOKENSIDECAR_FAILPOINT": step})
        running.start()
        running.wait_until_ready()
        with Plane(running.app_socket) as app:
            begin = pb.IssueRequest(subject="user-1", audiences=["orders"], with_refresh_token=True)
            request = pb.RefreshRequest(refresh_token=app.issue(begin, timeout=SECONDS).refresh_token)
            assert reason_of(lambda a=app, r=request: a.refresh(r, timeout=SECONDS)) == "UNAVAILABLE"
            wait_for_death(running)
        revive(running)
        with Plane(running.app_socket) as app:
            pairs = [app.refresh(request, timeout=SECONDS).tokens for _ in range(2)]
            assert len({(pair.token_id, pair.issue_time.seconds) for pair in pairs}) == 1
            following = pb.RefreshRequest(refresh_token=pairs[0].refresh_token)
            assert outcome(app, app.refresh(following, timeout=SECONDS).tokens.token) == "OK"
            assert reason_of(lambda a=app, r=request: a.refresh(r, timeout=SECONDS)) == "REFRESH_REUSED"
        running.stop()
