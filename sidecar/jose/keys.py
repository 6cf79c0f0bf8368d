"""Key material: made, loaded and written out here and nowhere else, as JWKs (RFC 7517). One key, one algorithm (RFC 8725 section 3.1).

A JWK is parsed once, when it is loaded. A `Material` cannot be printed, copied or pickled; the memory it was in is not wiped.
"""

from __future__ import annotations

import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import NoReturn

from jwcrypto.jwk import JWK

from sidecar.jose import prepared, sound
from sidecar.jose.suites import AGREEMENT_CURVES, CONTENT, CURVES, KEY_MANAGEMENT, RSA_FRESH, SIGNATURES, Management

PREPARED, REFERENCE = ENGINES = ("prepared", "jwcrypto")
"""`prepared` where it has the suite, and jwcrypto for the rest; or jwcrypto alone."""

_engine = PREPARED
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "k"})
_RSA_PUBLIC = frozenset({"n", "e"})
_RSA_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi"})


class Material:
    """One key and its one algorithm; made by `generate`, `load` and `imported` only.

    `key_id` is the RFC 7638 thumbprint of an asymmetric key, random for a symmetric one, where a thumbprint would be a hash of the secret,
    and whatever its owner chose for an imported one. `private`: it signs, or it decrypts; what is not private verifies, or encrypts.
    `curve` is empty for RSA and symmetric keys; `size` is the length in bytes of a symmetric key or an RSA modulus. `jwk` and `prepared`,
    the key as each engine takes it, are for this package alone.
    """

    __slots__ = ("_members", "algorithm", "curve", "jwk", "key_id", "prepared", "private", "size", "symmetric")

    def __init__(self, members: dict[str, str], *, own: bool = True) -> None:
        self._members = members
        self.algorithm = members["alg"]
        self.key_id = members["kid"]
        self.symmetric = "k" in members
        self.private = self.symmetric or "d" in members
        self.curve = members.get("crv", "")
        self.size = len(_decoded(members.get("k") or members.get("n", "")))
        self.jwk = JWK(**members)
        # Primes of our own keys are not tested again, which takes 150 ms: they come out of a sealed ring.
        self.jwk.unsafe_skip_rsa_key_validation = own
        signs = self.algorithm in SIGNATURES
        # Parses and keeps the library's key now: on the curve, and the private half is that of the public one.
        public = self.jwk.get_op_key("verify" if signs else "wrapKey")
        private = self.jwk.get_op_key("sign" if signs else "unwrapKey") if self.private else None
        self.prepared: prepared.Signature | prepared.Encryption | None = None
        if _engine == PREPARED:
            match self.algorithm, self.curve:
                case "ES256", _:
                    self.prepared = prepared.es256(self.key_id, public, private)
                case "Ed25519" | "EdDSA", _:
                    self.prepared = prepared.ed25519(self.algorithm, self.key_id, public, private)
                case "A256KW", _:
                    self.prepared = prepared.a256kw(self.key_id, _decoded(members["k"]))
                case "ECDH-ES+A256KW", "P-256":
                    self.prepared = prepared.p256(self.key_id, public, private)
                case "ECDH-ES+A256KW", "X25519":
                    self.prepared = prepared.x25519(self.key_id, public, private)

    def private_bytes(self) -> bytes:
        """The whole key as a JSON Web Key, secret included, for sealing. `ValueError` where there is only a public half."""
        if not self.private:
            raise ValueError(f"{self!r} has no private half")
        return _json(self._members)

    def public_bytes(self) -> bytes | None:
        """The public JWK, with `alg`, `kid` and `use`; None for a symmetric key, which has nothing public."""
        return None if self.symmetric else _json(self._public_members())

    def public(self) -> Material:
        """The same key, able to verify or to encrypt only. `ValueError` for a symmetric key."""
        if self.symmetric:
            raise ValueError(f"{self!r} is symmetric: it has no public half")
        return Material(self._public_members())

    def _public_members(self) -> dict[str, str]:
        return {name: value for name, value in self._members.items() if name not in _PRIVATE}

    def __repr__(self) -> str:
        return f"Material({self.algorithm} {self.key_id})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("key material is neither copied nor pickled")


def choose_engine(name: str) -> str:
    """Which engine serves the keys that are loaded from now on: one of `ENGINES`; gives the former. `ValueError`: there is no such."""
    global _engine  # one for the process, chosen before it loads a key
    if name not in ENGINES:
        raise ValueError(f"no such engine: {name}")
    former, _engine = _engine, name
    return former


