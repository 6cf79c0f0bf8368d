"""The token engine and the sealing without cryptography: the same functions, at the names by which keeper, Issue and Validate call them.

A document is bytes that carry the ring; a token is a name in a table. What a wrong key, a damaged ring or a missing role does stays the
same. One thousandth of the cost, and no randomness.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType, SimpleNamespace
from typing import Any, cast

from sidecar import issue as issue_module, keeper as keeper_module, validate as validate_module
from sidecar.data_keys import DamagedRingError, DataKeys
from sidecar.errors import InvalidTokenError
from sidecar.gate import Gated
from sidecar.jose.keys import Material
from sidecar.keyring import KeyUse, Ring, Role
from sidecar.sealing import Opened, Signer


class Key:
    """A key of which only the name is known."""

    __slots__ = ("algorithm", "key_id", "private")

    def __init__(self, key_id: str, algorithm: str, *, private: bool) -> None:
        self.key_id, self.algorithm, self.private = key_id, algorithm, private


@dataclass(frozen=True, slots=True)
class _DataKeys:
    create_time: float
    public: bytes
    further: bool = False


class Sealed(bytes):
    """A document's content, and what it says."""

    ring: Ring
    material: Mapping[str, Key]
    data_keys: _DataKeys
    signers: tuple[Signer, ...]
    written: float = 0.0  # by the clock of who saved it, where the store has none


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a token: its header, the key that made it, and what is in it."""

    kid: str
    alg: str
    enc: str
    typ: str
    cty: str
    inside: bytes


class Engine:
    """All documents and tokens of one run."""

    def __init__(self) -> None:
        self._count = itertools.count(1)
        self.layers: dict[str, Layer] = {}

    # Keys and sealing

    def generate(self, algorithm: str, **_: object) -> Key:
        return Key(f"{'sig' if algorithm == 'ES256' else 'enc'}-{next(self._count)}", algorithm, private=True)

    async def fresh_data_keys(self, _kms: object, _profile: str, _store_id: str, now: float) -> _DataKeys:
        return _DataKeys(now, b"signer %d" % next(self._count))

    def seal_ring(
        self, ring: Ring, material: Mapping[str, Key], data_keys: _DataKeys, before: Opened | None = None
    ) -> Sealed:
        content = Sealed(b"%s revision %d, seal %d" % (ring.profile.encode(), ring.revision, next(self._count)))
        content.ring = ring
        content.material = {k.key_id: material[k.key_id] for k in ring.keys if k.compromise_time is None}
        content.data_keys = data_keys
        known = before.signers if before else ()
        renewed = not known or known[-1].public != data_keys.public
        content.signers = (*known, Signer(data_keys.public, b"")) if renewed else known
        return content

    async def open_ring(
        self,
        content: bytes,
        profile: str,
        revision: int,
        *,
        kms: Mapping[Role, object],
        **_: object,
    ) -> Opened:
        if not isinstance(content, Sealed) or (content.ring.profile, content.ring.revision) != (profile, revision):
            raise DamagedRingError(profile, "it is another one")
        found: dict[Role, dict[str, Key]] = {role: {} for role in Role}
        for role in kms:
            for key in content.ring.keys:
                if held := content.material.get(key.key_id):
                    private = role is (Role.ISSUE if key.use is KeyUse.SIGNATURE else Role.OPEN)
                    symmetric = key.use is KeyUse.ENCRYPTION
                    found[role][key.key_id] = (
                        held if private or symmetric else Key(held.key_id, held.algorithm, private=False)
                    )
        return Opened(
            content.ring,
            MappingProxyType(cast("dict[str, Material]", found[Role.ISSUE])),
            MappingProxyType(cast("dict[str, Material]", found[Role.OPEN])),
            cast("DataKeys", content.data_keys),
            content.signers,
            content,
        )

    # Tokens

    def sign(self, payload: bytes, key: Key, *, typ: str) -> str:
        return self._made("jws", Layer(key.key_id, key.algorithm, "", typ, "", payload))

    def encrypt(self, plaintext: bytes, key: Key, *, content: str, cty: str = "", typ: str = "") -> str:
        return self._made("jwe", Layer(key.key_id, key.algorithm, content, typ, cty, plaintext))

    def gate(self, text: str, *, segments: frozenset[int], **_: object) -> Gated:
        parts = tuple(text.split("."))
        if len(parts) not in segments:
            raise InvalidTokenError("gate.segments")
        layer = self.layers[text]
        return Gated(text, parts, {}, layer.alg, layer.enc, layer.kid, layer.typ, layer.cty)

    def opened(self, token: Gated, key: Key, **_: object) -> bytes:
        layer = self.layers[token.text]
        if layer.kid != key.key_id or layer.alg != key.algorithm:
            raise InvalidTokenError("jose.model")
        return layer.inside

    def _made(self, kind: str, layer: Layer) -> str:
        text = f"{kind}-{next(self._count)}" + {"jws": ".p.s", "jwe": ".k.i.c.t"}[kind]
        self.layers[text] = layer
        return text

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """In the places of the real ones, until the block ends."""
        silent = SimpleNamespace(**dict.fromkeys(("debug", "info", "warning", "error"), _nothing))
        with replaced(
            (keeper_module, "seal_ring", self.seal_ring),
            (keeper_module, "open_ring", self.open_ring),
            (keeper_module, "fresh_data_keys", self.fresh_data_keys),
            (keeper_module, "jose_keys", SimpleNamespace(generate=self.generate)),
            (keeper_module, "_log", silent),
            (issue_module, "sign", SimpleNamespace(sign=self.sign, size=_size)),
            (issue_module, "encrypt", SimpleNamespace(encrypt=self.encrypt, size=_size)),
            (validate_module, "gate", self.gate),
            (validate_module, "decrypt", self.opened),
            (validate_module, "verify", self.opened),
            (validate_module, "_remember", _nothing),
        ):
            yield


@contextlib.contextmanager
def replaced(*names: tuple[Any, str, object]) -> Iterator[None]:
    """Other values for these attributes, which must be there, until the block ends."""
    before = [(owner, name, inspect.getattr_static(owner, name)) for owner, name, _ in names]
    try:
        for owner, name, value in names:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def _size(length: int, *_: object, **__: object) -> int:
    return length


def _nothing(*_: object, **__: object) -> None:
    pass
