"""Claims of an access token (RFC 7519, RFC 9068): their strict form, one check for issuing and validating, and how they are built.

Rules:
 1. The payload is a JSON object in strict UTF-8, without byte order mark, duplicate names or lone surrogates; `MAX_DEPTH`, `MAX_MEMBERS`.
 2. Integers within [-2^63, 2^64) are kept exact; other numbers are finite doubles of at most 32 characters.
 3. `iss sub aud exp iat jti` are required; `jti` not of a token that another system made. Times are integers, 0 <= t < 2^53. Text is neither empty nor longer than 255 characters, and
    has no control characters. `aud` is text or a list of 1 to 16 texts, `scope` is words with single spaces between (RFC 6749 section 3.3).
    `act` (RFC 8693 section 4.1) is an object, each actor within another, at most `MAX_ACTORS` of them.
 4. `iss` is the profile's; `iat < exp`, and `exp - iat` is at most the key's `max_ttl`.
 5. Leeway is explicit: `iat` and `nbf` may lie that far in the future, `exp` that far in the past.
 6. The bytes that were signed are the claims; nothing is serialised again.
 7. Issuing ends in the same `parse` as validating begins with: what would be refused later is refused now.

All times are seconds since the epoch.
"""

from __future__ import annotations

import json
import math
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, NoReturn, cast

