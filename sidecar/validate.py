"""Validate: gate, key by kid, open, verify, claims. In memory, but for one bounded refresh when a kid is unknown.

A one-time token is consumed in the store, after every other check (keys.md, rule 16). Up to and including the innermost authentication, and the form of the claims, every failure is the same `InvalidTokenError`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import NamedTuple

from sidecar import claims as claims_, possession
from sidecar.audit import Audit, Decision
from sidecar.caller import Caller
from sidecar.claims import Claims
from sidecar.commits import Commits
from sidecar.denylist import Denylist, digest_of
from sidecar.errors import (
    ConsumedTokenError,
    InvalidTokenError,
    RevokedTokenError,
    UnavailableStoreError,
    UnprovenPossessionError,
)
from sidecar.failpoints import failpoint
from sidecar.gate import JWE, JWS, OWN, Form, Gated, foreign, gate, remember
from sidecar.jose.encrypt import decrypt
from sidecar.jose.sign import verify
from sidecar.jose.suites import KEY_MANAGEMENT
from sidecar.keeper import Keeper
from sidecar.keyring import Key, KeyUse, Settings
from sidecar.live import Found, LiveKey
from sidecar.metrics import Metrics, TokenCount
from sidecar.policy import Policy, Verb
from sidecar.ports import Ended, Ledger
from sidecar.possession import Evidence, Proven
from sidecar.profile import Format, Profile
from sidecar.replay import Replay


class Demand(NamedTuple):
    """A token, and what the caller demands of it: one of these audiences, one of these profiles, all of these scopes.

    `evidence`: what its presenter showed of the key that it may be bound to.
    `min_revision`: the revocations up to there must be held. `request_id`: of a one-time token, a repeat of it gets the same answer.
    """

    token: str
    audiences: tuple[str, ...]
    profiles: tuple[str, ...]
    scopes: tuple[str, ...]
    evidence: Evidence | None = None
    min_revision: int = 0
    request_id: str = ""


class Accepted(NamedTuple):
    """A token that is good now. `key_id` is that of the outermost layer; `proven` None: it is bound to no key.

    `revocation_revision`: all revocations up to there were held; 0: there are none.
    """

    profile: str
    key_id: str
    ring_revision: int
    claims: Claims
    proven: Proven | None = None
    revocation_revision: int = 0


class Judged(NamedTuple):
    """A token that passed every check that has no effect. `settle` does the rest: a proof is taken once, a one-time token consumed."""

    accepted: Accepted
    found: Found
    settings: Settings
    now: float

    @property
    def unsettled(self) -> bool:
        """Whether anything is left to be done or recorded; most tokens are good without."""
        proven, profile = self.accepted.proven, self.found.profile
        return profile.one_time or profile.audit_validations or bool(proven and proven.proof)


class _Opened(NamedTuple):
    """What was authenticated: the innermost payload, the outermost key, and what the innermost key was made for."""

    outer: Found
    payload: bytes
    settings: Settings


class Validate:
    """The verb. `imported`: profiles whose keys another system made, by name; they have no ring."""

    def __init__(
        self,
        keeper: Keeper,
        policy: Policy,
        audit: Audit,
        metrics: Metrics,
        imported: Mapping[str, Profile] = MappingProxyType({}),
        *,
        ledger: Ledger | None = None,
        commits: Commits | None = None,
    ) -> None:
        self._keeper = keeper
        self._imported = {name: _Imported(profile) for name, profile in imported.items()}
        self._policy = policy
        self._audit = audit
        self._metrics = metrics
        self._replay = Replay()
        self._ledger = ledger
        self._commits = commits or Commits()

    async def __call__(self, caller: Caller, demand: Demand, request_id: str) -> Accepted:
        """What the token says, or the first error of the contract that applies."""
        asked = demand.profiles[0] if len(demand.profiles) == 1 else ""
        with (
            self._audit.decision(caller, Verb.VALIDATE, asked, request_id, quiet=True) as decision,
            self._metrics.token(Verb.VALIDATE, asked) as counted,
        ):
            judged = await self._judge(caller, demand, counted)
            if judged.unsettled:
                await self._settle(caller, judged, demand, decision)
            return judged.accepted

    async def judge(self, caller: Caller, demand: Demand, request_id: str) -> Judged:
        """The first half, without effect: for a batch, whose size is judged before any token is consumed. All of it, unless `unsettled`."""
        asked = demand.profiles[0] if len(demand.profiles) == 1 else ""
        with (
            self._audit.decision(caller, Verb.VALIDATE, asked, request_id, quiet=True),
            self._metrics.token(Verb.VALIDATE, asked) as counted,
        ):
            judged = await self._judge(caller, demand, counted)
            counted.quiet = judged.unsettled
            return judged

    async def settle(self, caller: Caller, judged: Judged, demand: Demand, request_id: str) -> None:
        """The second half."""
        profile = judged.accepted.profile
        with (
            self._audit.decision(caller, Verb.VALIDATE, profile, request_id, quiet=True) as decision,
            self._metrics.token(Verb.VALIDATE, profile),
        ):
            await self._settle(caller, judged, demand, decision)

    async def _judge(self, caller: Caller, demand: Demand, counted: TokenCount) -> Judged:
        for profile in demand.profiles:
            self._policy.check(caller, Verb.VALIDATE, profile)
        if demand.min_revision:
            await self._keeper.reach(demand.min_revision)
        denylist = self._keeper.denylist
        revision = denylist.revision if denylist else 0  # before the look-up: what is taken in meanwhile only adds
        opened = await self._open(demand, caller)
        found = opened.outer
        counted.profile = found.profile.name
        now = self._keeper.now()
        claims = claims_.parse(opened.payload, foreign=found.profile.imported is not None)
        claims_.check(
            claims,
            issuer=found.profile.issuer,
            settings=opened.settings,
            audiences=demand.audiences,
            now=now,
            one_time=found.profile.one_time,
        )
        if denylist and denylist.held and revoked(denylist, found.profile.name, claims):
            raise RevokedTokenError
        proven = None
        if claims.bound or demand.evidence is not None:
            proven = possession.prove(
                claims.values.get("cnf"),
                demand.evidence,
                token=demand.token,
                now=now,
                max_age=found.profile.proof_age,
                leeway=opened.settings.leeway,
            )
        claims_.check_scopes(claims, demand.scopes)
        accepted = Accepted(found.profile.name, found.key.facts.key_id, found.ring_revision, claims, proven, revision)
        return Judged(accepted, found, opened.settings, now)

    async def _settle(self, caller: Caller, judged: Judged, demand: Demand, decision: Decision) -> None:
        """What has an effect, last of all; then the record of it."""
        profile, accepted = judged.found.profile, judged.accepted
        if accepted.proven and accepted.proven.proof:
            await self._take(judged, accepted.proven, demand)
        if profile.one_time:
            await self._commits.run(self._consume(caller, judged, demand, decision.request_id))
        elif profile.audit_validations:
            decision.quiet, decision.profile = False, profile.name
            decision.facts = self._facts(accepted)

    async def _take(self, judged: Judged, proven: Proven, demand: Demand) -> None:
        """Take the proof, here or for all of the store's sidecars. `UnprovenPossessionError`; `UnavailableStoreError`: nobody can know."""
        profile = judged.found.profile
        request = sha256(demand.request_id.encode()).digest()[:16] if demand.request_id else b""
        if profile.proof_replay != "fleet":
            self._replay.take(profile.name, proven.proof, proven.until, judged.now, request)
            return
        if self._ledger is None:
            raise UnavailableStoreError("the store does not remember which proofs were used")
        known = sha256(b"dpop." + profile.name.encode() + b"." + proven.proof).digest()[:16]
        until = math.ceil(proven.until + 2 * judged.settings.max_skew)
        if not await self._commits.run(self._ledger.consume(known, request, until)):
            raise UnprovenPossessionError(stage="possession.replayed")

    async def _consume(self, caller: Caller, judged: Judged, demand: Demand, request_id: str) -> None:
        """Consume the token and put it on record. `ConsumedTokenError`; `UnavailableStoreError`: nobody can know."""
        accepted = judged.accepted
        with self._audit.decision(caller, Verb.VALIDATE, accepted.profile, request_id) as decision:
            decision.facts = self._facts(accepted)
            if self._ledger is None:
                raise UnavailableStoreError("the store does not remember which tokens were used")
            await decision.intend_to_spend()
            failpoint("consume.judged")
            consumed = await self._ledger.consume(
                digest_of(Ended.TOKEN, accepted.profile, accepted.claims.token_id),
                sha256(demand.request_id.encode()).digest()[:16] if demand.request_id else b"",
                math.ceil(accepted.claims.expire_time + 2 * judged.settings.max_skew),
            )
            failpoint("consume.held")
            if not consumed:
                raise ConsumedTokenError
        failpoint("consume.recorded")

    def _facts(self, accepted: Accepted) -> dict[str, object]:
        claims = accepted.claims
        return {
            "key_id": accepted.key_id,
            **self._audit.named(subject=claims.subject, token_id=claims.token_id),
            "expire_time": claims.expire_time,
        }

    async def genuine(self, caller: Caller, token: str, profiles: tuple[str, ...]) -> tuple[str, Claims]:
        """The profile and the claims of a token of ours, whether it is good by now or not. `InvalidTokenError`: it is none of these profiles'."""
        opened = await self._open(Demand(token, (), profiles, ()), caller)
        profile, claims = opened.outer.profile, claims_.parse(opened.payload)
        if claims.issuer != profile.issuer:
            raise InvalidTokenError("claims.issuer")
        return profile.name, claims

    async def _open(self, demand: Demand, caller: Caller) -> _Opened:
        # By the token alone: what this sidecar has seen of the rings may be older than the profile's change to such tokens.
        if demand.token.count(".") == 2:
            return await self._open_signed(demand, caller)
        form = self._form(demand.profiles)
        outer = gate(demand.token, segments=JWE, form=form)
        found = await self._key(demand.profiles, outer, KeyUse.ENCRYPTION, form)
        settings = found.key.facts.settings
        opened = decrypt(outer, found.key.material, content=settings.content)
        if settings.format is Format.ENCRYPTED:
            if not KEY_MANAGEMENT[found.key.facts.algorithm].symmetric:  # anybody could have made it
                raise InvalidTokenError("key.public")
            self._expect_typ(outer, found)
            _remember(found, outer)
            return _Opened(found, opened, settings)
        _expect(outer, cty="JWT", typ="")
        try:
            text = opened.decode("ascii")
        except UnicodeDecodeError:
            raise InvalidTokenError("nested.text") from None
        form = self._form((found.profile.name,))
        inner = gate(text, segments=JWS, form=form)
        # The inner key must be of the outer key's own profile, whatever else was asked for.
        signer = await self._key((found.profile.name,), inner, KeyUse.SIGNATURE, form)
        self._expect_typ(inner, signer)
        payload = verify(inner, signer.key.material)
        _remember(found, outer, inner)
        return _Opened(found, payload, signer.key.facts.settings)

    async def _open_signed(self, demand: Demand, caller: Caller) -> _Opened:
        """A token that is signed alone: of format signed, or of a nested profile that still accepts such (`accept_signed_until`)."""
        form = self._form(demand.profiles)
        token = gate(demand.token, segments=JWS, form=form)
        found = await self._key(demand.profiles, token, KeyUse.SIGNATURE, form)
        self._expect_typ(token, found)
        payload = verify(token, found.key.material)
        if found.key.facts.settings.format is not Format.SIGNED:
            profile, accepted = found.profile, self._still_accepts_signed(found.profile)
            if profile.accept_signed_until is not None or profile.report_only:
                self._metrics.count_plain(profile.name, caller.name, accepted=accepted)
            if not accepted:
                raise InvalidTokenError("key.format")
        _remember(found, token)
        return _Opened(found, payload, found.key.facts.settings)

    def _still_accepts_signed(self, profile: Profile) -> bool:
        until = profile.accept_signed_until
        return profile.report_only or (until is not None and self._keeper.now() < until)

    def _form(self, profiles: tuple[str, ...]) -> Form:
        """The form of tokens that these profiles' tokens can have. With a foreign one among them `_key` holds our own to the strict form."""
        if not self._imported:
            return OWN
        forms = [self._imported[name].form for name in profiles if name in self._imported]
        return foreign(frozenset().union(*(form.tolerated for form in forms))) if forms else OWN

    async def _key(self, profiles: tuple[str, ...], layer: Gated, use: KeyUse, form: Form) -> Found:
        own = profiles
        if form is not OWN:
            if found := self._imported_key(profiles, layer, use):
                return found
            own = tuple(name for name in profiles if name not in self._imported)
            gate(layer.text, segments=frozenset({len(layer.segments)}))
        if not own:
            raise InvalidTokenError("key.unknown")
        found = self._keeper.find(own, layer.kid, use) or await self._keeper.find_or_refresh(own, layer.kid, use)
        if found is None:
            raise InvalidTokenError("key.unknown")
        if found.key.facts.algorithm != layer.alg or found.key.facts.settings.content != layer.enc:
            raise InvalidTokenError("key.algorithm")
        return found

    def _imported_key(self, profiles: tuple[str, ...], layer: Gated, use: KeyUse) -> Found | None:
        """The one imported key of that kid among those of these profiles, if the header has its profile's form.

        Other systems name their keys as they like. Where two of them use one name, a token does not say whose it is, and keys are not
        tried in turn: whoever asks must name one of the two profiles.
        """
        fitting = [
            (imported, found)
            for name in dict.fromkeys(profiles)
            if (imported := self._imported.get(name)) and (found := imported.found.get((use, layer.kid)))
        ]
        if not fitting:
            return None
        if len(fitting) > 1:
            raise InvalidTokenError("key.ambiguous")
        imported, found = fitting[0]
        gate(layer.text, segments=frozenset({len(layer.segments)}), form=imported.form)
        if found.key.facts.algorithm != layer.alg or found.key.facts.settings.content != layer.enc:
            raise InvalidTokenError("key.algorithm")
        return found

    def _expect_typ(self, layer: Gated, found: Found) -> None:
        """The innermost layer says what kind of token this is, and holds nothing further."""
        imported = found.profile.imported
        if layer.cty or layer.typ not in (imported.typs if imported else (found.key.facts.settings.typ,)):
            raise InvalidTokenError("header.typ")


