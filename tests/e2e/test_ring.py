"""Rotate, ListKeys, RevokeKeys and GetJwks: the life of keys, as callers see it."""

from __future__ import annotations

import base64
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest
from tokensidecar.v1 import admin_service_pb2 as admin_pb, keys_pb2, token_service_pb2 as pb

from tests.e2e.calls import SECONDS, Plane, refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import StartSidecar

ENCRYPTION, SIGNATURE = keys_pb2.KEY_USE_ENCRYPTION, keys_pb2.KEY_USE_SIGNATURE
PENDING, ACTIVE, RETIRING, COMPROMISED = (
    getattr(keys_pb2, f"KEY_STATE_{state}") for state in ("PENDING", "ACTIVE", "RETIRING", "COMPROMISED")
)
TWO = """
[profiles.quick]
issuer = "https://quick.example.com"
audiences = ["orders"]

[profiles.slow]
issuer = "https://slow.example.com"
audiences = ["orders"]
published = true
"""


@pytest.fixture
def own(start_sidecar: StartSidecar) -> Iterator[tuple[Plane, Plane]]:
    """App and admin plane of a sidecar of the test's own."""
    running = start_sidecar()
    with Plane(running.app_socket) as app, Plane(running.admin_socket) as admin:
        yield app, admin


@pytest.fixture
def two(start_sidecar: StartSidecar) -> Iterator[tuple[Plane, Plane]]:
    """The same with two profiles, of which one is published."""
    running = start_sidecar(TWO)
    with Plane(running.app_socket) as app, Plane(running.admin_socket) as admin:
        yield app, admin


def keys(admin: Plane, profile: str = "") -> list[keys_pb2.Key]:
    return list(admin.list_keys(admin_pb.ListKeysRequest(profile=profile), timeout=SECONDS).keys)


def states(found: list[keys_pb2.Key]) -> set[tuple[int, int]]:
    return {(key.key_use, key.state) for key in found}


# -- Rotate


def test_rotating_keeps_every_token_good_and_changes_the_key(own: tuple[Plane, Plane]) -> None:
    app, admin = own
    before = keys(admin)
    assert states(before) == {(ENCRYPTION, ACTIVE), (SIGNATURE, ACTIVE)}
    old = app.token()
    answer = admin.rotate(pb.RotateRequest(expected_ring_revision=before[0].ring_revision), timeout=SECONDS)
    assert answer.ring_revision == before[0].ring_revision + 1
    assert list(answer.keys) == keys(admin)
    assert states(list(answer.keys)) == {
        (use, state) for use in (ENCRYPTION, SIGNATURE) for state in (ACTIVE, RETIRING)
    }
    assert abs(answer.activate_time.ToSeconds() - time.time()) < 5
    new = app.token()
    assert app.accepts(new).key_id != app.accepts(old).key_id
    assert app.accepts(new).ring_revision == answer.ring_revision


def test_a_retired_key_is_destroyed_when_its_last_token_has_expired_everywhere(own: tuple[Plane, Plane]) -> None:
    _, admin = own
    answer = admin.rotate(pb.RotateRequest(), timeout=SECONDS)
    retiring = [key for key in answer.keys if key.state == RETIRING]
    assert len(retiring) == 2
    for key in retiring:
        assert key.retire_time == answer.activate_time
        assert key.destroy_time.seconds - key.retire_time.seconds == 900 + 3600 + 5 + 2 * 5
        assert not key.HasField("compromise_time")
    for key in answer.keys:
        assert key.HasField("retire_time") is key.HasField("destroy_time") is (key.state == RETIRING)


def test_one_use_alone_can_be_rotated(own: tuple[Plane, Plane]) -> None:
    app, admin = own
    before = app.accepts(app.token()).key_id
    admin.rotate(pb.RotateRequest(key_use=SIGNATURE), timeout=SECONDS)
    assert states(keys(admin)) == {(ENCRYPTION, ACTIVE), (SIGNATURE, ACTIVE), (SIGNATURE, RETIRING)}
    assert app.accepts(app.token()).key_id == before
    admin.rotate(pb.RotateRequest(key_use=ENCRYPTION), timeout=SECONDS)
    assert app.accepts(app.token()).key_id != before


