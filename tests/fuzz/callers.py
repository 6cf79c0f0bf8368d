"""Credentials of callers, as bytes of others: client certificates, service account tokens and the payloads of genuine ones, JWK Sets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from functools import cache
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate

from sidecar.errors import SidecarError, StaleStateError, UnidentifiedCallerError
from sidecar.gate import SERVICE_ACCOUNT
from sidecar.identity import leaf, name_of
from sidecar.jose.imported import signatures
from sidecar.jose.keys import Material
from sidecar.service_accounts import ALGORITHMS, ServiceAccounts
from tests.authority import Authority, dns, uri
from tests.cluster_tokens import AUDIENCE, ISSUER, Signer, claims, encode, key_set

if TYPE_CHECKING:
    from collections.abc import Mapping

FORM = SERVICE_ACCOUNT
NOW = 1_800_000_000.0


class _Keys:
    stale = False

    def __init__(self, keys: Mapping[str, Material]) -> None:
        self.keys = keys

    async def look_again(self) -> bool:
        return True


@cache
def _parts() -> tuple[Signer, ServiceAccounts]:
    signer = Signer("ES256")
    keys = signatures(key_set(signer), ALGORITHMS)
    return signer, ServiceAccounts(ISSUER, AUDIENCE, 86400, _Keys(keys), lambda: NOW)


def run(data: bytes) -> None:
    """Each of them; nothing but the documented error comes out, and no name that is not in strict form."""
    signer, verifier = _parts()
    head = encode(b'{"alg":"ES256","kid":"%b"}' % signer.key_id.encode())
    genuine = f"{head}.{encode(data)}"
    genuine += f".{encode(signer._signature(genuine.encode()))}"
    for token in (data.decode("utf-8", "replace"), f"{encode(data)}.e30.AAAA", genuine):
        with contextlib.suppress(UnidentifiedCallerError, StaleStateError):
            found = verifier(token)
            name = found if isinstance(found, str) else asyncio.run(_awaited(found))
            assert name.startswith("k8s:")
            assert name.isascii()
    pem = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(data) + b"-----END CERTIFICATE-----\n"
    for certificate in (data, pem):
        with contextlib.suppress(UnidentifiedCallerError):
            read = leaf(certificate)
            name = name_of(read, trust_domain="example.org", dns_names=("web",), now=read.valid_from)
            assert name == "dns:web" or name.startswith("spiffe://example.org/")
    with contextlib.suppress(ValueError):
        assert not any(key.private for key in signatures(data, ALGORITHMS).values())


async def _awaited(found: object) -> str:
    try:
        return await found  # type: ignore[misc, no-any-return] # an awaitable, as it is no text
    except SidecarError as error:
        raise UnidentifiedCallerError(error.message) from None


def seeds() -> list[bytes]:
    """A token, claims, a key set, and a certificate in DER."""
    signer, _ = _parts()
    certificate = load_pem_x509_certificate(Authority().issue(uri("spiffe://example.org/web"), dns("web")).certificate)
    genuine = claims(iat=int(NOW), nbf=int(NOW), exp=int(NOW) + 600)
    header = b'{"alg":"ES256","kid":"a","typ":"JWT"}'
    return [
        signer.token().encode(),
        json.dumps(genuine).encode(),
        header,
        key_set(signer),
        certificate.public_bytes(Encoding.DER),
    ]
