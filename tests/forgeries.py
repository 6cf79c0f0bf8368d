"""Forged tokens: everything that is known to be tried against a reader of tokens, made from a genuine one and from what is public.

Each generator yields (name, token text); the names differ. Every one of these texts must be refused, and all with the same answer.

- `forgeries`: what anybody can write who has seen a genuine token and the published keys.
- `oversized`: texts that are larger than a request may be, for the layer that bounds requests.
- `inner_forgeries`: what somebody can write who holds the encryption key, but not the signature key.
- `claim_forgeries`: genuine in their cryptography, with claims that are no good.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

Members = list[tuple[str, object]]

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def encode(data: bytes | str) -> str:
    """Unpadded base64url."""
    raw = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """The bytes of unpadded base64url."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def header_of(token: str) -> dict[str, object]:
    """The header of a compact token."""
    header: dict[str, object] = json.loads(decode(token.split(".", maxsplit=1)[0]))
    return header


def with_header(token: str, header: object) -> str:
    """The token under another header: a JSON value, or its text or bytes as they are."""
    raw = header if isinstance(header, (str, bytes)) else json.dumps(header, separators=(",", ":"))
    return ".".join([encode(raw), *token.split(".")[1:]])


def with_segment(token: str, index: int, segment: str) -> str:
    """The token with one of its segments replaced."""
    segments = token.split(".")
    segments[index] = segment
    return ".".join(segments)


def forgeries(genuine: str, public_jwk: Mapping[str, object] | None) -> Iterator[tuple[str, str]]:
    """Forgeries of an encrypted token by an outsider; each fits a unary request. `public_jwk`: the published signature key, if any."""
    yield from _headers(genuine)
    yield from _texts(genuine)
    yield from _segments(genuine)
    yield from _signed(genuine, public_jwk)


def oversized(genuine: str) -> Iterator[tuple[str, str]]:
    """Texts from 64 KiB to 10 MB."""
    header = header_of(genuine)
    segments = genuine.split(".")
    protected, encrypted_key, iv, ciphertext, tag = segments
    recipients = [{"header": {"alg": "A256KW"}, "encrypted_key": encrypted_key}] * 5000
    rest = {"iv": iv, "ciphertext": ciphertext, "tag": tag}
    yield (
        "JSON serialization, five thousand recipients",
        _json({"protected": protected, "recipients": recipients} | rest),
    )
    yield "ten million dots", "." * 10_000_000
    yield "kid of 1 MB", with_header(genuine, header | {"kid": "A" * 1_000_000})
    yield "header of 5 MB", with_header(genuine, header | {"typ": "a" * 5_000_000})
    yield "header nested a million deep", with_header(genuine, "[" * 1_000_000)
    yield "encrypted key of 1 MB", with_segment(genuine, 1, "A" * 1_000_000)
    yield "tag of 1 MB", with_segment(genuine, 4, "A" * 1_000_000)


