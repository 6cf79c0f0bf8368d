"""A profile: a kind of token. Its format, algorithms, lifetime and claim rules, checked as a whole when it is made.

A profile is what config proposes. What a key depends on (format, algorithms, maximum ttl, leeway, typ) is written into the ring with the
key, and from then on the ring decides (keys.md, rule 9).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sidecar.jose.imported import Imported


class Format(Enum):
    """Which layers a token has."""

    NESTED = "nested"  # JWS inside JWE
    ENCRYPTED = "encrypted"  # JWE alone, symmetric: whoever can open can also make
    SIGNED = "signed"  # JWS alone: everybody on the way can read it
    REFRESH = "refresh"  # of refresh tokens alone: JWE under a key that only issuers have


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """Names of further claims. `allow` None: any. Registered claims are not subject to these, and count towards `max_claims` alone.

    `types`: of those that are there, as JSON calls them (`sidecar.claims.TYPES`). `max_claims` None: no limit of its own.
    """

    allow: frozenset[str] | None = None
    require: frozenset[str] = field(default_factory=frozenset)
    forbid: frozenset[str] = field(default_factory=frozenset)
    types: Mapping[str, str] = field(default_factory=dict)
    max_claims: int | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of token. Times are whole seconds; `audiences` empty: any non-empty audience (the built-in profile only)."""

    name: str
    issuer: str
    audiences: tuple[str, ...]
    format: Format = Format.NESTED
    sign: str = "ES256"  # JWS alg; empty for Format.ENCRYPTED
    encrypt: str = "A256KW"  # JWE alg
    curve: str = "P-256"  # of `encrypt`, where it agrees on keys
    content: str = "A256GCM"  # JWE enc
    typ: str = "at+jwt"
    ttl: int = 300
    max_ttl: int = 3600
    leeway: int = 5
    max_token_bytes: int = 4096
    audit_validations: bool = False  # record accepted tokens, too
    refresh_ttl: int = 0  # of a refresh token; 0: none are made
    refresh_max_ttl: int = 0  # of all refresh tokens that come of one login
    one_time: bool = False  # every Validate that accepts consumes the token
    claims: ClaimRules = field(default_factory=ClaimRules)
    published: bool = False
    rotate_every: int = 86400
    propagation: int = 30
    max_staleness: int = 900
    max_skew: int = 5
    accept_signed_until: float | None = None  # plain JWS of a nested profile; seconds since the epoch
    proof_age: int = 60  # of a DPoP proof; seconds
    proof_replay: str = "local"  # who remembers proofs: this sidecar, or with "fleet" the store
    report_only: bool = False  # plain JWS are accepted whatever the date, and only counted
    imported: Imported | None = None  # keys of another system: such a profile validates only, and has no ring
    settings_revision: int = 1  # of the configuration: the highest decides what the next key is


def refresh_ring(profile: str) -> str:
    """The name of the ring that the profile's refresh tokens are sealed under. No profile can have it: it has a dot."""
    return f"{profile}.refresh"


def ring_owner(ring: str) -> str:
    """The profile that a ring belongs to."""
    return ring.partition(".")[0]


def refreshing(profile: Profile) -> Profile:
    """The profile's refresh tokens, as a kind of token with a ring of its own: rotated, renewed and destroyed like any other."""
    return replace(
        profile,
        name=refresh_ring(profile.name),
        format=Format.REFRESH,
        sign="",
        encrypt="A256KW",
        content="A256GCM",
        typ="rt+jwt",
        ttl=profile.refresh_ttl,
        max_ttl=profile.refresh_ttl,
        published=False,
        accept_signed_until=None,
        report_only=False,
    )


DEFAULT = Profile(name="default", issuer="urn:tokensidecar:local", audiences=())
"""The built-in profile, in force while no config file names profiles."""
