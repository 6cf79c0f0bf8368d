"""What a process of one role can do, and above all what it cannot, with its whole disk and the project's own code."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode, urlsafe_b64encode
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from sidecar.audit import Audit
from sidecar.caller import Caller, Plane
from sidecar.data_keys import DamagedRingError, DataKeys, fresh_data_keys, unwrapped
from sidecar.duties import Duties
from sidecar.errors import (
    DeniedCallerError,
    InvalidTokenError,
    StaleStateError,
    UnavailableKmsError,
    UnavailableStoreError,
)
from sidecar.issue import Grant, Issue
from sidecar.jose import keys as jose_keys
from sidecar.jose.encrypt import encrypt
from sidecar.jose.sign import sign
from sidecar.keyring import Key, KeyUse, Role, Settings
from sidecar.metrics import Metrics
from sidecar.policy import Policy
from sidecar.ports import Document
from sidecar.profile import DEFAULT, Format
from sidecar.sealing import _bound, open_ring
from sidecar.validate import Accepted, Demand, Validate
from tests.keepers import Fleet

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sidecar.jose.keys import Material
    from sidecar.keeper import Keeper

ISSUE, OPEN = Role.ISSUE, Role.OPEN
SIGN, ENCRYPT = KeyUse.SIGNATURE, KeyUse.ENCRYPTION
APP = Caller("unix:app", Plane.APP)
AGREED = replace(DEFAULT, encrypt="ECDH-ES+A256KW")
ALONE = replace(DEFAULT, format=Format.ENCRYPTED, sign="")


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


class _Sink:
    promise = None
    lost = 0

    def write(self, line: bytes) -> bool:
        return bool(line)

    def pending(self) -> None:
        return None


def _parts(keeper: Keeper) -> tuple[Any, ...]:
    audit: Any = Audit(_Sink(), required=False, salt=b"s" * 32, now=keeper.now)  # type: ignore[arg-type,unused-ignore]
    return keeper, Policy(keeper.profiles, dict.fromkeys(Plane, "here")), audit, Metrics(("default",), "0")


def _issued(keeper: Keeper, audience: str = "orders") -> str:
    grant = Grant("default", "user-42", (audience,), None, "", (), None)
    return Issue(*_parts(keeper))(APP, grant, "r", "an-id-of-a-token").token


async def _accepted(keeper: Keeper, token: str) -> Accepted:
    return await Validate(*_parts(keeper))(APP, Demand(token, ("orders",), ("default",), ()), "r")


def _payload(keeper: Keeper) -> bytes:
    now = int(keeper.now())
    claims = {"iss": DEFAULT.issuer, "sub": "root", "aud": ["orders"], "client_id": "c", "jti": "forged-by-a-validator"}
    return json.dumps({**claims, "iat": now, "exp": now + 300}).encode()


# What each can


@pytest.mark.parametrize("profile", [DEFAULT, AGREED], ids=["symmetric", "agreed"])
async def test_an_issuer_makes_what_a_validator_opens(fleet: Fleet, profile: Any) -> None:
    keeper = await fleet.start(profile=profile)
    issuer, validator = await fleet.start(ISSUE, profile=profile), await fleet.start(OPEN, profile=profile)
    for _ in range(2):
        assert (await _accepted(validator, _issued(issuer))).claims.subject == "user-42"
        await keeper.rotate("default", None, expected=0, request_id="")
        fleet.clock.pass_time(60)
        await issuer.refresh()
    await _accepted(validator, _issued(issuer))  # under a key that the validator has not seen
    assert validator.rings() == keeper.rings()


async def test_a_keeper_that_is_away_for_ten_days_stops_rotation_and_nothing_else(fleet: Fleet) -> None:
    keeper, issuer, validator = await fleet.start(), await fleet.start(ISSUE), await fleet.start(OPEN)
    first = keeper.rings()
    for _ in range(10 * 24):
        fleet.clock.pass_time(3600)
        await issuer.refresh()
        await validator.refresh()
        assert (await _accepted(validator, _issued(issuer))).claims.subject == "user-42"
    assert validator.rings() == issuer.rings() == first
    back = await fleet.start()  # another process, with what the store has
    duties = Duties(back, back._store, holder="b", spread=0.0)
    assert {duty.kind for duty in duties.due(back.now())} == {"rotate"}
    before = _issued(issuer)
    await back.rotate("default", None, expected=0, request_id="")
    for seconds in (0, 20, 60, 3600):
        fleet.clock.pass_time(seconds)
        await issuer.refresh()
        await validator.refresh()
        await _accepted(validator, _issued(issuer))
        if seconds < 300:
            await _accepted(validator, before)
    assert back.rings()["default"].revision == validator.rings()["default"].revision == 2


async def test_a_role_that_is_not_held_is_denied(fleet: Fleet) -> None:
    keeper = await fleet.start()
    issuer, validator = await fleet.start(ISSUE), await fleet.start(OPEN)
    assert [(k.holds(ISSUE), k.holds(OPEN), k.writable) for k in (keeper, issuer, validator)] == [
        (True, True, True),
        (True, False, False),
        (False, True, False),
    ]
    with pytest.raises(DeniedCallerError, match="'issue'"):
        validator.issuing("default")
    with pytest.raises(DeniedCallerError, match="'open'"):
        issuer.find(["default"], "k", ENCRYPT)


@pytest.mark.parametrize(("roles", "writable"), [((ISSUE,), True), ((OPEN,), True), ((ISSUE, OPEN), False)])
async def test_only_both_roles_and_a_writable_store_change_rings(
    fleet: Fleet, roles: tuple[Role, ...], writable: bool
) -> None:
    await fleet.start()
    before = dict(fleet.disk.documents)
    other = await fleet.start(*roles, writable=writable)
    for change in (
        other.rotate("default", None, expected=0, request_id=""),
        other.compromise("default", frozenset({"k"})),
        other.destroy("default"),
        other.rekey("default"),
    ):
        with pytest.raises(DeniedCallerError):
            await change
    assert fleet.disk.documents == before


async def test_only_a_keeper_makes_the_first_ring(fleet: Fleet) -> None:
    for roles in ((ISSUE,), (OPEN,)):
        other = await fleet.start(*roles, writable=True)
        assert other.stale("default")
    assert fleet.disk.documents == {}


async def test_every_role_publishes_the_same_keys(fleet: Fleet) -> None:
    every = [await fleet.start(*roles, profile=AGREED) for roles in ((), (ISSUE,), (OPEN,))]
    sets = [keeper.public_jwks("default", tuple(KeyUse)) for keeper in every]
    assert sets[0] == sets[1] == sets[2]
    assert len(sets[0][0]) == 2
    assert not any({"d", "k"} & jwk.keys() for jwk in sets[0][0])


# What each cannot


async def test_a_validator_holds_no_private_signature_key(fleet: Fleet) -> None:
    await fleet.start()
    opened = (await fleet.start(OPEN))._live["default"].opened
    assert opened.issue == {}
    assert {kid: material.private for kid, material in opened.open.items()} == {
        key.key_id: key.use is ENCRYPT for key in opened.ring.keys
    }


async def test_an_issuer_with_key_agreement_cannot_read(fleet: Fleet) -> None:
    await fleet.start(profile=AGREED)
    opened = (await fleet.start(ISSUE, profile=AGREED))._live["default"].opened
    assert opened.open == {}
    assert {kid: material.private for kid, material in opened.issue.items()} == {
        key.key_id: key.use is SIGN for key in opened.ring.keys
    }


async def test_one_kek_does_not_open_the_other_role(fleet: Fleet) -> None:
    await fleet.start()
    with pytest.raises(UnavailableKmsError):
        await fleet.start(kms={ISSUE: fleet.kms[OPEN]}, writable=False)
    with pytest.raises(UnavailableKmsError):
        await fleet.start(kms={OPEN: fleet.kms[ISSUE]}, writable=False)


class Thief:
    """Whoever has taken a validator: its store, its memory, its key-encryption key, and this project's code."""

    def __init__(self, fleet: Fleet, document: Document, data_keys: DataKeys, signature: Material) -> None:
        self.fleet = fleet
        self.document = document
        self.data_keys = data_keys
        self.signature = signature  # a key of its own

    @classmethod
    async def of(cls, fleet: Fleet) -> Thief:
        document = fleet.disk.documents["default"]
        found = json.loads(document.content)
        wrapped = {role: b64decode(found["data_keys"][role.value]) for role in Role}
        kms = {OPEN: fleet.kms[OPEN]}
        data_keys = await unwrapped(kms, {}, wrapped, found["data_keys_time"], "default", fleet.disk.store_id)
        return cls(fleet, document, data_keys, jose_keys.generate("ES256"))

    def ring(self, change: Callable[[dict[str, Any]], None]) -> Document:
        """The next revision of the ring, changed and sealed for the role that was stolen."""
        document = json.loads(self.document.content)
        document["revision"] += 1
        change(document)
        seals, signature = document.pop("seals"), document.pop("signature")
        text = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
        seals["open"] = b64encode(self.data_keys.derived(OPEN).seal(text)).decode()
        document |= {"seals": seals, "signature": signature}
        return Document(document["revision"], json.dumps(document, sort_keys=True, separators=(",", ":")).encode())

    def own_key(self, document: dict[str, Any]) -> None:
        """Puts the thief's public signature key into the ring, with its part for validators."""
        facts = {**next(f for f in document["keys"] if f["use"] == "signature"), "key_id": self.signature.key_id}
        document["keys"] = sorted([*document["keys"], facts], key=lambda f: (f["use"], f["create_time"], f["key_id"]))
        key = Key(**{**facts, "use": KeyUse.SIGNATURE, "settings": Settings.of(DEFAULT, SIGN)})
        nonce, public = b"n" * 12, self.signature.public_bytes() or b""
        part = self.data_keys.derived(OPEN).parts.encrypt(nonce, public, _bound("default", key, OPEN))
        sealed = b64encode(nonce + part).decode()
        document["parts"][self.signature.key_id] = {"open": sealed, "issue": sealed}

    @staticmethod
    def no_inner_layer(document: dict[str, Any]) -> None:
        """Says that the profile's tokens need no signature."""
        for facts in document["keys"]:
            facts["settings"]["format"] = "encrypted"

    def new_signer(self, document: dict[str, Any]) -> None:
        """Appends a signer that nobody introduced."""
        document["signers"].append(
            {"public": b64encode(b"s" * 32).decode(), "introduction": b64encode(b"i" * 64).decode()}
        )


