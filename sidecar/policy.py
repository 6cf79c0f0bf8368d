"""Which caller may do what, with which profile and within which limits. It decides before any work is done.

Rules:
 1. Each verb is served on one plane (GetJwks on both). On the other it is denied, whatever the configuration says.
 2. Without any configured rule the plane alone decides: the app plane issues, validates, refreshes, revokes what it presents and reads
    public keys; the admin plane does the rest.
 3. With one, everything is denied that no rule allows. A caller may have several rules; one of them must allow the whole of a request.
 4. An unknown profile and a forbidden one get the same answer.
 5. What a rule does not limit, the profile alone limits.
 6. A caller's rates for a verb all apply, counted in items.
 7. The sidecar itself (its schedule) needs no rule.
 8. A rule for a pattern, "spiffe://example.org/shop/*" or "k8s:shop/*", is one for each caller below; each has rates of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from sidecar.caller import SIDECAR, Caller, Plane
from sidecar.errors import DeniedCallerError, OverloadedError
from sidecar.rates import Bucket, Rate


class Verb(Enum):
    """What a caller asks for; the value is the word in configuration, logs, metrics and audit."""

    ISSUE = "issue"
    VALIDATE = "validate"
    REFRESH = "refresh"
    REVOKE = "revoke"
    ROTATE = "rotate"
    DESTROY = "destroy"
    REKEY = "rekey"
    ACCEPT_ROLLBACK = "accept_rollback"
    CONFIG = "config"
    GET_JWKS = "get_jwks"
    LIST_KEYS = "list_keys"
    REVOKE_KEYS = "revoke_keys"
    REVOKE_SUBJECT = "revoke_subject"
    REVOKE_TOKEN_ID = "revoke_token_id"  # noqa: S105 - a verb, not a secret

    __hash__ = object.__hash__  # members are singletons; Enum's own hashes the name in Python, on every call


SERVED: Mapping[Verb, tuple[Plane, ...]] = {
    Verb.ISSUE: (Plane.APP,),
    Verb.VALIDATE: (Plane.APP,),
    Verb.REFRESH: (Plane.APP,),
    Verb.REVOKE: (Plane.APP,),
    Verb.GET_JWKS: (Plane.APP, Plane.ADMIN),
    Verb.ROTATE: (Plane.ADMIN,),
    Verb.LIST_KEYS: (Plane.ADMIN,),
    Verb.REVOKE_KEYS: (Plane.ADMIN,),
    Verb.REVOKE_SUBJECT: (Plane.ADMIN,),
    Verb.REVOKE_TOKEN_ID: (Plane.ADMIN,),
}
"""The planes of each verb that a caller can ask for."""

CALLERS_KEPT = 4096
"""Of those that only patterns name, so many at once: whoever comes after that starts with full rates."""

CALLER = "caller"
"""Among names of a limit: the name of whoever calls."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names that a limit allows: literal ones, those with a prefix ("user-*"), and the caller's own ("caller")."""

    texts: tuple[str, ...]
    literals: frozenset[str]
    prefixes: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Names:
        """From the texts of the configuration. A star elsewhere than at the end is a star."""
        texts = tuple(texts)
        prefixes = tuple(text[:-1] for text in texts if text.endswith("*"))
        return cls(texts, frozenset(text for text in texts if not text.endswith("*")), prefixes)

    def allow(self, name: str, caller: Caller) -> bool:
        """Whether this caller may use the name. Somebody called "caller" cannot be named but by a prefix."""
        if name in self.literals and name != CALLER:
            return True
        return name.startswith(self.prefixes) or (name == caller.name and CALLER in self.literals)


@dataclass(frozen=True, slots=True)
class Rule:
    """What one caller may do by one verb. `key` is its place in the configuration; None: not limited here."""

    key: str
    caller: str
    verb: Verb
    profiles: frozenset[str]
    audiences: Names | None = None
    scopes: Names | None = None
    subjects: Names | None = None
    client_ids: Names | None = None
    max_ttl: int | None = None
    claims: frozenset[str] | None = None
    rate: Rate | None = None


