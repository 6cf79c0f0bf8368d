"""The certificates of a TLS address, kept as fresh as their files.

Rules:
 1. The files are looked at once a second, through every link (kubelets swap a link to a directory). What has changed is read, checked as a
    whole and swapped as a whole; connections that are open stay open.
 2. What is not good leaves the old in force. A rotation in several steps is no alarm: what is no good must stay so for one look more.
    Then a line in the log, and a gauge until it is good again.
 3. What is in force is not judged again: an expired certificate goes on being shown, and clients refuse it. Its gauge says so beforehand.
 4. gRPC asks at each new connection, on a thread of its own, and is only handed what is in memory.

TLS 1.2 and 1.3 with forward secrecy and AEAD alone: gRPC's own choice, which a test holds.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc

from sidecar.addresses import Address, Tls
from sidecar.audit import Audit
from sidecar.caller import SIDECAR
from sidecar.certificates import Credentials, UnusableCertificateError, read
from sidecar.errors import SidecarError
from sidecar.logs import frames, get_logger
from sidecar.metrics import Metrics
from sidecar.policy import Verb

EVERY = 1.0  # seconds between looks at the files

_log = get_logger()


class ServingCertificates:
    """Of one address: read at the start, then watched. `now`: the wall clock, seconds since the epoch."""

    def __init__(self, address: Address, tls: Tls, audit: Audit, metrics: Metrics, now: Callable[[], float]) -> None:
        """`UnusableCertificateError`: the files are no good."""
        self._address = str(address)
        self._tls = tls
        self._audit = audit
        self._metrics = metrics
        self._now = now
        self._seen = self._stamp()
        self._current = self._read()
        self._handed = self._current
        self._good = True

    def for_grpc(self) -> grpc.ServerCredentials:
        """What `add_secure_port` takes."""
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._current),
            self._fetch,  # type: ignore[arg-type] # None is documented, and not in the stubs
            require_client_authentication=self._tls.client_ca is not None,
        )

    async def watch(self) -> None:
        """Look once a second."""
        before = self._seen
        while True:
            await asyncio.sleep(EVERY)
            stamp = await asyncio.to_thread(self._stamp)
            if stamp != self._seen:
                try:
                    await self._renew(stamp, settled=stamp == before)
                except Exception as error:  # noqa: BLE001
                    # A loop that died would keep every later certificate out, and nobody would notice until this one has expired.
                    _log.error(
                        "tls.refused", address=self._address, error_type=type(error).__name__, frames=frames(error)
                    )
                    self._told("INTERNAL")
            before = stamp

    def readings(self) -> Iterator[tuple[str, dict[str, str], float]]:
        """For the metrics: name, labels, value."""
        now, labels = self._now(), {"address": self._address}
        yield "tokensidecar_tls_good", labels, float(self._good)
        yield "tokensidecar_tls_certificate_age_seconds", labels, now - self._current.valid_from
        yield "tokensidecar_tls_certificate_expiry_seconds", labels, self._current.valid_until - now
        if self._tls.client_ca:
            yield "tokensidecar_tls_client_ca_expiry_seconds", labels, self._current.clients_until - now

    async def _renew(self, stamp: tuple[object, ...], *, settled: bool) -> None:
        try:
            fresh = await asyncio.to_thread(self._read)
            if await asyncio.to_thread(self._stamp) != stamp:
                return  # changed while it was read: look again
        except UnusableCertificateError as error:
            if settled:
                self._seen = stamp
                _log.error("tls.refused", address=self._address, problem=str(error))
                self._told("REFUSED")
            return
        if fresh.digest != self._current.digest and not await self._recorded(fresh):
            return  # what is not on record does not count; the next look tries again
        self._seen, self._current = stamp, fresh
        _log.info("tls.reloaded", address=self._address, certificates_hash=fresh.digest)
        self._told("OK")

    async def _recorded(self, fresh: Credentials) -> bool:
        """Who may connect may have changed with it: as much a change of the configuration as one of its file."""
        try:
            with self._audit.decision(SIDECAR, Verb.CONFIG, "", secrets.token_hex(8)) as decision:
                decision.facts["certificates_hash"] = fresh.digest
            if self._audit.required:
                await self._audit.on_record()
        except SidecarError as error:
            _log.error("tls.refused", address=self._address, problem=error.message)
            self._told(error.reason.name)
            return False
        return True

    def _told(self, outcome: str) -> None:
        self._good = outcome == "OK"
        self._metrics.tls_reloads.labels(self._address, outcome).inc()

    def _read(self) -> Credentials:
        return read(self._tls.certificate, self._tls.key, self._tls.client_ca, self._now())

    def _stamp(self) -> tuple[object, ...]:
        files = (self._tls.certificate, self._tls.key, self._tls.client_ca)
        return tuple(_stamp(file) for file in files if file)

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """On a thread of gRPC's. None: as before."""
        current = self._current
        if current is self._handed:
            return None
        self._handed = current
        return _configuration(current)


def _configuration(found: Credentials) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(found.key, found.chain)], root_certificates=found.client_ca)


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes with the file that the path leads to."""
    try:
        found = path.stat()
    except OSError:
        return (0,)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
