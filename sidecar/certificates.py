"""The files of a TLS address: a certificate with its chain, its private key, and the CAs of client certificates; good together, or refused.

Rules:
 1. All of it is PEM (RFC 7468); the key without a password, and not readable by every user of the machine.
 2. The first certificate is the server's own: valid now, its public key that of the private key, and for server authentication if it says
    what for (RFC 5280, section 4.2.1.12).
 3. RSA keys have at least 2048 bits; others are P-256 or P-384: what the clients of gRPC take.
 4. Each CA certificate is that of a CA, and at least one is valid now. A bundle without any would let nobody in.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

FILE_MAX = 1 << 20  # bytes
RSA_LEAST = 2048  # bits
_CURVES = (ec.SECP256R1, ec.SECP384R1)


class UnusableCertificateError(Exception):
    """These files cannot serve; the text says which, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one TLS address serves with. Times are seconds since the epoch; `clients_until` is the end of the last CA to end, 0 without any.

    `digest`: SHA-256 of certificates and CAs, in hexadecimal, and nothing of the key.
    """

    chain: bytes
    key: bytes
    client_ca: bytes | None
    valid_from: float
    valid_until: float
    clients_until: float
    digest: str

    def __repr__(self) -> str:
        return f"Credentials({self.digest})"


def read(certificate: Path, key: Path, client_ca: Path | None, now: float) -> Credentials:
    """What is in the files. `UnusableCertificateError`: not good, or not good together."""
    chain, secret = _bytes(certificate), _bytes(key, secret=True)
    own = _certificates(certificate, chain)[0]
    _check_own(certificate, own, now)
    _check_key(key, secret, certificate, own)
    bundle = _bytes(client_ca) if client_ca else None
    return Credentials(
        chain,
        secret,
        bundle,
        own.not_valid_before_utc.timestamp(),
        own.not_valid_after_utc.timestamp(),
        _clients_until(client_ca, bundle, now) if client_ca and bundle is not None else 0.0,
        hashlib.sha256(chain + b"\n" + (bundle or b"")).hexdigest(),
    )


def _bytes(path: Path, *, secret: bool = False) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_MAX + 1)
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise UnusableCertificateError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > FILE_MAX:
        raise UnusableCertificateError(f"{path} is larger than 1 MiB")
    if secret and mode & 0o007:
        raise UnusableCertificateError(
            f"{path} holds a private key, and every user of this machine may open it: chmod o= {path} (of a Secret: defaultMode: 0440)"
        )
    return data


def _certificates(path: Path, data: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data)
    except Exception:  # noqa: BLE001 # whatever the library raises on nonsense
        raise UnusableCertificateError(f"{path} is not certificates in PEM, or not whole") from None


def _check_own(path: Path, own: x509.Certificate, now: float) -> None:
    if now >= own.not_valid_after_utc.timestamp():
        raise UnusableCertificateError(
            f"{path}: the certificate has expired at {own.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
        )
    if now < own.not_valid_before_utc.timestamp():
        raise UnusableCertificateError(
            f"{path}: the certificate is valid only from {own.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ} on"
        )
    try:
        uses = own.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    except Exception:  # noqa: BLE001 # as above
        raise UnusableCertificateError(f"{path}: the extensions of the certificate cannot be read") from None
    if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}.intersection(uses):
        raise UnusableCertificateError(
            f"{path}: the certificate is not for servers (its extended key usage lacks serverAuth)"
        )


def _check_key(path: Path, data: bytes, certificate: Path, own: x509.Certificate) -> None:
    try:
        key = load_pem_private_key(data, None)
        same = _spki(key.public_key()) == _spki(own.public_key())
    except Exception:  # noqa: BLE001 # as above; its words may quote the key
        raise UnusableCertificateError(f"{path} is not a private key in PEM without a password, or not whole") from None
    if not same:
        raise UnusableCertificateError(f"{path} is not the key of {certificate}")
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < RSA_LEAST:
            raise UnusableCertificateError(
                f"{path} is an RSA key of {key.key_size} bits; at least {RSA_LEAST} are needed"
            )
    elif not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, _CURVES):
        raise UnusableCertificateError(f"{path} must be an RSA key, or one of P-256 or P-384")


def _spki(key: object) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined, no-any-return] # of any kind


def _clients_until(path: Path, data: bytes, now: float) -> float:
    until = 0.0
    for number, found in enumerate(_certificates(path, data), 1):
        try:
            ca = found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except Exception:  # noqa: BLE001 # as above, and where there are none
            ca = False
        if not ca:
            raise UnusableCertificateError(f"{path}: certificate {number} is not that of a CA")
        if found.not_valid_before_utc.timestamp() <= now:
            until = max(until, found.not_valid_after_utc.timestamp())
    if until <= now:
        raise UnusableCertificateError(f"{path}: no CA in it is valid now, so nobody could connect")
    return until
