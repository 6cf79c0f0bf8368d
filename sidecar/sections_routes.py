"""[[routes]], [envoy] and [forward_auth]: what gateways may let through, and how they ask. See `sections`."""

from __future__ import annotations

from sidecar.fields import Choice, Field, Flag, Section, Text, Texts, Words
from sidecar.kinds import LINE, PROFILE_NAME
from sidecar.routes import KEPT_HEADERS, REQUEST_HEADERS, Upstream

ROUTES_MOST = 1000
_HEADER = Text("the name of a header in lower case", rf"(?!(?:{'|'.join(KEPT_HEADERS)})$)[a-z0-9-]{{1,64}}")
_WORD = r"[!#-+\--:<-\[\]-~]{1,128}"
_SCOPE = Text("one word of printable ASCII, without quotes and backslashes", r"[\x21\x23-\x5b\x5d-\x7e]{1,255}")
ROUTE = Section(
    {
        "name": Field(PROFILE_NAME, "What metadata and audit call it.", required=True),
        "hosts": Field(
            Texts(
                Text(
                    'a host in lower case without a port, or "*.example.com" for all below one',
                    r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_.-]{0,250}[a-z0-9_])?",
                )
            ),
            "The hosts that requests are for.",
            "any",
        ),
        "paths": Field(
            Texts(Text('a path in normal form, or one with all below it: "/v1/*"', r"/[\x21-\x7e]{0,1023}")),
            "The paths, without queries. Requests whose path could be read in two ways get 400.",
            "any",
        ),
        "methods": Field(Texts(Text("a method in capitals", "[A-Z]{1,32}")), "The methods.", "any"),
        "extensions": Field(
            Words(Text("a name", _WORD), Text("text of 1 to 255 characters", r"[^\x00-\x1f\x7f]{1,255}")),
            "What the gateway's own context must say: Envoy's context_extensions.",
            "any",
        ),
        "open": Field(Flag(), "No token is asked for; headers that routes fill are taken out all the same.", "false"),
        "profiles": Field(Texts(PROFILE_NAME, least=1), "The profiles whose tokens are accepted.", '["default"]'),
        "audiences": Field(
            Texts(LINE, least=1), "One of these must be in the token's aud. Required unless the route is open."
        ),
        "scopes": Field(Texts(_SCOPE), "All of these must be in the token's scope.", "[]"),
        "token": Field(
            Texts(
                Text(
                    '"bearer", "dpop", "header:NAME" or "cookie:NAME"',
                    r"bearer|dpop|header:[a-z0-9-]{1,64}|cookie:[A-Za-z0-9_.-]{1,64}",
                ),
                least=1,
            ),
            "Where the token stands. Two at once are refused.",
            '["bearer", "dpop"]',
        ),
        "upstream": Field(
            Choice(tuple(one.value for one in Upstream)),
            "What goes upstream. strip: nothing. claims: claims as headers. phantom: a short-lived signed token. pass: the token itself.",
            '"strip"',
        ),
        "claims": Field(
            Words(_HEADER, Text('the name of a claim, or "*" for all', r"[^\x00-\x1f\x7f]{1,128}")),
            'Headers, and the claim that each gets: { x-user = "sub" }. Clients cannot set them, on any route.',
        ),
        "phantom": Field(PROFILE_NAME, "The profile of what goes upstream: format signed, published."),
        "origin": Field(
            Text('an origin such as "https://orders.example.com"', r"https?://[a-z0-9.-]{1,253}(?::[0-9]{1,5})?"),
            "Scheme and host that clients call, for DPoP proofs.",
            "what the request says",
        ),
        "dpop_nonce": Field(Flag(), "DPoP proofs must have a nonce of this sidecar's (RFC 9449, section 9).", "false"),
    }
)
ENVOY = Section(
    {
        "certificate": Field(
            Choice(("peer", "xfcc")),
            "Which client certificate a bound token is held against. peer: of the connection to Envoy. xfcc: the one in x-forwarded-client-cert, if a trusted proxy before sets it.",
            '"peer"',
        ),
    }
)
FORWARD_AUTH = Section(
    {
        "request": Field(
            Choice(tuple(REQUEST_HEADERS)),
            "Which headers of the gateway say what was asked. x-original: X-Original-Method and X-Original-URL (nginx). x-forwarded: X-Forwarded-Method, -Proto, -Host and -Uri (Traefik, Caddy, APISIX). The gateway must set them whatever the client sent.",
            '"x-original"',
        ),
        "certificate": Field(
            Text("the name of a header in lower case", r"[a-z0-9-]{1,64}"),
            "The gateway's header with the client's certificate, in URL-encoded PEM. The gateway must set it, or take it out, whatever the client sent.",
        ),
    }
)
