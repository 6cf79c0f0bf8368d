"""Formats, migration between them, keys of other systems and claim rules, through the real calls."""

from __future__ import annotations

import json
import secrets
import time
from typing import TYPE_CHECKING, Any

import pytest
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS
from tokensidecar.v1 import token_service_pb2 as pb

from sidecar.jose import keys
from sidecar.jose.encrypt import encrypt
from sidecar.jose.sign import sign
from tests.e2e.calls import SECONDS, Plane, metric, refused
from tests.e2e.insider import Insider
from tests.forgeries import encode, header_of
from tests.running import RunningSidecar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUITES = {
    "ec": ("ES384", "ECDH-ES+A256KW", "A256GCM", 'curve = "P-256"'),
    "okp": ("Ed25519", "ECDH-ES+A256KW", "A256GCM", 'curve = "X25519"'),
    "direct": ("ES256", "ECDH-ES", "A128CBC-HS256", ""),
    "rsa": ("PS256", "RSA-OAEP-256", "A256CBC-HS512", ""),
    "mac": ("HS256", "A128KW", "A128GCM", ""),
}
KID = "their key / 2024"


def profile(name: str, more: str, audiences: str = '["orders"]') -> str:
    return f'[profiles.{name}]\nissuer = "https://{name}.example"\naudiences = {audiences}\n{more}\n'


def config(folder: Path) -> str:
    parts = [
        profile(name, f'sign = "{s}"\nencrypt = "{e}"\ncontent = "{c}"\nmax_token_bytes = 8192\n{more}')
        for name, (s, e, c, more) in SUITES.items()
    ]
    parts += [
        profile("signed", 'format = "signed"\npublished = true'),
        profile("moving", "accept_signed_until = 2199-01-01"),
        profile("moved", "accept_signed_until = 2020-01-01T00:00:00Z"),
        profile("watching", "accept_signed_until = 2020-01-01\nreport_only = true"),
        profile("txn", 'preset = "transaction-token"'),
        profile(
            "ruled", 'claims = { forbid = ["email"], types = { level = "integer", tags = "texts" }, max_claims = 9 }'
        ),
        profile(
            "theirs",
            f'format = "signed"\nsign = "RS256"\nimport = {{ signature = "{folder}/theirs.json", typ = ["jwt", ""], tolerate = ["x5t", "jku"] }}',
        ),
        profile(
            "namesake",
            f'format = "signed"\nsign = "RS256"\nimport = {{ signature = "{folder}/namesake.json", typ = ["jwt"] }}',
        ),
        profile(
            "shared",
            f'sign = "EdDSA"\nencrypt = "A256GCMKW"\nimport = {{ signature = "{folder}/ed.json", encryption = "{folder}/shared.json" }}',
        ),
    ]
    return "\n".join(parts)


class Theirs:
    """Another system: an RSA key in a JWK Set, and an Ed25519 and a shared key, each with the ids that it chose."""

    def __init__(self, folder: Path) -> None:
        self.rsa = JWK.generate(kty="RSA", size=2048, kid=KID)
        self.namesake = JWK.generate(kty="RSA", size=2048, kid=KID)
        (folder / "namesake.json").write_text(self.namesake.export_public())
        self.ed = JWK.generate(kty="OKP", crv="Ed25519", kid="ed")
        self.shared = JWK(kty="oct", k=encode(secrets.token_bytes(32)), kid="shared")
        (folder / "theirs.json").write_text(json.dumps({"keys": [json.loads(self.rsa.export_public())]}))
        (folder / "ed.json").write_text(self.ed.export_public())
        (folder / "shared.json").write_text(self.shared.export_symmetric())
        (folder / "shared.json").chmod(0o600)

    def claims(self, issuer: str, **more: Any) -> bytes:
        now = int(time.time())
        return json.dumps(
            {"iss": issuer, "sub": "user-42", "aud": "orders", "iat": now, "exp": now + 300} | more
        ).encode()

    def sign(self, payload: bytes, key: JWK | None = None, **header: Any) -> str:
        key = key or self.rsa
        jws = JWS(payload)
        members = {"alg": "RS256", "kid": key["kid"], "typ": "JWT"} | header
        jws.allowed_algs = [members["alg"]]
        jws.add_signature(key, alg=members["alg"], protected=json.dumps(members))
        return str(jws.serialize(compact=True))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Theirs:
    folder = tmp_path_factory.mktemp("keys")
    made = Theirs(folder)
    made.folder = folder  # type: ignore[attr-defined]
    return made


