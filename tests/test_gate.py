"""The gate: form alone, whatever comes in. Forgeries made from genuine tokens are in tests/jose/test_forgeries.py."""

from __future__ import annotations

import base64
import json
import re
import sys
import time

import pytest
from hypothesis import example, given, settings, strategies as st

from sidecar.errors import InvalidTokenError
from sidecar.gate import JWE, JWS, MAX_HEADER, MAX_TOKEN, RULES, Gated, gate
from tests.forgeries import encode

KID = "Al9VO3gW2wFfzNpC72q6Dg"
SIGNED = {"alg": "ES256", "kid": KID, "typ": "at+jwt"}
ENCRYPTED = {"alg": "A256KW", "enc": "A256GCM", "kid": KID, "cty": "JWT"}


def signed(header: object) -> str:
    raw = header if isinstance(header, (str, bytes)) else json.dumps(header)
    return f"{encode(raw)}.e30.c2ln"


def encrypted(header: object) -> str:
    raw = header if isinstance(header, (str, bytes)) else json.dumps(header)
    return f"{encode(raw)}.a2V5.aXY.Y2lwaGVy.dGFn"


def stage(text: str, segments: frozenset[int] = JWS | JWE) -> str:
    with pytest.raises(InvalidTokenError) as refused:
        gate(text, segments=segments)
    return refused.value.stage


def outcome(text: str, segments: frozenset[int] = JWS | JWE) -> Gated | str:
    """What passed, or the stage that refused it; anything else that comes out fails the test."""
    try:
        return gate(text, segments=segments)
    except InvalidTokenError as refused:
        return refused.stage


def test_a_signed_token_passes_with_its_parts() -> None:
    token = gate(signed(SIGNED), segments=JWS)
    assert (token.alg, token.enc, token.kid, token.typ, token.cty) == ("ES256", "", KID, "at+jwt", "")
    assert token.segments == tuple(token.text.split("."))
    assert token.header == SIGNED


def test_an_encrypted_token_passes_with_its_parts() -> None:
    token = gate(encrypted(ENCRYPTED), segments=JWE)
    assert (token.alg, token.enc, token.kid, token.typ, token.cty) == ("A256KW", "A256GCM", KID, "", "JWT")


def test_an_empty_encrypted_key_passes() -> None:
    assert gate(encrypted(ENCRYPTED).replace(".a2V5.", ".."), segments=JWE).segments[1] == ""


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"])
def test_typ_is_compared_without_case_and_prefix(typ: str) -> None:
    assert gate(signed(SIGNED | {"typ": typ}), segments=JWS).typ == "at+jwt"


def test_each_format_passes_only_where_it_is_accepted() -> None:
    assert stage(signed(SIGNED), JWE) == "gate.segments"
    assert stage(encrypted(ENCRYPTED), JWS) == "gate.segments"
    assert gate(signed(SIGNED), segments=JWS | JWE).alg == "ES256"


def test_a_count_that_no_serialization_has_never_passes() -> None:
    assert stage("a.b.c.d", frozenset({4})) == "gate.segments"


def test_sizes_up_to_the_limit_pass_and_no_more() -> None:
    head, rest = signed(SIGNED).rsplit(".", 1)[0], "A" * 4
    token = f"{head}.{rest}"
    padded = token + "A" * ((MAX_TOKEN - len(token)) // 4 * 4)
    assert MAX_TOKEN - len(padded) < 4
    assert gate(padded, segments=JWS).text == padded
    assert stage(padded + "AAAA") == "gate.size"
    assert stage("") == "gate.size"
    assert stage("A" * 10_000_000) == "gate.size"


def test_headers_up_to_the_limit_pass_and_no_more() -> None:
    text = json.dumps(SIGNED)
    for over, expected in ((0, None), (1, "gate.header_size"), (2, "gate.header_size"), (3, "gate.header_size")):
        raw = text[:-1] + " " * (MAX_HEADER + over - len(text)) + "}"
        assert len(raw) == MAX_HEADER + over
        if expected:
            assert stage(signed(raw)) == expected
        else:
            assert gate(signed(raw), segments=JWS).kid == KID


@pytest.mark.parametrize(
    "character", [" ", "\n", "\0", "=", "+", "/", "~", ",", "\u212a", "\uff21", "\ud800", "\U0001f600", "é"]
)
def test_no_character_outside_the_alphabet_passes(character: str) -> None:
    token = encrypted(ENCRYPTED)
    for index in (0, 5, token.index("."), len(token)):
        assert stage(token[:index] + character + token[index:]) == "gate.alphabet"


def test_only_the_encrypted_key_may_be_empty() -> None:
    for token in (signed(SIGNED), encrypted(ENCRYPTED)):
        parts = token.split(".")
        for index in range(len(parts)):
            if (index, len(parts)) != (1, 5):
                assert stage(".".join([*parts[:index], "", *parts[index + 1 :]])) == "gate.empty"


@settings(deadline=None)
@given(st.text(alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=12))
def test_a_segment_passes_exactly_if_it_encodes_to_itself_again(segment: str) -> None:
    try:
        canonical = encode(base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))) == segment
    except ValueError:
        canonical = False
    token = f"{encode(json.dumps(SIGNED))}.{segment}.c2ln"
    if canonical:
        assert gate(token, segments=JWS).segments[1] == segment
    else:
        assert stage(token) == "gate.base64url"


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=40))
def test_every_segment_that_an_encoder_makes_passes(data: bytes) -> None:
    assert gate(f"{encode(json.dumps(SIGNED))}.{encode(data)}.c2ln", segments=JWS).segments[1] == encode(data)


