"""Unsound key agreements (RFC 7518 section 4.6): tokens whose key is truly agreed upon with the `epk`, which is what they get wrong.

The first of each suite, "genuine", is a sound one. They are the same in every run.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from jwcrypto.jwk import JWK

from tests.forgeries import decode, encode
from tests.interop.mutations import PAYLOAD, compact, seal
from tests.interop.suites import TYP, Jwk, Keys, Suite, public_half

if TYPE_CHECKING:
    from collections.abc import Iterator

P256 = Suite("encrypted", "", "ECDH-ES+A256KW", "A256GCM", "P-256")
X25519 = Suite("encrypted", "", "ECDH-ES+A256KW", "A256GCM", "X25519")

_ZERO = encode(bytes(32))
# Points of order 1, 2, 4 and 8 and their other encodings, with which every agreement ends in zeros (RFC 7748 section 6.1).
_LOW_ORDER = (
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    2**255 - 20,
    2**255 - 19,
    2**255 - 18,
)


def agreements() -> Iterator[tuple[Suite, Keys, str, str]]:
    """All of them: (suite, keys, name, token)."""
    ours, theirs = (ec.derive_private_key(number, ec.SECP256R1()) for number in (0xB0B, 0xA11CE))
    yield from _around(
        P256, _jwk(JWK.from_pyca(ours)), JWK.from_pyca(theirs), theirs.exchange(ec.ECDH(), ours.public_key())
    )
    recipient, sender = (x25519.X25519PrivateKey.from_private_bytes(bytes([number] * 32)) for number in (1, 2))
    key = _jwk(JWK.from_pyca(recipient))
    yield from _around(X25519, key, JWK.from_pyca(sender), sender.exchange(recipient.public_key()))
    for point in _LOW_ORDER:
        epk = compact({"kty": "OKP", "crv": "X25519", "x": encode(point.to_bytes(32, "little"))}).decode()
        token = _sealed(key["kid"], f'"epk":{epk}', bytes(32))
        yield X25519, {"encryption": key}, f"epk of low order, {point}", token


def _around(suite: Suite, key: Jwk, sender: JWK, agreed: bytes) -> Iterator[tuple[Suite, Keys, str, str]]:
    private = {name: value for name, value in _jwk(sender).items() if name in {"kty", "crv", "x", "y", "d"}}
    good = public_half(private)
    text = compact(good).decode()

    def without(name: str) -> str:
        return compact({n: v for n, v in good.items() if n != name}).decode()

    def changed(**members: object) -> str:
        return compact(good | members).decode()

    x = good["x"]
    epks = {
        "genuine": text,
        "epk in another order": compact(dict(reversed(good.items()))).decode(),
        "epk with white space": json.dumps(good, indent=1),
        "epk with its private half": compact(private).decode(),
        "epk with a kid": changed(kid="1"),
        "epk with an alg": changed(alg="ECDH-ES+A256KW"),
        "epk with a use": changed(use="enc"),
        "epk with key_ops": changed(key_ops=["deriveKey"]),
        "epk with k": changed(k=_ZERO),
        "epk with an x5u": changed(x5u="http://127.0.0.1:9/"),
        "epk with another member": changed(trace={"a": []}),
        "epk twice": f'{text},"epk":{text}',
        "epk twice, first another": f'{{}},"epk":{text}',
        "a member of epk twice": f'{text[:-1]},"x":"{x}"}}',
        "a member of epk twice, first another": f'{{"x":"{_ZERO}",{text[1:]}',
        "epk without kty": without("kty"),
        "epk without crv": without("crv"),
        "epk without x": without("x"),
        "epk of another kty": changed(kty="RSA"),
        "epk, kty in lower case": changed(kty=good["kty"].lower()),
        "epk, crv in lower case": changed(crv=good["crv"].lower()),
        "epk of another curve": changed(crv="P-384"),
        "epk of no curve": changed(crv=""),
        "epk, crv null": changed(crv=None),
        "epk, kty a list": changed(kty=[good["kty"]]),
        "epk, x null": changed(x=None),
        "epk, x a number": changed(x=1),
        "epk, x a list": changed(x=[x]),
        "epk, x in hexadecimal": changed(x=decode(x).hex()),
        "epk, x padded": changed(x=f"{x}="),
        "epk, x with a newline": changed(x=f"{x}\n"),
        "epk, x with white space": changed(x=f"{x[:5]} {x[5:]}"),
        "epk, x with unused bits set": changed(x=x[:-1] + chr(ord(x[-1]) + 1)),
        "epk, x with a zero before": changed(x=encode(bytes(1) + decode(x))),
        "epk, x with a zero after": changed(x=encode(decode(x) + bytes(1))),
        "epk, x in 31 bytes": changed(x=encode(decode(x)[1:])),
        "epk a text": json.dumps(text),
        "epk a list": f"[{text}]",
        "epk null": "null",
        "epk empty": "{}",
        "epk the x alone": json.dumps(x),
    }
    if "y" in good:
        epks["epk without y"] = without("y")
        epks["epk, y null"] = changed(y=None)
        epks["epk, y with a zero before"] = changed(y=encode(bytes(1) + decode(good["y"])))
        epks["epk, x and y exchanged"] = changed(x=good["y"], y=x)
    else:
        epks["epk with a y"] = changed(y=_ZERO)
        epks["epk, kty EC"] = changed(kty="EC")
    for name, epk in epks.items():
        yield suite, {"encryption": key}, name, _sealed(key["kid"], f'"epk":{epk}', agreed)
    for name, members in {
        "no epk": '"trace":"1"',
        "epk in capitals": f'"EPK":{text}',
        "epk, x5c beside it": f'"epk":{text},"x5c":["AAAA"]',
        "epk, jwk instead": f'"jwk":{text}',
        "apu a number": f'"epk":{text},"apu":1',
        "apu null": f'"epk":{text},"apu":null',
        "apv not in base64url": f'"epk":{text},"apv":"*"',
        "iv and tag beside epk": f'"epk":{text},"iv":"{encode(b"i" * 12)}","tag":"{encode(b"t" * 16)}"',
    }.items():
        yield suite, {"encryption": key}, name, _sealed(key["kid"], members, agreed)
    parties = f'"epk":{text},"apu":"{encode(b"Alice")}","apv":"{encode(b"Bob")}"'
    yield suite, {"encryption": key}, "apu and apv", _sealed(key["kid"], parties, agreed, b"Alice", b"Bob")


def _sealed(kid: str, members: str, agreed: bytes, apu: bytes = b"", apv: bytes = b"") -> str:
    """A JWE under a header with these further members, JSON as it is, and the key that was agreed upon."""
    algorithm = b"ECDH-ES+A256KW"
    sized = b"".join(len(part).to_bytes(4, "big") + part for part in (algorithm, apu, apv))
    key = ConcatKDFHash(SHA256(), 32, sized + (256).to_bytes(4, "big")).derive(agreed)
    header = f'{{"alg":"ECDH-ES+A256KW","enc":"A256GCM","kid":"{kid}","typ":"{TYP}",{members}}}'
    return seal(header.encode(), PAYLOAD, wrapping=key)


def _jwk(key: JWK) -> Jwk:
    members: Jwk = json.loads(key.export_private())
    return members | {"alg": "ECDH-ES+A256KW", "kid": key.thumbprint(), "use": "enc"}