@pytest.fixture(scope="module")
def running(theirs: Theirs) -> Iterator[RunningSidecar]:
    with RunningSidecar(config(theirs.folder)) as sidecar:  # type: ignore[attr-defined]
        yield sidecar


@pytest.fixture
def plane(running: RunningSidecar) -> Iterator[Plane]:
    with Plane(running.app_socket) as plane:
        yield plane


def reason(plane: Plane, token: str, *profiles: str) -> str:
    return refused(plane.validate, pb.ValidateRequest(token=token, audiences=["orders"], profiles=profiles)).reason


@pytest.mark.parametrize("name", SUITES)
def test_a_token_of_every_kind_of_suite_is_issued_and_validated(plane: Plane, name: str) -> None:
    token = plane.token(profile=name, claims_json='{"n":18446744073709551615}')
    _, encryption, content, _ = SUITES[name]
    assert (header_of(token)["alg"], header_of(token)["enc"]) == (encryption, content)
    accepted = plane.accepts(token, profiles=[name])
    assert (accepted.subject, accepted.profile) == ("user-42", name)
    assert reason(plane, token, "signed") == "TOKEN_INVALID"


def test_public_keys_of_both_uses_are_exported(running: RunningSidecar, plane: Plane) -> None:
    answer = plane.get_jwks(pb.GetJwksRequest(profile="okp"), timeout=SECONDS)
    found = {jwk["use"]: jwk for jwk in json.loads(answer.jwks_json)["keys"]}
    assert (found["sig"]["alg"], found["enc"]["crv"]) == ("Ed25519", "X25519")
    assert not {"d", "k"} & (found["sig"].keys() | found["enc"].keys())
    # Who has the public key alone can wrap, and is not believed.
    public = keys.load(json.dumps(found["enc"]).encode(), "ECDH-ES+A256KW")
    claims = json.dumps(
        {
            "iss": "https://okp.example",
            "sub": "admin",
            "aud": ["orders"],
            "jti": "1",
            "iat": int(time.time()),
            "exp": int(time.time()) + 60,
        }
    )
    for cty, typ in (("", "at+jwt"), ("JWT", "")):
        forged = encrypt(claims.encode(), public, content="A256GCM", cty=cty, typ=typ)
        assert reason(plane, forged, "okp") == "TOKEN_INVALID"


def test_a_signed_token_has_one_layer_that_others_verify(running: RunningSidecar, plane: Plane) -> None:
    token = plane.token(profile="signed")
    assert token.count(".") == 2
    assert plane.accepts(token, profiles=["signed"]).profile == "signed"
    _, text = running.get("/.well-known/jwks.json")
    jws = JWS()
    jws.deserialize(token)
    jws.verify(next(JWK(**jwk) for jwk in json.loads(text)["keys"] if jwk["kid"] == header_of(token)["kid"]))
    assert json.loads(jws.payload)["sub"] == "user-42"
    assert reason(plane, token, "ec") == "TOKEN_INVALID"
    assert reason(plane, token, "moving", "moved") == "TOKEN_INVALID"


@pytest.mark.parametrize(("name", "accepted"), [("moving", True), ("watching", True), ("moved", False)])
def test_plain_tokens_are_counted_and_accepted_as_long_as_configured(
    running: RunningSidecar, plane: Plane, name: str, accepted: bool
) -> None:
    insider = Insider.read(running.state_dir, name)
    assert insider.signature is not None
    plain = sign(insider.payload(f"https://{name}.example"), insider.signature, typ="at+jwt")
    labels = {"profile": name, "caller": "unix:app", "accepted": str(accepted).lower()}
    before = metric(running, "tokensidecar_plain_tokens_total", **labels)
    if accepted:
        assert plane.accepts(plain, profiles=[name]).profile == name
    else:
        assert reason(plane, plain, name) == "TOKEN_INVALID"
    assert reason(plane, plain[:-8] + "AAAAAAAA", name) == "TOKEN_INVALID"  # not genuine, so not counted
    assert metric(running, "tokensidecar_plain_tokens_total", **labels) == before + 1
    assert plane.accepts(plane.token(profile=name), profiles=[name])


