"""Claims: their form, the one check, and how they are built. Bad payloads by the hundred come from tests.forgeries."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from sidecar import claims
from sidecar.claims import MAX_DEPTH, MAX_MEMBERS, RESERVED, RULES, Claims, build, check, check_scopes, parse
from sidecar.errors import (
    EarlyTokenError,
    ExpiredTokenError,
    InvalidRequestError,
    InvalidTokenError,
    MismatchedAudienceError,
    MissingScopeError,
    SidecarError,
)
from sidecar.keyring import KeyUse, Settings
from sidecar.profile import ClaimRules, Profile
from tests.forgeries import bad_claims

PROFILE = Profile(name="web", issuer="https://tokens.example", audiences=("orders", "billing"))
SETTINGS = Settings.of(PROFILE, KeyUse.SIGNATURE)  # leeway 5, max_ttl 3600
NOW = 1_700_000_000
GOOD: dict[str, Any] = {
    "iss": "https://tokens.example",
    "sub": "user-42",
    "aud": ["orders", "billing"],
    "client_id": "web",
    "scope": "read write",
    "jti": "id-1",
    "iat": NOW,
    "exp": NOW + 300,
}


def payload(**members: Any) -> bytes:
    return json.dumps(GOOD | members, separators=(",", ":")).encode()


def stage(data: bytes) -> str:
    with pytest.raises(InvalidTokenError) as refused:
        parse(data)
    return refused.value.stage


def outcome(data: bytes) -> Claims | str:
    """The claims, or the stage that refused them; anything else that comes out fails the test."""
    try:
        return parse(data)
    except InvalidTokenError as refused:
        return refused.stage


def built(**changes: Any) -> Claims:
    arguments: dict[str, Any] = {
        "profile": PROFILE,
        "settings": SETTINGS,
        "subject": "user-42",
        "audiences": ("orders",),
        "ttl": None,
        "client_id": "web",
        "scopes": (),
        "further": None,
        "token_id": "id-1",
        "now": NOW + 0.75,
    }
    return build(**(arguments | changes))


def problems(**changes: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequestError) as refused:
        built(**changes)
    violations = refused.value.violations
    assert len({v.field for v in violations}) == len(violations)
    return {v.field: v.problem for v in violations}


def checked(found: Claims, **changes: Any) -> None:
    arguments: dict[str, Any] = {
        "issuer": "https://tokens.example",
        "settings": SETTINGS,
        "audiences": {"orders"},
        "now": NOW + 1,
    }
    scopes = changes.pop("required_scopes", ())
    check(found, **(arguments | changes))
    check_scopes(found, scopes)


# -- form


def test_good_claims_are_read_whole() -> None:
    data = payload(role="admin", nested={"a": [1, {"b": None}]})
    read = parse(data)
    assert read.payload is data
    assert (read.issuer, read.subject, read.client_id, read.token_id) == (
        "https://tokens.example",
        "user-42",
        "web",
        "id-1",
    )
    assert (read.audiences, read.scopes) == (("orders", "billing"), ("read", "write"))
    assert (read.issue_time, read.expire_time, read.not_before, read.bound) == (NOW, NOW + 300, None, False)
    assert read.values == GOOD | {"role": "admin", "nested": {"a": [1, {"b": None}]}}


def test_optional_claims_may_be_absent() -> None:
    read = parse(json.dumps({n: v for n, v in GOOD.items() if n not in {"client_id", "scope"}}).encode())
    assert (read.client_id, read.scopes) == ("", ())


def test_cnf_of_any_kind_makes_a_token_bound() -> None:
    assert parse(payload(cnf={"jkt": "a"})).bound
    assert parse(payload(cnf={})).bound


# Good in form, refused by `check` alone.
_CHECKED = {
    "exp is iat", "exp before iat", "exp far past the longest lifetime", "exp at the end of time", "another issuer", "the issuer and more", "the issuer in capitals",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "data"), list(bad_claims(payload())), ids=lambda value: value if isinstance(value, str) else ""
)
def test_bad_claims_are_refused_by_a_rule(name: str, data: bytes) -> None:
    if name in _CHECKED:
        with pytest.raises(InvalidTokenError) as refused:
            checked(parse(data))
        assert refused.value.stage in {"claims.issuer", "claims.lifetime"}
    else:
        assert stage(data) in RULES


@pytest.mark.parametrize("number", [-(2**63), -1, 0, 2**53, 2**53 + 1, 2**63, 2**64 - 1])
def test_integers_of_64_bits_are_exact(number: int) -> None:
    read = parse(payload(number=number))
    assert read.values["number"] == number
    assert type(read.values["number"]) is int
    assert str(number).encode() in read.payload


@pytest.mark.parametrize(
    "digits", [str(2**64), str(2**64 + 1), str(-(2**63) - 1), "1" + "0" * 20, "9" * 5000, "-" + "9" * 5000]
)
def test_integers_beyond_64_bits_are_refused(digits: str) -> None:
    assert stage(payload()[:-1] + f',"number":{digits}}}'.encode()) == "claims.number"


def test_doubles_are_finite_and_at_most_32_characters() -> None:
    fits = "0." + "1" * 30
    assert parse(payload()[:-1] + f',"n":{fits}}}'.encode()).values["n"] == float(fits)
    assert stage(payload()[:-1] + f',"n":{fits}1}}'.encode()) == "claims.number"
    for text in ("1e309", "-1e309", "NaN", "Infinity", "-Infinity"):
        assert stage(payload()[:-1] + f',"n":{text}}}'.encode()) == "claims.number"
    assert parse(payload()[:-1] + b',"n":1.7976931348623157e308}').values["n"] == 1.7976931348623157e308


def test_depth_and_members_have_limits() -> None:
    def nested(depth: int) -> bytes:
        return payload()[:-1] + b',"n":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"

    assert parse(nested(MAX_DEPTH)).subject == "user-42"
    assert stage(nested(MAX_DEPTH + 1)) == "claims.depth"
    own = len(GOOD) + 2 + 1  # the claims, the items of aud, and the list itself
    assert parse(payload(n=[0] * (MAX_MEMBERS - own))).subject == "user-42"
    assert stage(payload(n=[0] * (MAX_MEMBERS - own + 1))) == "claims.members"
    assert stage(payload(n={str(n): 0 for n in range(MAX_MEMBERS)})) == "claims.members"


@pytest.mark.parametrize("depth", [1000, 8000, 100_000, 1_000_000])
def test_depth_however_deep_is_refused(depth: int) -> None:
    assert stage(b'{"a":' + b"[" * depth + b"]" * depth + b"}") == "claims.depth"
    assert stage(b"[" * depth) == "claims.depth"
    assert stage(b'{"a":' * depth) == "claims.depth"


def test_surrogates_pass_in_pairs_only() -> None:
    assert parse(payload()[:-1] + b',"n":"\\ud83d\\ude00"}').values["n"] == "\U0001f600"
    for text in ("\\ud83d", "\\ude00", "\\ude00\\ud83d", "a\\ud83db", "\\uD83D\\u0041"):
        assert stage(payload()[:-1] + f',"n":"{text}"}}'.encode()) == "claims.surrogate"
        assert stage(payload()[:-1] + f',"{text}":1}}'.encode()) == "claims.surrogate"


def test_an_escaped_backslash_before_u_is_no_surrogate() -> None:
    assert parse(payload(n="\\ud800")).values["n"] == "\\ud800"


@pytest.mark.parametrize("moment", [0, 1, 2**53 - 1])
def test_times_are_integers_of_53_bits(moment: int) -> None:
    assert parse(payload(iat=moment, exp=moment, nbf=moment)).not_before == moment


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_claims_or_refused_by_a_rule(data: bytes) -> None:
    found = outcome(data)
    assert found in RULES if isinstance(found, str) else found.payload == data


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted([*GOOD, "nbf", "cnf", "sid", "x"])), _JSON, max_size=6), st.booleans())
def test_any_json_is_claims_or_refused_by_a_rule(members: dict[str, Any], ascii_only: bool) -> None:
    data = json.dumps(GOOD | members, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    read = outcome(data)
    if isinstance(read, str):
        assert read in RULES
        return
    assert read.values == GOOD | members
    assert all(type(t) is int and 0 <= t < 2**53 for t in (read.issue_time, read.expire_time))
    assert read.audiences
    assert all(type(text) is str and text for text in (read.issuer, read.subject, read.token_id, *read.audiences))


# -- check


def test_times_hold_to_the_second() -> None:
    read = parse(payload())
    cases: list[tuple[float, type[SidecarError] | None]] = [
        (NOW - 5.001, EarlyTokenError),
        (NOW - 5, None),
        (NOW, None),
        (NOW + 300, None),
        (NOW + 304.999, None),
        (NOW + 305, ExpiredTokenError),
        (NOW + 10**9, ExpiredTokenError),
        (0, EarlyTokenError),
    ]
    for now, error in cases:
        if error is None:
            checked(read, now=now)
        else:
            with pytest.raises(error):
                checked(read, now=now)


def test_nbf_counts_like_iat() -> None:
    read = parse(payload(nbf=NOW + 100))
    checked(read, now=NOW + 95)
    with pytest.raises(EarlyTokenError):
        checked(read, now=NOW + 94.9)


def test_leeway_is_the_keys_own() -> None:
    strict = replace(SETTINGS, leeway=0)
    checked(parse(payload()), settings=strict, now=NOW)
    with pytest.raises(EarlyTokenError):
        checked(parse(payload()), settings=strict, now=NOW - 0.001)
    with pytest.raises(ExpiredTokenError):
        checked(parse(payload()), settings=strict, now=NOW + 300)


def test_lifetime_is_at_most_the_keys() -> None:
    checked(parse(payload(exp=NOW + 3600)))
    for exp in (NOW + 3601, NOW, NOW - 1, 0, 2**53 - 1):
        with pytest.raises(InvalidTokenError) as refused:
            checked(parse(payload(exp=exp)))
        assert refused.value.stage == "claims.lifetime"


@pytest.mark.parametrize("issuer", ["https://tokens.example/", "HTTPS://tokens.example", "https://tokens.exampl", "x"])
def test_another_issuer_is_no_token_of_ours(issuer: str) -> None:
    with pytest.raises(InvalidTokenError) as refused:
        checked(parse(payload(iss=issuer)))
    assert refused.value.stage == "claims.issuer"


def test_one_audience_in_common_is_enough_and_none_is_not() -> None:
    checked(parse(payload()), audiences=["shipping", "billing"])
    checked(parse(payload(aud="orders")))
    for asked in (["shipping"], ["Orders"], ["order"], ["orders "], ["https://orders"], []):
        with pytest.raises(MismatchedAudienceError):
            checked(parse(payload()), audiences=asked)
    with pytest.raises(MismatchedAudienceError):
        checked(parse(payload(aud="or")), audiences=["orders"])


def test_every_required_scope_must_be_there() -> None:
    checked(parse(payload()), required_scopes=["write", "read"])
    for scopes in (["admin"], ["read", "admin"], ["rea"], ["read write"], ["READ"], [""]):
        with pytest.raises(MissingScopeError):
            checked(parse(payload()), required_scopes=scopes)


def test_the_first_reason_in_the_contracts_order_is_given() -> None:
    wrong: dict[str, Any] = {"aud": "shipping", "cnf": {}, "scope": "other"}
    late, early = NOW + 10**6, NOW - 10**6
    steps: list[tuple[dict[str, Any], float, type[SidecarError]]] = [
        (wrong | {"iss": "x"}, late, InvalidTokenError),
        (wrong | {"nbf": late + 6}, late, EarlyTokenError),
        (wrong, early, EarlyTokenError),
        (wrong, late, ExpiredTokenError),
        (wrong, NOW, MismatchedAudienceError),
        (wrong | {"aud": "orders"}, NOW, MissingScopeError),
    ]
    for members, now, error in steps:
        with pytest.raises(error):
            checked(parse(payload(**members)), now=now, required_scopes=["read"])
    with pytest.raises(MissingScopeError):
        checked(parse(payload(scope="other")), required_scopes=["read"])


# -- build


def test_built_claims_are_as_asked() -> None:
    made = built(scopes=("read", "write"), ttl=60, audiences=("billing", "orders"))
    assert json.loads(made.payload) == {
        "iss": "https://tokens.example",
        "sub": "user-42",
        "aud": ["billing", "orders"],
        "client_id": "web",
        "scope": "read write",
        "jti": "id-1",
        "iat": NOW,
        "exp": NOW + 60,
    }
    assert made == parse(made.payload)
    checked(made)


def test_aud_is_a_list_even_of_one_and_what_is_empty_is_left_out() -> None:
    values = json.loads(built(client_id="").payload)
    assert values["aud"] == ["orders"]
    assert values.keys() == {"iss", "sub", "aud", "jti", "iat", "exp"}


def test_ttl_is_the_profiles_where_none_is_asked_for() -> None:
    assert built().expire_time == NOW + PROFILE.ttl
    assert built(settings=replace(SETTINGS, max_ttl=100)).expire_time == NOW + 100


@pytest.mark.parametrize("ttl", [3601, 0, -1, 2**63])
def test_ttl_is_refused_and_never_clamped(ttl: int) -> None:
    assert problems(ttl=ttl).keys() == {"ttl"}
    assert built(ttl=3600).expire_time == NOW + 3600


def test_further_claims_are_carried_over_byte_for_byte() -> None:
    members = b'"n" : 1.0 ,\t"big":18446744073709551615,"e":1e2,"u":"\\u00e5\xc3\xa5","s":"\\/"'
    made = built(further=b" \r\n{ " + members + b" }\n")
    assert made.payload.endswith(b"," + members + b"}")
    assert made.values["big"] == 2**64 - 1


@pytest.mark.parametrize("further", [b"{}", b" { } ", b"{\n}"])
def test_no_further_claims_are_none(further: bytes) -> None:
    assert built(further=further).payload == built().payload


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_registered_names_are_refused_in_further_claims(name: str) -> None:
    escaped = "".join(f"\\u{ord(c):04x}" for c in name)
    for spelling in (
        name,
        name.upper(),
        name.capitalize(),
        escaped,
        name.replace("s", "\u017f").replace("k", "\u212a"),
    ):
        for value in ("1", "null", '"a"', "{}"):
            assert "cannot be set here" in problems(further=f'{{"a":1,"{spelling}":{value}}}'.encode())["claims_json"]


@pytest.mark.parametrize("further", [b"", b"[]", b"1", b"null", b'"a"', b"{", b'{"a":1}x', b'{"a":1}{"b":2}', b"\xef\xbb\xbf{}", b'{"a":"\xff"}', b'{"a":NaN}', b'{"a":1,"a":2}', b'{"a":1e400}', b'{"a":"\\ud800"}', b'{"a":1},"exp":9', b'},"sub":"admin"', b'{"a":' + b"[" * 8 + b"]" * 8 + b"}", b"[" * 100_000, b'{"a":99999999999999999999}'])  # fmt: skip
def test_further_claims_in_bad_form_are_refused(further: bytes) -> None:
    assert problems(further=further).keys() == {"claims_json"}


def test_what_fits_alone_but_not_together_is_refused() -> None:
    members = {str(n): 0 for n in range(MAX_MEMBERS)}
    assert problems(further=json.dumps(members).encode())["claims_json"] == RULES["claims.members"]


def test_the_profiles_claim_rules_hold() -> None:
    strict = replace(PROFILE, claims=ClaimRules(allow=frozenset({"role", "tenant"}), require=frozenset({"tenant"})))
    assert built(profile=strict, further=b'{"tenant":1}').values["tenant"] == 1
    assert built(profile=strict, further=b'{"tenant":1,"role":2}', scopes=("a",)).scopes == ("a",)
    assert '"email"' in problems(profile=strict, further=b'{"tenant":1,"email":2}')["claims_json"]
    assert '"Tenant"' in problems(profile=strict, further=b'{"Tenant":1}')["claims_json"]
    for further in (None, b"{}", b'{"role":1}'):
        assert '"tenant"' in problems(profile=strict, further=further)["claims_json"]
    assert problems(profile=replace(PROFILE, claims=ClaimRules(allow=frozenset())), further=b'{"a":1}').keys() == {
        "claims_json"
    }


def test_names_in_a_problem_are_escaped_and_short() -> None:
    strict = replace(PROFILE, claims=ClaimRules(allow=frozenset()))
    problem = problems(profile=strict, further=json.dumps({"\x1b[31m" + "a" * 10_000: 1}).encode())["claims_json"]
    assert problem.isascii()
    assert problem.isprintable()
    assert len(problem) < 200


def test_audiences_are_the_profiles() -> None:
    for audiences in ((), ("orders",) * 17, ("shipping",), ("orders", "shipping"), ("",), ("orders\n",), ("a" * 256,)):
        assert problems(audiences=audiences).keys() == {"audiences"}
    anything = replace(PROFILE, audiences=())
    assert built(profile=anything, audiences=("shipping", "å")).audiences == ("shipping", "å")
    assert problems(profile=anything, audiences=("",)).keys() == {"audiences"}


@pytest.mark.parametrize("text", ["a" * 256, "a\0", "a\nb", "\x7f", "\x85", "\u2028", "\ud800"])
def test_text_that_would_be_refused_later_is_refused_now(text: str) -> None:
    assert problems(subject=text).keys() == {"subject"}
    assert problems(client_id=text).keys() == {"client_id"}


@pytest.mark.parametrize("scope", ["", " ", "a b", 'a"', "a\\", "é", "a\n"])
def test_a_scope_is_one_word(scope: str) -> None:
    assert problems(scopes=("read", scope)).keys() == {"scopes"}


def test_all_problems_come_at_once() -> None:
    found = problems(subject="", audiences=(), ttl=0, client_id="\n", scopes=("a b",), further=b"[]")
    assert list(found) == ["subject", "audiences", "ttl", "client_id", "scopes", "claims_json"]


def test_no_problem_quotes_a_value() -> None:
    secret = "canary-7f3a"
    found = problems(subject=f"{secret}\n", audiences=(secret,), client_id=f"{secret}\n", scopes=(f"{secret} x",), further=f'{{"exp":"{secret}"}}'.encode())  # fmt: skip
    assert secret not in str(found)


_TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=255)


@settings(max_examples=200, deadline=None)
@given(
    subject=_TEXT,
    audiences=st.lists(_TEXT, min_size=1, max_size=16),
    ttl=st.integers(1, 3600),
    scopes=st.lists(st.text("abc:/._-#", min_size=1, max_size=9), max_size=5),
    members=st.dictionaries(_TEXT, _JSON, max_size=4),
    now=st.floats(0, 2**40),
)
def test_what_is_built_is_read_and_accepted(
    subject: str, audiences: list[str], ttl: int, scopes: list[str], members: dict[str, Any], now: float
) -> None:
    profile = replace(PROFILE, audiences=())
    if isinstance(outcome(payload(**{f"further {name}": value for name, value in members.items()})), str):
        members = {}  # numbers and surrogates that no claims may have
    further = json.dumps(members, ensure_ascii=False).encode()
    made = built(
        profile=profile, subject=subject, audiences=audiences, ttl=ttl, scopes=scopes, further=further, now=now
    )
    read = parse(made.payload)
    assert read == made
    assert (read.subject, read.audiences, read.scopes) == (subject, tuple(audiences), tuple(scopes))
    assert (read.issue_time, read.expire_time) == (math.floor(now), math.floor(now) + ttl)
    assert {n: v for n, v in read.values.items() if n in members} == members
    checked(read, audiences=audiences[-1:], required_scopes=scopes, now=now)


def test_every_rule_has_words() -> None:
    assert all(sentence and not sentence.endswith(".") for sentence in claims.RULES.values())


def test_claims_cannot_be_changed() -> None:
    made = built()
    with pytest.raises(AttributeError):
        made.subject = "admin"  # type: ignore[misc]
    assert not hasattr(made, "__dict__")
