"""[listen] and [service_accounts]: where each plane listens, and who calls there. See `sections`."""

from __future__ import annotations

from sidecar.fields import Duration, Field, Flag, Location, Section, Text, Texts, Whole
from sidecar.identity import DNS_NAME, TRUST_DOMAIN
from sidecar.kinds import FILE, LINE, PATH

PLANES = ("app", "admin", "envoy", "forward_auth")
"""The keys of [listen] that are lists of addresses."""
HTTP_OFF = "off"
ADDRESS_TEXT = Text(
    'an address: "unix:/absolute/path" or "127.0.0.1:8790"',
    r"unix:/[^\x00-\x1f\x7f]+|[0-9.]+:[0-9]{1,5}|localhost:[0-9]{1,5}|\[[0-9a-fA-F:.]+\]:[0-9]{1,5}",
)
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
            FILE,
            "File of the server's certificate and its chain, in PEM. It and the others are read again when they change.",
            required=True,
        ),
        "key": Field(FILE, "File of its private key, in PEM, closed to others.", required=True),
        "client_ca": Field(
            FILE,
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
        "issuer": Field(LINE, "`iss` of the cluster's tokens (--service-account-issuer).", required=True),
        "audience": Field(
            LINE, "Their only `aud`: the audience of the projected token, this sidecar's alone.", required=True
        ),
        "keys": Field(
            Location(
                {"file": PATH, "https": r"//[A-Za-z0-9.\[\]:-]{1,255}(?:/[!-~]{0,1024})?"},
                '"file:/absolute/path" or "https://host/path"',
            ),
            "The JWK Set of the cluster's keys: a file, or an address such as https://kubernetes.default.svc/openid/v1/jwks. Read in the background, never for a call.",
            required=True,
        ),
        "keys_ca": Field(FILE, "Of https: file of the CAs that its certificate must be of, in PEM.", "the system's"),
        "keys_token": Field(
            FILE, "Of https: file of a token to show there, as API servers want it; read again each time."
        ),
        "max_ttl": Field(Duration(600, 30 * 86400), "The longest lifetime that a token may have.", '"24h"'),
    }
)
