"""Tokens that are bound to a key, through the real RPC: DPoP with every wrong proof, and client certificates."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tokensidecar.v1 import token_service_pb2 as pb

from sidecar.config import ConfigError, load
from tests.dpop import KINDS, Presenter, ath
from tests.e2e.calls import SECONDS, Plane, refused
from tests.e2e.insider import Insider
from tests.running import RunningSidecar

if TYPE_CHECKING:
    from collections.abc import Callable

URL = "https://orders.example/v1/orders"
SEEN = "A" * 42 + "E"
PRESENTER, THIEF = Presenter(), Presenter()


def bound(app: Plane, presenter: Presenter = PRESENTER, **fields: Any) -> str:
    return app.token(confirmation=pb.Confirmation(jwk_thumbprint_sha256=presenter.thumbprint), **fields)


def shown(proof: str, method: str = "GET", url: str = URL, nonce: str = "") -> pb.Possession:
    return pb.Possession(dpop=pb.DpopProof(proof=proof, method=method, url=url, nonce=nonce))


def demand(token: str, possession: pb.Possession | None = None, **fields: Any) -> pb.ValidateRequest:
    return pb.ValidateRequest(token=token, audiences=["orders"], possession=possession, **fields)


def unproven(app: Plane, token: str, possession: pb.Possession | None) -> None:
    refusal = refused(app.validate, demand(token, possession))
    assert (refusal.code, refusal.reason, refusal.fields) == ("UNAUTHENTICATED", "TOKEN_POSSESSION_UNPROVEN", {})


@pytest.mark.parametrize("algorithm", KINDS)
def test_a_proof_by_the_tokens_key_is_accepted_under_every_algorithm(app: Plane, algorithm: str) -> None:
    presenter = Presenter(algorithm)
    token = bound(app, presenter)
    answer = app.accepts(token, possession=shown(presenter.proof(token)))
    assert answer.confirmation == pb.Confirmation(jwk_thumbprint_sha256=presenter.thumbprint)
    assert json.loads(answer.claims_json)["cnf"] == {"jkt": presenter.thumbprint}


def test_a_bound_token_alone_is_unproven(app: Plane) -> None:
    unproven(app, bound(app), None)


def test_a_proof_is_taken_once(app: Plane) -> None:
    token = bound(app)
    proof = PRESENTER.proof(token)
    app.accepts(token, possession=shown(proof))
    unproven(app, token, shown(proof))
    app.accepts(token, possession=shown(PRESENTER.proof(token)))


def test_a_proof_that_was_refused_for_a_scope_is_not_spent(app: Plane) -> None:
    token = bound(app)
    proof = PRESENTER.proof(token)
    assert refused(app.validate, demand(token, shown(proof), required_scopes=["s"])).reason == "TOKEN_SCOPE_MISSING"
    app.accepts(token, possession=shown(proof))


def test_one_proof_in_a_batch_of_two_is_taken_once(app: Plane) -> None:
    token = bound(app)
    item = demand(token, shown(PRESENTER.proof(token)))
    results = app.batch_validate(pb.BatchValidateRequest(requests=[item, item]), timeout=SECONDS).results
    assert [one.WhichOneof("result") for one in results] == ["response", "error"]


WRONG: dict[str, Callable[[str], str]] = {
    "another key": THIEF.proof,
    "another key's signature under the token's key": lambda token: THIEF.proof(token, header={"jwk": PRESENTER.jwk}),
    "for another token": lambda _: PRESENTER.proof("another"),
    "for no token": lambda token: PRESENTER.proof(token, ath=None),
    "ath as a number": lambda token: PRESENTER.proof(token, ath=1),
    "another method": lambda token: PRESENTER.proof(token, "POST"),
    "method in lower case": lambda token: PRESENTER.proof(token, "get"),
    "no method": lambda token: PRESENTER.proof(token, htm=None),
    "another path": lambda token: PRESENTER.proof(token, url=URL + "/1"),
    "another host": lambda token: PRESENTER.proof(token, url="https://orders.example.org/v1/orders"),
    "another port": lambda token: PRESENTER.proof(token, url="https://orders.example:8443/v1/orders"),
    "another scheme": lambda token: PRESENTER.proof(token, url="http://orders.example/v1/orders"),
    "path in another case": lambda token: PRESENTER.proof(token, url="https://orders.example/V1/orders"),
    "dot segments": lambda token: PRESENTER.proof(token, url="https://orders.example/x/../v1/orders"),
    "user information": lambda token: PRESENTER.proof(token, url="https://a@orders.example/v1/orders"),
    "a url that is none": lambda token: PRESENTER.proof(token, url="/v1/orders"),
    "a url with a tab": lambda token: PRESENTER.proof(token, url="https://orders.example/v1/\torders"),
    "no url": lambda token: PRESENTER.proof(token, htu=None),
    "url as a list": lambda token: PRESENTER.proof(token, htu=[URL]),
    "too old": lambda token: PRESENTER.proof(token, iat=int(time.time()) - 70),
    "of the future": lambda token: PRESENTER.proof(token, iat=int(time.time()) + 30),
    "no time": lambda token: PRESENTER.proof(token, iat=None),
    "time as text": lambda token: PRESENTER.proof(token, iat=str(int(time.time()))),
    "time as true": lambda token: PRESENTER.proof(token, iat=True),
    "no id": lambda token: PRESENTER.proof(token, jti=None),
    "an empty id": lambda token: PRESENTER.proof(token, jti=""),
    "a huge id": lambda token: PRESENTER.proof(token, jti="j" * 256),
    "id as a number": lambda token: PRESENTER.proof(token, jti=7),
    "no typ": lambda token: PRESENTER.proof(token, header={"typ": None}),
    "typ of a token": lambda token: PRESENTER.proof(token, header={"typ": "at+jwt"}),
    "a kid": lambda token: PRESENTER.proof(token, header={"kid": "x"}),
    "crit": lambda token: PRESENTER.proof(token, header={"crit": ["b64"], "b64": True}),
    "jku": lambda token: PRESENTER.proof(token, header={"jku": "https://thief.example/keys"}),
    "no jwk": lambda token: PRESENTER.proof(token, header={"jwk": None}),
    "jwk as text": lambda token: PRESENTER.proof(token, header={"jwk": "x"}),
    "jwk with a kid": lambda token: PRESENTER.proof(token, header={"jwk": {**PRESENTER.jwk, "kid": "x"}}),
    "jwk with the private key": lambda token: PRESENTER.proof(
        token, header={"jwk": {name: v for name, v in PRESENTER.key.as_dict(private=True).items() if name in ["kty", "crv", "x", "y", "d"]}}
    ),
    "jwk with a number": lambda token: PRESENTER.proof(token, header={"jwk": {**PRESENTER.jwk, "x": 1}}),
    "jwk off its curve": lambda token: PRESENTER.proof(token, header={"jwk": {**PRESENTER.jwk, "x": "A" * 43}}),
    "jwk of an unknown kty": lambda token: PRESENTER.proof(token, header={"jwk": {**PRESENTER.jwk, "kty": "oct"}}),
    "the token itself": lambda token: token,
    "not a token": lambda _: "proof",
    "two proofs": lambda token: f"{PRESENTER.proof(token)}, {PRESENTER.proof(token)}",
    "padding": lambda token: PRESENTER.proof(token) + "=",
    "no signature": lambda token: PRESENTER.proof(token).rpartition(".")[0] + ".",
    "alg none": lambda token: ".".join(["eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6Im5vbmUifQ", *PRESENTER.proof(token).split(".")[1:]]),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_proof_is_unproven_and_nothing_more_is_said(app: Plane, wrong: str) -> None:
    token = bound(app)
    unproven(app, token, shown(WRONG[wrong](token)))


def test_one_changed_character_of_a_proof_is_enough(app: Plane) -> None:
    token = bound(app)
    head, claims, signature = PRESENTER.proof(token).split(".")
    for changed in (
        f"{head}.{claims}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}",
        f"{head}.{claims[:-2]}{'A' if claims[-2] != 'A' else 'B'}{claims[-1]}.{signature}",
    ):
        unproven(app, token, shown(changed))


@pytest.mark.parametrize(
    "url",
    [
        "HTTPS://Orders.Example:443/v1/orders",
        "https://orders.example/v1/orders?page=2#top",
        "https://orders.example/v1/%6frders",
    ],
)
def test_urls_are_compared_in_normal_form(app: Plane, url: str) -> None:
    token = bound(app)
    app.accepts(token, possession=shown(PRESENTER.proof(token, url=url)))
    app.accepts(token, possession=shown(PRESENTER.proof(token), url=url))


def test_the_nonce_that_is_expected_must_be_there(app: Plane) -> None:
    token = bound(app)
    app.accepts(token, possession=shown(PRESENTER.proof(token, nonce="n-1"), nonce="n-1"))
    app.accepts(token, possession=shown(PRESENTER.proof(token, nonce="n-1")))
    for given in ({}, {"nonce": "n-2"}, {"nonce": 1}, {"nonce": ""}):
        unproven(app, token, shown(PRESENTER.proof(token, **given), nonce="n-1"))


def test_a_proof_with_a_token_that_is_bound_to_nothing_is_refused(app: Plane) -> None:
    token = app.token()
    unproven(app, token, shown(THIEF.proof(token)))


def test_a_certificates_thumbprint_is_proof_where_the_token_asks_for_it(app: Plane) -> None:
    token = app.token(confirmation=pb.Confirmation(certificate_thumbprint_sha256=SEEN))
    seen = pb.Possession(certificate_thumbprint_sha256=SEEN)
    answer = app.accepts(token, possession=seen)
    assert answer.confirmation == pb.Confirmation(certificate_thumbprint_sha256=SEEN)
    assert json.loads(answer.claims_json)["cnf"] == {"x5t#S256": SEEN}
    app.accepts(token, possession=seen)
    unproven(app, token, None)
    unproven(app, token, pb.Possession(certificate_thumbprint_sha256="B" * 42 + "E"))
    unproven(app, token, shown(PRESENTER.proof(token)))


def test_a_certificate_proves_nothing_of_a_dpop_token_and_does_no_harm_to_a_bearer_token(app: Plane) -> None:
    seen = pb.Possession(certificate_thumbprint_sha256=SEEN)
    unproven(app, bound(app), seen)
    assert not app.accepts(app.token(), possession=seen).HasField("confirmation")


@pytest.mark.parametrize(
    "cnf",
    [{}, {"jkt": "short"}, {"jkt": 1}, {"kid": "x"}, {"jwk": PRESENTER.jwk}, {"jkt": PRESENTER.thumbprint, "x5t#S256": SEEN}],
)  # fmt: skip
def test_a_token_that_is_bound_in_another_way_cannot_be_proven(
    app: Plane, sidecar: RunningSidecar, cnf: dict[str, Any]
) -> None:
    insider = Insider.read(sidecar.state_dir)
    token = insider.make(insider.payload(cnf=cnf))
    for possession in (None, shown(PRESENTER.proof(token)), pb.Possession(certificate_thumbprint_sha256=SEEN)):
        unproven(app, token, possession)


@pytest.mark.parametrize(
    ("possession", "fields"),
    [
        (pb.Possession(), ["possession"]),
        (shown("p", method="", url=""), ["possession.dpop.method", "possession.dpop.url"]),
        (shown("p", method="G T"), ["possession.dpop.method"]),
        (shown("p", url="/v1"), ["possession.dpop.url"]),
        (shown(""), ["possession.dpop.proof"]),
        (pb.Possession(certificate_thumbprint_sha256="x"), ["possession.certificate_thumbprint_sha256"]),
    ],
)
def test_what_the_caller_must_say_of_its_request_is_named(
    app: Plane, possession: pb.Possession, fields: list[str]
) -> None:
    refusal = refused(app.validate, demand("t", possession))
    assert (refusal.reason, list(refusal.fields)) == ("REQUEST_INVALID", fields)


@pytest.mark.parametrize(
    ("confirmation", "field"),
    [
        (pb.Confirmation(), "confirmation"),
        (pb.Confirmation(jwk_thumbprint_sha256="A" * 42), "confirmation.jwk_thumbprint_sha256"),
        (pb.Confirmation(jwk_thumbprint_sha256="A" * 42 + "B"), "confirmation.jwk_thumbprint_sha256"),
        (pb.Confirmation(certificate_thumbprint_sha256="A" * 42 + "="), "confirmation.certificate_thumbprint_sha256"),
    ],
)
def test_a_bond_to_what_is_no_thumbprint_is_refused(app: Plane, confirmation: pb.Confirmation, field: str) -> None:
    request = pb.IssueRequest(subject="u", audiences=["orders"], confirmation=confirmation)
    assert list(refused(app.issue, request).fields) == [field]


def test_the_stage_of_a_refused_proof_is_in_the_audit_log_alone(app: Plane, sidecar: RunningSidecar) -> None:
    token = bound(app)
    unproven(app, token, shown(PRESENTER.proof(token, ath=ath("stage"))))
    assert '"stage":"possession.ath"' in sidecar.stdout()


def test_the_same_request_id_gets_the_same_answer_and_another_does_not(app: Plane) -> None:
    token = bound(app)
    proof = shown(PRESENTER.proof(token))
    for _ in range(2):
        app.accepts(token, possession=proof, request_id="once")
    for other in ("twice", ""):
        assert refused(app.validate, demand(token, proof, request_id=other)).reason == "TOKEN_POSSESSION_UNPROVEN"


def test_a_proof_is_taken_once_by_all_sidecars_of_a_store_where_the_profile_says_so(tmp_path: Path) -> None:
    config = (
        f'[keys]\nstore = "sqlite:{tmp_path}/state.db"\nkek = "file:{tmp_path}/kek"\n'
        '[profiles.default]\nissuer = "i"\naudiences = ["orders"]\nproof_replay = "fleet"\n'
    )
    with (
        RunningSidecar(config) as one,
        RunningSidecar(config) as two,
        Plane(one.app_socket) as first,
        Plane(two.app_socket) as second,
    ):
        token = bound(first)
        possession = shown(PRESENTER.proof(token))
        first.accepts(token, possession=possession, request_id="r")
        second.accepts(token, possession=possession, request_id="r")
        for plane in (first, second):
            unproven(plane, token, possession)
        with ThreadPoolExecutor(8) as pool:
            item = demand(token, shown(PRESENTER.proof(token)))
            calls = [pool.submit(plane.validate, item, timeout=SECONDS) for plane in (first, second) for _ in range(4)]
        assert sorted(call.exception() is None for call in calls) == [False] * 7 + [True]


def test_where_no_store_remembers_proofs_a_fleet_cannot_be_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        f'[keys]\nstore = "file:{tmp_path}"\n[profiles.default]\nissuer = "i"\naudiences = ["a"]\nproof_replay = "fleet"\n'
    )
    with pytest.raises(ConfigError) as refusal:
        load(str(file), {})
    assert [key for key, _ in refusal.value.problems] == ["profiles.default.proof_replay"]