def _headers(genuine: str) -> Iterator[tuple[str, str]]:
    header = header_of(genuine)
    pairs: Members = list(header.items())
    value: Any
    shape: Any

    def changed(name: str, **members: object) -> tuple[str, str]:
        return f"header: {name}", with_header(genuine, header | members)

    # alg and enc
    for alg in (
        "none",
        "None",
        "NONE",
        "nOnE",
        "none ",
        " none",
        "none\0",
        "none\n",
        "",
        "NoNe\u200b",
        "\uff4e\uff4f\uff4e\uff45",
    ):
        yield changed(f"alg {alg!r}", alg=alg)
    for value in (None, True, False, 0, 1, 1.5, ["none"], [], {}, {"none": 1}, ["A256KW"]):
        yield changed(f"alg of another type: {value!r}", alg=value)
    yield (
        "header: alg none, escaped",
        with_header(genuine, _json(header).replace('"A256KW"', '"\\u006e\\u006f\\u006e\\u0065"')),
    )
    for alg in (
        *(
            "a256kw",
            "A256kw",
            "A128KW",
            "A192KW",
            "A128GCMKW",
            "A192GCMKW",
            "A256GCMKW",
            "dir",
            "ECDH-ES",
            "ECDH-ES+A256KW",
        ),
        *(
            "RSA1_5",
            "RSA-OAEP",
            "RSA-OAEP-256",
            "PBES2-HS256+A128KW",
            "PBES2-HS512+A256KW",
            "HS256",
            "ES256",
            "EdDSA",
            "C20PKW",
        ),
    ):
        yield changed(f"the key as {alg}", alg=alg)
    for enc in (
        "a256gcm",
        "A128GCM",
        "A192GCM",
        "A128CBC-HS256",
        "A192CBC-HS384",
        "A256CBC-HS512",
        "none",
        "",
        "C20P",
        "A256KW",
    ):
        yield changed(f"enc {enc!r}", enc=enc)
    for value in (None, True, 256, ["A256GCM"], {}):
        yield changed(f"enc of another type: {value!r}", enc=value)
    for name in ("alg", "enc", "kid"):
        yield f"header: no {name}", with_header(genuine, {n: v for n, v in pairs if n != name})
        yield f"header: {name} in capitals", with_header(genuine, {n.upper() if n == name else n: v for n, v in pairs})
    yield "header: dir, empty encrypted key", with_segment(with_header(genuine, header | {"alg": "dir"}), 1, "")
    segments = genuine.split(".")
    yield (
        "header: a 256-bit key as A128CBC-HS256",
        ".".join(
            [
                encode(_json(header | {"alg": "dir", "enc": "A128CBC-HS256"})),
                "",
                encode(b"i" * 16),
                encode(b"c" * 32),
                encode(b"t" * 16),
            ]
        ),
    )
    yield (
        "header: A128CBC-HS256 of the right lengths",
        ".".join(
            [
                encode(_json(header | {"enc": "A128CBC-HS256"})),
                segments[1],
                encode(b"i" * 16),
                encode(b"c" * 32),
                encode(b"t" * 16),
            ]
        ),
    )

    # names that are not on the list
    for shape in (
        ["exp"],
        ["alg"],
        ["crit"],
        ["b64"],
        ["zip"],
        [],
        [""],
        "alg",
        {},
        None,
        True,
        [1],
        [None],
        [["alg"]],
        ["alg", "alg"],
    ):
        yield changed(f"crit {shape!r}", crit=shape)
    yield changed("crit and the name in it", crit=["x"], x=1)
    yield changed("zip DEF", zip="DEF")
    yield changed("b64 false", b64=False, crit=["b64"])
    for name in ("jku", "x5u", "url"):
        yield changed(f"{name} to fetch", **{name: "http://127.0.0.1:9/keys.json"})
        yield changed(f"{name} of a file", **{name: "file:///etc/passwd"})
    jwk = _jwk(ec.generate_private_key(ec.SECP256R1()))
    yield changed("jwk", jwk=jwk)
    yield changed("jwk, symmetric", jwk={"kty": "oct", "k": encode(b"k" * 32)})
    yield changed("x5c", x5c=[base64.b64encode(b"certificate").decode()])
    yield changed("x5t", x5t=encode(b"t" * 20))
    yield changed("x5t#S256", **{"x5t#S256": encode(b"t" * 32)})
    yield changed("p2s and p2c", alg="PBES2-HS256+A128KW", p2s=encode(b"salt" * 4), p2c=2**31 - 1)
    yield changed("iv and tag of GCMKW", alg="A256GCMKW", iv=encode(b"i" * 12), tag=encode(b"t" * 16))
    yield changed("iv of GCMKW too short", alg="A256GCMKW", iv=encode(b"i" * 11), tag=encode(b"t" * 16))
    yield changed("tag of GCMKW too short", alg="A256GCMKW", iv=encode(b"i" * 12), tag=encode(b"t" * 15))
    yield changed("tag of GCMKW a number", alg="A256GCMKW", iv=encode(b"i" * 12), tag=1)
    yield changed("iv of GCMKW with an unused character", alg="A128GCMKW", iv="i" * 15 + "*", tag=encode(b"t" * 16))
    yield changed("a name of its own", trace="1")
    yield changed("an empty name", **{"": "1"})
    yield changed("__proto__", __proto__={"alg": "none"})
    yield changed("a claim in the header", iss="urn:tokensidecar:local")
    yield changed("alg of another alphabet", аlg="A256KW")  # a Cyrillic letter

    # epk
    zero, p384 = encode(b"\0" * 32), _jwk(ec.generate_private_key(ec.SECP384R1()))
    for name, epk in {
        "a point of its curve": jwk,
        "a point off its curve": jwk | {"y": encode(b"\1" * 32)},
        "a point of another curve": p384,
        "another curve's name": jwk | {"crv": "P-384"},
        "zero": jwk | {"x": zero, "y": zero},
        "a low-order point": {"kty": "OKP", "crv": "X25519", "x": zero},
        "another low-order point": {"kty": "OKP", "crv": "X25519", "x": "4Ot6fDtBuK4WVuP68Z_EatoJjeucMrH9hmIFFl9JuAA"},
        "a private key": jwk | {"d": encode(b"d" * 32)},
        "a member more": jwk | {"kid": "1"},
        "a member less": {n: v for n, v in jwk.items() if n != "y"},
        "a number": jwk | {"x": 1},
        "a list": jwk | {"x": [jwk["x"]]},
    }.items():
        yield changed(f"epk: {name}", alg="ECDH-ES+A256KW", epk=epk)
    for value in (None, "", "P-256", 1, [], [jwk], {}):
        yield changed(f"epk of another type: {value!r}", alg="ECDH-ES", epk=value)
    yield changed("epk beside a symmetric algorithm", epk=jwk)

    # kid
    for kid in (
        *(
            "../../../../etc/passwd",
            "/dev/null",
            "..",
            "%2e%2e%2f",
            "file:///dev/null",
            "\\\\host\\share",
            "key\0",
            "\0",
        ),
        *(
            "' OR '1'='1",
            "1; DROP TABLE rings; --",
            "key' UNION SELECT 'k' --",
            "${jndi:ldap://127.0.0.1/}",
            "{{7*7}}",
            "|id",
            "`id`",
        ),
        *("key\r\nX-User: admin", "key\n", "\r", " ", "", "A" * 65, "A" * 700, "ключ", "k\u202ey", "*", "%s%n", "A"),
    ):
        yield changed(f"kid {kid[:24]!r} of {len(kid)}", kid=kid)
    for value in (None, True, 0, -1, 1.5, 2**64, [], [header["kid"]], {}, {"kid": header["kid"]}):
        yield changed(f"kid of another type: {value!r}", kid=value)
    yield changed("kid of no key", kid=encode(b"\xa5" * 16))
    yield changed("kid with an end of line", kid=f"{header['kid']}\n")
    yield changed("kid in another case", kid=str(header["kid"]).swapcase())

    # cty and typ
    for cty in ("", "jwt", "json", "application/jwt", "JWT, JWT", "\u212aWT", "at+jwt"):
        yield changed(f"cty {cty!r}", cty=cty)
    for value in (None, 1, ["JWT"], {}, True):
        yield changed(f"cty of another type: {value!r}", cty=value)
        yield changed(f"typ of another type: {value!r}", typ=value)
    yield "header: no cty", with_header(genuine, {n: v for n, v in pairs if n != "cty"})
    for typ in ("at+jwt", "JWT", "dpop+jwt", "rt+jwt", "", "at+jwt\n", "a" * 200, "JWT;v=1"):
        yield changed(f"typ {typ[:16]!r}", typ=typ)

    # duplicates
    for name, value in pairs:
        for other in (value, "none", None):
            yield f"header: {name} twice, then {other!r}", with_header(genuine, _raw([*pairs, (name, other)]))
            yield f"header: {name} twice, first {other!r}", with_header(genuine, _raw([(name, other), *pairs]))
        hidden = "".join(f"\\u{ord(c):04x}" for c in str(name))
        yield (
            f"header: {name} twice, escaped",
            with_header(genuine, _json(header)[:-1] + f',"{hidden}":{json.dumps(value)}}}'),
        )
        hidden = f"\\u{ord(str(name)[0]):04X}" + str(name)[1:]
        yield f"header: {name} twice, half escaped", with_header(genuine, f'{{"{hidden}":"none",' + _json(header)[1:])

    # other JSON, and no JSON
    text = _json(header)
    for name, raw in {
        "empty object": "{}",
        "list": "[]",
        "list of it": f"[{text}]",
        "text": '"A256KW"',
        "text of it": json.dumps(text),
        "number": "1",
        "null": "null",
        "true": "true",
        "NaN": "NaN",
        "nothing": "",
        "white space": " ",
        "white space before": f" {text}",
        "white space after": f"{text}\n",
        "NUL after": f"{text}\0",
        "junk after": f"{text}x",
        "twice": text + text,
        "cut off": text[:-1],
        "comma at the end": text[:-1] + ",}",
        "comment": text[:-1] + "/**/}",
        "single quotes": text.replace('"', "'"),
        "byte order mark": "\ufeff" + text,
        "UTF-16": text.encode("utf-16"),
        "UTF-32": text.encode("utf-32-le"),
        "invalid UTF-8": text.encode()[:-2] + b'\xff"}',
        "overlong UTF-8": text.replace("A", "\0", 1).encode().replace(b"\0", b"\xc1\x81"),
        "surrogate in UTF-8": text.encode()[:-2] + b'\xed\xa0\x80"}',
        "lone surrogate": text[:-2] + '\\ud800"}',
        "control character": text[:-2] + '\n"}',
        "nested lists": '{"alg":' + "[" * 900,
        "nested lists, closed": '{"alg":' + "[" * 450 + "]" * 450 + "}",
        "nested objects": '{"a":' * 180,
        "only brackets": "[" * 1000,
        "a number of a thousand digits": text[:-1] + ',"typ":' + "9" * 800 + "}",
        "over 1 KiB": text[:-1] + " " * 1024 + "}",
        "over 1 KiB, in a value": _json(header | {"typ": "a" * 1024}),
        "9 KiB": text[:-1] + " " * 9000 + "}",
        "many names": _json({str(n): "" for n in range(120)}),
    }.items():
        yield f"header: {name}", with_header(genuine, raw)