async def _forged(validator: Keeper, thief: Thief) -> list[str]:
    """Tokens that a holder of the encryption key and of any other signature key can make."""
    opened = validator._live["default"].opened
    encryption = next(opened.open[key.key_id] for key in opened.ring.keys if key.use is ENCRYPT)
    payload = _payload(validator)
    inner = sign(payload, thief.signature, typ="at+jwt")
    genuine = next(key for key in opened.ring.keys if key.use is SIGN)
    _, body, signature = inner.split(".")
    own = json.dumps({"alg": "ES256", "kid": genuine.key_id, "typ": "at+jwt"}).encode()
    renamed = urlsafe_b64encode(own).rstrip(b"=").decode() + f".{body}.{signature}"
    return [
        encrypt(inner.encode(), encryption, content="A256GCM", cty="JWT"),
        encrypt(renamed.encode(), encryption, content="A256GCM", cty="JWT"),
        encrypt(payload, encryption, content="A256GCM", typ="at+jwt"),
        encrypt(payload, encryption, content="A256GCM", cty="JWT"),
    ]


async def test_a_stolen_validator_makes_no_token_that_another_sidecar_accepts(fleet: Fleet) -> None:
    keeper, stolen, other = await fleet.start(), await fleet.start(OPEN), await fleet.start(OPEN, state="other")
    thief = await Thief.of(fleet)
    forged = await _forged(stolen, thief)
    genuine = _issued(keeper)
    for victim in (other, keeper):
        fleet.clock.pass_time(1)
        for token in forged:
            with pytest.raises(InvalidTokenError):
                await _accepted(victim, token)
        await _accepted(victim, genuine)