@settings(deadline=None)
@given(st.text() | st.text(alphabet="eyJhbGciOiJ.-_", max_size=60), st.sets(st.integers(0, 7)))
@example("." * 4, {5})
def test_anything_is_a_token_or_refused_by_a_rule(text: str, segments: set[int]) -> None:
    found = outcome(text, frozenset(segments))
    assert found in RULES if isinstance(found, str) else found.text == text


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_header_bytes_are_a_header_or_refused_by_a_rule(header: bytes) -> None:
    for token in (signed(header), encrypted(header)):
        found = outcome(token)
        assert found in RULES if isinstance(found, str) else found.text == token


_NAMES = st.sampled_from(
    ["alg", "enc", "kid", "typ", "cty", "crit", "jwk", "zip", "ALG", "", "a\\u006cg", "\\u0061lg", "k\\u0069d"]
)
_VALUES = st.sampled_from(['"ES256"', '"A256GCM"', '"JWT"', f'"{KID}"', '"\\u0045S256"', '""', "null", "1", "[]", '["ES256"]', "{}", '{"alg":"ES256"}', "true", '"a b"', '"é"'])  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(_NAMES, _VALUES), max_size=6), st.booleans())
def test_headers_pass_exactly_if_a_second_reading_of_the_rules_agrees(
    members: list[tuple[str, str]], jwe: bool
) -> None:
    raw = "{" + ",".join(f'"{name}":{value}' for name, value in members) + "}"
    pairs: list[tuple[str, object]] = json.loads(raw, object_pairs_hook=lambda found: found)
    names = [name for name, _ in pairs]
    header = dict(pairs)
    good = (
        len(names) == len(set(names))
        and set(names) <= {"alg", "kid", "typ", "cty"} | ({"enc"} if jwe else set())
        and {"alg", "kid"} | ({"enc"} if jwe else set()) <= set(names)
        and all(isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_+-]+", value) for value in header.values())
    )
    token = encrypted(raw) if jwe else signed(raw)
    if good:
        passed = gate(token, segments=JWS | JWE)
        assert (passed.alg, passed.kid, passed.enc) == (header["alg"], header["kid"], header.get("enc", ""))
    else:
        assert stage(token) in RULES


@pytest.mark.parametrize(
    "header",
    [
        '{"alg":"ES256","kid":"k","alg":"ES256"}',
        '{"alg":"none","kid":"k","alg":"ES256"}',
        '{"alg":"ES256","\\u0061lg":"none","kid":"k"}',
        '{"alg":"ES256","\\u0061\\u006C\\u0067":"none","kid":"k"}',
        '{"\\u006bid":"k","alg":"ES256","kid":"k"}',
        '{"x":{"a":1,"\\u0061":2},"alg":"ES256","kid":"k"}',
    ],
)
def test_duplicate_names_are_found_behind_escapes(header: str) -> None:
    assert stage(signed(header)) == "gate.header_duplicate"


def test_an_escaped_name_alone_is_that_name() -> None:
    assert gate(signed('{"\\u0061lg":"ES256","kid":"k"}'), segments=JWS).alg == "ES256"


@pytest.mark.parametrize(
    "name", ["crit", "zip", "b64", "jwk", "jku", "x5u", "x5c", "x5t", "p2s", "p2c", "epk", "iv", "tag", "Alg", "iss"]
)
def test_names_off_the_list_are_refused_whatever_their_value(name: str) -> None:
    for value in ("a", 1, None, [], {}, True):
        assert stage(encrypted(ENCRYPTED | {name: value})) == "gate.header_name"


