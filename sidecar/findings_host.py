"""What the doctor makes of this machine: configuration, running sidecar, permissions, certificates. No I/O but of directories and certificates."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from sidecar import certificates, directories
from sidecar.addresses import Address
from sidecar.certificates import Credentials
from sidecar.config import Config
from sidecar.fields import spell
from sidecar.seen import Finding, Seen, Verdict

CERTIFICATE_LEFT = 10  # a certificate is renewed long before the last tenth of its life
CA_LEFT = 14 * 86400.0  # seconds


def directory_notes(config: Config) -> list[str]:
    """What the modes of the directories that are there already mean."""
    sockets = [Path(a.path).parent for a in (*config.listen.app, *config.listen.admin) if a.kind == "unix"]
    state = [config.state_dir, *_store_directories(config), *(path.parent for path in config.keys.kek_files())]
    holding = dict.fromkeys([config.runtime_dir, *sockets], "sockets") | dict.fromkeys(state, "keys")
    return [said for path, what in holding.items() for said in directories.remarks(path, what)]


def certificate_notes(config: Config, now: float) -> list[str]:
    """What keeps `serve` from starting here and now; where the check runs, the files may not be there."""
    read = _credentials(config, (*config.listen.app, *config.listen.admin), now)
    return [found for _, found in read if isinstance(found, str)]


def _credentials(config: Config, addresses: Iterable[Address], now: float) -> Iterator[tuple[str, Credentials | str]]:
    """Of each TLS address: the certificate's file, and what it serves with, or what is wrong."""
    for address in addresses:
        if tls := address.tls:
            key = f"listen.{'app' if address in config.listen.app else 'admin'}: {address}"
            try:
                yield str(tls.certificate), certificates.read(tls.certificate, tls.key, tls.client_ca, now)
            except certificates.UnusableCertificateError as error:
                yield str(tls.certificate), f"{key}: {error}"


def _store_directories(config: Config) -> list[Path]:
    keys = config.keys
    return {"sqlite": [keys.store_path.parent], "file": [keys.store_path]}.get(keys.scheme, [])


def configuration(seen: Seen) -> Iterator[Finding]:
    """See `findings.CHECKS`."""
    config = seen.config
    count = len(config.profiles) + len(config.imported)
    what = f"{config.source or 'the embedded defaults'}: good, {count} profile{'s' if count != 1 else ''}, role {config.keys.role}"
    yield Finding("config", Verdict.OK, what + ("; `tokensidecar check` has notes" if config.notes else ""))
    if not config.policy and config.source:
        says = "there is no [policy]: whoever reaches the app plane may issue and validate under every profile"
        yield Finding("config", Verdict.WARN, says, "name the callers and what each may do: [policy.NAME]")


def sidecar(seen: Seen) -> Iterator[Finding]:
    """See `findings.CHECKS`."""
    address, running = seen.config.listen.http, seen.running
    if address is None:
        says = (
            "a running sidecar cannot be asked: the http plane is off. What follows is what one would see at its start"
        )
        yield Finding("sidecar", Verdict.OK, says)
        return
    if running is None:
        yield Finding(
            "sidecar", Verdict.OK, f"none answers at {address}: what follows is what one would see at its start"
        )
        return
    if running.stranger:
        says, advice = (
            f"something else than a sidecar answers at {address}",
            "end it, or choose another [listen] http address",
        )
        yield Finding("sidecar", Verdict.PROBLEM, says, advice)
        return
    if running.ready:
        yield Finding("sidecar", Verdict.OK, f"one runs, and is ready at {address}")
    else:
        yield Finding("sidecar", Verdict.WARN, f"one runs at {address} and says: {running.says}", "see its log")
    if running.value("tokensidecar_config_good") == 0:
        says = "it refused the config file as it is now, and goes on with what was before"
        yield Finding(
            "sidecar", Verdict.PROBLEM, says, "`tokensidecar check` names every problem; its log has config.refused"
        )
    if lost := running.value("tokensidecar_audit_lost_records"):
        says = f"it could not write {lost:.0f} audit records since its start"
        yield Finding("sidecar", Verdict.PROBLEM, says, "see the disk, or the reader of its standard output")
    rolled_back = {profile for profile, value in running.values("tokensidecar_ring_rolled_back") if value}
    for profile, value in running.values("tokensidecar_state_stale"):
        if value and profile not in rolled_back:
            says = f"it answers STATE_STALE for profile {profile!r}: it has not seen its store for too long, or its clock is wrong"
            yield Finding("sidecar", Verdict.PROBLEM, says, "see `store` and `clock` here, and store.lost in its log")
    for profile, held in running.values("tokensidecar_ring_revision"):
        if held < seen.revisions.get(profile, 0):
            says = f"it holds revision {held:.0f} of profile {profile!r}, and the store has {seen.revisions[profile]}"
            advice = f"if that lasts longer than {spell(seen.config.keys.refresh_interval)}, see store.lost in its log"
            yield Finding("sidecar", Verdict.WARN, says, advice)


