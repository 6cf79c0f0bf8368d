"""Refresh tokens: a grant, sealed under keys of its own. The grant is nowhere else; the store knows ids alone (keys.md, rule 17).

Form: a compact JWE (RFC 7516) of `typ` rt+jwt, A256KW and A256GCM, under a key of the profile's refresh ring, of which issuers alone have
the material. Its payload has the claims of a token (`iss sub aud exp iat jti client_id scope cnf sid`) and what the next access token
needs: `ttl`, `began` (`iat` of the first one) and `further` (the text of the further claims, byte for byte).

A pair, access token and refresh token, has one id; `sid` is the id of the first pair of the family.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sidecar import claims as claims_
from sidecar.errors import InvalidTokenError
from sidecar.gate import JWE, Gated, gate
from sidecar.jose import encrypt
from sidecar.possession import Bond

if TYPE_CHECKING:
    from sidecar.claims import Claims
    from sidecar.live import LiveKey
    from sidecar.profile import Profile

TYP = "rt+jwt"


@dataclass(frozen=True, slots=True)
class Session:
    """What a refresh token says. Times are whole seconds since the epoch, `ttl` is the access tokens' in seconds."""

    family: str
    token_id: str
    began: int
    issue_time: int
    expire_time: int
    subject: str
    audiences: tuple[str, ...]
    client_id: str
    scopes: tuple[str, ...]
    ttl: int
    further: bytes | None
    bond: Bond | None


def payload(session: Session, issuer: str) -> bytes:
    """What is sealed."""
    own: dict[str, object] = {
        "iss": issuer,
        "sub": session.subject,
        "aud": list(session.audiences),
        "iat": session.issue_time,
        "exp": session.expire_time,
        "jti": session.token_id,
        "sid": session.family,
        "began": session.began,
        "ttl": session.ttl,
    }
    if session.client_id:
        own["client_id"] = session.client_id
    if session.scopes:
        own["scope"] = " ".join(session.scopes)
    if session.bond:
        own["cnf"] = session.bond.claim
    if session.further is not None:
        own["further"] = session.further.decode()
    return json.dumps(own, separators=(",", ":"), ensure_ascii=False).encode()


def size(plain: bytes, key: LiveKey) -> int:
    """Characters of the token, exactly."""
    return encrypt.size(len(plain), key.material, content=key.facts.settings.content, typ=TYP)


def seal(plain: bytes, key: LiveKey) -> str:
    """The token."""
    return encrypt.encrypt(plain, key.material, content=key.facts.settings.content, typ=TYP)


def gated(token: str) -> Gated:
    """A text that has the form of a refresh token; the header is not authenticated yet. `InvalidTokenError`: it has not."""
    layer = gate(token, segments=JWE)
    if layer.typ != TYP or layer.cty:
        raise InvalidTokenError("header.typ")
    return layer


def is_refresh_token(token: str) -> bool:
    """Whether the text says that it is one; whether it is true is another matter."""
    try:
        gated(token)
    except InvalidTokenError:
        return False
    return True


def opened(layer: Gated, key: LiveKey, profile: Profile) -> tuple[Session, Claims]:
    """What a genuine one says, and its claims. `InvalidTokenError`: it is not one of this key and profile."""
    facts = key.facts
    if facts.algorithm != layer.alg or facts.settings.content != layer.enc:
        raise InvalidTokenError("key.algorithm")
    claims = claims_.parse(encrypt.decrypt(layer, key.material, content=facts.settings.content))
    values = claims.values
    family, began, ttl, further = (values.get(name) for name in ("sid", "began", "ttl", "further"))
    if claims.issuer != profile.issuer:
        raise InvalidTokenError("claims.issuer")
    if not (
        type(family) is str
        and type(began) is int
        and type(ttl) is int
        and (further is None or type(further) is str)
        and 0 < claims.expire_time - claims.issue_time <= facts.settings.max_ttl
    ):
        raise InvalidTokenError("claims.refresh")
    session = Session(
        family=family,
        token_id=claims.token_id,
        began=began,
        issue_time=claims.issue_time,
        expire_time=claims.expire_time,
        subject=claims.subject,
        audiences=claims.audiences,
        client_id=claims.client_id,
        scopes=claims.scopes,
        ttl=ttl,
        further=None if further is None else further.encode(),
        bond=Bond.read(values["cnf"]) if claims.bound else None,
    )
    return session, claims
