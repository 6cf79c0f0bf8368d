"""Service account tokens: who is named, and what names nobody, whatever it claims."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from sidecar.errors import SidecarError, StaleStateError, UnidentifiedCallerError
from sidecar.jose.imported import signatures
from sidecar.jose.keys import Material
from sidecar.service_accounts import ALGORITHMS, REMEMBERED, ServiceAccounts
from tests.cluster_tokens import AUDIENCE, ISSUER, Signer, claims, encode, key_set

RSA, EC, STRANGER = Signer(), Signer("ES256"), Signer()
NOW = int(time.time())


@dataclass
class Keys:
    """A key set as its port has it, whose looks a test counts."""

    keys: Mapping[str, Material] = field(default_factory=lambda: signatures(key_set(RSA, EC), ALGORITHMS))
    stale: bool = False
    reachable: bool = True
    looks: int = 0
    next: Mapping[str, Material] | None = None

    async def look_again(self) -> bool:
        self.looks += 1
        if self.next is not None:
            self.keys = self.next
        return self.reachable


def accounts(keys: Keys | None = None, now: float | None = None) -> ServiceAccounts:
    """`now` None: when it is asked, which may be minutes after this file was read."""
    return ServiceAccounts(ISSUER, AUDIENCE, 86400, keys or Keys(), lambda: time.time() if now is None else now)


async def name_of(verifier: ServiceAccounts, token: str) -> str:
    found = verifier(token)
    return found if isinstance(found, str) else await found


async def refusal(token: str, verifier: ServiceAccounts | None = None) -> str:
    with pytest.raises(SidecarError) as raised:
        await name_of(verifier or accounts(), token)
    assert isinstance(raised.value, UnidentifiedCallerError)
    assert token[:40] not in str(raised.value)
    return raised.value.stage


@pytest.mark.parametrize("signer", [RSA, EC], ids=["RS256", "ES256"])
async def test_a_token_names_its_service_account(signer: Signer) -> None:
    assert await name_of(accounts(), signer.token("shop", "web-1")) == "k8s:shop/web-1"
    assert await name_of(accounts(), signer.token(header={"typ": "JWT"})) == "k8s:shop/web"
    assert await name_of(accounts(), signer.token(jti=None, nbf=None, aud=AUDIENCE)) == "k8s:shop/web"


@pytest.mark.parametrize(
    ("changes", "stage"),
    [
        ({"iss": "https://kubernetes.default.svc"}, "token_issuer"),
        ({"iss": None}, "claims.iss"),
        ({"aud": ["https://kubernetes.default.svc"]}, "token_audience"),
        ({"aud": [AUDIENCE, "vault"]}, "token_audience"),
        ({"aud": []}, "claims.aud"),
        ({"aud": None}, "claims.aud"),
        ({"exp": NOW - 5, "iat": NOW - 3600}, "token_expired"),
        ({"exp": None}, "claims.exp"),
        ({"exp": NOW + 90000}, "token_lifetime"),
        ({"exp": "2099"}, "claims.exp"),
        ({"iat": NOW + 3000}, "token_early"),
        ({"nbf": NOW + 3000}, "token_early"),
        ({"sub": "system:serviceaccount:shop:web:x"}, "token_account"),
        ({"sub": "system:serviceaccount:shop"}, "token_account"),
        ({"sub": "system:node:shop:web"}, "token_account"),
        ({"sub": "system:serviceaccount:Shop:web"}, "token_account"),
        ({"sub": "system:serviceaccount:shop:admin"}, "token_account"),
        ({"sub": "k8s:shop/web"}, "token_account"),
        ({"kubernetes.io": None}, "token_account"),
        ({"kubernetes.io": {"namespace": "other", "serviceaccount": {"name": "web"}}}, "token_account"),
        ({"kubernetes.io": {"namespace": "shop", "serviceaccount": "web"}}, "token_account"),
        ({"cnf": {"jkt": "x"}}, "token_account"),
    ],
)
async def test_a_claim_that_is_not_right_names_nobody(changes: dict[str, object], stage: str) -> None:
    assert await refusal(RSA.token(**changes)) == f"caller.{stage}"


@pytest.mark.parametrize(
    "header",
    [
        *({"alg": none} for none in ("none", "None", "NONE", "nOnE", "", None, ["none"])),
        {"alg": "PS256"},
        {"alg": "HS256"},
        {"alg": "ES256"},
        {"kid": EC.key_id},
        {"kid": None},
        {"kid": ["x"]},
        {"kid": "../../etc/passwd\r\n"},
        {"typ": "at+jwt"},
        {"cty": "JWT"},
        {"crit": ["exp"]},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/keys"},
        {"jwk": STRANGER.jwk()},
        {"b64": False},
    ],
)
async def test_a_header_that_is_not_right_names_nobody(header: dict[str, object]) -> None:
    assert (await refusal(RSA.token(header=header))).startswith("caller.")


async def test_a_forged_token_names_nobody() -> None:
    good = RSA.token()
    head, payload, signature = good.split(".")
    other = encode(json.dumps(claims("shop", "admin")).encode())
    assert await refusal(f"{head}.{other}.{signature}") == "caller.jose.signature"
    assert await refusal(STRANGER.token(header={"kid": RSA.key_id})) == "caller.jose.signature"
    flipped = "A" if signature[100] != "A" else "B"
    assert await refusal(f"{head}.{payload}.{signature[:100]}{flipped}{signature[101:]}") == "caller.jose.signature"
    assert await refusal(f"{head}.{payload}.") == "caller.gate.empty"
    assert await refusal(f"{head}.{payload}.AAAA") == "caller.jose.length"
    for none in ("none", "None"):
        unsigned = f"{encode(json.dumps({'alg': none, 'kid': RSA.key_id}).encode())}.{payload}"
        for text in (f"{unsigned}.", f"{unsigned}.{signature}", unsigned):
            assert (await refusal(text)).startswith("caller.")
    # The public key as the secret of an HMAC.
    mac_head = encode(json.dumps({"alg": "HS256", "kid": RSA.key_id}).encode())
    for secret in (RSA.public_pem, RSA.public_pem.strip(), json.dumps(RSA.jwk()).encode()):
        mac = hmac.new(secret, f"{mac_head}.{payload}".encode(), hashlib.sha256).digest()
        assert await refusal(f"{mac_head}.{payload}.{encode(mac)}") == "caller.jose.key"


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a.b.c", "x" * 20000, "e30.e30.e30", "\x00.\x00.\x00", "ü.ü.ü", "a.b.c.d.e"]
)
async def test_what_is_no_token_names_nobody(text: str) -> None:
    with pytest.raises(UnidentifiedCallerError):
        await name_of(accounts(), text)


async def test_time_has_a_leeway_of_five_seconds() -> None:
    token = RSA.token(iat=NOW, nbf=NOW, exp=NOW + 600)
    assert await name_of(accounts(now=NOW - 5), token) == "k8s:shop/web"
    assert await refusal(token, accounts(now=NOW - 5.1)) == "caller.token_early"
    assert await name_of(accounts(now=NOW + 604.9), token) == "k8s:shop/web"
    assert await refusal(token, accounts(now=NOW + 605)) == "caller.token_expired"


async def test_what_was_proven_is_remembered_until_it_ends_or_the_keys_change() -> None:
    now = [NOW + 1.0]
    keys = Keys()
    verifier = ServiceAccounts(ISSUER, AUDIENCE, 86400, keys, lambda: now[0])
    token = RSA.token(iat=NOW, nbf=NOW, exp=NOW + 600)
    for _ in range(3):
        assert await name_of(verifier, token) == "k8s:shop/web"
    now[0] = NOW + 605
    assert await refusal(token, verifier) == "caller.token_expired"
    now[0] = NOW + 1.0
    keys.keys = signatures(key_set(EC), ALGORITHMS)
    assert await refusal(token, verifier) == "caller.token_key"
    for number in range(REMEMBERED + 10):
        await name_of(verifier, EC.token(jti=str(number), iat=NOW, nbf=NOW, exp=NOW + 600))
    assert len(verifier._known) == REMEMBERED


async def test_an_unknown_key_is_looked_for_and_found() -> None:
    fresh = Signer("ES256")
    keys = Keys(next=signatures(key_set(RSA, fresh), ALGORITHMS))
    found = accounts(keys)(fresh.token())
    assert isinstance(found, Awaitable)
    assert await found == "k8s:shop/web"
    assert keys.looks == 1


async def test_where_keys_cannot_be_read_nobody_is_called_unknown() -> None:
    for keys, token in ((Keys(reachable=False), STRANGER.token()), (Keys(stale=True), RSA.token())):
        with pytest.raises(StaleStateError):
            await name_of(accounts(keys), token)
    assert await refusal(STRANGER.token(), accounts(Keys())) == "caller.token_key"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "neither"),
        (b'{"keys": []}', "JWK Set"),
        (json.dumps({"keys": [{"kty": "oct", "k": "AAAA", "kid": "a"}]}).encode(), "no key for RS256, ES256, ES384"),
        (json.dumps({"keys": [RSA.jwk(), {**EC.jwk(), "kid": RSA.key_id}]}).encode(), "same kid"),
        (json.dumps({"keys": [{**EC.jwk(), "d": encode(bytes(31) + b"\x01")}]}).encode(), "key 1"),
    ],
)
def test_a_key_set_that_is_not_sound_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        signatures(data, ALGORITHMS)


def test_a_private_key_is_nobody_s_to_publish() -> None:
    from sidecar.jose.keys import generate

    private: Any = json.loads(generate("ES256").private_bytes())
    with pytest.raises(ValueError, match="private key"):
        signatures(json.dumps({"keys": [private]}).encode(), ALGORITHMS)
