"""Forged tokens through the real Validate: every one is refused, and all answers are alike to the byte."""

from __future__ import annotations

import json
import secrets
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from tokensidecar.v1 import admin_service_pb2 as admin_pb, errors_pb2, keys_pb2, token_service_pb2 as pb

from sidecar.gate import MAX_TOKEN
from tests import forgeries
from tests.e2e.calls import SECONDS, Plane, failed, refused
from tests.e2e.insider import Insider
from tests.forgeries import encode, header_of, with_header, with_segment
from tests.running import ROOT, RunningSidecar

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.conftest import StartSidecar

MIB = 1024 * 1024
Answer = tuple[Any, ...]


def answer(plane: Plane, token: str, profiles: tuple[str, ...] = ()) -> Answer:
    """All that a caller can see of a refusal, with a request id of its own choice."""
    request = pb.ValidateRequest(token=token, audiences=["orders"], profiles=profiles)
    error = failed(plane.validate, request, (("x-request-id", "the-same"),))
    return (error.code().name, error.details(), tuple(error.initial_metadata()), tuple(error.trailing_metadata()))


def the_rejection(plane: Plane) -> Answer:
    """The one answer, as the simplest of all texts gets it."""
    found = answer(plane, "x")
    assert found[:2] == ("UNAUTHENTICATED", "the token is not valid")
    assert ("tokensidecar-reason", "TOKEN_INVALID") in [(each.key, each.value) for each in found[3]]
    return found


def all_alike(plane: Plane, texts: Iterable[tuple[str, str]], profiles: tuple[str, ...] = ()) -> int:
    """Every text gets the one answer; how many there were."""
    the_one = the_rejection(plane) if not profiles else answer(plane, "x", profiles)
    count, others = 0, []
    for name, text in texts:
        count += 1
        found = answer(plane, text, profiles)
        if found != the_one:
            others.append((name, found))
    assert others == []
    return count


# -- by outsiders


def test_every_forgery_by_an_outsider_gets_the_one_answer(app: Plane) -> None:
    genuine = app.token(scopes=["read"], claims_json='{"role":"reader"}')
    public, *_ = json.loads(app.get_jwks(pb.GetJwksRequest(), timeout=SECONDS).jwks_json)["keys"]  # others may rotate
    texts = [(name, text) for name, text in forgeries.forgeries(genuine, public) if text]
    assert all_alike(app, texts) > 500
    assert app.accepts(genuine).subject == "user-42"


def test_no_text_at_all_is_a_bad_request(app: Plane) -> None:
    assert list(refused(app.validate, pb.ValidateRequest(token="", audiences=["orders"])).fields) == ["token"]


def test_oversized_texts_are_turned_away_and_harm_nobody(app: Plane) -> None:
    for name, text in forgeries.oversized(app.token()):
        size = len(text)
        error = failed(app.validate, pb.ValidateRequest(token=text, audiences=["orders"]))
        assert error.code().name == ("RESOURCE_EXHAUSTED" if size > MIB else "INVALID_ARGUMENT"), name
        if size < MIB - 100:  # as an item of a batch it gets as far as the gate
            item = pb.ValidateRequest(token=text, audiences=["orders"])
            (result,) = app.batch_validate(pb.BatchValidateRequest(requests=[item]), timeout=SECONDS).results
            assert result.error.reason == errors_pb2.TOKEN_INVALID, name
    app.accepts(app.token())


def test_texts_up_to_the_largest_request_get_the_one_answer(app: Plane) -> None:
    genuine = app.token()
    sizes = (MAX_TOKEN - len(genuine), MAX_TOKEN, 60_000)
    all_alike(app, [(str(size), with_segment(genuine, 3, "A" * size)) for size in sizes])


