"""[profiles.NAME]: kinds of tokens, their further claims, and the keys of other systems. See `sections`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sidecar.claims import TYPES
from sidecar.fields import Choice, Duration, Field, Flag, Moment, Section, Text, Texts, Whole, Words, spell
from sidecar.gate import INTOLERABLE
from sidecar.jose.suites import AGREEMENT_CURVES, CONTENT, KEY_MANAGEMENT, SIGNATURES
from sidecar.kinds import CLAIM, LINE, PATH
from sidecar.sections_keys import LEDGERS


@dataclass(frozen=True, slots=True)
class Preset:
    """What a kind of token comes with: values of [profiles.NAME], and rules for its further claims."""

    values: Mapping[str, object] = field(default_factory=dict)
    require: frozenset[str] = frozenset()
    types: Mapping[str, str] = field(default_factory=dict)


PRESETS = {
    "": Preset(),
    # Short-lived, for one trust domain; what is in tctx and rctx is that domain's matter.
    "transaction-token": Preset(
        {"typ": "txntoken+jwt", "ttl": 60, "max_ttl": 300},
        frozenset({"txn"}),
        {"txn": "text", "tctx": "object", "rctx": "object", "req_wl": "text"},
    ),
}
PUBLISH_AHEAD = 1800  # seconds, of profiles whose JWKS others cache
_TOLERABLE = rf"(?!(?:{'|'.join(sorted(INTOLERABLE))})$)[A-Za-z0-9#._-]{{1,64}}"
_TYPE_EXAMPLE = '{ tenant = "text" }'
PROFILE = Section(
    {
        "preset": Field(
            Choice(tuple(name for name in PRESETS if name)),
            "A kind of token made ready; every key can still be given. transaction-token: OAuth Transaction Tokens (draft-ietf-oauth-transaction-tokens).",
        ),
        "issuer": Field(
            LINE, "`iss` of its tokens; with a colon it must be a URI (RFC 7519, section 4.1.1).", required=True
        ),
        "audiences": Field(Texts(LINE, least=1), "The audiences that its tokens may have.", required=True),
        "format": Field(
            Choice(("nested", "encrypted", "signed"), later=("phantom",)),
            "nested: signed, then encrypted. encrypted: symmetric and not signed; whoever can validate can also issue. signed: everybody on the way can read it.",
            '"nested"',
        ),
        "sign": Field(
            Choice(tuple(SIGNATURES)),
            "JWS algorithm of the inner layer; not for format encrypted. EdDSA is for imported keys alone.",
            '"ES256"',
        ),
        "encrypt": Field(
            Choice(tuple(KEY_MANAGEMENT)),
            "JWE key management. Format encrypted takes a symmetric one: whoever has a public key could make such tokens. dir, A128GCMKW and A256GCMKW are for imported keys alone.",
            '"A256KW"',
        ),
        "curve": Field(
            Choice(AGREEMENT_CURVES), "Of ECDH-ES and ECDH-ES+A256KW: the curve of the keys that are made.", '"P-256"'
        ),
        "content": Field(
            Choice(tuple(CONTENT)),
            "JWE content encryption.",
            '"A256GCM"',
        ),
        "typ": Field(
            Text('a media type such as "at+jwt"', r"[a-z0-9.-]{1,58}\+jwt"),
            "`typ` of the innermost layer (RFC 8725, section 3.11).",
            '"at+jwt"',
        ),
        "ttl": Field(Duration(1, 30 * 86400), "Lifetime of a token whose request names none.", '"5m"'),
        "max_ttl": Field(Duration(1, 30 * 86400), "The longest lifetime that a request may name.", '"1h"'),
        "leeway": Field(Duration(0, 30), "By how much clocks may differ when times in a token are checked.", '"5s"'),
        "max_token_bytes": Field(Whole(512, 16384), "The largest token that is issued.", "4096"),
        "max_staleness": Field(
            Duration(1, 86400),
            "As keys.max_staleness, for this profile; at most that and at least keys.propagation.",
            "keys.max_staleness",
        ),
        "accept_signed_until": Field(
            Moment(),
            "Of format nested: tokens that are signed alone, by this profile's keys, are accepted until then, and counted in tokensidecar_plain_tokens.",
        ),
        "report_only": Field(
            Flag(), "Tokens that are signed alone are accepted whatever the date, and only counted.", "false"
        ),
        "audit_validations": Field(Flag(), "Accepted tokens are put on record too, each by itself.", "false"),
        "proof_age": Field(
            Duration(1, 300),
            "How old a DPoP proof may be, beside leeway, with a token that is bound to a key.",
            '"60s"',
        ),
        "proof_replay": Field(
            Choice(("local", "fleet")),
            f"Who remembers DPoP proofs, so that none is taken twice. local: each sidecar those that it has seen. fleet: the store, which must be {' or '.join(LEDGERS)}.",
            '"local"',
        ),
        "refresh_ttl": Field(
            Duration(60, 90 * 86400),
            f"Lifetime of a refresh token, from each refresh on; without it none are made. Needs a store {' or '.join(LEDGERS)}.",
            "no refresh tokens",
        ),
        "refresh_max_ttl": Field(
            Duration(60, 366 * 86400),
            "For how long all refresh tokens of one login last together, however often they are refreshed.",
            '"30d", at least refresh_ttl',
        ),
        "one_time": Field(
            Flag(),
            f"Its tokens are good once: the Validate that accepts one consumes it, in the store, which must be {' or '.join(LEDGERS)}.",
            "false",
        ),
        "published": Field(
            Flag(),
            f"Its public keys are in /.well-known/jwks.json; a successor is prepared {spell(PUBLISH_AHEAD)} ahead.",
            "false",
        ),
    },
)
CLAIMS = Section(
    {
        "allow": Field(Texts(CLAIM), "Names that further claims may have.", "any"),
        "require": Field(Texts(CLAIM), "Names that further claims must have."),
        "forbid": Field(Texts(CLAIM), "Names that further claims may not have."),
        "types": Field(
            Words(CLAIM, Choice(tuple(TYPES))),
            f"What further claims must be: {_TYPE_EXAMPLE}. One of {', '.join(TYPES)}.",
        ),
        "max_claims": Field(
            Whole(8, 512), "How many claims a token may have, the registered ones included.", "no limit of its own"
        ),
    }
)
_KEY_ID = Text("1 to 256 printable ASCII characters", r"[\x20-\x7e]{1,256}")
IMPORT = Section(
    {
        "signature": Field(
            Text("an absolute path", PATH),
            "File of the public keys that sign: JWK, JWK Set or PEM. Read at the start.",
        ),
        "signature_key_id": Field(
            _KEY_ID, "`kid` of the one key in it, where the file names none.", "RFC 7638 thumbprint"
        ),
        "encryption": Field(
            Text("an absolute path", PATH),
            "File of the private or shared keys that open: JWK, JWK Set or PEM. Read at the start.",
        ),
        "encryption_key_id": Field(
            _KEY_ID, "`kid` of the one key in it, where the file names none.", "RFC 7638 thumbprint"
        ),
        "typ": Field(
            Texts(Text('a media type in lower case such as "jwt", or "" for none', r"(?:[a-z0-9.+-]{1,64})?"), least=1),
            "The `typ`s that its tokens have, in lower case and without application/.",
            "the profile's typ",
        ),
        "tolerate": Field(
            Texts(Text("the name of a header parameter that changes nothing", _TOLERABLE)),
            "Header names that are let pass, and never followed: x5t, jku …",
        ),
    }
)