@pytest.mark.parametrize("change", ["own_key", "no_inner_layer", "new_signer"])
async def test_a_stolen_validator_that_can_write_the_store_makes_none_either(fleet: Fleet, change: str) -> None:
    """Its seal of the document is right, and every other validator could check no more than that, were there no signature."""
    keeper, stolen = await fleet.start(), await fleet.start(OPEN)
    running, restarted = await fleet.start(OPEN), await fleet.start(OPEN, state="pod")
    thief = await Thief.of(fleet)
    forged = await _forged(stolen, thief)
    fleet.disk.documents["default"] = thief.ring(getattr(thief, change))
    fleet.clock.pass_time(1)
    for victim in (running, restarted, keeper):
        for token in forged:
            with pytest.raises((InvalidTokenError, StaleStateError)):
                await _accepted(victim, token)
        with pytest.raises(UnavailableStoreError, match="cannot be used"):
            await victim.refresh()
    for roles, state in (((OPEN,), "pod"), ((OPEN,), ""), ((), "")):
        with pytest.raises(DamagedRingError):
            await fleet.start(*roles, state=state)


async def test_a_whole_ring_of_a_thiefs_own_is_noticed_by_who_knew_the_keeper(fleet: Fleet) -> None:
    """With a made-up issue role all of the document is consistent; only its signer is a stranger."""
    await fleet.start()
    running, pinned = await fleet.start(OPEN), await fleet.start(OPEN, state="pod")
    fleet.clock.pass_time(1)
    true, elsewhere = dict(fleet.disk.documents), {ISSUE: fleet.kek("stolen"), OPEN: fleet.kms[OPEN]}
    fleet.disk.documents.clear()
    thief = await fleet.start(kms=elsewhere, writable=True)
    token = _issued(thief)
    await thief.rotate("default", None, expected=0, request_id="")
    assert fleet.disk.documents["default"].revision > true["default"].revision
    await running.refresh()
    for victim in (running, pinned, await fleet.start(OPEN, state="pod")):
        await victim.refresh()
        assert "not signed by a keeper" in victim.alarms()["default"]
        with pytest.raises(StaleStateError):
            await _accepted(victim, token)
    with pytest.raises(UnavailableKmsError):
        await fleet.start(ISSUE)
    # The stated limit: who sees the ring for the first time has nothing to go by.
    assert (await _accepted(await fleet.start(OPEN), token)).claims.subject == "user-42"


