"""Service account tokens of Kubernetes as credentials: who calls is `k8s:NAMESPACE/NAME`.

https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/ and KEP-1205 describe them.

Rules:
 1. The form is declared in the gate: a compact JWS with `alg`, `kid` and perhaps `typ` in its header. `kid` names one key of the cluster, whose
    own algorithm it is: RS256, ES256 or ES384.
 2. `iss` is the cluster's; `aud` is the sidecar's audience and nobody's else: a token that others receive too could be used here by them.
 3. `exp`, `iat` and `nbf` with 5 s of leeway, and `exp - iat` within a bound: the tokens of Secrets, which never end, are none.
 4. `sub` is `system:serviceaccount:NAMESPACE:NAME`, and the claim `kubernetes.io` says the same.
 5. An unknown `kid` has the keys looked for again at most once in a while, whoever asks and how often: a flood of them fetches nothing. While they
    cannot be read, nobody is called unknown for it: STATE_STALE.
 6. What was proven is remembered until it ends or the keys change; nothing of it is ever written anywhere.

Not known here: that a pod, or its service account, is gone. Its token names it until it ends.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from sidecar import claims as claims_
from sidecar.errors import InvalidTokenError, StaleStateError, UnidentifiedCallerError
from sidecar.gate import JWS, SERVICE_ACCOUNT, Gated, gate
from sidecar.jose.keys import Material
from sidecar.jose.sign import verify

ALGORITHMS = ("RS256", "ES256", "ES384")
LEEWAY = 5  # seconds
REMEMBERED = 1024  # tokens

_SUBJECT = re.compile(
    r"system:serviceaccount:([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?):([a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)"
).fullmatch


class KeySet(Protocol):
    """The cluster's keys, by `kid`: an immutable mapping, another one after each change."""

    @property
    def keys(self) -> Mapping[str, Material]:
        """Those that were read last."""
        ...

    @property
    def stale(self) -> bool:
        """Whether they are none, or older than is good."""
        ...

    async def look_again(self) -> bool:
        """Whether they are as fresh as they need to be to call a `kid` unknown. Bounded in time and number, whoever asks."""
        ...


class ServiceAccounts:
    """Verifies. `now`: the wall clock, seconds since the epoch; `max_ttl` in seconds."""

    def __init__(self, issuer: str, audience: str, max_ttl: int, key_set: KeySet, now: Callable[[], float]) -> None:
        self._issuer = issuer
        self._audience = audience
        self._max_ttl = max_ttl
        self._key_set = key_set
        self._now = now
        self._known: dict[str, tuple[str, int]] = {}  # name and end, by token
        self._known_by: Mapping[str, Material] = {}

    def __call__(self, token: str) -> str | Awaitable[str]:
        """The caller's name; an awaitable if the key is not known. `UnidentifiedCallerError`, `StaleStateError`."""
        keys = self._key_set.keys
        if keys is not self._known_by:
            self._known, self._known_by = {}, keys
        if self._key_set.stale:
            raise _stale()
        known = self._known.get(token)
        if known is not None and self._now() - LEEWAY < known[1]:
            return known[0]
        try:
            gated = gate(token, segments=JWS, form=SERVICE_ACCOUNT)
        except InvalidTokenError as error:
            raise _refused(error.stage) from None
        key = keys.get(gated.kid)
        return self._after_a_look(gated) if key is None else self._name(gated, key)

    async def _after_a_look(self, token: Gated) -> str:
        looked = await self._key_set.look_again()
        key = self._key_set.keys.get(token.kid)
        if key is not None:
            return self._name(token, key)
        if not looked:
            raise _stale()
        raise _refused("token_key")

    def _name(self, token: Gated, key: Material) -> str:
        try:
            if token.typ not in ("", "jwt"):
                raise InvalidTokenError("token_typ")
            found = claims_.parse(verify(token, key), foreign=True)
        except InvalidTokenError as error:
            raise _refused(error.stage) from None
        if found.issuer != self._issuer:
            raise _refused("token_issuer", "the service account token is of another issuer")
        if found.audiences != (self._audience,):
            raise _refused("token_audience", "the service account token is not for this sidecar's audience alone")
        now = self._now()
        if not 0 < found.expire_time - found.issue_time <= self._max_ttl:
            raise _refused("token_lifetime", "the service account token lives longer than this sidecar allows")
        if max(found.issue_time, found.not_before or 0) > now + LEEWAY:
            raise _refused("token_early", "the service account token is not valid yet")
        if now - LEEWAY >= found.expire_time:
            raise _refused("token_expired", "the service account token has expired")
        account = _SUBJECT(found.subject)
        if account is None or found.bound or not _agrees(found.values.get("kubernetes.io"), account[1], account[2]):
            raise _refused("token_account")
        name = f"k8s:{account[1]}/{account[2]}"
        while len(self._known) >= REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[token.text] = name, found.expire_time
        return name


def _agrees(said: object, namespace: str, name: str) -> bool:
    if not isinstance(said, dict) or said.get("namespace") != namespace:
        return False
    account = said.get("serviceaccount")
    return isinstance(account, dict) and account.get("name") == name


def _stale() -> StaleStateError:
    return StaleStateError(
        "the keys of service account tokens could not be read for too long", stage="caller.token_keys"
    )


def _refused(stage: str, words: str = "the service account token is not valid here") -> UnidentifiedCallerError:
    return UnidentifiedCallerError(words, stage=f"caller.{stage}")