from sidecar.errors import (
    EarlyTokenError,
    ExpiredTokenError,
    InvalidRequestError,
    InvalidTokenError,
    MismatchedAudienceError,
    MissingScopeError,
    Violation,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from sidecar.keyring import Settings
    from sidecar.possession import Bond
    from sidecar.profile import Profile

MAX_DEPTH = 8
"""Objects and lists within each other, the claims themselves included."""
MAX_MEMBERS = 512
"""Members of all objects and items of all lists together."""
MAX_ACTORS = 4
MAX_TEXT = 255
MAX_AUDIENCES = 16

RESERVED = frozenset({"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "scope", "cnf", "sid"})
"""Names that no further claim may have: the sidecar sets them, or will."""

PERSONAL = frozenset(
    {
        *("name", "given_name", "family_name", "middle_name", "nickname", "preferred_username", "profile", "picture", "website"),
        *("email", "email_verified", "gender", "birthdate", "phone_number", "phone_number_verified", "address"),
        *("phone", "first_name", "last_name", "full_name", "date_of_birth", "dob", "ssn", "passport", "national_id", "tax_id", "ip", "ip_address"),
    }
)  # fmt: skip
"""Names under which personal data usually stands: those of OpenID Connect Core section 5.1, and others that are seen."""

TYPES: Mapping[str, Callable[[object], bool]] = MappingProxyType(
    {
        "text": lambda value: type(value) is str,
        "integer": lambda value: type(value) is int,
        "number": lambda value: type(value) is int or type(value) is float,
        "boolean": lambda value: type(value) is bool,
        "object": lambda value: type(value) is dict,
        "list": lambda value: type(value) is list,
        "texts": lambda value: type(value) is list and all(type(item) is str for item in value),
    }
)
"""The types that a profile can demand of a further claim."""

RULES: Mapping[str, str] = MappingProxyType(
    {
        "claims.json": "the claims are not a JSON object in UTF-8",
        "claims.duplicate": "a name occurs twice in one object",
        "claims.number": "a number is not finite, too long, or an integer outside of 64 bits",
        "claims.surrogate": "a text has half of a surrogate pair, which is not a character",
        "claims.depth": f"objects and lists lie more than {MAX_DEPTH} deep in each other",
        "claims.members": f"there are more than {MAX_MEMBERS} members and items",
        "claims.iss": "iss is missing, empty, too long or not text",
        "claims.sub": "sub is missing, empty, too long or not text",
        "claims.jti": "jti is missing, empty, too long or not text",
        "claims.client_id": "client_id is empty, too long or not text",
        "claims.aud": f"aud is missing, or not a text or a list of 1 to {MAX_AUDIENCES} texts",
        "claims.scope": "scope is not words with single spaces between them",
        "claims.exp": "exp is missing, or not an integer from 0 to below 2^53",
        "claims.iat": "iat is missing, or not an integer from 0 to below 2^53",
        "claims.nbf": "nbf is not an integer from 0 to below 2^53",
        "claims.cnf": "cnf is not an object",
        "claims.act": f"act is not an object with objects in its act, at most {MAX_ACTORS} deep",
        "claims.issuer": "iss is not the issuer of the profile",
        "claims.lifetime": "exp is not after iat, or later than the profile's longest lifetime allows",
    }
)
"""What each stage means, in words for the owner of the token and for a refused request."""

_DIGITS = 20  # of -2^63 and of 2^64 - 1
_NUMBER = 32
_TIME_END = 2**53
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]").search
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+").fullmatch  # one scope-token, RFC 6749 section 3.3


class Claims(NamedTuple):
    """Claims in good form. `payload` is the very text that was, or will be, signed; `values` is all of it, parsed.

    `client_id` is empty and `scopes` is () where absent; `bound` says that there is a `cnf` (RFC 7800).
    """

    payload: bytes
    issuer: str
    subject: str
    audiences: tuple[str, ...]
    client_id: str
    scopes: tuple[str, ...]
    token_id: str
    issue_time: int
    expire_time: int
    not_before: int | None
    bound: bool
    values: Mapping[str, object]


def parse(payload: bytes, *, foreign: bool = False) -> Claims:
    """The claims in these bytes, by rules 1 to 3; `InvalidTokenError` names the first that they break, and nothing else comes out.

    `foreign`: another system made the token; it may lack `jti`, and has an empty token id then.
    """
    values = _object(payload)
    audience = values.get("aud")
    audiences = (audience,) if type(audience) is str else audience
    if type(audiences) not in (list, tuple) or not 1 <= len(cast("list[object]", audiences)) <= MAX_AUDIENCES:
        raise InvalidTokenError("claims.aud")
    for name in cast("list[object]", audiences):
        if not _is_text(name):
            raise InvalidTokenError("claims.aud")
    if "cnf" in values and type(values["cnf"]) is not dict:
        raise InvalidTokenError("claims.cnf")
    if "act" in values:
        _check_actors(values["act"])
    return Claims(
        payload=payload,
        issuer=_text(values, "iss"),
        subject=_text(values, "sub"),
        audiences=tuple(cast("list[str]", audiences)),
        client_id=_text(values, "client_id") if "client_id" in values else "",
        scopes=_scopes(values["scope"]) if "scope" in values else (),
        token_id="" if foreign and "jti" not in values else _text(values, "jti"),
        issue_time=_time(values, "iat"),
        expire_time=_time(values, "exp"),
        not_before=_time(values, "nbf") if "nbf" in values else None,
        bound="cnf" in values,
        values=values,
    )


def check(
    claims: Claims,
    *,
    issuer: str,
    settings: Settings,
    audiences: Collection[str],
    now: float,
    one_time: bool = False,
) -> None:
    """Whether these claims, from a genuine token, are good now and here (rules 4 and 5). The first error in the contract's order is raised.

    `settings` are those of the key; `audiences` are the names of whoever asks, one of which must be in the token. Whether whoever presents
    a `bound` one may do so is `possession`'s matter, and comes before the scopes. `one_time`: `exp` has no leeway, for what was consumed is
    remembered until then.
    """
    if claims.issuer != issuer:
        raise InvalidTokenError("claims.issuer")
    if not 0 < claims.expire_time - claims.issue_time <= settings.max_ttl:
        raise InvalidTokenError("claims.lifetime")
    latest = now + settings.leeway
    if claims.issue_time > latest or (claims.not_before is not None and claims.not_before > latest):
        raise EarlyTokenError
    if now - (0 if one_time else settings.leeway) >= claims.expire_time:
        raise ExpiredTokenError
    if not any(name in audiences for name in claims.audiences):
        raise MismatchedAudienceError


def check_scopes(claims: Claims, required: Collection[str]) -> None:
    """`MissingScopeError`: the token lacks one of these."""
    if not all(scope in claims.scopes for scope in required):
        raise MissingScopeError


def build(
    *,
    profile: Profile,
    settings: Settings,
    subject: str,
    audiences: Sequence[str],
    ttl: int | None,
    client_id: str,
    scopes: Sequence[str],
    further: bytes | None,
    token_id: str,
    now: float,
    bond: Bond | None = None,
    family: str = "",
) -> Claims:
    """The claims of a new token, from `now` on for `ttl` whole seconds (None: the profile's).

    `family` is the refresh family that it comes from; empty: none. `further` is the text of a JSON object; its members are carried over byte for byte. `InvalidRequestError` has one violation for each
    field of IssueRequest that is no good, all at once.
    """
    lifetime = min(profile.ttl, settings.max_ttl) if ttl is None else ttl
    issued = math.floor(now)
    violations = []
    if not _is_text(subject):
        violations.append(Violation("subject", _TEXT_PROBLEM))
    if problem := _audiences_problem(audiences, profile):
        violations.append(Violation("audiences", problem))
    if not 1 <= lifetime <= settings.max_ttl:
        violations.append(Violation("ttl", f"must be from 1 to {settings.max_ttl} seconds"))
    if client_id and not _is_text(client_id):
        violations.append(Violation("client_id", _TEXT_PROBLEM))
    if not all(map(_SCOPE, scopes)):
        violations.append(Violation("scopes", _SCOPE_PROBLEM))
    own: dict[str, object] = {"iss": profile.issuer, "sub": subject, "aud": audiences}
    if client_id:
        own["client_id"] = client_id
    if scopes:
        own["scope"] = " ".join(scopes)
    if bond:
        own["cnf"] = bond.claim
    if family:
        own["sid"] = family
    own |= {"jti": token_id, "iat": issued, "exp": issued + lifetime}

    members, values = b"", dict[str, object]()
    try:
        if further is not None:
            values = _object(further)
            members = further.strip(b" \t\r\n")[1:-1].strip(b" \t\r\n")
        problem = _further_problem(values, profile, own)
    except InvalidTokenError as refused:
        problem = RULES[refused.stage]
    if problem:
        violations.append(Violation("claims_json", problem))
    if violations:
        raise InvalidRequestError(*violations)

    payload = _encode(own).encode()
    if members:
        payload = payload[:-1] + b"," + members + b"}"
    try:
        return parse(payload)
    except InvalidTokenError as refused:  # within bounds alone, too much together
        raise InvalidRequestError(Violation("claims_json", RULES[refused.stage])) from None


_TEXT_PROBLEM = f"must be text of 1 to {MAX_TEXT} characters, without control characters"
_SCOPE_PROBLEM = "each must be one word of printable ASCII, without quotes and backslashes"


def _audiences_problem(audiences: Sequence[str], profile: Profile) -> str:
    if not 1 <= len(audiences) <= MAX_AUDIENCES:
        return f"name 1 to {MAX_AUDIENCES}: the services that the token is for"
    if not all(map(_is_text, audiences)):
        return f"each {_TEXT_PROBLEM}"
    if profile.audiences and not set(audiences) <= set(profile.audiences):
        return f"profile {profile.name!r} allows {', '.join(profile.audiences)} only"
    return ""


def personal(claims: Claims, profile: Profile) -> Collection[str]:
    """The names in the claims under which personal data usually stands, unless the profile lists its claims: then somebody has thought."""
    if profile.claims.allow is not None or PERSONAL.isdisjoint(claims.values):
        return ()
    return claims.values.keys() & PERSONAL


def _further_problem(values: Mapping[str, object], profile: Profile, own: Mapping[str, object]) -> str:
    rules, names = profile.claims, values.keys()
    # Without regard to case: some JSON readers (Go's) take EXP for exp, and whoever fills in further claims must not choose it.
    if taken := sorted(name for name in names if name.casefold() in RESERVED):
        return f"{_quoted(taken)} cannot be set here"
    others = names & rules.forbid if rules.allow is None else (names - rules.allow) | (names & rules.forbid)
    if others:
        return f"profile {profile.name!r} does not allow {_quoted(sorted(others))}"
    if lacking := sorted(rules.require - names - own.keys()):
        return f"profile {profile.name!r} requires {_quoted(lacking)}"
    if wrong := sorted(name for name, kind in rules.types.items() if name in names and not TYPES[kind](values[name])):
        return (
            f"profile {profile.name!r} wants {', '.join(f'{_quoted([n])} to be {rules.types[n]}' for n in wrong[:8])}"
        )
    if rules.max_claims is not None and (count := len(names) + len(own)) > rules.max_claims:
        return f"the token would have {count} claims, and profile {profile.name!r} allows {rules.max_claims}"
    return ""


def _quoted(names: list[str]) -> str:
    """Names for a message: escaped, since a claim's name may hold anything, and not too many."""
    return ", ".join(json.dumps(name[:64]) for name in names[:8])


def _object(payload: bytes) -> dict[str, object]:
    """Rules 1 and 2."""
    try:
        text = payload.decode("utf-8").strip(" \t\r\n")
        values, end = _decode(text)
        if end != len(text) or type(values) is not dict:
            raise InvalidTokenError("claims.json")
        if "\\u" in text:
            json.dumps(values, ensure_ascii=False).encode()
    except InvalidTokenError:
        raise
    except UnicodeEncodeError:
        raise InvalidTokenError("claims.surrogate") from None
    except RecursionError:
        raise InvalidTokenError("claims.depth") from None
    except ValueError:
        raise InvalidTokenError("claims.json") from None
    _measure(values)
    return values


def _measure(values: dict[str, object]) -> None:
    """Depth and number of members, level by level: no recursion, however deep."""
    level: list[dict[str, object] | list[object]] = [values]
    members = 0
    for _ in range(MAX_DEPTH):
        below: list[dict[str, object] | list[object]] = []
        for container in level:
            members += len(container)
            items = container.values() if type(container) is dict else container
            below += [item for item in items if type(item) is dict or type(item) is list]
        if members > MAX_MEMBERS:
            raise InvalidTokenError("claims.members")
        if not below:
            return
        level = below
    raise InvalidTokenError("claims.depth")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    r"""An object without duplicate names. Escapes are resolved by now, so `"\u0065xp"` is `"exp"`."""
    result = dict(pairs)
    if len(result) != len(pairs):
        raise InvalidTokenError("claims.duplicate")
    return result


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS or not -(2**63) <= (value := int(digits)) < 2**64:
        raise InvalidTokenError("claims.number")
    return value


def _double(digits: str) -> float:
    if len(digits) > _NUMBER or not math.isfinite(value := float(digits)):
        raise InvalidTokenError("claims.number")
    return value


def _constant(_: str) -> NoReturn:
    """NaN, Infinity and -Infinity, which Python would take and JSON does not have."""
    raise InvalidTokenError("claims.number")


_decode = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_integer, parse_float=_double, parse_constant=_constant
).raw_decode


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode  # `json.dumps` makes one for every call


def _is_text(value: object) -> bool:
    # Printable ASCII, which most text is, needs no search.
    return (
        type(value) is str
        and 0 < len(value) <= MAX_TEXT
        and ((value.isascii() and value.isprintable()) or not _CONTROL(value))
    )


def _text(values: Mapping[str, object], name: str) -> str:
    value = values.get(name)
    if not _is_text(value):
        raise InvalidTokenError(f"claims.{name}")
    return cast("str", value)


def _time(values: Mapping[str, object], name: str) -> int:
    value = values.get(name)
    if type(value) is not int or not 0 <= value < _TIME_END:  # True is an int to isinstance
        raise InvalidTokenError(f"claims.{name}")
    return value


def _check_actors(actor: object) -> None:
    for _ in range(MAX_ACTORS):
        if type(actor) is not dict:
            raise InvalidTokenError("claims.act")
        if "act" not in actor:
            return
        actor = actor["act"]
    raise InvalidTokenError("claims.act")


def _scopes(value: object) -> tuple[str, ...]:
    words = value.split(" ") if type(value) is str else [""]
    if not all(map(_SCOPE, words)):
        raise InvalidTokenError("claims.scope")
    return tuple(words)