async def test_the_seal_of_one_role_is_not_enough_for_who_has_both(fleet: Fleet) -> None:
    await fleet.start()
    thief = await Thief.of(fleet)
    forged = thief.ring(lambda _document: None)
    with pytest.raises(DamagedRingError, match="seal of role 'issue'"):
        await open_ring(forged.content, "default", forged.revision, store_id=fleet.disk.store_id, kms=fleet.kms)
    with pytest.raises(DamagedRingError, match="its signature is broken"):
        await open_ring(
            forged.content,
            "default",
            forged.revision,
            store_id=fleet.disk.store_id,
            kms={OPEN: fleet.kms[OPEN]},
        )


async def test_an_issuers_data_key_signs_nothing_either(fleet: Fleet) -> None:
    data_keys = await fresh_data_keys(fleet.kms, "default", fleet.disk.store_id, 1.0)
    for role in Role:
        alone = await unwrapped({role: fleet.kms[role]}, {}, data_keys.wrapped, 1.0, "default", fleet.disk.store_id)
        assert (alone.roles, alone.public) == ((role,), None)
        with pytest.raises(ValueError, match="both roles"):
            alone.sign(b"a document")


async def test_a_profile_without_signatures_is_no_protection_and_says_so(fleet: Fleet) -> None:
    """Format encrypted is symmetric: who validates can also make. The configuration's reference says it."""
    await fleet.start(profile=ALONE)
    validator = await fleet.start(OPEN, profile=ALONE)
    opened = validator._live["default"].opened
    token = encrypt(_payload(validator), next(iter(opened.open.values())), content="A256GCM", typ="at+jwt")
    assert (await _accepted(await fleet.start(OPEN, profile=ALONE), token)).claims.subject == "root"
