"""Validate: gate, key by kid, open, verify, claims. Memory only, but for one bounded refresh when a kid is unknown.

Up to and including the innermost authentication, and the form of the claims, every failure is the same `InvalidTokenError`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sidecar import claims as claims_
from sidecar.audit import Audit
from sidecar.caller import Caller
from sidecar.claims import Claims
from sidecar.errors import InvalidTokenError
from sidecar.gate import Gated, gate
from sidecar.jose.encrypt import decrypt
from sidecar.jose.sign import verify
from sidecar.keeper import Keeper
from sidecar.keyring import KeyUse, Settings
from sidecar.live import Found
from sidecar.metrics import Metrics
from sidecar.policy import Policy, Verb
from sidecar.profile import Format

_JWE = frozenset({5})
_JWS = frozenset({3})


@dataclass(frozen=True, slots=True)
class Demand:
    """A token, and what the caller demands of it: one of these audiences, one of these profiles, all of these scopes."""

    token: str
    audiences: tuple[str, ...]
    profiles: tuple[str, ...]
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A token that is good now. `key_id` is that of the outermost layer."""

    profile: str
    key_id: str
    ring_revision: int
    claims: Claims


class Validate:
    """The verb."""

    def __init__(self, keeper: Keeper, policy: Policy, audit: Audit, metrics: Metrics) -> None:
        self._keeper = keeper
        self._policy = policy
        self._audit = audit
        self._metrics = metrics

    async def __call__(self, caller: Caller, demand: Demand, request_id: str) -> Accepted:
        """What the token says, or the first error of the contract that applies."""
        asked = demand.profiles[0] if len(demand.profiles) == 1 else ""
        with (
            self._audit.decision(caller, Verb.VALIDATE, asked, request_id, quiet=True) as decision,
            self._metrics.token(Verb.VALIDATE, asked) as counted,
        ):
            for profile in demand.profiles:
                self._policy.check(caller, Verb.VALIDATE, profile)
            found, payload, settings = await self._open(demand)
            counted.profile = found.profile.name
            claims = claims_.parse(payload)
            claims_.check(
                claims,
                issuer=found.profile.issuer,
                settings=settings,
                audiences=demand.audiences,
                required_scopes=demand.scopes,
                now=self._keeper.now(),
            )
            if found.profile.audit_validations:
                decision.quiet, decision.profile = False, found.profile.name
                decision.facts = {
                    "key_id": found.key.facts.key_id,
                    "subject_hash": self._audit.hashed(claims.subject),
                    "token_id_hash": self._audit.hashed(claims.token_id),
                    "expire_time": claims.expire_time,
                }
            return Accepted(found.profile.name, found.key.facts.key_id, found.ring_revision, claims)

    async def _open(self, demand: Demand) -> tuple[Found, bytes, Settings]:
        """The innermost payload, authenticated; the outermost key; and what the innermost key was made for."""
        outer = gate(demand.token, segments=_JWE)
        found = await self._key(demand.profiles, outer, KeyUse.ENCRYPTION)
        settings = found.key.facts.settings
        opened = decrypt(outer, found.key.material, content=settings.content)
        if settings.format is Format.ENCRYPTED:
            _expect(outer, cty="", typ=settings.typ)
            return found, opened, settings
        _expect(outer, cty="JWT", typ="")
        try:
            text = opened.decode("ascii")
        except UnicodeDecodeError:
            raise InvalidTokenError("nested.text") from None
        inner = gate(text, segments=_JWS)
        # The inner key must be of the outer key's own profile, whatever else was asked for.
        signer = await self._key((found.profile.name,), inner, KeyUse.SIGNATURE)
        _expect(inner, cty="", typ=signer.key.facts.settings.typ)
        return found, verify(inner, signer.key.material), signer.key.facts.settings

    async def _key(self, profiles: tuple[str, ...], layer: Gated, use: KeyUse) -> Found:
        found = self._keeper.find(profiles, layer.kid, use) or await self._keeper.find_or_refresh(
            profiles, layer.kid, use
        )
        if found is None:
            raise InvalidTokenError("key.unknown")
        if found.key.facts.algorithm != layer.alg or found.key.facts.settings.content != layer.enc:
            raise InvalidTokenError("key.algorithm")
        return found


def _expect(layer: Gated, *, cty: str, typ: str) -> None:
    if layer.cty != cty or layer.typ != typ:
        raise InvalidTokenError("header.typ")