def test_a_plain_token_of_a_nested_profile_is_refused(running: RunningSidecar, plane: Plane) -> None:
    insider = Insider.read(running.state_dir, "txn")
    assert insider.signature is not None
    plain = sign(insider.payload("https://txn.example"), insider.signature, typ="txntoken+jwt")
    assert reason(plane, plain, "txn") == "TOKEN_INVALID"
    assert reason(plane, plain, "txn", "signed") == "TOKEN_INVALID"


def test_a_transaction_token_has_its_type_and_its_transaction(plane: Plane) -> None:
    request = pb.IssueRequest(profile="txn", subject="u", audiences=["orders"])
    assert "txn" in refused(plane.issue, request).fields["claims_json"]
    request.claims_json = '{"txn":7}'
    assert "to be text" in refused(plane.issue, request).fields["claims_json"]
    request.claims_json = '{"txn":"97053963","tctx":{"action":"BUY"},"rctx":{"req_ip":"192.0.2.1"}}'
    issued = plane.issue(request, timeout=SECONDS)
    accepted = plane.accepts(issued.token, profiles=["txn"], with_claims=True)
    assert json.loads(accepted.claims_json)["tctx"] == {"action": "BUY"}
    assert accepted.expire_time.seconds - accepted.issue_time.seconds == 60
    assert reason(plane, issued.token, "ec") == "TOKEN_INVALID"


@pytest.mark.parametrize(
    ("claims", "words"),
    {
        "forbidden": ('{"email":"a@b.example"}', 'does not allow "email"'),
        "of another type": ('{"level":"7"}', 'wants "level" to be integer'),
        "true is no integer": ('{"level":true}', 'wants "level" to be integer'),
        "a list of others": ('{"tags":["a",1]}', 'wants "tags" to be texts'),
        "too many": ('{"a":1,"b":2,"c":3}', "would have 10 claims"),
    }.values(),
)
def test_rules_for_claims_are_kept(plane: Plane, claims: str, words: str) -> None:
    request = pb.IssueRequest(profile="ruled", subject="u", audiences=["orders"], claims_json=claims)
    assert words in refused(plane.issue, request).fields["claims_json"]
    assert plane.token(profile="ruled", claims_json='{"level":7,"tags":["a"]}')


def test_actors_are_passed_to_a_depth(plane: Plane) -> None:
    actor = '{"sub":"a","act":' * 3 + '{"sub":"b"}' + "}" * 3
    token = plane.token(profile="ec", claims_json=f'{{"act":{actor}}}')
    assert json.loads(plane.accepts(token, profiles=["ec"], with_claims=True).claims_json)["act"]["act"]["sub"] == "a"
    for bad in ('"a"', "[]", f'{{"act":{actor}}}'):
        request = pb.IssueRequest(profile="ec", subject="u", audiences=["orders"], claims_json=f'{{"act":{bad}}}')
        assert "act is not" in refused(plane.issue, request).fields["claims_json"]


def test_personal_data_is_warned_of_once_by_name_and_never_by_value(running: RunningSidecar, plane: Plane) -> None:
    for _ in range(3):
        plane.token(profile="mac", claims_json='{"phone_number":"+46700000000","role":"a"}')
    log = (running.directory / "stderr").read_text()
    warned = [json.loads(line) for line in log.splitlines() if '"claims.personal"' in line]
    assert [line["claim"] for line in warned if line["profile"] == "mac"] == ["phone_number"]
    assert "profiles.mac.claims.allow" in next(line["advice"] for line in warned if line["profile"] == "mac")
    assert "46700000000" not in log


def test_tokens_of_another_system_are_validated(plane: Plane, theirs: Theirs) -> None:
    for header in ({}, {"x5t": encode(b"t" * 20), "jku": "http://127.0.0.1:9/keys"}):
        token = theirs.sign(theirs.claims("https://theirs.example", groups=["a"]), **header)
        accepted = plane.accepts(token, profiles=["theirs", "ec"])
        assert (accepted.profile, accepted.subject, accepted.token_id) == ("theirs", "user-42", "")
    assert plane.accepts(plane.token(profile="ec"), profiles=["theirs", "ec"]).profile == "ec"