def test_no_key_is_fetched_from_anywhere(app: Plane, sidecar: RunningSidecar) -> None:
    insider = Insider.read(sidecar.state_dir)
    genuine = app.token()
    inner = insider.sign(insider.payload())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.5)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/keys.json"
        texts = []
        for name in ("jku", "x5u", "url", "uri", "kid", "iss"):
            texts += [
                (f"outer {name}", with_header(genuine, header_of(genuine) | {name: url})),
                (f"inner {name}", insider.wrap(with_header(inner, header_of(inner) | {name: url}).encode())),
            ]
        all_alike(app, texts)
        with pytest.raises(TimeoutError):
            listener.accept()


# -- by insiders


def test_every_forgery_under_the_real_encryption_key_gets_the_one_answer(app: Plane, sidecar: RunningSidecar) -> None:
    insider = Insider.read(sidecar.state_dir)
    inner = insider.sign(insider.payload())
    app.accepts(insider.wrap(inner.encode()))  # so that the forgeries fail for what is forged in them
    assert all_alike(app, forgeries.inner_forgeries(insider.wrap, inner, insider.public_jwk())) > 80
    others = {
        "no cty": insider.wrap(inner.encode(), cty=""),
        "typ outside": insider.wrap(inner.encode(), typ="at+jwt"),
        "cty jwt": insider.wrap(inner.encode(), cty="jwt"),
        "bare claims as the other format has them": insider.wrap(insider.payload(), cty="", typ="at+jwt"),
        "bare claims, no typ": insider.wrap(insider.payload(), cty=""),
        "the signed token alone": inner,
    }
    all_alike(app, others.items())


def test_every_bad_form_of_claims_under_both_real_keys_gets_the_one_answer(app: Plane, sidecar: RunningSidecar) -> None:
    insider = Insider.read(sidecar.state_dir)
    good = insider.payload(scope="read write")
    app.accepts(insider.make(good))
    assert all_alike(app, forgeries.claim_forgeries(insider.make, good)) > 200


@pytest.mark.parametrize("typ", ["rt+jwt", "jwt", "dpop+jwt", "at+jwt2", "application/rt+jwt"])
def test_a_token_of_another_kind_gets_the_one_answer(app: Plane, sidecar: RunningSidecar, typ: str) -> None:
    insider = Insider.read(sidecar.state_dir)
    all_alike(app, [(typ, insider.make(insider.payload(), typ))])


def test_a_typ_in_other_spelling_is_the_same_typ(app: Plane, sidecar: RunningSidecar) -> None:
    insider = Insider.read(sidecar.state_dir)
    for typ in ("AT+JWT", "application/at+jwt", "Application/At+Jwt"):
        app.accepts(insider.make(insider.payload(), typ))


# -- by keys of others


def test_keys_of_other_profiles_and_formats_get_the_one_answer(web: Plane, configured: RunningSidecar) -> None:
    by_name = {name: Insider.read(configured.state_dir, name) for name in ("web", "inside", "outside")}
    issuers = {
        "web": "https://tokens.example.com",
        "inside": "https://inside.example.com",
        "outside": "https://outside.example.com",
    }
    web_keys, inside, outside = by_name.values()
    payload = web_keys.payload(issuers["web"])
    web.accepts(web_keys.make(payload), profiles=["web"])
    web.accepts(inside.wrap(inside.payload(issuers["inside"]), cty="", typ="at+jwt"), profiles=["inside"])
    signed = web_keys.sign(payload)
    texts = [
        ("web's, signed by outside", web_keys.wrap(outside.sign(payload).encode())),
        ("outside's, signed by web", outside.wrap(signed.encode())),
        ("outside's own keys, web's issuer", outside.make(payload)),
        ("signed by web under a symmetric profile's key", inside.wrap(signed.encode())),
        ("the same without cty", inside.wrap(signed.encode(), cty="")),
        ("the same with typ", inside.wrap(signed.encode(), cty="", typ="at+jwt")),
        ("bare claims under web's key", web_keys.wrap(payload, cty="", typ="at+jwt")),
        ("bare claims of web under the symmetric profile's key", inside.wrap(payload, cty="", typ="at+jwt")),
        ("the symmetric profile's with cty", inside.wrap(inside.payload(issuers["inside"]))),
        ("the symmetric profile's without typ", inside.wrap(inside.payload(issuers["inside"]), cty="")),
    ]
    assert all_alike(web, texts, ("web", "inside", "outside")) == 10
    genuine = web_keys.make(payload)
    all_alike(web, [("web's", genuine)], ("inside", "outside"))
    assert web_keys.signature is not None
    for kid in (web_keys.signature.key_id, inside.encryption.key_id, outside.encryption.key_id):
        all_alike(web, [(kid, with_header(genuine, header_of(genuine) | {"kid": kid}))], ("web", "inside", "outside"))


