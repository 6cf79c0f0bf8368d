"""Issue: policy, claims, the active keys from memory, a token. No I/O on the way but the audit record."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

from sidecar import claims as claims_, refresh_tokens
from sidecar.audit import Audit
from sidecar.caller import Caller
from sidecar.claims import Claims
from sidecar.errors import InvalidRequestError, InvalidTokenError, RevokedSubjectError, Violation
from sidecar.gate import MAX_TOKEN
from sidecar.jose import encrypt, sign
from sidecar.keeper import Keeper
from sidecar.keyring import Settings
from sidecar.live import Issuing, LiveKey
from sidecar.logs import get_logger
from sidecar.metrics import Metrics
from sidecar.policy import Policy, Verb, Wanted
from sidecar.ports import Ended
from sidecar.possession import Bond
from sidecar.profile import Profile
from sidecar.refresh_tokens import Session

_log = get_logger()


class Grant(NamedTuple):
    """What a caller asks for. `ttl` in whole seconds, None: the profile's. `further`: a JSON object's text, or None.

    `bond`: the key that its presenter must prove to hold; None: whoever has the token may use it.
    """

    profile: str
    subject: str
    audiences: tuple[str, ...]
    ttl: int | None
    client_id: str
    scopes: tuple[str, ...]
    further: bytes | None
    bond: Bond | None = None
    with_refresh: bool = False


class Draft(NamedTuple):
    """A grant that was allowed: its claims, and the keys that will make the token."""

    claims: Claims
    keys: Issuing
    refresh: tuple[Session, bytes, LiveKey] | None = None

    @property
    def refresh_size(self) -> int:
        """The refresh token's size in bytes, exactly; 0: there will be none."""
        return refresh_tokens.size(*self.refresh[1:]) if self.refresh else 0

    @property
    def size(self) -> int:
        """The token's size in bytes, before it is made, exactly. Base64url within base64url where nested."""
        encryption, signature = self.keys.encryption, self.keys.signature
        length, typ, cty = len(self.claims.payload), self.keys.inner.facts.settings.typ, ""
        if signature:
            length, typ, cty = sign.size(length, signature.material, typ=typ), "", "JWT"
        if encryption:
            content = encryption.facts.settings.content
            length = encrypt.size(length, encryption.material, content=content, cty=cty, typ=typ)
        return length


class Issued(NamedTuple):
    """A token, and what was granted. `key_id` is that of the outermost layer."""

    token: str
    key_id: str
    claims: Claims
    refresh_token: str = ""
    refresh_expire_time: int = 0


