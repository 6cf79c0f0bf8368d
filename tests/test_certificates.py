"""The files of a TLS address: what is good together, and what is refused, in which words."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from sidecar.certificates import UnusableCertificateError, read
from tests.authority import HOUR, LOCAL, Authority, Pair

CA = Authority()
GOOD = CA.issue(*LOCAL)


def found(folder: Path, pair: Pair, ca: bytes | None = CA.certificate) -> str:
    """Empty, or why the files are refused."""
    pair.write(folder, "server")
    (folder / "ca.crt").write_bytes(ca or b"")
    try:
        read(folder / "server.crt", folder / "server.key", folder / "ca.crt" if ca is not None else None, time.time())
    except UnusableCertificateError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "pair",
    [
        GOOD,
        Pair(GOOD.certificate + CA.certificate, GOOD.key),
        CA.issue(*LOCAL, uses=()),
        CA.issue(*LOCAL, key=rsa.generate_private_key(65537, 2048)),
        CA.issue(*LOCAL, key=ec.generate_private_key(ec.SECP384R1())),
    ],
    ids=["P-256", "with its chain", "without uses", "RSA 2048", "P-384"],
)
def test_a_good_pair_is_read(tmp_path: Path, pair: Pair) -> None:
    assert found(tmp_path, pair) == ""
    assert found(tmp_path, pair, None) == ""


@pytest.mark.parametrize(
    ("pair", "ca", "words"),
    [
        (Pair(GOOD.certificate[:200], GOOD.key), CA.certificate, "not whole"),
        (Pair(b"", GOOD.key), CA.certificate, "not whole"),
        (Pair(GOOD.certificate, GOOD.key[:100]), CA.certificate, "not whole"),
        (Pair(GOOD.certificate, b""), CA.certificate, "not whole"),
        (Pair(GOOD.certificate, CA.issue(*LOCAL).key), CA.certificate, "is not the key of"),
        (Pair(CA.certificate + GOOD.certificate, GOOD.key), CA.certificate, "is not the key of"),
        (CA.issue(*LOCAL, until=-timedelta(seconds=1)), CA.certificate, "has expired"),
        (CA.issue(*LOCAL, since=HOUR, until=2 * HOUR), CA.certificate, "valid only from"),
        (CA.issue(*LOCAL, uses=(ExtendedKeyUsageOID.CLIENT_AUTH,)), CA.certificate, "not for servers"),
        (CA.issue(*LOCAL, key=rsa.generate_private_key(65537, 1024)), CA.certificate, "1024 bits"),
        (CA.issue(*LOCAL, key=ec.generate_private_key(ec.SECP256K1())), CA.certificate, "P-256 or P-384"),
        (CA.issue(*LOCAL, key=ec.generate_private_key(ec.SECP521R1())), CA.certificate, "P-256 or P-384"),
        (CA.issue(*LOCAL, key=ed25519.Ed25519PrivateKey.generate()), CA.certificate, "P-256 or P-384"),
        (GOOD, b"", "not certificates"),
        (GOOD, GOOD.certificate, "certificate 1 is not that of a CA"),
        (GOOD, CA.certificate + GOOD.certificate, "certificate 2 is not that of a CA"),
        (GOOD, Authority(until=-timedelta(seconds=1)).certificate, "no CA in it is valid now"),
        (GOOD, b"x" * (1 << 20) + b"x", "larger than 1 MiB"),
    ],
)
def test_what_is_not_good_together_is_refused(tmp_path: Path, pair: Pair, ca: bytes, words: str) -> None:
    said = found(tmp_path, pair, ca)
    assert words in said
    assert not any(line in said for line in pair.key.decode().splitlines() if line)


def test_a_key_that_everybody_can_read_is_refused(tmp_path: Path) -> None:
    GOOD.write(tmp_path, "server")
    (tmp_path / "server.key").chmod(0o644)
    with pytest.raises(UnusableCertificateError, match="chmod o="):
        read(tmp_path / "server.crt", tmp_path / "server.key", None, time.time())


def test_a_key_is_not_shown(tmp_path: Path) -> None:
    GOOD.write(tmp_path, "server")
    shown = repr(read(tmp_path / "server.crt", tmp_path / "server.key", None, time.time()))
    assert "PRIVATE" not in shown
    assert GOOD.key.decode().splitlines()[1] not in shown