def permissions(seen: Seen) -> Iterator[Finding]:
    """See `findings.CHECKS`."""
    config, user = seen.config, os.geteuid()
    addresses = config.listen.admin if seen.keeping else (*config.listen.app, *config.listen.admin)
    folders = dict.fromkeys([*(Path(a.path).parent for a in addresses if a.kind == "unix"), config.state_dir])
    refused = [path for path in folders if not _usable(path)]
    for path in refused:
        what = "keys are" if path == config.state_dir else "sockets are"
        says = f"user {user} cannot write to {path}, where {what}"
        advice = f"run the doctor as the sidecar's own user, or give the directory to it (chown {user} {path}; in a pod: fsGroup)"
        yield Finding("permissions", Verdict.PROBLEM, says, advice)
    for note in directory_notes(config):
        yield Finding(
            "permissions", Verdict.WARN, note, "give the directory to the sidecar's user alone, where that is not meant"
        )
    if (file := config.audit.file) and not _usable(file.parent):
        says = f"user {user} cannot write to {file.parent}, where the audit file is"
        yield Finding("permissions", Verdict.PROBLEM, says, "give the directory to the sidecar's user")
    if not refused:
        yield Finding("permissions", Verdict.OK, f"user {user} can write to {', '.join(map(str, folders))}")


def _usable(path: Path) -> bool:
    """Whether this user may write there, or make it."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path.is_dir() and os.access(path, os.W_OK | os.X_OK)


def serving(seen: Seen) -> Iterator[Finding]:
    """See `findings.CHECKS`."""
    config = seen.config
    addresses = config.listen.admin if seen.keeping else (*config.listen.app, *config.listen.admin)
    for file, found in _credentials(config, addresses, seen.wall):
        if isinstance(found, str):
            advice = (
                "no sidecar starts until that is mended; one that runs goes on with what it has, until that expires"
            )
            yield Finding("certificates", Verdict.PROBLEM, found, advice)
            continue
        left, life = found.valid_until - seen.wall, found.valid_until - found.valid_from
        says = f"{file} is good for {_span(left)}"
        if left < life / CERTIFICATE_LEFT:
            advice = (
                "see what renews it: it should have been replaced by now, and the sidecar takes a new one as it comes"
            )
            yield Finding("certificates", Verdict.WARN, says, advice)
        elif found.clients_until and found.clients_until - seen.wall < CA_LEFT:
            says = f"the last CA of client certificates is good for {_span(found.clients_until - seen.wall)}"
            yield Finding("certificates", Verdict.WARN, says, "put its successor into the bundle beside it")
        else:
            yield Finding("certificates", Verdict.OK, says)


def _span(seconds: float) -> str:
    """In whole days, hours or minutes."""
    unit = next((each for each in (86400, 3600, 60) if seconds >= 2 * each), 1)
    return spell(int(seconds // unit) * unit)