def test_rotating_at_another_revision_than_expected_changes_nothing(own: tuple[Plane, Plane]) -> None:
    _, admin = own
    before = keys(admin)
    for expected in (before[0].ring_revision + 1, 2**63, 2**64 - 1):
        refusal = refused(admin.rotate, pb.RotateRequest(expected_ring_revision=expected))
        assert (refusal.code, refusal.reason) == ("ABORTED", "RING_CHANGED")
    assert keys(admin) == before


def test_the_same_request_id_rotates_once(own: tuple[Plane, Plane]) -> None:
    _, admin = own
    revision = keys(admin)[0].ring_revision
    request = pb.RotateRequest(expected_ring_revision=revision, request_id="retry-1")
    first = admin.rotate(request, timeout=SECONDS)
    again = admin.rotate(request, timeout=SECONDS)
    assert (again.ring_revision, again.activate_time) == (first.ring_revision, first.activate_time)
    assert len(keys(admin)) == 4
    other = admin.rotate(pb.RotateRequest(request_id="retry-2"), timeout=SECONDS)
    assert other.ring_revision == first.ring_revision + 1
    assert admin.rotate(request, timeout=SECONDS).ring_revision == first.ring_revision


def test_of_ten_racing_rotations_one_wins(own: tuple[Plane, Plane]) -> None:
    _, admin = own
    request = pb.RotateRequest(expected_ring_revision=keys(admin)[0].ring_revision)

    def race(_: int) -> str:
        try:
            admin.rotate(request, timeout=SECONDS)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"

    with ThreadPoolExecutor(10) as threads:
        ends = list(threads.map(race, range(10)))
    assert sorted(ends) == ["ABORTED"] * 9 + ["OK"]
    assert sum(key.state == ACTIVE for key in keys(admin)) == 2


def test_a_published_profile_prepares_its_successor_half_an_hour_ahead(two: tuple[Plane, Plane]) -> None:
    app, admin = two
    before = app.accepts(app.token(profile="slow"), profiles=["slow"]).key_id
    answer = admin.rotate(pb.RotateRequest(profile="slow"), timeout=SECONDS)
    assert states(list(answer.keys)) == {(use, state) for use in (ENCRYPTION, SIGNATURE) for state in (ACTIVE, PENDING)}
    assert abs(answer.activate_time.ToSeconds() - time.time() - 1810) < 5
    assert app.accepts(app.token(profile="slow"), profiles=["slow"]).key_id == before
    refusal = refused(admin.rotate, pb.RotateRequest(profile="slow"))
    assert refusal.reason == "RING_CHANGED"
    assert "pending already" in refusal.message
    assert {key.ring_revision for key in keys(admin, "slow")} == {answer.ring_revision}
    assert {key.ring_revision for key in keys(admin, "quick")} == {1}


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.RotateRequest(request_id="r" * 129), "request_id"),
        (pb.RotateRequest(request_id="a\nb"), "request_id"),
        (pb.RotateRequest(reason="r" * 257), "reason"),
        (pb.RotateRequest(reason="\x1b[2J"), "reason"),
    ],
)
def test_words_for_the_record_are_short_and_printable(admin: Plane, request_: pb.RotateRequest, field: str) -> None:
    assert list(refused(admin.rotate, request_).fields) == [field]


# -- ListKeys


