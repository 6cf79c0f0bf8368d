"""Whom a client certificate names. The chain is proven by then; this is about what is written in the leaf, and nothing else of it counts.

Rules:
 1. A certificate with URI names has exactly one, and that is a SPIFFE ID in strict form, with a path, of the trust domain that is
    configured. (X.509-SVID, sections 2 and 5; SPIFFE-ID, section 2.) Its DNS names then say nothing.
 2. One without URI names has exactly one DNS name among those that are configured, compared as text.
 3. It is the certificate of a leaf: no CA, and no key that signs certificates or revocation lists. (X.509-SVID, section 5.2.)
 4. It is valid now, also on a connection that it opened long ago.
 5. The subject, its common name included, names nobody.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import NoReturn

from cryptography import x509

from sidecar.errors import UnidentifiedCallerError

SPIFFE = r"spiffe://[a-z0-9._-]{1,255}(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]{1,255}){1,32}"
TRUST_DOMAIN = r"[a-z0-9._-]{1,255}"
DNS_NAME = r"(?=[a-z0-9.-]{1,253}$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*"
SPIFFE_MAX = 2048  # bytes, SPIFFE-ID section 2.3

_spiffe = re.compile(SPIFFE).fullmatch

STAGES = {
    "caller.certificate": "the certificate cannot be read",
    "caller.certificate_time": "the certificate is not valid now",
    "caller.certificate_ca": "the certificate is that of a CA",
    "caller.no_name": "the certificate has neither a URI name nor a configured DNS name; its common name names nobody",
    "caller.several_names": "the certificate has several URI names, or several configured DNS names",
    "caller.spiffe_id": "the URI name of the certificate is not a SPIFFE ID",
    "caller.trust_domain": "the SPIFFE ID is of another trust domain",
}
"""Why a certificate names nobody. Told to whoever presents it: who has it can read it."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """What counts of a client certificate. Times are seconds since the epoch."""

    uris: tuple[str, ...]
    dns_names: tuple[str, ...]
    valid_from: float
    valid_until: float
    ca: bool


def leaf(pem: bytes) -> Leaf:
    """The leaf of one certificate in PEM. `UnidentifiedCallerError`: it cannot be read."""
    try:
        found = x509.load_pem_x509_certificate(pem)
        extensions = found.extensions
        uris, dns_names, ca = [], [], False
        for each in extensions:
            if isinstance(each.value, x509.SubjectAlternativeName):
                uris = each.value.get_values_for_type(x509.UniformResourceIdentifier)
                dns_names = each.value.get_values_for_type(x509.DNSName)
            elif isinstance(each.value, x509.BasicConstraints):
                ca |= each.value.ca
            elif isinstance(each.value, x509.KeyUsage):
                ca |= each.value.key_cert_sign or each.value.crl_sign
        return Leaf(
            tuple(uris),
            tuple(dns_names),
            found.not_valid_before_utc.timestamp(),
            found.not_valid_after_utc.timestamp(),
            ca,
        )
    except Exception:  # noqa: BLE001 # whatever the library raises: TLS has let it pass, and it names nobody all the same
        _refuse("caller.certificate")


def name_of(found: Leaf, *, trust_domain: str, dns_names: Collection[str], now: float) -> str:
    """The caller's name, `spiffe://…` or `dns:…`. `UnidentifiedCallerError` with the stage of the rule that it breaks.

    `trust_domain` empty: no SPIFFE ID is accepted; `dns_names` likewise.
    """
    if not found.valid_from <= now < found.valid_until:
        _refuse("caller.certificate_time")
    if found.ca:
        _refuse("caller.certificate_ca")
    if found.uris:
        if len(found.uris) > 1:
            _refuse("caller.several_names")
        (uri,) = found.uris
        if len(uri) > SPIFFE_MAX or not _spiffe(uri):
            _refuse("caller.spiffe_id")
        if uri.split("/", 3)[2] != trust_domain:
            _refuse("caller.trust_domain")
        return uri
    fitting = [name for name in dict.fromkeys(found.dns_names) if name in dns_names]
    if len(fitting) > 1:
        _refuse("caller.several_names")
    if not fitting:
        _refuse("caller.no_name")
    return f"dns:{fitting[0]}"


def _refuse(stage: str) -> NoReturn:
    raise UnidentifiedCallerError(STAGES[stage], stage=stage)