class Wanted(NamedTuple):
    """What is asked of Issue, as far as rules limit it. `ttl` in seconds, the one that the token will have; None: not known."""

    subject: str | None = None
    audiences: Collection[str] = ()
    scopes: Collection[str] = ()
    client_id: str | None = None
    ttl: int | None = None
    claims: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Yes or no; the key of the configuration that decided (empty: none did, but the built-in rules); and why, in words for the caller."""

    allowed: bool
    key: str
    words: str
    stage: str = ""


class _Own:
    """The rules of one caller, looked up by dictionary."""

    def __init__(self, rules: tuple[Rule, ...], now: float) -> None:
        self.rules = rules
        self.by_verb: dict[Verb, tuple[Rule, ...]] = {}
        self.by_profile: dict[tuple[Verb, str], tuple[Rule, ...]] = {}
        for rule in rules:
            self.by_verb[rule.verb] = (*self.by_verb.get(rule.verb, ()), rule)
            for profile in rule.profiles:
                by_profile = (rule.verb, profile)
                self.by_profile[by_profile] = (*self.by_profile.get(by_profile, ()), rule)
        self.buckets: dict[Verb, tuple[Bucket, ...]] = {}
        for verb, of_verb in self.by_verb.items():
            rates = [rule.rate for rule in of_verb if rule.rate]
            if rates:
                self.buckets[verb] = tuple(Bucket(rate, now) for rate in rates)


_NONE = _Own((), 0.0)


class _Table:
    """One set of rules, swapped as a whole."""

    def __init__(self, rules: tuple[Rule, ...], now: Callable[[], float]) -> None:
        self.rules = rules
        self._now = now
        self._below = tuple(rule for rule in rules if rule.caller.endswith("/*"))
        self.callers: dict[str, _Own] = {}
        for name in dict.fromkeys(rule.caller for rule in rules if not rule.caller.endswith("/*")):
            self.callers[name] = self._made(name)
        self._named = len(self.callers)

    def of(self, caller: str) -> _Own:
        """The caller's own; of one that only patterns name, made when it first calls."""
        own = self.callers.get(caller)
        if own is None:
            if not any(caller.startswith(rule.caller[:-1]) for rule in self._below):
                return _NONE
            if len(self.callers) - self._named >= CALLERS_KEPT:
                del self.callers[list(self.callers)[self._named]]  # the oldest of those; the named ones stand first
            own = self.callers[caller] = self._made(caller)
        return own

    def _made(self, caller: str) -> _Own:
        fitting = [
            rule
            for rule in self.rules
            if rule.caller == caller or (rule.caller.endswith("/*") and caller.startswith(rule.caller[:-1]))
        ]
        return _Own(tuple(fitting), self._now())


