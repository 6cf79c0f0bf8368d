"""Keeper, issuer and validator on one folder: what is made in one is good in the other, and each does its own part alone."""

from __future__ import annotations

import asyncio
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING, Any

import pytest
from tokensidecar.v1 import admin_service_pb2 as admin_pb, token_service_pb2 as pb

from sidecar.backends import open_kms, open_store
from sidecar.clocks import SystemClock
from sidecar.config import load
from sidecar.jose import keys as jose_keys
from sidecar.jose.encrypt import encrypt
from sidecar.jose.sign import sign
from sidecar.keyring import KeyUse
from sidecar.sealing import open_ring, seal_ring
from tests.e2e.calls import SECONDS, Plane, refused
from tests.faults.waiting import wait_for
from tests.fleet.fleet import QUICK, Fleet, Load, revision, started
from tests.running import SERVE

if TYPE_CHECKING:
    from sidecar.sealing import Opened
    from tests.fleet.conftest import NewFleet

ISSUE = pb.IssueRequest(subject="u", audiences=["orders"])
VALIDATE = pb.ValidateRequest(token="t", audiences=["orders"])
ROTATE = pb.RotateRequest()
REVOKE_KEYS = admin_pb.RevokeKeysRequest(profile="default", key_ids=["k"])


def test_tokens_of_one_sidecar_are_good_in_another_before_during_and_after_a_rotation(fleet: Fleet) -> None:
    keeper = fleet.keeper()
    issuer, validator = fleet.sidecar("issuer"), fleet.sidecar("validator")
    with Plane(issuer.app_socket) as issuing, Plane(validator.app_socket) as validating:
        before = issuing.token()
        assert validating.accepts(before).subject == "user-42"
        with Load(issuer.app_socket, validator.app_tcp) as load, Plane(keeper.admin_socket) as plane:
            wait_for(lambda: len(load.key_ids) > 50)
            rotated = plane.rotate(ROTATE, timeout=SECONDS)
            wait_for(lambda: time.time() > rotated.activate_time.seconds + 2, 20)
        assert load.failures == []
        assert len(dict.fromkeys(load.key_ids)) == 2
        assert load.key_ids[-1] != load.key_ids[0]
        assert validating.accepts(before).ring_revision == rotated.ring_revision
        assert [revision(each) for each in (keeper, issuer, validator)] == [rotated.ring_revision] * 3


def test_a_revoked_key_is_refused_everywhere_and_its_successor_issues(fleet: Fleet) -> None:
    keeper = fleet.keeper()
    issuer, validator = fleet.sidecar("issuer"), fleet.sidecar("validator")
    with Plane(issuer.app_socket) as issuing, Plane(validator.app_socket) as validating:
        token = issuing.token()
        key_id = validating.accepts(token).key_id
        with Plane(keeper.admin_socket) as plane:
            request = admin_pb.RevokeKeysRequest(profile="default", key_ids=[key_id])
            revoked = plane.revoke_keys(request, timeout=SECONDS)
        assert 60 <= revoked.effective_time.seconds - time.time() <= 70  # max_staleness and twice max_skew
        wait_for(lambda: revision(validator) == revision(issuer) == revoked.ring_revision)
        check = pb.ValidateRequest(token=token, audiences=["orders"])
        assert refused(validating.validate, check).reason == "TOKEN_INVALID"
        assert validating.accepts(issuing.token()).key_id != key_id


@pytest.mark.parametrize(
    ("role", "plane", "verb", "request_", "words"),
    [
        ("validator", "app", "issue", ISSUE, ["validator", 'keys.role is "issuer" or "both"']),
        ("issuer", "app", "validate", VALIDATE, ["issuer", 'keys.role is "validator" or "both"']),
        ("validator", "admin", "rotate", ROTATE, ["Rotate", "keeper", "rings"]),
        ("issuer", "admin", "rotate", ROTATE, ["Rotate", "keeper", "rings"]),
        ("both", "admin", "rotate", ROTATE, ["Rotate", "keeper", "rings"]),
        ("both", "admin", "revoke_keys", REVOKE_KEYS, ["RevokeKeys", "keeper", "rings"]),
    ],
)
def test_what_a_role_cannot_do_is_denied_and_told_where_it_is_served(
    fleet: Fleet, role: str, plane: str, verb: str, request_: Any, words: list[str]
) -> None:
    fleet.once()
    running = fleet.sidecar(role)
    with Plane(getattr(running, f"{plane}_socket")) as calls:
        refusal = refused(getattr(calls, verb), request_)
    assert (refusal.code, refusal.reason) == ("PERMISSION_DENIED", "CALLER_DENIED")
    for word in words:
        assert word in refusal.message
    assert '"phase":"intent"' not in running.stdout()


def test_a_keeper_serves_the_admin_plane_alone(fleet: Fleet) -> None:
    keeper = fleet.keeper()
    with Plane(keeper.admin_tcp) as plane:
        assert {key.ring_revision for key in plane.list_keys(admin_pb.ListKeysRequest(), timeout=SECONDS).keys} == {1}
        assert "this is a keeper" in refused(plane.issue, ISSUE).message
    assert not (keeper.runtime_dir / "app").exists()
    assert keeper.get("/readyz")[0] == 200