def revoked(denylist: Denylist, profile: str, claims: Claims) -> bool:
    """Whether the token is, by its id, its subject or its family."""
    family = claims.values.get("sid")
    return denylist.revoked(
        profile,
        token_id=claims.token_id,
        subject=claims.subject,
        family=family if isinstance(family, str) else "",
        issued=claims.issue_time,
    )


class _Imported:
    """A profile of another system's tokens, with its keys as a ring would show them: always active, and made for what config says."""

    def __init__(self, profile: Profile) -> None:
        imported = profile.imported
        assert imported is not None  # noqa: S101 # what makes the profile an imported one
        self.profile, self.form = profile, imported.form
        by_use = {KeyUse.SIGNATURE: imported.signature, KeyUse.ENCRYPTION: imported.encryption}
        self.found = {
            (use, kid): Found(
                profile, 0, LiveKey(Key(kid, use, key.algorithm, Settings.of(profile, use), 0.0, 0.0), key)
            )
            for use, keys in by_use.items()
            for kid, key in keys.items()
        }


def _remember(found: Found, *layers: Gated) -> None:
    if found.profile.imported is None:
        for layer in layers:
            remember(layer)


def _expect(layer: Gated, *, cty: str, typ: str) -> None:
    if layer.cty != cty or layer.typ != typ:
        raise InvalidTokenError("header.typ")
