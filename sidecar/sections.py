"""The sections of the config file: every key, its kind, its default and its purpose; and what later versions will have.

The reader (`config`), the JSON Schema and the reference table in README.md are all made from these tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sidecar import database
from sidecar.claims import RESERVED, TYPES
from sidecar.fields import (
    Choice,
    Duration,
    Field,
    Flag,
    JsonSchema,
    Location,
    Locations,
    Moment,
    Section,
    Share,
    Text,
    Texts,
    Whole,
    Words,
    spell,
)
from sidecar.gate import INTOLERABLE
from sidecar.identity import DNS_NAME, SPIFFE, TRUST_DOMAIN
from sidecar.jose.keys import ENGINES
from sidecar.jose.suites import AGREEMENT_CURVES, CONTENT, KEY_MANAGEMENT, SIGNATURES
from sidecar.policy import SERVED, Verb
from sidecar.rates import PATTERN as RATE
from sidecar.routes import KEPT_HEADERS, REQUEST_HEADERS, Upstream


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
MOUNT_SECONDS = 180  # in which a kubelet renews the mount of a Secret; keys are prepared at least so long ahead there
ROLES = {"issuer": ("issue",), "validator": ("open",), "both": ("issue", "open")}
"""The roles of each word of keys.role, as keys.kek names them."""
LEDGERS = ("sqlite", "postgresql")
"""The kinds of store that remember tokens: revoked, consumed and refreshed ones."""
PLANES = ("app", "admin", "envoy", "forward_auth")
"""The keys of [listen] that are lists of addresses."""
ROUTES_MOST = 1000
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("auto", "json", "text")
HTTP_OFF = "off"
PROFILE_NAME = Text("a name of a-z, 0-9, _ and -, at most 64 characters", "[a-z0-9][a-z0-9_-]{0,63}")
_LINE = Text("text of 1 to 255 characters without control characters", r"[^\x00-\x1f\x7f]{1,255}")
_CLAIM = Text(
    "the name of a claim that is not a registered one",
    rf"(?!(?:{'|'.join(sorted(RESERVED))})$)[^\x00-\x1f\x7f]{{1,128}}",
)
ADDRESS_TEXT = Text(
    'an address: "unix:/absolute/path" or "127.0.0.1:8790"',
    r"unix:/[^\x00-\x1f\x7f]+|[0-9.]+:[0-9]{1,5}|localhost:[0-9]{1,5}|\[[0-9a-fA-F:.]+\]:[0-9]{1,5}",
)
_TOLERABLE = rf"(?!(?:{'|'.join(sorted(INTOLERABLE))})$)[A-Za-z0-9#._-]{{1,64}}"
_TYPE_EXAMPLE = '{ tenant = "text" }'
_PATH = r"/[^\x00-\x1f\x7f]+"
_ARN = r"arn:aws[a-z-]{0,16}:kms:[a-z0-9-]{1,32}:[0-9]{12}:key/[A-Za-z0-9-]{1,64}"
_LOOPBACK = r"127\.0\.0\.1|localhost|\[::1\]"
_FILE = Text("an absolute path", _PATH)
_DNS = r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"
# Not gRPC's own keys, and none of binary values (PROTOCOL-HTTP2.md of gRPC).
GUARD = r"(?!grpc-)(?!.*-bin$)(?!(?:authorization|x-request-id|te|user-agent|content-type)$)[a-z0-9_.-]{1,64}"

LISTEN = Section(
    {
        "app": Field(
            Texts(ADDRESS_TEXT),
            "Where services call: issue and validate.",
            '["unix:<runtime>/app/app.sock", "127.0.0.1:8790"]',
        ),
        "admin": Field(
            Texts(ADDRESS_TEXT),
            "Where operators call: rotate, keys. Empty: nowhere.",
            '["unix:<runtime>/admin/admin.sock"]; without a file also "127.0.0.1:8791"',
        ),
        "http": Field(
            Text(
                f'a TCP address such as "127.0.0.1:8792", or "{HTTP_OFF}"',
                rf"{HTTP_OFF}|(?!unix:)(?:{ADDRESS_TEXT.pattern})",
            ),
            f'/livez, /readyz, /metrics, /.well-known/jwks.json. "{HTTP_OFF}": nowhere.',
            '"127.0.0.1:8792"',
        ),
        "envoy": Field(
            Texts(ADDRESS_TEXT),
            "Where Envoy asks about requests (ext_authz), as [[routes]] say. Addresses as in listen.app. Empty: nowhere.",
            "[]",
        ),
        "forward_auth": Field(
            Texts(ADDRESS_TEXT),
            "Where other gateways ask, over HTTP: GET /auth. TCP addresses as in listen.app. Empty: nowhere.",
            "[]",
        ),
        "allow_http_beyond_loopback": Field(Flag(), "Others on the network can read metrics and readiness.", "false"),
        "allow_plaintext_tcp": Field(
            Flag(),
            "The app plane and the gateways' listeners may listen beyond loopback without TLS: tokens and claims cross the network readable, and callers are not told apart.",
            "false",
        ),
    },
    later={
        "workers": "more than one worker",
    },
)
ADDRESS = Section(
    {
        "address": Field(ADDRESS_TEXT, "The address that a string would give.", required=True),
        "mode": Field(Whole(0, 0o777, shown=lambda n: f"0o{n:03o}"), "Mode of the socket file.", "0o660"),
        "group": Field(
            Text("the name or number of a group", "[a-z_][a-z0-9_-]{0,31}|[0-9]{1,10}"), "Group of the socket file."
        ),
        "caller": Field(
            Text('a caller\'s name such as "unix:web"', "(?:unix|tcp):[A-Za-z0-9._-]{1,64}"),
            "Name of whoever calls through it, unless certificates or service accounts name them.",
            "unix:<file name without .sock>, tcp:app, tcp:admin",
        ),
        "service_accounts": Field(
            Flag(),
            "Of TCP: callers show a Kubernetes service account token (metadata authorization: Bearer …), see [service_accounts]. Beyond loopback with tls.",
            "false",
        ),
        "guard": Field(
            Text('a metadata key such as "x-tokensidecar-guard"', GUARD),
            "Of TCP: each call must carry this metadata key with the value true, which a request that a server was tricked into sending does not.",
        ),
    }
)
TLS = Section(
    {
        "certificate": Field(
            _FILE,
            "File of the server's certificate and its chain, in PEM. It and the others are read again when they change.",
            required=True,
        ),
        "key": Field(_FILE, "File of its private key, in PEM, closed to others.", required=True),
        "client_ca": Field(
            _FILE,
            "File of the CAs of client certificates, in PEM: who has none of theirs cannot connect. Required, unless service_accounts.",
        ),
        "trust_domain": Field(
            Text('a SPIFFE trust domain such as "example.org"', TRUST_DOMAIN),
            "Callers are named by the one URI name of their certificate, a SPIFFE ID of this trust domain: spiffe://example.org/….",
        ),
        "dns_names": Field(
            Texts(Text('a DNS name in lower case, without a star, such as "web.example.org"', DNS_NAME), least=1),
            "Of certificates without URI names: callers with one of these DNS names, named dns:….",
        ),
    }
)
SERVICE_ACCOUNTS = Section(
    {
        "issuer": Field(_LINE, "`iss` of the cluster's tokens (--service-account-issuer).", required=True),
        "audience": Field(
            _LINE, "Their only `aud`: the audience of the projected token, this sidecar's alone.", required=True
        ),
        "keys": Field(
            Location(
                {"file": _PATH, "https": r"//[A-Za-z0-9.\[\]:-]{1,255}(?:/[!-~]{0,1024})?"},
                '"file:/absolute/path" or "https://host/path"',
            ),
            "The JWK Set of the cluster's keys: a file, or an address such as https://kubernetes.default.svc/openid/v1/jwks. Read in the background, never for a call.",
            required=True,
        ),
        "keys_ca": Field(_FILE, "Of https: file of the CAs that its certificate must be of, in PEM.", "the system's"),
        "keys_token": Field(
            _FILE, "Of https: file of a token to show there, as API servers want it; read again each time."
        ),
        "max_ttl": Field(Duration(600, 30 * 86400), "The longest lifetime that a token may have.", '"24h"'),
    }
)
PROFILE = Section(
    {
        "preset": Field(
            Choice(tuple(name for name in PRESETS if name)),
            "A kind of token made ready; every key can still be given. transaction-token: OAuth Transaction Tokens (draft-ietf-oauth-transaction-tokens).",
        ),
        "issuer": Field(
            _LINE, "`iss` of its tokens; with a colon it must be a URI (RFC 7519, section 4.1.1).", required=True
        ),
        "audiences": Field(Texts(_LINE, least=1), "The audiences that its tokens may have.", required=True),
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
        "allow": Field(Texts(_CLAIM), "Names that further claims may have.", "any"),
        "require": Field(Texts(_CLAIM), "Names that further claims must have."),
        "forbid": Field(Texts(_CLAIM), "Names that further claims may not have."),
        "types": Field(
            Words(_CLAIM, Choice(tuple(TYPES))),
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
            Text("an absolute path", _PATH),
            "File of the public keys that sign: JWK, JWK Set or PEM. Read at the start.",
        ),
        "signature_key_id": Field(
            _KEY_ID, "`kid` of the one key in it, where the file names none.", "RFC 7638 thumbprint"
        ),
        "encryption": Field(
            Text("an absolute path", _PATH),
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
_KEK = Location(
    {"file": _PATH, "awskms": _ARN},
    '"file:/absolute/path" or "awskms:arn:aws:kms:REGION:ACCOUNT:key/ID" (of a key: an alias can be moved to another one)',
    later=("pkcs11", "vault"),
)
KEYS = Section(
    {
        "store": Field(
            Location(
                {"sqlite": _PATH, "file": _PATH, "kubernetes": f"//{_DNS}/{_DNS}", "postgresql": database.PATTERN},
                f'"sqlite:/absolute/path", "file:/absolute/folder", "kubernetes://namespace/secret" or {database.MEANING}',
            ),
            "Where rings are kept. sqlite: this machine's. file: a folder that sidecars read and a keeper writes. kubernetes: a Secret, for keepers; sidecars mount it, and read file. postgresql: a database, for a whole fleet; never with a password in it.",
            '"sqlite:<state>/state.db"',
        ),
        "kek": Field(
            Locations(_KEK, ROLES["both"]),
            "The key-encryption key, which seals rings; or one for each role: { issue = …, open = … }. A role needs its own, a keeper both. file: a file. awskms: a key of AWS KMS, by its ARN.",
            '"file:<state>/kek"',
        ),
        "further_kek": Field(
            Locations(_KEK, ROLES["both"]),
            "As keys.kek: one more that may open rings, and seals none. The next or the former one, while `rekey` goes from one to the other.",
        ),
        "settings_revision": Field(
            Whole(1, 1_000_000_000),
            "Raise it with each change of a profile's format, algorithms, lifetimes or leeway: the highest one decides what the next keys are.",
            "1",
        ),
        "role": Field(
            Choice(tuple(ROLES)),
            "What this sidecar does. issuer: makes tokens. validator: opens them, and cannot make any of format nested.",
            '"both"',
        ),
        "engine": Field(
            Choice(ENGINES),
            "What does the cryptography: prepared, for the suites of the default formats, and jwcrypto for the rest; or jwcrypto alone.",
            '"prepared"',
        ),
        "service_account": Field(
            Text("an absolute path", _PATH),
            "Of store kubernetes: the directory of the service account's token and ca.crt.",
            '"/var/run/secrets/kubernetes.io/serviceaccount"',
        ),
        "single_pod": Field(
            Flag(), "Inside a Kubernetes pod: it is meant that no other pod can validate this one's tokens.", "false"
        ),
        "rotate_every": Field(Duration(3, 365 * 86400), "Age at which a key gets a successor.", '"24h"'),
        "propagation": Field(
            Duration(1, 3600),
            "How long before its activation a key is prepared. At least 3m where a Secret is mounted: a kubelet takes minutes to renew it.",
            '"30s"; with a Secret "3m"',
        ),
        "max_staleness": Field(
            Duration(1, 86400), "How long a sidecar may answer on what it last saw in the store.", '"15m"'
        ),
        "max_skew": Field(Duration(1, 30), "A clock further from the store's than this makes a sidecar stale.", '"5s"'),
        "refresh_interval": Field(Duration(1, 3600), "How often a sidecar looks for a new revision.", '"5s"'),
    }
)
KEYS_AWS = Section(
    {
        "region": Field(
            Text('a region such as "eu-central-1"', "[a-z0-9-]{1,32}"),
            "Where AWS KMS is asked.",
            "that of the key's ARN",
        ),
        "endpoint": Field(
            Text(
                'an address such as "https://vpce-1a2b.kms.eu-central-1.vpce.amazonaws.com"; http:// is for loopback alone',
                rf"https://[A-Za-z0-9.\[\]:-]{{1,255}}/?|http://(?:{_LOOPBACK})(?::[0-9]{{1,5}})?/?",
            ),
            "Where AWS KMS is asked, if not at its public name: a VPC endpoint without private DNS, or another implementation of its API.",
            "AWS's own",
        ),
    }
)
KEYS_POSTGRESQL = Section(
    {
        "password_file": Field(
            Text("an absolute path", _PATH),
            "File of the role's password, read again for each connection; not for every user to read.",
        ),
        "passfile": Field(
            Text("an absolute path", _PATH),
            "The same in the form of libpq's .pgpass (mode 0600); without either libpq looks for ~/.pgpass.",
        ),
        "root_certificates": Field(
            Text("an absolute path", _PATH),
            "PEM file of the CAs that may vouch for the server. Its name is always checked.",
            "the system's",
        ),
        "certificate": Field(Text("an absolute path", _PATH), "PEM file of a certificate that this role logs in with."),
        "certificate_key": Field(Text("an absolute path", _PATH), "Its private key, mode 0600."),
        "allow_plaintext": Field(
            Flag(),
            "Beyond loopback and sockets too, without TLS where the server has none, and whoever the server is: others on the network can read the password's exchange and sealed rings, and take the server's place.",
            "false",
        ),
        "listen": Field(
            Flag(),
            "Be told of changes at once (LISTEN): on a direct connection, or a pooler of sessions. A pooler of transactions does not carry it; there, polling every refresh_interval is what there is.",
            "false",
        ),
    }
)
AUDIT = Section(
    {
        "sink": Field(
            Text('"stdout" or "file:/absolute/path"', rf"stdout|file:{_PATH}"),
            "Where decisions are put on record. stdout: the pipe took it. file: it is on the disk, chained and signed.",
            '"stdout"',
        ),
        "required": Field(Flag(), "No record, no answer: AUDIT_UNAVAILABLE.", "false"),
        "names": Field(
            Choice(("hashed", "clear")),
            "How subjects and token ids are told: as salted hashes, by which records can be joined, or themselves.",
            '"hashed"',
        ),
        "salt": Field(
            Location({"file": _PATH}, '"file:/absolute/path"'),
            "Of the hashes: 64 hexadecimal digits, as `openssl rand -hex 32` makes them. Sidecars with the same one can be joined.",
            '"file:<state>/audit-salt", made there at the first start',
        ),
    }
)
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_CALLER = Text(
    'a caller\'s name such as "unix:app", "spiffe://example.org/web", "dns:web.example.org" or "k8s:namespace/account"; at the end of a '
    "SPIFFE ID or a namespace, /* stands for all below",
    rf"(?:unix|tcp):[A-Za-z0-9._-]{{1,64}}|{SPIFFE}(?:/\*)?|spiffe://{TRUST_DOMAIN}/\*|dns:{DNS_NAME}|k8s:{_LABEL}/(?:{_DNS}|\*)",
)
_NAME = Text('a name, a prefix such as "user-*", or "caller" for the caller\'s own name', _LINE.pattern)
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
        "claims": Field(Texts(_CLAIM), "Names of the further claims that it may set.", "the profile's"),
        "rate": _RATE,
    }
)
POLICY_VERB = Section({"profiles": _PROFILES, "rate": _RATE})
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
            Texts(_LINE, least=1), "One of these must be in the token's aud. Required unless the route is open."
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
LOG = Section(
    {
        "level": Field(Choice(LOG_LEVELS), "The least severe log line that is written.", '"info"'),
        "format": Field(Choice(LOG_FORMATS), "auto: text on a terminal, else json.", '"auto"'),
    }
)
TRACES = Section(
    {
        "endpoint": Field(
            Text(
                "a collector such as http://127.0.0.1:4317, or https://…",
                r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}",
            ),
            "Where spans are sent: OTLP over gRPC. Needs the extra `otel`.",
            "no traces",
        ),
        "ratio": Field(
            Share(), "The share of traces begun here that is recorded. Whoever began another has decided.", "1.0"
        ),
    }
)
TABLES: dict[str, Section] = {
    "listen": LISTEN,
    "envoy": ENVOY,
    "forward_auth": FORWARD_AUTH,
    "keys": KEYS,
    "audit": AUDIT,
    "log": LOG,
    "traces": TRACES,
}
TABLES_WITHIN: dict[str, dict[str, Section]] = {"keys": {"aws": KEYS_AWS, "postgresql": KEYS_POSTGRESQL}}
TABLES_LATER: dict[str, str] = {}
SECTIONS: dict[str, Section] = {
    "listen": LISTEN,
    "listen.app[], listen.admin[]": ADDRESS,
    "listen.app[].tls, listen.admin[].tls": TLS,
    "service_accounts": SERVICE_ACCOUNTS,
    "profiles.NAME": PROFILE,
    "profiles.NAME.claims": CLAIMS,
    "profiles.NAME.import": IMPORT,
    "keys": KEYS,
    "keys.aws": KEYS_AWS,
    "keys.postgresql": KEYS_POSTGRESQL,
    "policy.NAME": POLICY,
    "policy.NAME.issue": POLICY_ISSUE,
    "policy.NAME.VERB": POLICY_VERB,
    "routes[]": ROUTE,
    "envoy": ENVOY,
    "forward_auth": FORWARD_AUTH,
    "audit": AUDIT,
    "log": LOG,
    "traces": TRACES,
}
"""Every section, by the name that the reference table gives it."""
VARIABLES = {
    "TOKENSIDECAR_CONFIG": "the file, unless --config names one",
    "TOKENSIDECAR_LISTEN_APP": "listen.app, separated by commas",
    "TOKENSIDECAR_LISTEN_ADMIN": "listen.admin, separated by commas",
    "TOKENSIDECAR_LISTEN_HTTP": "listen.http",
    "TOKENSIDECAR_LOG_LEVEL": "log.level",
    "TOKENSIDECAR_LOG_FORMAT": "log.format",
    "TOKENSIDECAR_KEK": "keys.kek",
    "TOKENSIDECAR_RUNTIME_DIR": "the directory of sockets (<runtime>)",
    "TOKENSIDECAR_STATE_DIR": "the directory of database and key-encryption key (<state>)",
}
"""The variables that the server reads, and what each sets."""


def json_schema() -> JsonSchema:
    """JSON Schema (draft 2020-12) of the file. What needs more than one key to judge is left to `load`."""
    one: JsonSchema = {"anyOf": [ADDRESS_TEXT.schema(), ADDRESS.schema({"tls": TLS.schema()})]}
    planes: dict[str, JsonSchema] = {
        name: {"type": "array", "items": one, "description": LISTEN.fields[name].purpose} for name in PLANES
    }
    listen, profile = LISTEN.schema(planes), PROFILE.schema({"claims": CLAIMS.schema(), "import": IMPORT.schema()})
    profiles = {
        "type": "object",
        "propertyNames": {"pattern": f"^(?:{PROFILE_NAME.pattern})$"},
        "additionalProperties": profile,
    }
    verbs: dict[str, JsonSchema] = {
        verb.value: (POLICY_ISSUE if verb is Verb.ISSUE else POLICY_VERB).schema() for verb in SERVED
    }
    policies: JsonSchema = {
        "type": "object",
        "propertyNames": {"pattern": f"^(?:{PROFILE_NAME.pattern})$"},
        "additionalProperties": POLICY.schema(verbs),
    }
    tables: JsonSchema = {name: section.schema() for name, section in TABLES.items()}
    for name, within in TABLES_WITHIN.items():
        tables[name] = TABLES[name].schema({inner: section.schema() for inner, section in within.items()})
    tables |= {
        "listen": listen,
        "profiles": profiles,
        "policy": policies,
        "service_accounts": SERVICE_ACCOUNTS.schema(),
        "routes": {"type": "array", "items": ROUTE.schema(), "maxItems": ROUTES_MOST},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Token Sidecar configuration",
        "type": "object",
        "properties": tables,
        "additionalProperties": False,
    }