def test_a_signed_token_has_no_enc() -> None:
    assert stage(signed(SIGNED | {"enc": "A256GCM"})) == "gate.header_name"


@pytest.mark.parametrize("name", ["alg", "enc", "kid", "typ", "cty"])
@pytest.mark.parametrize("value", [None, True, 1, 1.5, [], ["ES256"], {}, {"alg": "ES256"}])
def test_values_are_text(name: str, value: object) -> None:
    assert stage(encrypted(ENCRYPTED | {name: value})) == "gate.header_value"


@pytest.mark.parametrize(
    "kid",
    ["", "a" * 65, "../key", "key\n", "key\0", "' OR 1=1", "ключ", "a.b", "a b", "\u0661", "key\r\nX: y", "\ud800"],
)
def test_kid_could_be_one_of_ours(kid: str) -> None:
    assert stage(signed(SIGNED | {"kid": kid})) == "gate.kid"


def test_kid_is_required() -> None:
    assert stage(signed({"alg": "ES256"})) == "gate.kid"


def test_alg_and_enc_are_required() -> None:
    assert stage(signed({"kid": KID})) == "gate.header_missing"
    assert stage(encrypted({"kid": KID, "enc": "A256GCM"})) == "gate.header_missing"
    assert stage(encrypted({"kid": KID, "alg": "A256KW"})) == "gate.header_missing"


@pytest.mark.parametrize("name", ["alg", "enc", "typ", "cty"])
@pytest.mark.parametrize("value", ["", " ", "a b", "JWT\n", "\u212aWT", "a" * 200, "a/b/c", "\x1b[31m", "JWT;v=1", "é"])
def test_names_of_algorithms_and_media_types_look_like_it(name: str, value: str) -> None:
    assert stage(encrypted(ENCRYPTED | {name: value})) == "gate.header_form"


@pytest.mark.parametrize("depth", [2, 100, 500])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_nesting_however_deep_is_refused(opening: str, depth: int) -> None:
    raw = '{"alg":' + opening * depth
    assert stage(signed(raw[:MAX_HEADER])) == "gate.header_json"
    closed = '{"alg":' + "[" * depth + "]" * depth + "}"
    assert stage(signed(closed[:MAX_HEADER])) in {"gate.header_json", "gate.header_value"}


def test_nesting_is_refused_with_little_stack_left() -> None:
    raw = signed('{"alg":' + "[" * 500 + "]" * 500 + "}")

    def deep(levels: int) -> str:
        return deep(levels - 1) if levels else stage(raw)

    frames, frame = 0, sys._getframe()
    while frame.f_back is not None:
        frames, frame = frames + 1, frame.f_back
    assert deep(sys.getrecursionlimit() - frames - 200) == "gate.header_json"


@pytest.mark.parametrize("raw", ["\ufeff{}", " {}", "{} ", "[]", '""', "1", "null", "NaN", "{", "{}{}", "{}\0", "{'alg':1}", '{"alg":"\n"}', b"\xff", b"{\xc0\x80}", b"\xed\xa0\x80", "{}".encode("utf-16")])  # fmt: skip
def test_a_header_is_one_json_object_in_utf_8(raw: str | bytes) -> None:
    assert stage(signed(raw)) == "gate.header_json"


def test_numbers_of_any_length_are_refused() -> None:
    for number in ("9" * 900, f"-{'9' * 900}", f"1e{'9' * 900}", f"0.{'9' * 900}"):
        assert stage(signed(f'{{"alg":{number}}}')) == "gate.header_value"


def test_what_passed_cannot_be_changed() -> None:
    token = gate(signed(SIGNED), segments=JWS)
    with pytest.raises(AttributeError):
        token.alg = "none"  # type: ignore[misc]
    assert not hasattr(token, "__dict__")
    assert isinstance(token, Gated)


def test_every_rule_has_words() -> None:
    assert all(sentence and not sentence.endswith(".") for sentence in RULES.values())


def test_hostile_texts_cost_no_more_than_their_length() -> None:
    # 10 MB are refused by their length alone; the generous bound is for a busy machine.
    texts = [
        "A" * 10_000_000,
        "." * 10_000_000,
        "." * MAX_TOKEN,
        "A" * MAX_TOKEN,
        signed("[" * MAX_HEADER),
        "\u212a" * MAX_TOKEN,
    ]
    start = time.perf_counter()
    for text in texts:
        stage(text)
    assert time.perf_counter() - start < 1