def _texts(genuine: str) -> Iterator[tuple[str, str]]:
    segments = genuine.split(".")
    for count in (0, 1, 2, 3, 4, 5, 6, 100, 16_383):
        yield f"text: {count} dots alone", "." * count
    for count in (1, 2, 3, 4):
        yield f"text: the first {count} segments", ".".join(segments[:count])
        yield f"text: the last {count} segments", ".".join(segments[-count:])
    for count in (1, 2, 5):
        yield f"text: {count} segments more", genuine + f".{segments[0]}" * count
        yield f"text: {count} dots more", genuine + "." * count
    yield "text: in reverse", ".".join(reversed(segments))
    yield "text: twice", genuine + genuine
    for name, junk in {
        "space": " ", "newline": "\n", "CRLF": "\r\n", "tab": "\t", "NUL": "\0", "padding": "=", "two paddings": "==", "comma": ",",
        "byte order mark": "\ufeff", "zero-width space": "\u200b", "no-break space": "\u00a0", "tilde": "~", "percent": "%3D", "plus": "+", "slash": "/",
        "full-width letter": "\uff21", "Arabic digit": "\u0661", "quote": '"',
    }.items():  # fmt: skip
        yield f"text: {name} before", junk + genuine
        yield f"text: {name} after", genuine + junk
        for index, segment in enumerate(segments):
            half = len(segment) // 2
            yield (
                f"text: {name} in segment {index}",
                with_segment(genuine, index, segment[:half] + junk + segment[half:]),
            )
            yield f"text: {name} after segment {index}", with_segment(genuine, index, segment + junk)
    yield "text: Bearer", f"Bearer {genuine}"
    yield "text: JSON string", json.dumps(genuine)
    yield "text: in base64url", encode(genuine)
    yield "text: padded throughout", ".".join(s + "=" * (-len(s) % 4) for s in segments)
    yield "text: dots as %2E", genuine.replace(".", "%2E")
    yield "text: full stops of another script", genuine.replace(".", "\u3002")
    protected, encrypted_key, iv, ciphertext, tag = segments
    rest: dict[str, object] = {"iv": iv, "ciphertext": ciphertext, "tag": tag}
    yield "text: JSON serialization, flattened", _json({"protected": protected, "encrypted_key": encrypted_key} | rest)
    yield (
        "text: JSON serialization, general",
        _json({"protected": protected, "recipients": [{"encrypted_key": encrypted_key}]} | rest),
    )
    yield (
        "text: JSON serialization, unprotected header",
        _json({"unprotected": header_of(genuine), "encrypted_key": encrypted_key} | rest),
    )
    yield (
        "text: JSON serialization in base64url",
        encode(_json({"protected": protected, "encrypted_key": encrypted_key} | rest)),
    )
    yield "text: 16 KiB and one", "A" * (16 * 1024 + 1)
    yield (
        "text: ciphertext to 16 KiB and one",
        with_segment(genuine, 3, ciphertext + "A" * (16 * 1024 + 1 - len(genuine))),
    )