def test_tokens_of_another_system_are_held_to_their_form(plane: Plane, theirs: Theirs) -> None:
    good = theirs.claims("https://theirs.example")
    stranger = JWK.generate(kty="RSA", size=2048, kid=KID)
    for token in (
        theirs.sign(good, typ="at+jwt"),
        theirs.sign(good, kid="another"),
        theirs.sign(good, x5c=["AAAA"]),
        theirs.sign(good, jwk=json.loads(stranger.export_public())),
        theirs.sign(good, alg="PS256"),
        theirs.sign(good, key=stranger),
        theirs.sign(good, crit=["kid"]),
        theirs.sign(good, cty="JWT"),
        theirs.sign(theirs.claims("https://ec.example")),
        theirs.sign(theirs.claims("https://theirs.example", exp=int(time.time()) + 10**6)),
    ):
        assert reason(plane, token, "theirs") == "TOKEN_INVALID"
        assert reason(plane, token, "theirs", "ec") == "TOKEN_INVALID"
    assert reason(plane, theirs.sign(good), "ec") == "TOKEN_INVALID"
    assert plane.accepts(theirs.sign(good), profiles=["theirs"])


def test_our_own_tokens_stay_in_their_form_beside_a_foreign_profile(running: RunningSidecar, plane: Plane) -> None:
    insider = Insider.read(running.state_dir, "moving")
    assert insider.signature is not None
    good = sign(insider.payload("https://moving.example"), insider.signature, typ="at+jwt")
    assert plane.accepts(good, profiles=["moving", "theirs"]).profile == "moving"
    jws = JWS(insider.payload("https://moving.example"))
    header = header_of(good) | {"x5t": "AAAA"}
    jws.add_signature(insider.signature.jwk, alg="ES256", protected=json.dumps(header))
    assert reason(plane, str(jws.serialize(compact=True)), "moving", "theirs") == "TOKEN_INVALID"


def test_a_kid_of_two_other_systems_is_ambiguous_where_both_are_asked_for(
    running: RunningSidecar, plane: Plane, theirs: Theirs
) -> None:
    first = theirs.sign(theirs.claims("https://theirs.example"))
    second = theirs.sign(theirs.claims("https://namesake.example"), key=theirs.namesake)
    assert plane.accepts(first, profiles=["theirs"]).profile == "theirs"
    assert plane.accepts(second, profiles=["namesake", "ec"]).profile == "namesake"
    assert plane.accepts(first, profiles=["theirs", "theirs"]).profile == "theirs"
    for token in (first, second):
        for asked in (("theirs", "namesake"), ("namesake", "theirs", "ec")):
            assert reason(plane, token, *asked) == "TOKEN_INVALID"
    stages = [json.loads(line).get("stage") for line in running.stdout().splitlines()]
    assert stages.count("key.ambiguous") == 4
    assert reason(plane, first, "namesake") == reason(plane, second, "theirs") == "TOKEN_INVALID"


def test_nested_tokens_under_imported_keys_are_opened(plane: Plane, theirs: Theirs) -> None:
    from jwcrypto.jwe import JWE

    inner = theirs.sign(theirs.claims("https://shared.example", jti="t1"), theirs.ed, alg="EdDSA", typ="at+jwt")
    header = {"alg": "A256GCMKW", "enc": "A256GCM", "kid": "shared", "cty": "JWT"}
    token = str(JWE(inner.encode(), json.dumps(header), recipient=theirs.shared).serialize(compact=True))
    accepted = plane.accepts(token, profiles=["shared"])
    assert (accepted.profile, accepted.token_id) == ("shared", "t1")
    assert reason(plane, inner, "shared") == "TOKEN_INVALID"
    bare = str(
        JWE(theirs.claims("https://shared.example"), json.dumps(header), recipient=theirs.shared).serialize(
            compact=True
        )
    )
    assert reason(plane, bare, "shared") == "TOKEN_INVALID"


def test_a_profile_with_imported_keys_does_nothing_else(running: RunningSidecar, plane: Plane) -> None:
    with Plane(running.admin_socket) as admin:
        for rpc, request in (
            (plane.issue, pb.IssueRequest(profile="theirs", subject="u", audiences=["orders"])),
            (plane.get_jwks, pb.GetJwksRequest(profile="theirs")),
            (admin.rotate, pb.RotateRequest(profile="theirs")),
        ):
            assert refused(rpc, request).reason == "CALLER_DENIED"
    assert running.get("/readyz")[0] == 200