def test_keys_come_in_pages_by_profile_use_and_creation(two: tuple[Plane, Plane]) -> None:
    _, admin = two
    for _ in range(3):
        admin.rotate(pb.RotateRequest(profile="quick"), timeout=SECONDS)
    admin.rotate(pb.RotateRequest(profile="slow"), timeout=SECONDS)
    whole = keys(admin)
    assert len(whole) == 8 + 4
    order = [(key.profile, key.key_use, key.create_time.ToNanoseconds()) for key in whole]
    assert order == sorted(order)
    for size in (1, 5, 11, 12, 2000):
        found: list[keys_pb2.Key] = []
        token, pages = "", 0
        while pages == 0 or token:
            page = admin.list_keys(admin_pb.ListKeysRequest(page_size=size, page_token=token), timeout=SECONDS)
            assert 0 < len(page.keys) <= size
            found += page.keys
            token = page.next_page_token
            pages += 1
        assert found == whole
        assert pages == -(-12 // size)
    assert keys(admin, "slow") == [key for key in whole if key.profile == "slow"]


TOO_LATE = base64.b64encode(b'["a","b",1%b,"c"]' % (b"0" * 400)).decode()
"""Names a time that is no double."""


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (admin_pb.ListKeysRequest(page_size=-1), "page_size"),
        *[
            (admin_pb.ListKeysRequest(page_token=token), "page_token")
            for token in (
                "x",
                "AAAA",
                "W10=",
                "bnVsbA==",
                "WzEsMl0=",
                "é",
                "WyJhIiwiYiIsIngiLCJjIl0=",
                "W" * 60000,
                TOO_LATE,
            )
        ],
    ],
)
def test_a_page_that_was_never_given_is_refused(admin: Plane, request_: admin_pb.ListKeysRequest, field: str) -> None:
    assert list(refused(admin.list_keys, request_).fields) == [field]


def test_a_listed_key_tells_everything_but_the_key(admin: Plane) -> None:
    for key in keys(admin):
        assert key.profile == "default"
        assert (key.algorithm, key.content_encryption) == (
            ("A256KW", "A256GCM") if key.key_use == ENCRYPTION else ("ES256", "")
        )
        assert len(key.key_id) == (22 if key.key_use == ENCRYPTION else 43)
        assert key.HasField("create_time")
        assert key.HasField("activate_time")
        assert key.ring_revision >= 1


# -- RevokeKeys


def test_a_compromised_key_opens_nothing_and_its_successor_issues_at_once(own: tuple[Plane, Plane]) -> None:
    app, admin = own
    admin.rotate(pb.RotateRequest(), timeout=SECONDS)
    token = app.token()
    (active,) = (key.key_id for key in keys(admin) if (key.key_use, key.state) == (ENCRYPTION, ACTIVE))
    answer = admin.revoke_keys(
        admin_pb.RevokeKeysRequest(profile="default", key_ids=[active], reason="laptop lost"), timeout=SECONDS
    )
    assert refused(app.validate, pb.ValidateRequest(token=token, audiences=["orders"])).reason == "TOKEN_INVALID"
    fresh = app.token()
    assert app.accepts(fresh).key_id != active
    assert app.accepts(fresh).ring_revision == answer.ring_revision
    (named,) = (key for key in answer.keys if key.key_id == active)
    assert named.state == COMPROMISED
    assert named.HasField("compromise_time")
    assert abs(answer.effective_time.ToSeconds() - time.time() - (900 + 10)) < 5
    assert sum(key.state == ACTIVE for key in answer.keys) == 2


def test_a_compromised_signature_key_ends_its_tokens_too(own: tuple[Plane, Plane]) -> None:
    app, admin = own
    token = app.token()
    (active,) = (key.key_id for key in keys(admin) if (key.key_use, key.state) == (SIGNATURE, ACTIVE))
    admin.revoke_keys(admin_pb.RevokeKeysRequest(profile="default", key_ids=[active]), timeout=SECONDS)
    assert refused(app.validate, pb.ValidateRequest(token=token, audiences=["orders"])).reason == "TOKEN_INVALID"
    assert active not in app.get_jwks(pb.GetJwksRequest(), timeout=SECONDS).jwks_json
    app.accepts(app.token())


def test_keys_of_any_state_can_be_compromised_and_again(own: tuple[Plane, Plane]) -> None:
    app, admin = own
    admin.rotate(pb.RotateRequest(), timeout=SECONDS)
    every = [key.key_id for key in keys(admin)]
    request = admin_pb.RevokeKeysRequest(profile="default", key_ids=every)
    first = admin.revoke_keys(request, timeout=SECONDS)
    assert states([key for key in first.keys if key.key_id in every]) == {
        (ENCRYPTION, COMPROMISED),
        (SIGNATURE, COMPROMISED),
    }
    again = admin.revoke_keys(request, timeout=SECONDS)
    assert again.ring_revision == first.ring_revision
    app.accepts(app.token())