def generate(algorithm: str, *, curve: str = AGREEMENT_CURVES[0]) -> Material:
    """A fresh key; `curve` is for key agreement, where the algorithm leaves the choice.

    RSA keys take a quarter of a second. `ValueError`: no such algorithm or curve, or no tokens are made under it.
    """
    suite = SIGNATURES.get(algorithm) or KEY_MANAGEMENT.get(algorithm)
    if suite is None or not suite.makes:
        raise ValueError(f"no such algorithm to make tokens under: {algorithm}")
    named = {"alg": algorithm, "use": "sig" if algorithm in SIGNATURES else "enc"}
    kty, crv, length = _kind(algorithm, curve)
    if kty == "oct":
        return Material({"kty": "oct", "k": _random(length), "kid": _random(16), **named})
    jwk = JWK.generate(kty=kty, size=RSA_FRESH * 8) if kty == "RSA" else JWK.generate(kty=kty, crv=crv)
    return Material({**json.loads(jwk.export_private()), "kid": jwk.thumbprint(), **named})


def load(data: bytes, algorithm: str) -> Material:
    """A key from what `private_bytes` or `public_bytes` wrote, and from nothing else.

    `ValueError` if it has other members, another algorithm, other lengths, a point off its curve, halves that do not belong together, or
    an id that is not its own. The message never quotes the data.
    """
    try:
        members = json.loads(data.decode("utf-8"), object_pairs_hook=unique)
        return imported(members, algorithm, own=True)
    except Exception:  # noqa: BLE001 # whatever the libraries raise on nonsense; their words may quote a secret
        raise ValueError(f"this is not a key for {algorithm} as this version writes them") from None


def imported(members: object, algorithm: str, *, own: bool = False) -> Material:
    """A key from exactly these members of a JWK, `alg`, `kid` and `use` among them.

    `own`: the key is one of ours, named by `generate` and, where symmetric, of the length that it makes. `ValueError`, or whatever the
    libraries raise, where it is not sound; the words may quote a secret.
    """
    if not isinstance(members, dict):
        raise TypeError("not an object")
    kty, curve, length = _kind(algorithm, str(members.get("crv", "")))
    named = {"alg": algorithm, "use": "sig" if algorithm in SIGNATURES else "enc", "kty": kty}
    if curve:
        named["crv"] = curve
    if any(members.get(name) != value for name, value in named.items()):
        raise ValueError("alg, use, kty or crv")
    values = {name: value for name, value in members.items() if name not in named and name != "kid"}
    raw = {name: _decoded(value) for name, value in values.items()}
    if kty == "oct":
        lengths = {c.key for c in CONTENT.values()} if algorithm == "dir" else {length}
        if raw.keys() != {"k"} or (
            len(raw["k"]) not in lengths and (own or algorithm != "HS256" or len(raw["k"]) < 32)
        ):
            raise ValueError("k")
    elif kty == "RSA":
        if raw.keys() not in (_RSA_PUBLIC, _RSA_PUBLIC | _RSA_PRIVATE):
            raise ValueError("members")
        sound.rsa(raw)
    else:
        shape = CURVES[curve]
        public = {"x", "y"} if shape.y else {"x"}
        if raw.keys() not in (public, public | {"d"}) or any(len(value) != shape.coordinate for value in raw.values()):
            raise ValueError("members")
        if kty == "OKP":
            sound.okp(curve, raw["x"], raw.get("d"))
    material = Material({name: str(value) for name, value in members.items()}, own=own)
    thumbprint = None if material.symmetric else material.jwk.thumbprint()
    if own and (len(_decoded(material.key_id)) != 16 if thumbprint is None else material.key_id != thumbprint):
        raise ValueError("kid")
    return material


def kinds(algorithm: str) -> tuple[frozenset[str], frozenset[str]]:
    """The `kty` and, unless it is RSA or symmetric, the `crv` that a key for this algorithm can have."""
    agrees = algorithm in KEY_MANAGEMENT and KEY_MANAGEMENT[algorithm].agrees
    found = [_kind(algorithm, curve) for curve in (AGREEMENT_CURVES if agrees else ("",))]
    return frozenset(kty for kty, _, _ in found), frozenset(curve for _, curve, _ in found if curve)


def _kind(algorithm: str, curve: str) -> tuple[str, str, int]:
    """The `kty` and `crv` of a key for this algorithm, and the length of a symmetric one. `ValueError`: no such curve for it."""
    if signature := SIGNATURES.get(algorithm):
        return signature.kty, signature.curve, signature.signature if signature.kty == "oct" else 0
    management = KEY_MANAGEMENT[algorithm]
    if management.how is Management.RSA:
        return "RSA", "", 0
    if not management.agrees:
        return "oct", "", management.key
    if curve not in AGREEMENT_CURVES:
        raise ValueError(f"no such curve for {algorithm}: {curve}")
    return CURVES[curve].kty, curve, 0


def _decoded(value: object) -> bytes:
    """Strict base64url: what it decodes to encodes to the same text. `ValueError`: anything else."""
    raw = urlsafe_b64decode(value + "=" * (-len(value) % 4)) if isinstance(value, str) else b""
    if _encode(raw) != value:
        raise ValueError("not canonical base64url")
    return raw


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object without duplicate names. `ValueError`: it has some."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _random(length: int) -> str:
    return _encode(secrets.token_bytes(length))


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _json(members: dict[str, str]) -> bytes:
    return json.dumps(members, separators=(",", ":"), sort_keys=True).encode()
