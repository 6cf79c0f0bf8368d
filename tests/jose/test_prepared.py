"""Both engines accept the same, refuse the same and, where a suite is deterministic, make the same bytes."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings, strategies as st

from sidecar.errors import InvalidTokenError
from sidecar.gate import JWE, JWS, Gated, gate
from sidecar.jose import headers, keys, prepared
from sidecar.jose.encrypt import decrypt, encrypt
from sidecar.jose.sign import sign, verify
from sidecar.jose.suites import KEY_MANAGEMENT, SIGNATURES
from tests.forgeries import decode, encode, with_header, with_segment
from tests.jose.engines import reference

SIGNERS = {name: [keys.generate(name) for _ in range(3)] for name in ("ES256", "Ed25519")}
RECIPIENTS = {
    "A256KW": [keys.generate("A256KW") for _ in range(3)],
    "P-256": [keys.generate("ECDH-ES+A256KW", curve="P-256") for _ in range(3)],
    "X25519": [keys.generate("ECDH-ES+A256KW", curve="X25519") for _ in range(3)],
}
BY_REFERENCE = {key.key_id: reference(key) for key in itertools.chain(*SIGNERS.values(), *RECIPIENTS.values())}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
payloads = st.dictionaries(st.text(), json_values, max_size=8).map(
    lambda claims: json.dumps(claims).encode()
) | st.binary(min_size=1)
typs = st.sampled_from(["at+jwt", "JWT", "txntoken+jwt"])


def opened(token: str) -> Gated | str:
    """What the gate lets pass, or the stage at which it does not."""
    try:
        return gate(token, segments=JWS | JWE)
    except InvalidTokenError as refused:
        return refused.stage


def verdicts(token: Gated | str, key: keys.Material) -> tuple[bytes | str, bytes | str]:
    """What each engine makes of it: the bytes, or the stage of the refusal."""
    return read(token, key), read(token, BY_REFERENCE[key.key_id])


def read(token: Gated | str, key: keys.Material) -> bytes | str:
    if isinstance(token, str):
        return token
    try:
        return verify(token, key) if key.algorithm in SIGNATURES else decrypt(token, key, content="A256GCM")
    except InvalidTokenError as refused:
        return refused.stage


def make(key: keys.Material, payload: bytes, typ: str = "at+jwt") -> str:
    return (
        sign(payload, key, typ=typ)
        if key.algorithm in SIGNATURES
        else encrypt(payload, key, content="A256GCM", typ=typ)
    )


def test_the_engine_serves_the_default_suites_and_no_other() -> None:
    for name, suite in [*SIGNATURES.items(), *KEY_MANAGEMENT.items()]:
        if suite.makes and "RSA" not in name and name[:2] not in ("PS", "RS"):
            assert bool(keys.generate(name).prepared) is (name in {"ES256", "Ed25519", "A256KW", "ECDH-ES+A256KW"}), (
                name
            )
    assert not any(key.prepared for key in BY_REFERENCE.values())


def test_there_is_no_third_engine() -> None:
    with pytest.raises(ValueError, match="no such engine"):
        keys.choose_engine("openssl")
    assert keys.generate("A256KW").prepared


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([*SIGNERS, *RECIPIENTS]), st.integers(0, 2), payloads, typs)
def test_each_engine_reads_what_the_other_makes(name: str, number: int, payload: bytes, typ: str) -> None:
    key = (SIGNERS | RECIPIENTS)[name][number]
    for maker in (key, BY_REFERENCE[key.key_id]):
        assert verdicts(opened(make(maker, payload, typ)), key) == (payload, payload)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([*SIGNERS, *RECIPIENTS]), st.integers(0, 2), payloads, typs)
def test_headers_are_the_same_bytes(name: str, number: int, payload: bytes, typ: str) -> None:
    key = (SIGNERS | RECIPIENTS)[name][number]
    ours, theirs = (decode(make(maker, payload, typ).split(".")[0]) for maker in (key, BY_REFERENCE[key.key_id]))
    if b'"epk"' in ours:  # a fresh one each
        ours, theirs = (headers.agreed(without_epk(header), "{}").encode() for header in (ours, theirs))
    assert ours == theirs


def without_epk(header: bytes) -> str:
    members = json.loads(header)
    assert list(members) == sorted(members)
    assert list(members.pop("epk")) in (["crv", "kty", "x"], ["crv", "kty", "x", "y"])
    return json.dumps(members, separators=(",", ":"))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2), payloads, typs)
def test_ed25519_signs_to_the_same_bytes(number: int, payload: bytes, typ: str) -> None:
    key = SIGNERS["Ed25519"][number]
    assert make(key, payload, typ) == make(BY_REFERENCE[key.key_id], payload, typ)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 2),
    payloads,
    st.sampled_from(["JWT", ""]),
    st.sampled_from(["at+jwt", ""]),
    st.binary(min_size=44, max_size=44),
)
def test_a256kw_makes_the_same_bytes_from_the_same_randomness(
    number: int, payload: bytes, cty: str, typ: str, randomness: bytes
) -> None:
    key = RECIPIENTS["A256KW"][number]
    tokens = []
    for maker in (key, BY_REFERENCE[key.key_id]):
        with pytest.MonkeyPatch.context() as patched:
            source: Iterator[int] = iter(randomness)
            patched.setattr(os, "urandom", lambda size, source=source: bytes(itertools.islice(source, size)))
            tokens.append(encrypt(payload, maker, content="A256GCM", cty=cty, typ=typ))
    assert tokens[0] == tokens[1]


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_engines_agree_on_tokens_with_changed_bytes(data: st.DataObject) -> None:
    key = data.draw(st.sampled_from([*itertools.chain(*SIGNERS.values(), *RECIPIENTS.values())]))
    token = make(key, data.draw(payloads))
    index = data.draw(st.integers(0, token.count(".")))
    raw = bytearray(decode(token.split(".")[index]))
    match data.draw(st.sampled_from(["bit", "cut", "more", "other", "zeros"])):
        case "bit":
            raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        case "cut":
            del raw[data.draw(st.integers(0, len(raw) - 1)) :]
        case "more":
            raw += data.draw(st.binary(min_size=1, max_size=20))
        case "other":
            raw[:] = data.draw(st.binary(min_size=len(raw), max_size=len(raw)))
        case "zeros":
            raw[:] = bytes(len(raw))
    changed = with_segment(token, index, encode(bytes(raw)))
    ours, theirs = verdicts(opened(changed), key)
    assert ours == theirs
    assert isinstance(ours, str) or changed == token


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_engines_agree_on_tokens_with_changed_headers(data: st.DataObject) -> None:
    key = data.draw(st.sampled_from([*itertools.chain(*SIGNERS.values(), *RECIPIENTS.values())]))
    other = data.draw(st.sampled_from([*itertools.chain(*SIGNERS.values(), *RECIPIENTS.values())]))
    token = make(key, b"{}")
    header = json.loads(decode(token.split(".")[0]))
    names = st.sampled_from([*header, "crit", "zip", "epk", "iv"])
    values = st.sampled_from([other.algorithm, other.key_id, "none", "A256GCM", "JWT"]) | json_values
    epk = json.loads(decode(make(RECIPIENTS["P-256"][0], b"{}").split(".")[0]))["epk"]
    header |= data.draw(st.dictionaries(names, values | st.just(epk), min_size=1, max_size=2))
    ours, theirs = verdicts(opened(with_header(token, header)), key)
    assert ours == theirs


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["P-256", "X25519"]), st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_engines_agree_on_any_epk(curve: str, x: bytes, y: bytes) -> None:
    key = RECIPIENTS[curve][0]
    token = make(key, b"{}")
    header = json.loads(decode(token.split(".")[0]))
    header["epk"] |= {"x": encode(x)} | ({"y": encode(y)} if curve == "P-256" else {})
    ours, theirs = verdicts(opened(with_header(token, header)), key)
    assert ours == theirs
    assert ours in ("jose.epk", "jose.decryption")


def test_engines_agree_on_edges_of_signatures() -> None:
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    for name, numbers in (
        ("ES256", [0, 1, order - 1, order, order + 1, 2**256 - 1]),
        ("Ed25519", [0, 1, 2**252 + 27742317777372353535851937790883648493, 2**255 - 19, 2**256 - 1]),
    ):
        key = SIGNERS[name][0]
        token = make(key, b"{}")
        raw = decode(token.split(".")[2])
        ends = "big" if name == "ES256" else "little"
        for number in numbers:
            part = number.to_bytes(32, ends)  # type: ignore[arg-type]
            for signature in (part + raw[32:], raw[:32] + part, part + part):
                assert verdicts(opened(with_segment(token, 2, encode(signature))), key) == ("jose.signature",) * 2


def test_the_mirrored_signature_of_ecdsa_is_one_to_both() -> None:
    # (R, n - S) verifies where (R, S) does: RFC 7518 allows both, and no identity is taken from a token's text.
    key = SIGNERS["ES256"][0]
    token = make(key, b"{}")
    raw = decode(token.split(".")[2])
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    mirrored = raw[:32] + (order - int.from_bytes(raw[32:], "big")).to_bytes(32, "big")
    assert verdicts(opened(with_segment(token, 2, encode(mirrored))), key) == (b"{}", b"{}")


def test_engines_agree_on_keys_of_others() -> None:
    for name in SIGNERS | RECIPIENTS:
        first, second, _ = (SIGNERS | RECIPIENTS)[name]
        token = make(second, b"{}")
        assert verdicts(opened(token), first) == ("jose.key",) * 2
        header = json.loads(decode(token.split(".")[0])) | {"kid": first.key_id}
        stage = "jose.signature" if name in SIGNERS else "jose.decryption"
        assert verdicts(opened(with_header(token, header)), first) == (stage,) * 2


def test_a_public_key_encrypts_and_does_not_open() -> None:
    for name in ("P-256", "X25519"):
        key = RECIPIENTS[name][0]
        for sender in (key.public(), reference(key.public())):
            token = opened(encrypt(b"{}", sender, content="A256GCM"))
            assert verdicts(token, key) == (b"{}", b"{}")
            assert read(token, sender) == "jose.key"


def test_headers_that_a_key_remembers_are_few() -> None:
    signer, recipient = SIGNERS["ES256"][0], RECIPIENTS["A256KW"][0]
    assert isinstance(signer.prepared, prepared.Signature)
    assert isinstance(recipient.prepared, prepared.Encryption)
    for number in range(100):
        make(signer, b"{}", f"t{number}+jwt")
        make(recipient, b"{}", f"t{number}+jwt")
    assert 0 < len(signer.prepared._heads) <= 16
    assert 0 < len(recipient.prepared._heads) <= 16
