"""Keys of another system, so that a profile opens or verifies what that system issues: JWK, JWK Set (RFC 7517) or PEM (RFC 7468).

Every key is as sound as one of ours would be (`keys`, `sound`): exact lengths, points on their curves, RSA of 2048 bits and more that is
not of CVE-2017-15361, halves that belong together. One that is not sound is refused with all the others. Only a key of another kind, or one
that says itself that it is for another algorithm or use, is passed over. The algorithm is never taken from a token.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from jwcrypto.jwk import JWK

from sidecar.jose import keys
from sidecar.jose.suites import SIGNATURES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sidecar.gate import Form
    from sidecar.jose.keys import Material

MAX_KEYS = 100
_IGNORED = frozenset({"key_ops", "ext", "x5c", "x5t", "x5t#S256", "x5u", "nbf", "exp", "iat", "alg", "use"})
"""Members that are not followed; `alg` and `use` are compared."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What a foreign profile opens with: keys by `kid`, and the form and the `typ`s (lower case, without application/) of its tokens.

    `files` is what the configuration says of the keys, and `digest` the SHA-256 of all that was read.
    """

    signature: Mapping[str, Material] = field(compare=False)
    encryption: Mapping[str, Material] = field(compare=False)
    form: Form
    typs: frozenset[str]
    files: Mapping[str, str]
    digest: str


def read(data: bytes, algorithm: str, *, key_id: str = "") -> Mapping[str, Material]:
    """The keys for this algorithm in a JWK, a JWK Set or a PEM, by `kid`.

    `key_id` names a single key that has no `kid`; without one, an asymmetric key is named by its RFC 7638 thumbprint. `ValueError` says
    which key is no good, and quotes nothing of it.
    """
    found = _found(data, algorithm, key_id)
    if not found:
        raise ValueError(f"no key for {algorithm} is in it")
    if key_id and (len(found) > 1 or key_id not in found):
        raise ValueError("a key id is given, and the keys have others")
    return MappingProxyType(found)


def signatures(data: bytes, algorithms: Sequence[str]) -> Mapping[str, Material]:
    """The public keys of all these signature algorithms in a JWK Set, by `kid`. `ValueError` as for `read`, and for a private key."""
    found: dict[str, Material] = {}
    for algorithm in algorithms:
        for key_id, material in _found(data, algorithm, "").items():
            if key_id in found:
                raise ValueError("two keys have the same kid")
            if material.private:
                raise ValueError("it holds a private key, which is nobody's to publish")
            found[key_id] = material
    if not found:
        raise ValueError(f"no key for {', '.join(algorithms)} is in it")
    return MappingProxyType(found)


def _found(data: bytes, algorithm: str, key_id: str) -> dict[str, Material]:
    found: dict[str, Material] = {}
    for number, members in enumerate(_members(data), 1):
        kty, curves = keys.kinds(algorithm)
        if members.get("alg", algorithm) != algorithm or members.get("use", _use(algorithm)) != _use(algorithm):
            continue
        if members.get("kty") not in kty or (curves and members.get("crv") not in curves):
            continue
        material = _material(members, algorithm, key_id, number)
        if material.key_id in found:
            raise ValueError(f"key {number} has the kid of another key")
        found[material.key_id] = material
    return found


def _use(algorithm: str) -> str:
    return "sig" if algorithm in SIGNATURES else "enc"


def _members(data: bytes) -> list[dict[str, object]]:
    if data.lstrip()[:11] == b"-----BEGIN ":
        if b"CERTIFICATE" in data:
            raise ValueError("it is a certificate, whose end nobody would watch here; give its key")
        try:
            jwk = JWK.from_pem(data)
            return [{n: v for n, v in json.loads(jwk.export(private_key=jwk.has_private)).items() if n != "kid"}]
        except Exception:  # noqa: BLE001 # the libraries' words may quote a secret
            raise ValueError("it is not one key in PEM without a password") from None
    try:
        found = json.loads(data.decode("utf-8"), object_pairs_hook=keys.unique)
        members = found["keys"] if isinstance(found, dict) and "keys" in found else [found]
    except (ValueError, RecursionError):
        raise ValueError("it is neither PEM nor JSON without duplicate names") from None
    if (
        not isinstance(members, list)
        or not 0 < len(members) <= MAX_KEYS
        or not all(isinstance(m, dict) for m in members)
    ):
        raise ValueError(f"it is not a JWK, nor a JWK Set of 1 to {MAX_KEYS} keys")
    return members


def _material(members: dict[str, object], algorithm: str, key_id: str, number: int) -> Material:
    try:
        own = {name: value for name, value in members.items() if name not in _IGNORED}
        if "kid" not in own:
            thumbprint = "" if own.get("kty") == "oct" else JWK(**own).thumbprint()
            own["kid"] = key_id or thumbprint
        name = own["kid"]
        if not isinstance(name, str) or not 1 <= len(name) <= 256 or not (name.isascii() and name.isprintable()):
            raise ValueError("kid")
        return keys.imported({**own, "alg": algorithm, "use": _use(algorithm)}, algorithm)
    except Exception:  # noqa: BLE001 # whatever the libraries raise on nonsense; their words may quote a secret
        raise ValueError(
            f"key {number} is not a sound key for {algorithm}: its kind, a length, a number or its kid (1 to 256 printable ASCII characters)"
        ) from None