def test_public_keys_are_served_by_every_role(new_fleet: NewFleet) -> None:
    fleet = new_fleet(QUICK | {"rotate_every": "12h"})
    published = "published = true"
    keeper = started(fleet.prepared(fleet.config("both", further=published), (SERVE[0], "keeper")))
    sidecars = [
        started(fleet.prepared(fleet.config(role, further=published))) for role in ("issuer", "validator", "both")
    ]
    with Plane(keeper.admin_socket) as plane:
        rotated = plane.rotate(ROTATE, timeout=SECONDS)
    assert rotated.activate_time.seconds - time.time() > 1790, "who caches the keys for half an hour must know them"
    wait_for(lambda: all(revision(each) == rotated.ring_revision for each in sidecars))
    told = [json.loads(each.get("/.well-known/jwks.json")[1]) for each in (keeper, *sidecars)]
    assert [len(each["keys"]) for each in told] == [2] * 4
    assert all(each == told[0] for each in told)
    assert not any("d" in key for key in told[0]["keys"])


@pytest.mark.needs("unshare")
def test_sidecars_read_a_folder_that_they_cannot_write(fleet: Fleet) -> None:
    keeper = fleet.keeper()
    script = f'mount --bind {fleet.rings} {fleet.rings} && mount -o remount,ro,bind {fleet.rings} && ! touch {fleet.rings}/x && exec "$@"'
    readers = [
        fleet.sidecar(role, ("unshare", "-rm", "sh", "-c", script, "sh", *SERVE)) for role in ("issuer", "validator")
    ]
    with Plane(readers[0].app_tcp) as issuing, Plane(readers[1].app_tcp) as validating:
        assert validating.accepts(issuing.token()).subject == "user-42"
        with Plane(keeper.admin_socket) as plane:
            rotated = plane.rotate(ROTATE, timeout=SECONDS)
        wait_for(lambda: all(revision(each) == rotated.ring_revision for each in readers))
        assert validating.accepts(issuing.token()).subject == "user-42"


def test_another_key_encryption_key_opens_nothing(fleet: Fleet) -> None:
    fleet.once()
    (fleet.directory / "open").write_text("00" * 32)
    validator = fleet.prepared(fleet.config("validator"))
    validator.start()
    assert validator.process.wait(20) == 1
    assert "does not open the keys" in validator.stderr()


def test_who_has_a_validator_whole_makes_no_token_that_another_one_accepts(fleet: Fleet) -> None:
    """Its disk, its key-encryption key and this project's own code: the signature key is not there to be had."""
    fleet.once()
    issuer, validator = fleet.sidecar("issuer"), fleet.sidecar("validator")
    opened = asyncio.run(_opened(fleet, "validator"))
    assert not opened.issue
    (signature,) = [key for key in opened.ring.keys if key.use is KeyUse.SIGNATURE]
    (encryption,) = [key for key in opened.ring.keys if key.use is KeyUse.ENCRYPTION]
    assert not opened.open[signature.key_id].private
    with Plane(issuer.app_socket) as issuing, Plane(validator.app_socket) as validating:
        good = validating.accepts(issuing.token(), with_claims=True)
        own = jose_keys.generate("ES256")
        outer = opened.open[encryption.key_id]
        payload = good.claims_json.encode()
        for inner in (
            sign(payload, own, typ="at+jwt"),
            _named(sign(payload, own, typ="at+jwt"), signature.key_id),
        ):
            forged = encrypt(inner.encode(), outer, content="A256GCM", cty="JWT")
            check = pb.ValidateRequest(token=forged, audiences=["orders"])
            assert refused(validating.validate, check).reason == "TOKEN_INVALID"
        with pytest.raises(ValueError, match="does not sign"):
            sign(payload, opened.open[signature.key_id], typ="at+jwt")
    # Nor can it write a ring with a signature key of its own: the document is signed by who has both roles.
    with pytest.raises(ValueError, match="both roles"):
        seal_ring(opened.ring, {**opened.open, signature.key_id: own}, opened.data_keys, opened)


def _named(token: str, key_id: str) -> str:
    """The same signature under a header that names another key."""
    header, payload, signature = token.split(".")
    changed = json.loads(urlsafe_b64decode(header + "=" * (-len(header) % 4))) | {"kid": key_id}
    text = json.dumps(changed, separators=(",", ":")).encode()
    return f"{urlsafe_b64encode(text).decode().rstrip('=')}.{payload}.{signature}"


async def _opened(fleet: Fleet, role: str) -> Opened:
    file = fleet.directory / "stolen.toml"
    file.write_text(fleet.config(role))
    keys = load(str(file), {}).keys
    store = await open_store(keys, SystemClock(), keeping=False)
    document = await store.load("default")
    assert document is not None
    kms = await open_kms(keys, store)
    return await open_ring(document.content, "default", document.revision, store_id=await store.store_id(), kms=kms)