SHORT = """
[profiles.short]
issuer = "https://short.example.com"
audiences = ["orders"]
ttl = "1s"
max_ttl = "1s"
leeway = "0s"

[keys]
propagation = "2s"
max_staleness = "2s"
max_skew = "1s"
refresh_interval = "1s"
"""


def test_keys_that_are_gone_get_the_one_answer(start_sidecar: StartSidecar) -> None:
    running = start_sidecar(SHORT)
    with Plane(running.app_socket) as app, Plane(running.admin_socket) as admin:

        def keys() -> dict[str, int]:
            found = admin.list_keys(admin_pb.ListKeysRequest(), timeout=SECONDS).keys
            return {key.key_id: key.state for key in found}

        old = Insider.read(running.state_dir, "short")

        def token(insider: Insider) -> str:
            return insider.make(insider.payload("https://short.example.com", exp=int(time.time()) + 1))

        app.accepts(token(old), profiles=["short"])
        admin.rotate(pb.RotateRequest(profile="short"), timeout=SECONDS)
        middle = Insider.read(running.state_dir, "short")
        app.accepts(token(old), profiles=["short"])
        named = [middle.encryption.key_id]
        admin.revoke_keys(admin_pb.RevokeKeysRequest(profile="short", key_ids=named), timeout=SECONDS)
        assert keys()[named[0]] == keys_pb2.KEY_STATE_COMPROMISED
        all_alike(app, [("compromised", token(middle))], ("short",))
        fresh = Insider.read(running.state_dir, "short")
        app.accepts(token(fresh), profiles=["short"])

        end = time.monotonic() + 15
        while old.encryption.key_id in keys() and time.monotonic() < end:
            time.sleep(0.2)
        assert old.encryption.key_id not in keys()
        mixed = old.wrap(fresh.sign(fresh.payload("https://short.example.com")).encode())
        all_alike(app, [("destroyed", token(old)), ("destroyed outside", mixed)], ("short",))
        app.accepts(token(fresh), profiles=["short"])


# -- by keys of nobody


def test_a_hundred_thousand_unknown_kids_cost_no_call_of_store_or_kms_each(tmp_path: Path) -> None:
    counts = tmp_path / "counts"
    command = (sys.executable, "-m", "tests.e2e.odd_sidecar", "serve")
    running = RunningSidecar(None, {"PYTHONPATH": str(ROOT), "COUNT_FILE": str(counts)}, command)
    with running, Plane(running.app_socket) as app:
        rest = ".".join(app.token().split(".")[1:])
        before, started = counts.read_text(), time.monotonic()
        for _ in range(100):
            kids = (encode(secrets.token_bytes(16)) for _ in range(1000))
            tokens = (encode(f'{{"alg":"A256KW","enc":"A256GCM","kid":"{kid}","cty":"JWT"}}') for kid in kids)
            requests = [pb.ValidateRequest(token=f"{head}.{rest}", audiences=["orders"]) for head in tokens]
            results = app.batch_validate(pb.BatchValidateRequest(requests=requests), timeout=60).results
            assert {result.error.reason for result in results} == {errors_pb2.TOKEN_INVALID}
        seconds = time.monotonic() - started
        during = counts.read_text()[len(before) :]
        app.accepts(app.token())
    # One refresh in a quarter of a second at most, whoever asks, and the one that comes by itself; each makes a few calls.
    assert 0 < during.count("s") < 5 * (4 * seconds + seconds + 4)
    assert during.count("k") == 0
