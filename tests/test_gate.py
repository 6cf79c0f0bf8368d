"""The gate: form alone, whatever comes in. Forgeries made from genuine tokens are in tests/jose/test_forgeries.py."""

from __future__ import annotations

import base64
import json
import re
import sys
import time

import pytest
from hypothesis import example, given, settings, strategies as st

from sidecar import gate as gate_module
from sidecar.errors import InvalidTokenError
from sidecar.gate import JWE, JWS, MAX_HEADER, MAX_KNOWN, MAX_TOKEN, RULES, Gated, foreign, gate, remember
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


POINT = {"kty": "EC", "crv": "P-256", "x": "A" * 43, "y": "A" * 43}
LINE = {"kty": "OKP", "crv": "X25519", "x": "A" * 43}
AGREED = ENCRYPTED | {"alg": "ECDH-ES", "epk": POINT}


def test_an_epk_passes_exactly_with_an_agreement() -> None:
    for alg in ("ECDH-ES", "ECDH-ES+A256KW"):
        for epk in (POINT, LINE, dict(reversed(POINT.items()))):
            assert gate(encrypted(AGREED | {"alg": alg, "epk": epk}), segments=JWE).header["epk"] == epk
        assert stage(encrypted(ENCRYPTED | {"alg": alg})) == "gate.header_missing"
    for alg in ("A256KW", "dir", "RSA-OAEP-256", "A256GCMKW", "ECDH-ES+A128KW", "ES256"):
        assert stage(encrypted(AGREED | {"alg": alg})) == "gate.header_name"
    assert stage(signed(SIGNED | {"alg": "ECDH-ES", "epk": POINT})) == "gate.header_name"


@pytest.mark.parametrize("epk", [POINT, LINE])
def test_an_epk_has_the_members_of_its_curve_and_no_others(epk: dict[str, str]) -> None:
    for name, good in epk.items():
        assert stage(encrypted(AGREED | {"epk": {n: v for n, v in epk.items() if n != name}})) == "gate.epk"
        for value in (None, 1, [], {}, "", f"{good}\n", good.swapcase() + "x"):
            assert stage(encrypted(AGREED | {"epk": epk | {name: value}})) == "gate.epk"
    for name in ("d", "kid", "alg", "use", "jwk", "z"):
        assert stage(encrypted(AGREED | {"epk": epk | {name: "A" * 43}})) == "gate.epk"
    for crv in ("P-384", "P-521", "secp256k1", "Ed25519", "X448", "p-256", "X25519" if epk is POINT else "P-256"):
        assert stage(encrypted(AGREED | {"epk": epk | {"crv": crv}})) == "gate.epk"
    for value in (None, "", 1, [], [epk], {}, json.dumps(epk)):
        assert stage(encrypted(AGREED | {"epk": value})) == "gate.epk"


@pytest.mark.parametrize(
    "coordinate", ["A" * 42, "A" * 44, "A" * 42 + "B", "A" * 42 + "=", "A" * 42 + "+", "A" * 42 + "é"]
)
def test_a_coordinate_is_canonical_and_of_its_length(coordinate: str) -> None:
    assert stage(encrypted(AGREED | {"epk": POINT | {"y": coordinate}})) == "gate.epk"
    assert stage(encrypted(AGREED | {"epk": LINE | {"x": coordinate}})) == "gate.epk"


def test_members_of_an_epk_are_not_named_twice() -> None:
    raw = json.dumps(AGREED)
    assert stage(encrypted(raw.replace('"x":', '"y": "", "x":'))) == "gate.header_duplicate"
    assert stage(encrypted(raw.replace('"kty":', '"\\u006bty": "EC", "kty":'))) == "gate.header_duplicate"


