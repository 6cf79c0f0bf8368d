"""Which caller may do what. This version has the built-in default alone; a configured policy comes later and denies by default.

The built-in default gives each plane its verbs: the app plane issues, validates and reads public keys; the admin plane rotates, reads and
revokes keys. A refusal names the place where the verb is served, but never tells an unknown profile from a forbidden one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum

from sidecar.caller import Caller, Plane
from sidecar.errors import DeniedCallerError


class Verb(Enum):
    """What a caller asks for; the value is the word in logs, metrics and audit."""

    ISSUE = "issue"
    VALIDATE = "validate"
    REFRESH = "refresh"
    REVOKE = "revoke"
    ROTATE = "rotate"
    DESTROY = "destroy"
    REKEY = "rekey"
    ACCEPT_ROLLBACK = "accept_rollback"
    GET_JWKS = "get_jwks"
    LIST_KEYS = "list_keys"
    REVOKE_KEYS = "revoke_keys"
    REVOKE_SUBJECT = "revoke_subject"
    REVOKE_TOKEN_ID = "revoke_token_id"  # noqa: S105 - a verb, not a secret


_BUILT_IN = {
    Plane.APP: frozenset({Verb.ISSUE, Verb.VALIDATE, Verb.REFRESH, Verb.REVOKE, Verb.GET_JWKS}),
    Plane.ADMIN: frozenset(
        {
            Verb.ROTATE,
            Verb.DESTROY,
            Verb.GET_JWKS,
            Verb.LIST_KEYS,
            Verb.REVOKE_KEYS,
            Verb.REVOKE_SUBJECT,
            Verb.REVOKE_TOKEN_ID,
        }
    ),
}


class Policy:
    """Decides before any work is done. `served` says, for people, where each plane listens.

    `elsewhere`: what this process cannot do by its role, each in words that say who can.
    """

    def __init__(
        self, profiles: Collection[str], served: Mapping[Plane, str], *, elsewhere: Mapping[Verb, str] | None = None
    ) -> None:
        self._elsewhere = elsewhere or {}
        self._profiles = frozenset(profiles)
        self._served = served

    def check(self, caller: Caller, verb: Verb, profile: str | None) -> None:
        """Return if the caller may; else `DeniedCallerError`. `profile` None: the verb concerns none in particular."""
        if verb in self._elsewhere:
            raise DeniedCallerError(self._elsewhere[verb], stage="policy.role")
        if verb not in _BUILT_IN[caller.plane]:
            other = Plane.ADMIN if caller.plane is Plane.APP else Plane.APP
            raise DeniedCallerError(
                f"{verb.value} is not served to {caller.name} on the {caller.plane.value} plane; "
                f"it is on the {other.value} plane: {self._served[other]}",
                stage="policy.verb",
            )
        if profile is not None and profile not in self._profiles:
            raise DeniedCallerError("the profile does not exist or is not for this caller", stage="policy.profile")
