"""Certificates for tests, made on the spot: a CA, what it signs, and the files that a sidecar and its clients read."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOUR = timedelta(hours=1)
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def uri(text: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(text)


def dns(text: str) -> x509.GeneralName:
    return x509.DNSName(text)


LOCAL = (dns("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, in PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> Pair:
        """As NAME.crt and NAME.key."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.crt").write_bytes(self.certificate)
        (folder / f"{name}.key").touch(mode=0o600)
        (folder / f"{name}.key").write_bytes(self.key)
        return self


class Authority:
    """A CA of its own."""

    def __init__(self, name: str = "CA", *, until: timedelta = HOUR) -> None:
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        made = _builder(self.name, self.name, self._key, -HOUR, until).add_extension(
            x509.BasicConstraints(True, None), True
        )
        self.certificate = made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def issue(
        self,
        *names: x509.GeneralName,
        common_name: str = "somebody",
        since: timedelta = -HOUR,
        until: timedelta = HOUR,
        ca: bool = False,
        uses: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH),
        key: Key | None = None,
        self_signed: bool = False,
    ) -> Pair:
        """A certificate with these alternative names, valid from and until so long from now."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = _builder(subject, subject if self_signed else self.name, key, since, until)
        builder = builder.add_extension(x509.BasicConstraints(ca, None), True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        if uses:
            builder = builder.add_extension(x509.ExtendedKeyUsage(uses), False)
        made = builder.sign(key if self_signed else self._key, hashes.SHA256())
        return Pair(
            made.public_bytes(Encoding.PEM), key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, since: timedelta, until: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + since)
        .not_valid_after(now + until)
    )