def test_iv_and_tag_pass_exactly_with_gcm_key_wrap() -> None:
    wrapped = ENCRYPTED | {"iv": "A" * 16, "tag": "A" * 22}
    for alg in ("A128GCMKW", "A256GCMKW"):
        assert gate(encrypted(wrapped | {"alg": alg}), segments=JWE).alg == alg
        for name in ("iv", "tag"):
            assert (
                stage(encrypted({n: v for n, v in (wrapped | {"alg": alg}).items() if n != name}))
                == "gate.header_missing"
            )
            for value in ("", "A" * 15, "A" * 17, "A" * 20, "A" * 24, "A" * 21 + "B", "*" * 16, "*" * 22):
                assert stage(encrypted(wrapped | {"alg": alg, name: value})) == "gate.wrapping"
            assert stage(encrypted(wrapped | {"alg": alg, name: 1})) == "gate.header_value"
    for alg in ("A256KW", "A192GCMKW", "dir", "ECDH-ES"):
        assert stage(encrypted(wrapped | {"alg": alg})) == "gate.header_name"


def test_a_foreign_form_tolerates_the_names_that_it_declares_and_no_others() -> None:
    form = foreign(frozenset({"x5t", "jwk"}))
    for value in ("a", 1, None, [], {"a": [1]}):
        token = gate(signed(SIGNED | {"x5t": value, "jwk": value}), segments=JWS, form=form)
        assert token.header["jwk"] == value
        assert stage(signed(SIGNED | {"x5t": value})) == "gate.header_name"
    for name in ("jku", "x5c", "crit", "zip", "b64", "iss"):
        with pytest.raises(InvalidTokenError):
            gate(signed(SIGNED | {name: "a"}), segments=JWS, form=form)


def test_what_changes_a_token_is_never_tolerated() -> None:
    for name in ("crit", "b64", "zip", "apu", "apv", "p2s", "p2c", "alg", "enc", "kid", "epk", "iv", "tag"):
        with pytest.raises(ValueError, match=f"cannot be tolerated: {name}"):
            foreign(frozenset({name, "x5t"}))


def test_a_foreign_kid_is_any_printable_text() -> None:
    form = foreign()
    for kid in ("a", "https://idp.example/keys#1", "~" * 256, "' OR 1=1"):
        assert gate(signed(SIGNED | {"kid": kid}), segments=JWS, form=form).kid == kid
    for kid in ("", "a" * 257, "a\n", "\0", "ключ", "\x7f"):
        with pytest.raises(InvalidTokenError) as refused:
            gate(signed(SIGNED | {"kid": kid}), segments=JWS, form=form)
        assert refused.value.stage == "gate.kid"


def test_a_foreign_header_may_have_4_kib() -> None:
    form = foreign(frozenset({"x5c"}))
    assert gate(signed(SIGNED | {"x5c": ["A" * 3900]}), segments=JWS, form=form)
    with pytest.raises(InvalidTokenError) as refused:
        gate(signed(SIGNED | {"x5c": ["A" * 4096]}), segments=JWS, form=form)
    assert refused.value.stage == "gate.header_size"


def test_a_remembered_header_is_read_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "_known", {})
    for token in (signed(SIGNED), encrypted(ENCRYPTED)):
        first = gate(token, segments=JWS | JWE)
        remember(first)
        assert gate(token, segments=JWS | JWE) == first
        head, rest = token.split(".", 1)
        other = ".".join([head, "e30", "e30"] if rest.count(".") == 3 else [head, "a2V5", "aXY", "e30", "dGFn"])
        assert stage(other) in {"gate.header_name", "gate.header_missing"}
        with pytest.raises(TypeError):
            first.header["alg"] = "none"  # type: ignore[index]
    assert len(gate_module._known) == 2


def test_only_own_headers_that_come_again_are_remembered_and_few(monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[str, object] = {}
    monkeypatch.setattr(gate_module, "_known", known)
    remember(gate(encrypted(AGREED), segments=JWE))
    assert known == {}
    with pytest.raises(InvalidTokenError):
        remember(gate(signed(SIGNED | {"x5t": "a"}), segments=JWS, form=foreign(frozenset({"x5t"}))))
    for number in range(MAX_KNOWN + 50):
        remember(gate(signed(SIGNED | {"kid": f"k{number}"}), segments=JWS))
    assert len(known) == MAX_KNOWN
    assert encode(json.dumps(SIGNED | {"kid": f"k{MAX_KNOWN + 49}"})) in known