class Issue:
    """The verb."""

    def __init__(self, keeper: Keeper, policy: Policy, audit: Audit, metrics: Metrics) -> None:
        self._keeper = keeper
        self._policy = policy
        self._audit = audit
        self._metrics = metrics
        self._warned: set[tuple[str, str]] = set()  # profiles times known names at most

    def __call__(self, caller: Caller, grant: Grant, request_id: str, token_id: str) -> Issued:
        """A token for the grant, or an error of the contract. `token_id` must be fresh and random."""
        with self._audit.decision(caller, Verb.ISSUE, grant.profile, request_id) as decision:
            with self._metrics.token(Verb.ISSUE, grant.profile):
                draft = self._draft(caller, grant, token_id)
                issued = self.made(draft)
            decision.facts.update(self.facts(issued))
        return issued

    def draft(self, caller: Caller, grant: Grant, request_id: str, token_id: str) -> Draft:
        """The first half, without effect: for a batch, whose size is judged before any token is made."""
        with (
            self._audit.decision(caller, Verb.ISSUE, grant.profile, request_id, quiet=True),
            self._metrics.token(Verb.ISSUE, grant.profile, quiet=True),
        ):
            return self._draft(caller, grant, token_id)

    def make(self, caller: Caller, draft: Draft, request_id: str) -> Issued:
        """The second half."""
        profile = draft.keys.profile.name
        with self._audit.decision(caller, Verb.ISSUE, profile, request_id) as decision:
            with self._metrics.token(Verb.ISSUE, profile):
                issued = self.made(draft)
            decision.facts.update(self.facts(issued))
        return issued

    @staticmethod
    def settings(keys: Issuing) -> Settings:
        """Those of the innermost key, which Validate goes by, with the shorter lifetime of both: neither key may be outlived."""
        inner, outer = keys.inner.facts.settings, keys.outer.facts.settings
        return replace(inner, max_ttl=min(inner.max_ttl, outer.max_ttl)) if outer.max_ttl < inner.max_ttl else inner

    def _draft(self, caller: Caller, grant: Grant, token_id: str) -> Draft:
        self._policy.check(caller, Verb.ISSUE, grant.profile)
        keys = self._keeper.issuing(grant.profile)
        claims = claims_.build(
            profile=keys.profile,
            settings=self.settings(keys),
            subject=grant.subject,
            audiences=grant.audiences,
            ttl=grant.ttl,
            client_id=grant.client_id or caller.name,
            scopes=grant.scopes,
            further=grant.further,
            token_id=token_id,
            now=self._keeper.now(),
            bond=grant.bond,
            family=token_id if grant.with_refresh else "",
        )
        self._warn_of_personal(claims, keys.profile)
        if self._policy.configured:
            self._policy.check_grant(caller, grant.profile, _wanted(claims))
        self._refuse_revoked(claims, keys.profile.name)
        for key in (keys.encryption, keys.signature):
            if key and key.facts.destroy_time is not None:
                settings = key.facts.settings
                if claims.expire_time > key.facts.destroy_time - settings.leeway - 2 * settings.max_skew:
                    raise InvalidRequestError(
                        Violation("ttl", "the token would outlive the key that makes it; ask for less")
                    )
        draft = Draft(claims, keys)
        if draft.size > keys.profile.max_token_bytes:
            raise InvalidRequestError(
                Violation(
                    "claims",
                    f"the token would have {draft.size} bytes, and profile {keys.profile.name!r} allows "
                    f"{keys.profile.max_token_bytes}; send fewer or shorter claims",
                )
            )
        return self._begun(draft, grant) if grant.with_refresh else draft

    def _begun(self, draft: Draft, grant: Grant) -> Draft:
        """The first pair of a refresh family, which has its id."""
        claims, profile = draft.claims, draft.keys.profile
        if not profile.refresh_ttl or profile.one_time:
            raise InvalidRequestError(
                Violation(
                    "with_refresh_token",
                    f"profile {profile.name!r} has no refresh tokens (profiles.NAME.refresh_ttl)",
                )
            )
        session = Session(
            family=claims.token_id,
            token_id=claims.token_id,
            began=claims.issue_time,
            issue_time=claims.issue_time,
            expire_time=claims.issue_time + profile.refresh_ttl,
            subject=claims.subject,
            audiences=claims.audiences,
            client_id=claims.client_id,
            scopes=claims.scopes,
            ttl=claims.expire_time - claims.issue_time,
            further=grant.further,
            bond=grant.bond,
        )
        return self.with_refresh(draft, session, claims.issue_time)

    def with_refresh(self, draft: Draft, session: Session, now: float) -> Draft:
        """The draft with a refresh token beside it that carries the session on, from then on."""
        profile, issued = draft.keys.profile, math.floor(now)
        key = self._keeper.refreshing(profile.name)
        if key is None:
            raise InvalidTokenError("key.unknown")
        lasts = min(profile.refresh_ttl, key.facts.settings.max_ttl)
        ends = min(issued + lasts, max(session.began + profile.refresh_max_ttl, issued + 1))
        following = replace(session, token_id=draft.claims.token_id, issue_time=issued, expire_time=ends)
        drafted = draft._replace(refresh=(following, refresh_tokens.payload(following, profile.issuer), key))
        if drafted.refresh_size > MAX_TOKEN:
            raise InvalidRequestError(
                Violation("claims", f"the refresh token would have {drafted.refresh_size} bytes, more than {MAX_TOKEN}")
            )
        return drafted

    def _refuse_revoked(self, claims: Claims, profile: str) -> None:
        """`RevokedSubjectError`: the token would be taken for one of those that have just been revoked."""
        denylist = self._keeper.denylist
        if denylist is not None and denylist.held:
            before = denylist.before(Ended.SUBJECT, profile, claims.subject)
            if claims.issue_time <= before:
                raise RevokedSubjectError(before + 1 - self._keeper.now())

    def _warn_of_personal(self, claims: Claims, profile: Profile) -> None:
        """Once for each name, and never with the value: whoever lists the claim means it."""
        for name in claims_.personal(claims, profile):
            if (profile.name, name) not in self._warned:
                self._warned.add((profile.name, name))
                advice = (
                    f"list it in profiles.{profile.name}.claims.allow if it is meant; every service on the way keeps it"
                )
                _log.warning("claims.personal", profile=profile.name, claim=name, advice=advice)

    def made(self, draft: Draft) -> Issued:
        """The token, and the refresh token beside it; recorded and counted by who asks."""
        keys, claims = draft.keys, draft.claims
        payload, typ, cty = claims.payload, keys.inner.facts.settings.typ, ""
        if keys.signature:
            payload = sign.sign(payload, keys.signature.material, typ=typ).encode()
            typ, cty = "", "JWT"
        if keys.encryption:
            content = keys.encryption.facts.settings.content
            token = encrypt.encrypt(payload, keys.encryption.material, content=content, cty=cty, typ=typ)
        else:
            token = payload.decode()
        if draft.refresh is None:
            return Issued(token, keys.outer.facts.key_id, claims)
        session, plain, key = draft.refresh
        return Issued(token, keys.outer.facts.key_id, claims, refresh_tokens.seal(plain, key), session.expire_time)

    def facts(self, issued: Issued) -> dict[str, object]:
        """For the record."""
        return {
            "key_id": issued.key_id,
            **self._audit.named(subject=issued.claims.subject, token_id=issued.claims.token_id),
            "expire_time": issued.claims.expire_time,
        }


def _wanted(claims: Claims) -> Wanted:
    """What the token would say, as far as policies limit it."""
    return Wanted(
        subject=claims.subject,
        audiences=claims.audiences,
        scopes=claims.scopes,
        client_id=claims.client_id,
        ttl=claims.expire_time - claims.issue_time,
        claims=claims.values.keys() - claims_.RESERVED,
    )
