"""Proofs of possession, as values: whatever a presenter sends, the answer is proven or unproven, and no exception of a library's."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, strategies as st

from sidecar.errors import UnprovenPossessionError
from sidecar.possession import Bond, DpopProof, Method, Proven, normal, prove
from tests.dpop import Presenter

PRESENTER = Presenter()
URL = "https://orders.example/v1/orders"
CNF = {"jkt": PRESENTER.thumbprint}
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def judged(text: str, cnf: object = CNF) -> Proven | None:
    try:
        return prove(cnf, DpopProof(text, "GET", URL), token="a.b", now=time.time(), max_age=60, leeway=5)
    except UnprovenPossessionError:
        return None


def test_a_good_proof_says_what_to_remember_and_until_when() -> None:
    now = int(time.time())
    found = judged(PRESENTER.proof("a.b", jti="one", iat=now))
    assert found is not None
    assert found.bond == Bond(Method.DPOP, PRESENTER.thumbprint)
    assert (len(found.proof), found.until) == (32, now + 65)
    again = judged(PRESENTER.proof("a.b", jti="one", iat=now + 1))
    assert again is not None
    assert again.proof == found.proof


@given(st.text(max_size=80) | st.text("abAZ09-_.", max_size=80))
def test_any_text_is_a_proof_or_none(text: str) -> None:
    assert judged(text) is None


@given(
    st.sampled_from(["jti", "htm", "htu", "iat", "ath", "nonce", "exp"]),
    _JSON,
    st.sampled_from(["typ", "alg", "jwk", "crit"]),
    _JSON,
    st.booleans(),
)
def test_any_value_of_any_member_is_judged(claim: str, value: Any, parameter: str, other: Any, both: bool) -> None:
    header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": PRESENTER.jwk, **({parameter: other} if both else {})}
    claims = {"htm": "GET", "htu": URL, "iat": int(time.time()), "jti": "j", "ath": "x", claim: value}
    assert judged(PRESENTER.signed(header, claims)) is None  # `ath` is never that of the token


@given(_JSON)
def test_any_cnf_is_judged(cnf: Any) -> None:
    if cnf is not None:
        assert judged(PRESENTER.proof("a.b"), cnf) is None


@given(st.text(max_size=60) | st.text("htps:/.%@\\[]0aA?#", max_size=60))
def test_any_url_has_one_normal_form_or_none(url: str) -> None:
    found = normal(url)
    if found is not None:
        assert normal(found) == found


@pytest.mark.parametrize(
    ("url", "form"),
    [
        ("HTTP://A.Example:80", "http://a.example/"),
        ("https://a:443/%7e%2f?x#y", "https://a/~%2F"),
        ("https://[::1]:8443/", "https://[::1]:8443/"),
        ("https://a:99999/", None),
        ("https://a@b/", None),
        ("ftp://a/", None),
        ("//a/", None),
        ("https:///a", None),
        ("https://a\\b/", None),
    ],
)
def test_urls_in_normal_form(url: str, form: str | None) -> None:
    assert normal(url) == form
