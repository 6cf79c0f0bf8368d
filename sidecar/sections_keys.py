"""[keys]: where rings are kept, what seals them, and how they are renewed. See `sections`."""

from __future__ import annotations

from sidecar import database
from sidecar.fields import Choice, Duration, Field, Flag, Location, Locations, Section, Text, Whole
from sidecar.jose.keys import ENGINES
from sidecar.kinds import DNS, PATH

MOUNT_SECONDS = 180  # in which a kubelet renews the mount of a Secret; keys are prepared at least so long ahead there
ROLES = {"issuer": ("issue",), "validator": ("open",), "both": ("issue", "open")}
"""The roles of each word of keys.role, as keys.kek names them."""
LEDGERS = ("sqlite", "postgresql")
"""The kinds of store that remember tokens: revoked, consumed and refreshed ones."""
_ARN = r"arn:aws[a-z-]{0,16}:kms:[a-z0-9-]{1,32}:[0-9]{12}:key/[A-Za-z0-9-]{1,64}"
_LOOPBACK = r"127\.0\.0\.1|localhost|\[::1\]"
_KEK = Location(
    {"file": PATH, "awskms": _ARN},
    '"file:/absolute/path" or "awskms:arn:aws:kms:REGION:ACCOUNT:key/ID" (of a key: an alias can be moved to another one)',
    later=("pkcs11", "vault"),
)
KEYS = Section(
    {
        "store": Field(
            Location(
                {"sqlite": PATH, "file": PATH, "kubernetes": f"//{DNS}/{DNS}", "postgresql": database.PATTERN},
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
            Text("an absolute path", PATH),
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
            Text("an absolute path", PATH),
            "File of the role's password, read again for each connection; not for every user to read.",
        ),
        "passfile": Field(
            Text("an absolute path", PATH),
            "The same in the form of libpq's .pgpass (mode 0600); without either libpq looks for ~/.pgpass.",
        ),
        "root_certificates": Field(
            Text("an absolute path", PATH),
            "PEM file of the CAs that may vouch for the server. Its name is always checked.",
            "the system's",
        ),
        "certificate": Field(Text("an absolute path", PATH), "PEM file of a certificate that this role logs in with."),
        "certificate_key": Field(Text("an absolute path", PATH), "Its private key, mode 0600."),
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
