"""Tokens that are sound in their cryptography and unsound in their structure: signed and sealed over exactly what they say.

A reader that refuses one of them does so for its structure; unlike a changed token, it would open if structure were all that it did not
look at. Each generator yields (name, token text), the control "genuine" first. They are the same in every run.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from jwcrypto.jwk import JWK

from tests.forgeries import decode, encode
from tests.interop.suites import TYP, Suite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIGNED = Suite("signed", "ES256")
ENCRYPTED = Suite("encrypted", "", "A256KW", "A256GCM")
NESTED = Suite("nested", "ES256", "A256KW", "A256GCM")

PAYLOAD = b'{"iss":"https://issuer.example","sub":"user-42","aud":["orders"],"exp":1700000300,"iat":1700000000,"jti":"Q2hhbmdl"}'


def _jwk(key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    jwk = JWK.from_pyca(key)
    members: dict[str, str] = jwk.export(as_dict=True)
    return {name: members[name] for name in ("kty", "crv", "x", "y", "d")} | {
        "alg": "ES256",
        "kid": jwk.thumbprint(),
        "use": "sig",
    }


_STRANGER = {
    name: value
    for name, value in _jwk(ec.derive_private_key(1, ec.SECP256R1())).items()
    if name in {"kty", "crv", "x", "y"}
}
_SIGNER = ec.derive_private_key(0x5EED, ec.SECP256R1())
KEYS = {
    "signature": _jwk(_SIGNER),
    "encryption": {"kty": "oct", "k": encode(b"k" * 32), "alg": "A256KW", "kid": encode(b"i" * 16), "use": "enc"},
}


def mutations() -> Iterator[tuple[Suite, str, str]]:
    """All of them, in the three formats, with the suite that they are for; the keys are `KEYS`."""
    for name, token in signed():
        yield SIGNED, name, token
    for name, token in encrypted(PAYLOAD, {"typ": TYP}):
        yield ENCRYPTED, name, token
    inner = sign(compact(_signed_header()))
    for name, token in encrypted(inner.encode(), {"cty": "JWT"}):
        yield NESTED, name, token
    for name, token in signed():
        if name != "genuine":
            yield NESTED, f"inner {name}", seal_nested(token.encode())
    for name, text in {
        "inner: bare claims": PAYLOAD,
        "inner: bare claims in base64url": encode(PAYLOAD).encode(),
        "inner: not ASCII": inner.encode() + "é".encode(),
        "inner: NUL after": inner.encode() + b"\0",
        "inner: as JSON text": json.dumps(inner).encode(),
        "inner: in base64url": encode(inner).encode(),
        "inner: compressed": _deflated(inner.encode()),
    }.items():
        yield NESTED, name, seal_nested(text)


def signed() -> Iterator[tuple[str, str]]:
    """Compact JWSs with good ES256 signatures, and other serializations of such."""
    header = _signed_header()
    good = sign(compact(header))
    yield "genuine", good
    for name, raw in headers(header):
        yield f"header: {name}", sign(raw)
    yield (
        "header: b64 false, payload as it is",
        sign(compact(header | {"b64": False, "crit": ["b64"]}), payload=PAYLOAD.decode().replace(".", "")),
    )
    yield "header: zip DEF, compressed", sign(compact(header | {"zip": "DEF"}), payload=encode(_deflated(PAYLOAD)))
    yield "header: enc", sign(compact(header | {"enc": "A256GCM"}))
    protected, payload, signature = good.split(".")
    for name, change in texts():
        yield f"text: header {name}", sign(compact(header), change=change)
        yield f"text: payload {name}", sign(compact(header), payload=change(payload))
        yield f"text: signature {name}", f"{protected}.{payload}.{change(signature)}"
    yield "text: no payload", sign(compact(header), payload="")
    yield "text: detached payload", f"{protected}..{signature}"
    yield "text: a segment more", f"{good}."
    yield "text: a segment before", f".{good}"
    yield "text: white space around", f" {good}\n"
    yield (
        "text: JSON serialization, flattened",
        json.dumps({"protected": protected, "payload": payload, "signature": signature}),
    )
    yield (
        "text: JSON serialization, general",
        json.dumps({"payload": payload, "signatures": [{"protected": protected, "signature": signature}]}),
    )
    raw = decode(signature)
    r, s = raw[:32], raw[32:]
    yield "signature: DER", f"{protected}.{payload}.{encode(_der(r, s))}"
    yield "signature: a zero before each", f"{protected}.{payload}.{encode(bytes(1) + r + bytes(1) + s)}"
    yield "signature: 48 bytes each", f"{protected}.{payload}.{encode(bytes(16) + r + bytes(16) + s)}"
    yield "signature: a byte after", f"{protected}.{payload}.{encode(raw + bytes(1))}"


def encrypted(plaintext: bytes, more: dict[str, object]) -> Iterator[tuple[str, str]]:
    """Compact JWEs, well sealed under A256KW with A256GCM, and other serializations of such; `more` belongs to a good header."""
    header = _encrypted_header(more)
    text = compact(header)
    good = seal(text, plaintext)
    yield "genuine", good
    for name, raw in headers(header):
        yield f"header: {name}", seal(raw, plaintext)
    for name, value in {
        "no enc": None,
        "enc null": "null",
        "enc in lower case": '"a256gcm"',
        "enc a list": '["A256GCM"]',
    }.items():
        raw_header = compact({n: v for n, v in header.items() if n != "enc"})
        yield (
            f"header: {name}",
            seal(raw_header if value is None else raw_header[:-1] + f',"enc":{value}}}'.encode(), plaintext),
        )
    yield "header: zip DEF, compressed", seal(compact(header | {"zip": "DEF"}), _deflated(plaintext))
    yield "header: epk", seal(compact(header | {"epk": _STRANGER}), plaintext)
    yield "header: iv and tag", seal(compact(header | {"iv": encode(b"i" * 12), "tag": encode(b"t" * 16)}), plaintext)
    yield "header: p2s and p2c", seal(compact(header | {"p2s": encode(b"salt" * 4), "p2c": 1000}), plaintext)
    yield "header: apu and apv", seal(compact(header | {"apu": encode(b"a"), "apv": encode(b"b")}), plaintext)
    segments = good.split(".")
    for name, change in texts():
        yield f"text: header {name}", seal(text, plaintext, change=change)
        for index, part in enumerate(("encrypted key", "iv", "ciphertext", "tag"), 1):
            yield f"text: {part} {name}", ".".join([*segments[:index], change(segments[index]), *segments[index + 1 :]])
    yield "text: nothing encrypted", seal(text, b"")
    yield "text: a segment more", f"{good}."
    yield "text: a segment before", f".{good}"
    yield "text: white space around", f" {good}\n"
    protected, encrypted_key, iv, ciphertext, tag = segments
    rest = {"iv": iv, "ciphertext": ciphertext, "tag": tag}
    yield (
        "text: JSON serialization, flattened",
        json.dumps({"protected": protected, "encrypted_key": encrypted_key} | rest),
    )
    yield (
        "text: JSON serialization, general",
        json.dumps({"protected": protected, "recipients": [{"encrypted_key": encrypted_key}]} | rest),
    )
    yield "lengths: iv of 16 bytes", seal(text, plaintext, iv=bytes(16))
    yield "lengths: iv of 8 bytes", seal(text, plaintext, iv=bytes(8))
    for length in (0, 4, 8, 12, 15):
        yield f"lengths: tag of {length} bytes", seal(text, plaintext, tag=length)
    for length in (16, 24):
        yield f"lengths: content key of {length} bytes", seal(text, plaintext, cek=b"c" * length)
    yield "lengths: content key of 40 bytes, the last 32 used", seal(text, plaintext, cek=b"c" * 40)
    yield (
        "lengths: tag in the ciphertext",
        ".".join([protected, encrypted_key, iv, encode(decode(ciphertext) + decode(tag)), ""]),
    )


def headers(good: dict[str, object]) -> Iterator[tuple[str, bytes]]:
    """Header texts around the same algorithms; the first ones are good JSON that no rule forbids."""
    text = compact(good).decode()

    def extended(literal: str) -> bytes:
        return f"{text[:-1]},{literal}}}".encode()

    def replaced(name: str, literal: str) -> bytes:
        return (compact({n: v for n, v in good.items() if n != name}).decode()[:-1] + f',"{name}":{literal}}}').encode()

    yield "in another order", compact(dict(reversed(good.items())))
    yield "with white space", json.dumps(good, indent=1).encode()
    yield "names escaped", text.replace('"alg"', '"\\u0061lg"').encode()
    kid = str(good["kid"])
    yield "values escaped", replaced("kid", f'"\\u{ord(kid[0]):04x}{kid[1:]}"')

    for shape in (
        "[]",
        '["exp"]',
        '["alg"]',
        '["b64"]',
        '["crit"]',
        '[""]',
        '"exp"',
        "{}",
        "null",
        "true",
        "[1]",
        '["x"],"x":1',
        '["exp"],"exp":1',
        '["kid","kid"]',
    ):
        yield f"crit {shape}", extended(f'"crit":{shape}')
    yield "b64 true, critical", extended('"b64":true,"crit":["b64"]')
    yield "b64 false, critical", extended('"b64":false,"crit":["b64"]')
    yield "b64 false", extended('"b64":false')
    yield "zip of nothing", extended('"zip":""')
    yield "zip DEF, not compressed", extended('"zip":"DEF"')
    yield "zip of another", extended('"zip":"GZIP"')

    for name in ("alg", "kid"):
        value = json.dumps(good[name])
        yield f"{name} twice, the same", extended(f'"{name}":{value}')
        yield f"{name} twice, then another", extended(f'"{name}":"none"')
        yield f"{name} twice, first another", f'{{"{name}":"none",{text[1:]}'.encode()
        yield f"{name} twice, escaped", extended(f'"\\u{ord(name[0]):04x}{name[1:]}":{value}')
        yield f"no {name}", compact({n: v for n, v in good.items() if n != name})
        yield f"{name} in capitals", compact({n.upper() if n == name else n: v for n, v in good.items()})
        for literal in ("null", "1", "true", "{}", f"[{value}]", '""'):
            yield f"{name} {literal if value not in literal else 'a list'}", replaced(name, literal)
    yield "alg in lower case", replaced("alg", json.dumps(str(good["alg"]).lower()))
    yield "alg and white space", replaced("alg", json.dumps(f"{good['alg']} "))
    for alg in ("none", "None", "NONE", "dir", "HS256"):
        yield f"alg {alg}", replaced("alg", f'"{alg}"')
    for name in ("typ", "cty"):
        for literal in ("null", "1", "[]", "{}", "true"):
            yield f"{name} {literal}", replaced(name, literal)
    yield "cty of another", replaced("cty", '"json"')
    yield "typ of another", replaced("typ", '"dpop+jwt"')

    for literal in (
        '"jku":"http://127.0.0.1:9/keys.json"', '"x5u":"http://127.0.0.1:9/chain.pem"', '"x5c":["AAAA"]', '"x5c":"AAAA"', f'"x5t":"{encode(b"t" * 20)}"', '"trace":"1"', '"":"1"',
        '"iss":"https://issuer.example"', '"trace":{"a":{"b":[]}}', f'"jwk":{json.dumps(_STRANGER)}', '"jwk":1', '"url":"http://127.0.0.1:9/"', '"nonce":"1"',
    ):  # fmt: skip
        yield f"with {literal[:24]}", extended(literal)

    others: dict[str, str | bytes] = {
        "a list of it": f"[{text}]", "text of it": json.dumps(text), "empty object": "{}", "empty list": "[]", "null": "null", "nothing": "", "white space": " ",
        "white space before": f" {text}", "white space after": f"{text}\n", "NUL after": f"{text}\0", "junk after": f"{text}x", "twice": text * 2, "cut off": text[:-1],
        "comma at the end": f"{text[:-1]},}}", "a comment": f"{text[:-1]}/**/}}", "single quotes": text.replace('"', "'"), "names without quotes": text.replace('"alg"', "alg"),
        "byte order mark": f"\ufeff{text}", "UTF-16": text.encode("utf-16"), "UTF-32": text.encode("utf-32-le"),
        "invalid UTF-8": text[:-1].encode() + b',"a":"\xff"}', "overlong UTF-8": text[:-1].encode() + b',"a":"\xc0\xaf"}', "a surrogate in UTF-8": text[:-1].encode() + b',"a":"\xed\xa0\x80"}',
        "a lone surrogate": extended('"a":"\\ud800"'), "a control character": extended('"a":"\n"'), "NaN": extended('"a":NaN'), "Infinity": extended('"a":-Infinity'), "1e400": extended('"a":1e400'),
        "a leading zero": extended('"a":01'), "a plus sign": extended('"a":+1'), "True": extended('"a":True'), "an unknown escape": extended('"a":"\\x41"'), "a tab in a name": extended('"a\t":1'),
        "lists 300 deep": extended('"a":' + "[" * 300 + "]" * 300), "lists 5000 deep": extended('"a":' + "[" * 5000 + "]" * 5000), "open lists": extended('"a":' + "[" * 900),
        "a number of 800 digits": extended('"a":' + "9" * 800), "a number of 5000 digits": extended('"a":' + "9" * 5000), "over 1 KiB of white space": f"{text[:-1]}{' ' * 1024}}}", "a value of 9 KiB": extended(f'"a":"{"a" * 9216}"'),
    }  # fmt: skip
    for name, raw in others.items():
        yield name, raw.encode() if isinstance(raw, str) else raw


def texts() -> Iterator[tuple[str, Callable[[str], str]]]:
    """Changes to the text of a segment that a lenient decoder does not notice, and some that it does."""
    standard = str.maketrans("-_", "+/")
    yield "padded", lambda text: text + "=" * (-len(text) % 4 or 4)
    yield "half padded", lambda text: f"{text}="
    yield "with a newline", lambda text: f"{text[:8]}\n{text[8:]}"
    yield "with white space", lambda text: f"{text[:8]} {text[8:]}"
    yield "with white space after", lambda text: f"{text} "
    yield "with a NUL", lambda text: f"{text[:8]}\0{text[8:]}"
    yield "with another letter", lambda text: f"{text[:8]}\u00e9{text[8:]}"
    yield "with a character left over", lambda text: text + "A" * ((1 - len(text)) % 4 or 4)
    yield (
        "in the other alphabet",
        lambda text: text.translate(standard) if text != text.translate(standard) else f"{text[:8]}+{text[8:]}",
    )
    yield "with unused bits set", _unused_bits_set


def sign(header: bytes, *, payload: str = encode(PAYLOAD), change: Callable[[str], str] = str) -> str:
    """A JWS over exactly these texts; the payload is in base64url; `change` is of the header's text."""
    signing_input = f"{change(encode(header))}.{payload}"
    r, s = decode_dss_signature(_SIGNER.sign(signing_input.encode(), ec.ECDSA(SHA256(), deterministic_signing=True)))
    return f"{signing_input}.{encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def seal(
    header: bytes,
    plaintext: bytes,
    *,
    change: Callable[[str], str] = str,
    cek: bytes = b"c" * 32,
    iv: bytes = b"i" * 12,
    tag: int = 16,
    wrapping: bytes = b"k" * 32,
) -> str:
    """A JWE under exactly this header: AES-256 key wrap and AES-GCM whatever it says. Lengths are bytes; a tag is cut short."""
    protected = change(encode(header))
    encryptor = Cipher(algorithms.AES(cek[-32:]), modes.GCM(iv)).encryptor()
    encryptor.authenticate_additional_data(protected.encode())
    ciphertext = encryptor.update(plaintext) + encryptor.finalize()
    wrapped = aes_key_wrap(wrapping, cek)
    return ".".join([protected, encode(wrapped), encode(iv), encode(ciphertext), encode(encryptor.tag[:tag])])


def seal_nested(plaintext: bytes) -> str:
    """A good JWE around anything that claims to be a JWT."""
    return seal(compact(_encrypted_header({"cty": "JWT"})), plaintext)


def _signed_header() -> dict[str, object]:
    return {"alg": "ES256", "kid": KEYS["signature"]["kid"], "typ": TYP}


def _encrypted_header(more: dict[str, object]) -> dict[str, object]:
    return {"alg": "A256KW", "enc": "A256GCM", "kid": KEYS["encryption"]["kid"], **more}


def _unused_bits_set(text: str) -> str:
    """One character more where no bit is unused."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return f"{text}A" if len(text) % 4 == 0 else text[:-1] + alphabet[alphabet.index(text[-1]) | 1]


def _der(r: bytes, s: bytes) -> bytes:
    numbers = b"".join(b"\x02\x21\0" + n if n[0] & 0x80 else b"\x02\x20" + n for n in (r, s))
    return bytes([0x30, len(numbers)]) + numbers


def _deflated(data: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-15)  # RFC 1951, without the wrapping of RFC 1950
    return squeeze.compress(data) + squeeze.flush()


def compact(value: object) -> bytes:
    """JSON without white space."""
    return json.dumps(value, separators=(",", ":")).encode()