def test_a_compromised_pending_key_leaves_the_active_one_at_work(two: tuple[Plane, Plane]) -> None:
    app, admin = two
    token = app.token(profile="slow")
    rotated = admin.rotate(pb.RotateRequest(profile="slow"), timeout=SECONDS)
    pending = [key.key_id for key in rotated.keys if key.state == PENDING]
    answer = admin.revoke_keys(admin_pb.RevokeKeysRequest(profile="slow", key_ids=pending), timeout=SECONDS)
    assert states(list(answer.keys)) == {
        (use, state) for use in (ENCRYPTION, SIGNATURE) for state in (ACTIVE, COMPROMISED)
    }
    assert not any(key.HasField("retire_time") for key in answer.keys if key.state == ACTIVE)
    app.accepts(token, profiles=["slow"])
    admin.rotate(pb.RotateRequest(profile="slow"), timeout=SECONDS)


def test_a_pending_successor_steps_in_for_a_compromised_active_key(two: tuple[Plane, Plane]) -> None:
    app, admin = two
    rotated = admin.rotate(pb.RotateRequest(profile="slow"), timeout=SECONDS)
    pending = {key.key_id for key in rotated.keys if key.state == PENDING}
    active = [key.key_id for key in rotated.keys if key.state == ACTIVE]
    answer = admin.revoke_keys(admin_pb.RevokeKeysRequest(profile="slow", key_ids=active), timeout=SECONDS)
    assert {key.key_id for key in answer.keys if key.state == ACTIVE} == pending
    assert app.accepts(app.token(profile="slow"), profiles=["slow"]).key_id in pending


def test_one_unknown_key_stops_the_whole_revocation(own: tuple[Plane, Plane]) -> None:
    app, admin = own
    token, before = app.token(), keys(admin)
    known = [key.key_id for key in before]
    for unknown in ("k", "A" * 22, "漢", "' OR 1=1 --", "k\n", "A" * 60000, "\u202e" * 20000):
        refusal = refused(admin.revoke_keys, admin_pb.RevokeKeysRequest(profile="default", key_ids=[*known, unknown]))
        assert (refusal.code, list(refusal.fields)) == ("INVALID_ARGUMENT", ["key_ids"])
        assert len(refusal.message) < 1000
    assert keys(admin) == before
    app.accepts(token)


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (admin_pb.RevokeKeysRequest(), ["profile", "key_ids"]),
        (admin_pb.RevokeKeysRequest(key_ids=["k"]), ["profile"]),
        (admin_pb.RevokeKeysRequest(profile="default"), ["key_ids"]),
        (admin_pb.RevokeKeysRequest(profile="default", key_ids=["k"] * 1001), ["key_ids"]),
        (admin_pb.RevokeKeysRequest(profile="default", key_ids=["k"], reason="r" * 257), ["reason"]),
    ],
)
def test_an_incident_is_named_in_full(admin: Plane, request_: admin_pb.RevokeKeysRequest, fields: list[str]) -> None:
    assert list(refused(admin.revoke_keys, request_).fields) == fields


# -- GetJwks


def test_public_keys_are_signature_keys_only_and_hold_no_secret(own: tuple[Plane, Plane]) -> None:
    app, admin = own
    admin.rotate(pb.RotateRequest(), timeout=SECONDS)
    answer = app.get_jwks(pb.GetJwksRequest(), timeout=SECONDS)
    listed = json.loads(answer.jwks_json)["keys"]
    assert {jwk["kid"] for jwk in listed} == {key.key_id for key in keys(admin) if key.key_use == SIGNATURE}
    for jwk in listed:
        assert set(jwk) == {"kty", "crv", "x", "y", "alg", "kid", "use"}
        assert (jwk["kty"], jwk["crv"], jwk["alg"], jwk["use"]) == ("EC", "P-256", "ES256", "sig")
    assert answer.ring_revision == keys(admin)[0].ring_revision
    only = app.get_jwks(pb.GetJwksRequest(key_use=ENCRYPTION), timeout=SECONDS)
    assert only.jwks_json == '{"keys":[]}'