class Policy:
    """Decides. `served` says, for people, where each plane listens; `profiles` are those that exist."""

    def __init__(
        self,
        profiles: Collection[str],
        served: Mapping[Plane, str],
        rules: Iterable[Rule] = (),
        *,
        imported: Collection[str] = (),
        elsewhere: Mapping[Verb, str] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`imported`: profiles that only validate. `elsewhere`: what this process cannot do by its role, each in words that say who can."""
        self._elsewhere = elsewhere or {}
        self._planes = {verb: planes for verb, planes in SERVED.items() if verb not in self._elsewhere}
        self._profiles = frozenset(profiles)
        self._imported = frozenset(imported)
        self._served = served
        self._now = now
        self._table = _Table(tuple(rules), now)

    @property
    def configured(self) -> bool:
        """Whether there are rules: default deny."""
        return bool(self._table.rules)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Those in force."""
        return self._table.rules

    def replace(self, rules: Iterable[Rule]) -> None:
        """Put other rules in force, all at once. A rate that stays the same goes on where it was."""
        before, table = self._table, _Table(tuple(rules), self._now)
        for name, old in before.callers.items():
            own = table.of(name)
            for verb, buckets in own.buckets.items():
                if [bucket.rate for bucket in old.buckets.get(verb, ())] == [bucket.rate for bucket in buckets]:
                    own.buckets[verb] = old.buckets[verb]
        self._table = table

    def check_verb(self, caller: Caller, verb: Verb) -> None:
        """Return if the caller may use the verb at all, on this plane; else `DeniedCallerError`. Looks at nothing of the request."""
        table = self._table
        if caller.plane in self._planes.get(verb, ()) and (not table.rules or verb in table.of(caller.name).by_verb):
            return
        if caller != SIDECAR:
            raise _denied(self.decide(caller, verb))

    def take(self, caller: Caller, verb: Verb, items: int) -> None:
        """Count so many items of a verb. `OverloadedError`: more than a rate allows; nothing was counted."""
        buckets = self._table.of(caller.name).buckets.get(verb)
        if buckets:
            now = self._now()
            wait = max([bucket.wait(items, now) for bucket in buckets])
            if wait > 0:
                raise OverloadedError(
                    f"more than this caller's rate for {verb.value}", stage="policy.rate", retry_after=wait
                )
            for bucket in buckets:
                bucket.take(items)

    def check(self, caller: Caller, verb: Verb, profile: str | None) -> None:
        """Return if the caller may use the verb with the profile; else `DeniedCallerError`. None: the verb concerns none in particular."""
        self.check_verb(caller, verb)
        if profile is None or (
            self._exists(profile, verb)
            and (
                not self._table.rules or (verb, profile) in self._table.of(caller.name).by_profile or caller == SIDECAR
            )
        ):
            return
        raise _denied(self.decide(caller, verb, profile))

    def check_grant(self, caller: Caller, profile: str, wanted: Wanted) -> None:
        """Return if a rule allows the whole of what is asked of Issue; else `DeniedCallerError`. `check` has gone before."""
        table = self._table
        if not table.rules or caller == SIDECAR:
            return
        for rule in table.of(caller.name).by_profile.get((Verb.ISSUE, profile), ()):
            if _limit(rule, caller, wanted) is None:
                return
        raise _denied(self.decide(caller, Verb.ISSUE, profile, wanted))

    def _exists(self, profile: str, verb: Verb) -> bool:
        """An imported profile is there for Validate alone: it has no keys of ours."""
        return profile in self._profiles or (verb is Verb.VALIDATE and profile in self._imported)

    def allowed(self, caller: Caller, verb: Verb) -> frozenset[str]:
        """The profiles that the caller may use the verb with."""
        table = self._table
        known = self._profiles | self._imported if verb is Verb.VALIDATE else self._profiles
        if not table.rules:
            return known
        named = [rule.profiles for rule in table.of(caller.name).by_verb.get(verb, ())]
        return known.intersection(frozenset().union(*named))

    def decide(self, caller: Caller, verb: Verb, profile: str | None = None, wanted: Wanted | None = None) -> Verdict:
        """The same decisions with their reason, for `can` and for what a denied caller is told."""
        if verb in self._elsewhere:
            return Verdict(False, "keys.role", self._elsewhere[verb], "policy.role")
        planes = SERVED.get(verb, ())
        if caller.plane not in planes:
            where = (
                " and ".join(f"the {plane.value} plane: {self._served[plane]}" for plane in planes)
                or "the schedule alone"
            )
            words = f"{verb.value} is not served to {caller.name} on the {caller.plane.value} plane; it is on {where}"
            return Verdict(False, "", words, "policy.verb")
        table = self._table
        unknown = Verdict(False, "", "the profile does not exist or is not for this caller", "policy.profile")
        if not table.rules:
            if profile is not None and not self._exists(profile, verb):
                return unknown
            return Verdict(True, "", f"no policy is configured: the {caller.plane.value} plane may {verb.value}")
        own = table.of(caller.name)
        rules = own.by_verb.get(verb, ())
        if not rules:
            near = own.rules[0].key.rpartition(".")[0] if own.rules else "policy"
            return Verdict(False, near, f"no policy lets {caller.name} {verb.value}", "policy.verb")
        if profile is not None:
            fitting = [rule for rule in rules if profile in rule.profiles]
            if not fitting or not self._exists(profile, verb):
                return Verdict(False, f"{rules[0].key}.profiles", unknown.words, unknown.stage)
            rules = tuple(fitting)
        limits = [_limit(rule, caller, wanted or Wanted()) for rule in rules]
        for rule, limit in zip(rules, limits, strict=True):
            if limit is None:
                return Verdict(True, rule.key, f"{caller.name} may {verb.value}")
        name, words = next(limit for limit in limits if limit is not None)
        return Verdict(False, f"{rules[0].key}.{name}", words, f"policy.{name}")


def _denied(verdict: Verdict) -> DeniedCallerError:
    return DeniedCallerError(verdict.words, stage=verdict.stage)


def _limit(rule: Rule, caller: Caller, wanted: Wanted) -> tuple[str, str] | None:
    """The first limit of the rule that forbids what is wanted, and the words for it; None: it allows all of it."""
    subject = () if wanted.subject is None else (wanted.subject,)
    client_id = () if wanted.client_id is None else (wanted.client_id,)
    for name, one, names, given in (
        ("subjects", "subject", rule.subjects, subject),
        ("audiences", "audience", rule.audiences, wanted.audiences),
        ("scopes", "scope", rule.scopes, wanted.scopes),
        ("client_ids", "client_id", rule.client_ids, client_id),
    ):
        if names is not None:
            for each in given:
                if not names.allow(each, caller):
                    return name, f"this caller may not ask for {one} {each[:64]!r}"
    if rule.max_ttl is not None and wanted.ttl is not None and wanted.ttl > rule.max_ttl:
        return "max_ttl", f"this caller may ask for a ttl of at most {rule.max_ttl}s, not {wanted.ttl}s"
    if rule.claims is not None:
        for each in wanted.claims:
            if each not in rule.claims:
                return "claims", f"this caller may not set claim {each[:64]!r}"
    return None