def _segments(genuine: str) -> Iterator[tuple[str, str]]:
    segments = genuine.split(".")
    for index, segment in enumerate(segments):
        raw = decode(segment)
        for name, other in {
            "empty": b"", "one byte": raw[:1], "zero byte": b"\0", "one byte less": raw[:-1], "its first byte off": raw[1:], "one byte more": raw + b"\0",
            "one zero before": b"\0" + raw, "eight bytes more": raw + b"\xa6" * 8, "all zeros": bytes(len(raw)), "all ones": b"\xff" * len(raw), "reversed": raw[::-1],
            "doubled": raw * 2, "first bit": bytes([raw[0] ^ 0x80]) + raw[1:], "last bit": raw[:-1] + bytes([raw[-1] ^ 1]),
            "middle byte": raw[: len(raw) // 2] + bytes([raw[len(raw) // 2] ^ 0x10]) + raw[len(raw) // 2 + 1 :],
        }.items():  # fmt: skip
            yield f"segment {index}: {name}", with_segment(genuine, index, encode(other))
        yield f"segment {index}: one character", with_segment(genuine, index, "A")
        yield f"segment {index}: one character more", with_segment(genuine, index, segment + "A")
        yield f"segment {index}: one character less", with_segment(genuine, index, segment[:-1])
        yield f"segment {index}: four dots", with_segment(genuine, index, "....")
        if flipped := unused_bit_flipped(segment):
            yield f"segment {index}: an unused bit set", with_segment(genuine, index, flipped)
        for other_index in range(index + 1, len(segments)):
            swapped = with_segment(with_segment(genuine, index, segments[other_index]), other_index, segment)
            yield f"segment {index}: swapped with {other_index}", swapped
    tag = decode(segments[4])
    for length in range(18):
        if length != len(tag):
            yield f"tag of {length} bytes", with_segment(genuine, 4, encode((tag + b"\0\0")[:length]))
    iv = decode(segments[2])
    for length in (0, 1, 8, 11, 13, 16, 255):
        yield f"IV of {length} bytes", with_segment(genuine, 2, encode((iv * 22)[:length]))
    for length in (0, 8, 16, 24, 32, 39, 41, 48, 72, 512):
        yield f"encrypted key of {length} bytes", with_segment(genuine, 1, encode((decode(segments[1]) * 13)[:length]))


def _signed(genuine: str, public_jwk: Mapping[str, object] | None) -> Iterator[tuple[str, str]]:
    """Signed tokens where an encrypted one is due."""
    header = header_of(genuine)
    kids = [header["kid"]] + ([public_jwk["kid"]] if public_jwk else [])
    payload = b'{"iss":"urn:tokensidecar:local","sub":"admin","aud":["orders"],"jti":"1","iat":1700000000,"exp":9007199254740991}'
    for number, kid in enumerate(kids):
        for alg in ("none", "None", "NONE", "nOnE"):
            text = f"{encode(_json({'alg': alg, 'kid': kid, 'typ': 'at+jwt'}))}.{encode(payload)}."
            yield f"signed: alg {alg}, kid {number}", text
            yield f"signed: alg {alg}, kid {number}, with a signature", text + encode(b"s" * 64)
        yield f"signed: by another key, kid {number}", signed_by_another_key(payload, {"kid": kid, "typ": "at+jwt"})
        yield (
            f"signed: with its own jwk, kid {number}",
            signed_by_another_key(payload, {"kid": kid, "typ": "at+jwt"}, embed=True),
        )
        if public_jwk:
            for name, secret in public_texts(public_jwk):
                yield (
                    f"signed: HS256 with the {name}, kid {number}",
                    hs256(payload, {"kid": kid, "typ": "at+jwt"}, secret),
                )


def inner_forgeries(
    encrypt: Callable[[bytes], str], inner: str, public_jwk: Mapping[str, object]
) -> Iterator[tuple[str, str]]:
    """Forgeries by a holder of the encryption key: `encrypt` wraps any bytes as the sidecar does (`cty: JWT`), `inner` is a genuine JWS."""
    header = header_of(inner)
    protected, payload, signature = inner.split(".")
    rest = {n: v for n, v in header.items() if n != "alg"}

    def around(name: str, text: str | bytes) -> tuple[str, str]:
        return f"inner: {name}", encrypt(text.encode() if isinstance(text, str) else text)

    yield around("bare claims", decode(payload))
    yield around("bare claims in base64url", payload)
    yield around("one byte", b"\0")
    yield around("zeros", bytes(100))
    yield around("not ASCII", inner + "é")
    yield around("invalid UTF-8", inner.encode() + b"\xff")
    yield around("another JWE", encrypt(inner.encode()))
    yield around("another JWE, twice", encrypt(encrypt(inner.encode()).encode()))
    yield around("a space after", f"{inner} ")
    yield around("a newline before", f"\n{inner}")
    yield around("JSON serialization", _json({"protected": protected, "payload": payload, "signature": signature}))
    yield around("without its signature", f"{protected}.{payload}")
    yield around("an empty signature", f"{protected}.{payload}.")
    yield around("an empty payload", f"{protected}..{signature}")
    yield around("detached, then the payload", f"{protected}..{signature}.{payload}")
    for alg in (
        "none",
        "None",
        "NONE",
        "nOnE",
        "",
        "es256",
        "ES384",
        "ES512",
        "ES256K",
        "HS256",
        "RS256",
        "PS256",
        "EdDSA",
        "A256KW",
    ):
        yield around(f"alg {alg!r}", with_header(inner, header | {"alg": alg}))
        yield around(f"alg {alg!r}, unsigned", with_segment(with_header(inner, header | {"alg": alg}), 2, ""))
    value: Any
    for value in (None, True, ["none"], ["ES256"], {}, 0):
        yield around(f"alg of another type: {value!r}", with_header(inner, header | {"alg": value}))
    for name, secret in public_texts(public_jwk):
        yield around(f"HS256 with the {name}", hs256(decode(payload), rest, secret))
    yield around("signed by another key", signed_by_another_key(decode(payload), rest))
    yield around("signed by another key, in its own name", signed_by_another_key(decode(payload), rest, own_kid=True))
    yield around("signed by another key, which it brings", signed_by_another_key(decode(payload), rest, embed=True))
    yield around("the genuine key embedded", with_header(inner, header | {"jwk": dict(public_jwk)}))
    altered: dict[str, dict[str, Any]] = {
        "crit": {"crit": ["exp"]}, "b64": {"b64": False, "crit": ["b64"]}, "jku": {"jku": "http://127.0.0.1:9/"}, "x5c": {"x5c": ["AAAA"]}, "enc": {"enc": "A256GCM"},
        "zip": {"zip": "DEF"}, "cty": {"cty": "JWT"}, "no kid": {"kid": ""}, "another kid": {"kid": encode(b"\x5a" * 32)}, "another typ": {"typ": "rt+jwt"}, "typ JWT": {"typ": "JWT"},
    }  # fmt: skip
    for name, members in altered.items():
        yield around(f"header with {name}", with_header(inner, header | members))
    for index, segment in enumerate((protected, payload, signature)):
        raw = decode(segment)
        yield around(f"segment {index}, a bit", with_segment(inner, index, encode(raw[:-1] + bytes([raw[-1] ^ 1]))))
        if flipped := unused_bit_flipped(segment):
            yield around(f"segment {index}, an unused bit set", with_segment(inner, index, flipped))
        yield around(f"segment {index}, padding", with_segment(inner, index, segment + "="))

    r, s = decode(signature)[:32], decode(signature)[32:]
    order, zero = P256_ORDER.to_bytes(32, "big"), bytes(32)
    der = b"\x30\x44\x02\x20" + r + b"\x02\x20" + s
    for name, other in {
        "r of 0": zero + s, "s of 0": r + zero, "r and s of 0": zero + zero, "r of n": order + s, "s of n": r + order, "r and s of n": order + order,
        "r of 1": zero[1:] + b"\1" + s, "all ones": b"\xff" * 64, "r and s exchanged": s + r, "a zero before both": b"\0" + r + b"\0" + s, "a zero before": b"\0" + r + s,
        "two zeros after": r + s + b"\0\0", "DER": der, "63 bytes": (r + s)[1:], "62 bytes": r[1:] + s[1:], "96 bytes": zero[:16] + r + zero[:16] + s, "r alone": r, "one byte": b"\1",
        "r past n": ((int.from_bytes(r, "big") + P256_ORDER) % 2**256).to_bytes(32, "big") + s,
    }.items():  # fmt: skip
        yield around(f"signature: {name}", with_segment(inner, 2, encode(other)))


def claim_forgeries(sign_and_encrypt: Callable[[bytes], str], good_payload: bytes) -> Iterator[tuple[str, str]]:
    """Genuine tokens around claims in bad form. `good_payload`: claims that are good, with iss, sub, aud, exp, iat and jti."""
    for name, payload in bad_claims(good_payload):
        yield f"claims: {name}", sign_and_encrypt(payload)


def bad_claims(good_payload: bytes) -> Iterator[tuple[str, bytes]]:
    """The payloads of `claim_forgeries`."""
    good: dict[str, object] = json.loads(good_payload)
    text = good_payload.decode()

    def raw(name: str, literal: str) -> bytes:
        """The claims with one of them as this JSON text."""
        others = {n: v for n, v in good.items() if n != name}
        return f"{_json(others)[:-1]},{json.dumps(name)}:{literal}}}".encode()

    digits = "9" * 5000
    times = [
        *("null", '"1700000000"', '""', "[1700000000]", "[]", "{}", "true", "false", "-1", "-0.0", "1.5", "1700000000.0", "1.7e9", "1e400", "-1e400", "NaN", "Infinity"),
        *("-Infinity", digits, f"-{digits}", f"1.{digits}", f"1e{digits}", "9007199254740992", "9223372036854775808", "18446744073709551616", "-9223372036854775809"),
        *("01", "+1", "0x10", "1_000", ".5", "1.", "\u0661", "1e"),
    ]  # fmt: skip
    for name in ("exp", "iat", "nbf"):
        for literal in times:
            yield f"{name} {literal[:24]}, {len(literal)} long", raw(name, literal)
    for name in ("iss", "sub", "aud", "exp", "iat", "jti"):
        yield f"no {name}", _json({n: v for n, v in good.items() if n != name}).encode()
        yield f"{name} in capitals alone", _json({n.upper() if n == name else n: v for n, v in good.items()}).encode()
    for name in ("iss", "sub", "jti", "client_id"):
        for literal in (
            "null",
            '""',
            "1",
            "true",
            "[]",
            '["a"]',
            "{}",
            json.dumps("a" * 256),
            '"a\\u0000"',
            '"a\\nb"',
            '"a\\u0085"',
            '"\\u2028"',
        ):
            yield f"{name} {literal[:16]}, {len(literal)} long", raw(name, literal)
    for literal in (
        "null",
        '""',
        "1",
        "true",
        "[]",
        "{}",
        "[1]",
        "[null]",
        '[""]',
        '[["orders"]]',
        '["orders",1]',
        '["orders",null]',
        '"orders\\n"',
    ):
        yield f"aud {literal}", raw("aud", literal)
    yield "aud of 17", raw("aud", json.dumps(["orders"] * 17))
    for literal in (
        "null",
        "1",
        '""',
        '" "',
        '"a  b"',
        '" a"',
        '"a "',
        '"a\\tb"',
        '["a"]',
        "{}",
        '"\\""',
        '"a\\\\b"',
        '"é"',
    ):
        yield f"scope {literal}", raw("scope", literal)
    for literal in ("null", "1", '"jkt"', "[]", "true"):
        yield f"cnf {literal}", raw("cnf", literal)

    for literal in (
        "null",
        '"user-42"',
        "[]",
        "true",
        '{"act":1}',
        '{"act":{"act":{"act":{"act":{}}}}}',
        '{"act":[{}]}',
    ):
        yield f"act {literal}", raw("act", literal)

    issued = good["iat"]
    assert isinstance(issued, int)
    yield "exp is iat", raw("exp", str(issued))
    yield "exp before iat", raw("exp", str(issued - 1))
    yield "exp far past the longest lifetime", raw("exp", str(issued + 10 * 365 * 86400))
    yield "exp at the end of time", raw("exp", str(2**53 - 1))
    yield "another issuer", raw("iss", '"https://issuer.example"')
    yield "the issuer and more", raw("iss", json.dumps(f"{good['iss']}/"))
    yield "the issuer in capitals", raw("iss", json.dumps(str(good["iss"]).upper()))

    for name, literal in {
        "an integer of 2^64": str(2**64), "an integer below -2^63": str(-(2**63) - 1), "an integer of 5000 digits": digits, "1e400": "1e400", "NaN": "NaN",
        "-Infinity": "[-Infinity]", "a number of 33 characters": "0." + "1" * 31, "a number of 5000 digits": f"0.{digits}", "a high surrogate": '"\\ud800"', "a low surrogate": '"\\udfff"',
        "surrogates in the wrong order": '"\\udc00\\ud800"', "a surrogate in a name": '{"\\udead":1}', "a surrogate in a list": '[["\\uDBFF"]]', "a duplicate in an object": '{"a":1,"a":1}',
        "a duplicate far down": '[[{"a":{"b":1,"\\u0062":2}}]]', "a control character": '"\x01"', "a line break": '"\n"', "an unknown escape": '"\\x41"', "half an escape": '"\\u00"',
        "depth of 9": "[" * 8 + "]" * 8, "objects 9 deep": '{"a":' * 8 + "1" + "}" * 8, "depth of 2000": "[" * 2000 + "]" * 2000, "depth of 2000, open": "[" * 2000,
        "513 members": json.dumps(list(range(513)), separators=(",", ":")), "single quotes": "'a'", "undefined": "undefined", "nothing": "", "a comment": "1/**/",
    }.items():  # fmt: skip
        yield f"further: {name}", raw("further", literal)
    for name, value in good.items():
        yield f"{name} twice", raw("further", f"1,{json.dumps(name)}:{json.dumps(value)}")
        hidden = f"\\u{ord(name[0]):04x}{name[1:]}"
        yield f"{name} twice, escaped", raw("further", f'1,"{hidden}":{json.dumps(value)}')

    for name, payload in {
        "list": b"[]", "list of them": f"[{text}]".encode(), "text": b'"claims"', "text of them": json.dumps(text).encode(), "number": b"1", "null": b"null", "true": b"true",
        "NaN": b"NaN", "empty object": b"{}", "empty": b"", "white space": b" ", "NUL": b"\0", "byte order mark": b"\xef\xbb\xbf" + good_payload, "UTF-16": text.encode("utf-16"),
        "UTF-16, no mark": text.encode("utf-16-le"), "UTF-32": text.encode("utf-32"), "Latin-1": raw("further", '"\u00e9"').decode().encode("latin-1"),
        "invalid UTF-8": good_payload[:-1] + b',"a":"\xff"}', "overlong UTF-8": good_payload[:-1] + b',"a":"\xc0\xaf"}', "surrogate in UTF-8": good_payload[:-1] + b',"a":"\xed\xa0\x80"}',
        "beyond Unicode": good_payload[:-1] + b',"a":"\xf5\x80\x80\x80"}', "cut off": good_payload[:-1], "junk after": good_payload + b"x", "NUL after": good_payload + b"\0",
        "twice": good_payload * 2, "a list after": good_payload + b"[]", "comma at the end": good_payload[:-1] + b",}", "comma alone": good_payload[:-1] + b",,}",
        "a token": b"eyJhbGciOiJub25lIn0.e30.", "brackets": b"[" * 8000, "braces": b'{"a":' * 1500, "a comment": b"/**/" + good_payload,
    }.items():  # fmt: skip
        yield name, payload


def unused_bit_flipped(segment: str) -> str | None:
    """The segment with its last unused bit set: the same bytes to a lenient decoder. None where no bit is unused."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return None if len(segment) % 4 == 0 else segment[:-1] + alphabet[alphabet.index(segment[-1]) ^ 1]


def hs256(payload: bytes, header: Mapping[str, object], secret: bytes) -> str:
    """A compact JWS with HMAC-SHA-256."""
    text = f"{encode(_json({'alg': 'HS256', **header}))}.{encode(payload)}"
    return f"{text}.{encode(hmac.digest(secret, text.encode(), hashlib.sha256))}"


def signed_by_another_key(
    payload: bytes, header: Mapping[str, object], *, embed: bool = False, own_kid: bool = False
) -> str:
    """A compact ES256 JWS by a fresh key, under this header; with that key in `jwk`, or with its own thumbprint as `kid`, if so asked."""
    key = JWK.generate(kty="EC", crv="P-256")
    members: dict[str, object] = {"alg": "ES256", **header}
    if own_kid:
        members["kid"] = key.thumbprint()
    if embed:
        members["jwk"] = json.loads(key.export_public())
    token = JWS(payload)
    token.add_signature(key, alg="ES256", protected=_json(members))
    return str(token.serialize(compact=True))


def public_texts(public_jwk: Mapping[str, object]) -> Iterator[tuple[str, bytes]]:
    """Everything that a confused verifier could take for the secret of an HMAC."""
    key = JWK(**public_jwk)
    yield "PEM", key.export_to_pem()
    yield "PEM without its last newline", key.export_to_pem().rstrip(b"\n")
    public = ec.EllipticCurvePublicNumbers(
        int.from_bytes(decode(str(public_jwk["x"])), "big"),
        int.from_bytes(decode(str(public_jwk["y"])), "big"),
        ec.SECP256R1(),
    ).public_key()
    yield "DER", public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    yield "point", public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    yield "compressed point", public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    yield "JWK", _json(dict(public_jwk)).encode()
    yield "JWK, sorted", json.dumps(dict(public_jwk), sort_keys=True, separators=(",", ":")).encode()
    yield "JWK, with spaces", json.dumps(dict(public_jwk)).encode()
    yield "x", decode(str(public_jwk["x"]))
    yield "kid", str(public_jwk["kid"]).encode()
    yield "nothing", b""


def _jwk(key: ec.EllipticCurvePrivateKey) -> dict[str, object]:
    numbers, size = key.public_key().public_numbers(), key.key_size // 8
    return {
        "kty": "EC",
        "crv": f"P-{key.key_size}",
        "x": encode(numbers.x.to_bytes(size, "big")),
        "y": encode(numbers.y.to_bytes(size, "big")),
    }


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _raw(members: Members) -> str:
    """A JSON object that may name a member twice."""
    return "{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in members) + "}"
