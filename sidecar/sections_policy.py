"""[policy.NAME]: which caller may do what. See `sections`."""

from __future__ import annotations

from sidecar.fields import Duration, Field, Section, Text, Texts
from sidecar.identity import DNS_NAME, SPIFFE, TRUST_DOMAIN
from sidecar.kinds import CLAIM, DNS, LINE, PROFILE_NAME
from sidecar.rates import PATTERN as RATE

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_CALLER = Text(
    'a caller\'s name such as "unix:app", "spiffe://example.org/web", "dns:web.example.org" or "k8s:namespace/account"; at the end of a '
    "SPIFFE ID or a namespace, /* stands for all below",
    rf"(?:unix|tcp):[A-Za-z0-9._-]{{1,64}}|{SPIFFE}(?:/\*)?|spiffe://{TRUST_DOMAIN}/\*|dns:{DNS_NAME}|k8s:{_LABEL}/(?:{DNS}|\*)",
)
_NAME = Text('a name, a prefix such as "user-*", or "caller" for the caller\'s own name', LINE.pattern)
_PROFILES = Field(Texts(PROFILE_NAME, least=1), "The profiles that it may be used with.", required=True)
_RATE = Field(
    Text('a rate such as "100/s", "600/m" or "1000/h"', RATE),
    "So many items in so much time, and as many at once; more is OVERLOADED. Each item of a batch counts.",
    "no limit",
)
POLICY = Section(
    {"caller": Field(_CALLER, "Whom it is about. Several policies may be about one.", required=True)},
)
POLICY_ISSUE = Section(
    {
        "profiles": _PROFILES,
        "audiences": Field(Texts(_NAME), "The audiences that may be asked for.", "the profile's"),
        "scopes": Field(Texts(_NAME), "The scopes that may be asked for.", "any"),
        "subjects": Field(Texts(_NAME), "The subjects that may be named.", "any"),
        "client_ids": Field(
            Texts(_NAME), 'The client ids that may be named. "caller": its own name, which is also the default.', "any"
        ),
        "max_ttl": Field(Duration(1, 30 * 86400), "The longest lifetime that may be asked for.", "the profile's"),
        "claims": Field(Texts(CLAIM), "Names of the further claims that it may set.", "the profile's"),
        "rate": _RATE,
    }
)
POLICY_VERB = Section({"profiles": _PROFILES, "rate": _RATE})
