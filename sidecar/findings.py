"""What `tokensidecar doctor` makes of what it saw: findings, each with a verdict, what was found, and what to do about it. No I/O but `stat`.

Each area of the world has a function in `CHECKS`; a further one is a function and a line there.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from sidecar import certificates, directories
from sidecar.addresses import Address
from sidecar.certificates import Credentials
from sidecar.config import Config
from sidecar.duties import REKEY_EVERY
from sidecar.fields import spell
from sidecar.keeper import Keeper
from sidecar.keyring import Role

LATE = 3600.0  # seconds that a rotation may be late: keepers wait up to ten minutes, and ask again
SILENCE = 900.0  # seconds: a keeper writes the time every five minutes
MISSED_READS = 3  # in `propagation`, before a key would issue that is not known
SHORT_STALENESS = 120  # seconds: databases take minutes to fail over
CERTIFICATE_LEFT = 10  # a certificate is renewed long before the last tenth of its life
CA_LEFT = 14 * 86400.0  # seconds
REKEY_LATE = 15 * 86400.0  # seconds


class Verdict(Enum):
    """From good to bad."""

    OK = "ok"
    WARN = "warn"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. `advice` is empty where there is nothing to do."""

    area: str
    verdict: Verdict
    says: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    """What answers at the http plane. `gauges`: (name, labels, value). `stranger`: something answers that is no sidecar."""

    ready: bool = False
    says: str = ""
    gauges: tuple[tuple[str, Mapping[str, str], float], ...] = ()
    stranger: bool = False

    def values(self, name: str) -> list[tuple[str, float]]:
        """Profile (empty: of none) and value of each series of that gauge."""
        return [(labels.get("profile", ""), value) for series, labels, value in self.gauges if series == name]

    def value(self, name: str) -> float | None:
        """The one value of that gauge."""
        return next((value for _, value in self.values(name)), None)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen. Problems are sentences; empty: none.

    `keepers`: by profile, its ring as a sidecar of this configuration holds it; `damaged`: by profile, why it cannot be used. `absent`:
    there is no store yet, and a start makes it. `now` is store time, `wall` this machine's. `written`: store time of a keeper's last write, where the store tells. `kms`: by role,
    what its key-encryption key could not do; `wrapped`: whether it was asked to wrap, as a keeper does. `keeping`: as a keeper.
    """

    config: Config
    keeping: bool = False
    running: Running | None = None
    store_problem: str = ""
    absent: bool = False
    revisions: Mapping[str, int] = field(default_factory=dict)
    keepers: Mapping[str, Keeper] = field(default_factory=dict)
    damaged: Mapping[str, str] = field(default_factory=dict)
    written: float | None = None
    now: float = 0.0
    wall: float = 0.0
    kms: Mapping[Role, str] = field(default_factory=dict)
    wrapped: bool = False
    pins_problem: str = ""


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


def _configuration(seen: Seen) -> Iterator[Finding]:
    config = seen.config
    count = len(config.profiles) + len(config.imported)
    what = f"{config.source or 'the embedded defaults'}: good, {count} profile{'s' if count != 1 else ''}, role {config.keys.role}"
    yield Finding("config", Verdict.OK, what + ("; `tokensidecar check` has notes" if config.notes else ""))
    if not config.policy and config.source:
        says = "there is no [policy]: whoever reaches the app plane may issue and validate under every profile"
        yield Finding("config", Verdict.WARN, says, "name the callers and what each may do: [policy.NAME]")


def _sidecar(seen: Seen) -> Iterator[Finding]:
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


def _store(seen: Seen) -> Iterator[Finding]:
    keys = seen.config.keys
    if seen.store_problem:
        yield Finding(
            "store",
            Verdict.PROBLEM,
            seen.store_problem,
            "no sidecar starts until that is mended; one that runs goes on until it is stale",
        )
        return
    if seen.absent:
        says = f"{keys.store} is not there yet: the first start makes it, and a key-encryption key in a file too"
        yield Finding("store", Verdict.OK, says)
        return
    rings = ", ".join(
        f"{name} (revision {revision})"
        for name, revision in sorted(seen.revisions.items())
        if name in seen.config.profiles
    )
    yield Finding("store", Verdict.OK, f"{keys.store} answers; rings: {rings or 'none yet'}")
    for profile, problem in seen.damaged.items():
        yield Finding("store", Verdict.PROBLEM, f"profile {profile!r}: {problem}", "restore the store from a backup")
    if missing := [name for name in seen.config.profiles if name not in seen.revisions]:
        who = "the first start makes it" if keys.scheme == "sqlite" else "a keeper makes it when it starts"
        says = f"there is no ring yet of {', '.join(missing)}: {who}"
        verdict = Verdict.OK if keys.scheme == "sqlite" or seen.keeping else Verdict.WARN
        yield Finding(
            "store", verdict, says, "" if verdict is Verdict.OK else "run `tokensidecar keeper` with these profiles"
        )


def _kms(seen: Seen) -> Iterator[Finding]:
    alike: dict[tuple[Verdict, str], list[Role]] = {}
    did = [*(["opens the rings"] if seen.keepers else []), *(["seals"] if seen.wrapped else [])]
    what = " and ".join(did) or "was not asked: no ring is under it yet"
    for role, location in seen.config.keys.keks.items():
        if problem := seen.kms.get(role):
            alike.setdefault((Verdict.PROBLEM, problem), []).append(role)
        elif not seen.store_problem:
            alike.setdefault((Verdict.OK, f"{location} {what}"), []).append(role)
    for (verdict, says), roles in alike.items():
        named = f"role {' and '.join(role.value for role in roles)}: {says}"
        advice = "no sidecar starts until that is mended; one that runs goes on, through rotations too"
        yield Finding("kms", verdict, named, "" if verdict is Verdict.OK else advice)
    if late := [name for name, keeper in seen.keepers.items() if keeper.rings() and keeper.further(name)]:
        says = f"{', '.join(late)}: sealed under keys.further_kek, not keys.kek"
        yield Finding(
            "kms", Verdict.WARN, says, "`tokensidecar rekey`, where the keys are written; then take further_kek away"
        )


def _clock(seen: Seen) -> Iterator[Finding]:
    told = None if seen.running is None else seen.running.value("tokensidecar_clock_skew_seconds")
    skews = [keeper.skew() for keeper in seen.keepers.values() if keeper.rings()]
    skew = told if told is not None else max(skews, key=abs, default=None)
    if skew is None:
        return
    limit = min(profile.max_skew for profile in seen.config.profiles.values())
    says = f"this machine's clock is {abs(skew):.1f} s {'ahead of' if skew >= 0 else 'behind'} the store's; {limit} s are allowed"
    if abs(skew) > limit:
        yield Finding(
            "clock",
            Verdict.PROBLEM,
            says,
            "set it right (chrony, systemd-timesyncd); a sidecar is stale until then, and makes no keys",
        )
    elif abs(skew) > limit / 2:
        yield Finding("clock", Verdict.WARN, says, "see that it is synchronised (chrony, systemd-timesyncd)")
    else:
        yield Finding("clock", Verdict.OK, says)


def _permissions(seen: Seen) -> Iterator[Finding]:
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


def _certificates(seen: Seen) -> Iterator[Finding]:
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


def _times(seen: Seen) -> Iterator[Finding]:
    keys = seen.config.keys
    for profile in list(seen.config.profiles.values())[:1]:  # the same for all
        ahead, interval = profile.propagation, keys.refresh_interval
        says = f"a new key is known {spell(ahead)} before it issues; sidecars look every {spell(interval)}"
        if keys.mounted:
            says += ", and a kubelet takes up to two minutes to renew the mount"
        if ahead < MISSED_READS * interval:
            advice = f"keys.propagation of at least {spell(MISSED_READS * interval)}: else a few failed reads, and a key issues that is not known"
            yield Finding("times", Verdict.WARN, says, advice)
        else:
            yield Finding("times", Verdict.OK, says)
    for name, profile in seen.config.profiles.items():
        if profile.max_staleness < SHORT_STALENESS:
            says = f"profile {name!r} answers for {spell(profile.max_staleness)} on what it last saw of the store"
            yield Finding(
                "times", Verdict.WARN, says, "longer, if the store may take minutes to fail over: max_staleness"
            )


def _state(seen: Seen) -> Iterator[Finding]:
    if seen.pins_problem:
        yield Finding("state", Verdict.PROBLEM, seen.pins_problem, "run the doctor as the sidecar's own user")
    alarms = {name: words for keeper in seen.keepers.values() for name, words in keeper.alarms().items()}
    for name, value in seen.running.values("tokensidecar_ring_rolled_back") if seen.running else ():
        if value:
            alarms.setdefault(name, "the running sidecar saw a newer ring before")
    for name, words in alarms.items():
        says = f"profile {name!r}: the store has gone back to an older state: {words}"
        advice = "put the newest store back; or, if the older one is meant, `tokensidecar accept-rollback --yes`"
        yield Finding("state", Verdict.PROBLEM, says, advice)
    if seen.keepers and not alarms:
        yield Finding("state", Verdict.OK, "the store is at, or after, what was seen of it before")
    if seen.written is None or not seen.keepers:
        return
    silence = max(seen.now - seen.written, 0.0)
    says = f"a keeper last wrote {spell(round(silence))} ago"
    if silence > SILENCE:
        yield Finding(
            "state", Verdict.WARN, says, "see that `tokensidecar keeper` runs: without it no key is rotated or revoked"
        )
    else:
        yield Finding("state", Verdict.OK, says)


def _keys(seen: Seen) -> Iterator[Finding]:
    for name, keeper in seen.keepers.items():
        if (ring := keeper.rings().get(name)) is None:
            continue
        now, profile, good = keeper.now(), seen.config.profiles[name], True
        late = max(
            (now - due for use in keeper.uses(name) if (due := ring.rotation_due(use, profile.rotate_every, now))),
            default=-math.inf,
        )
        if late > LATE:
            good = False
            says = f"profile {name!r}: its rotation is {spell(round(late / 60) * 60)} late"
            yield Finding(
                "keys",
                Verdict.PROBLEM,
                says,
                "see that a keeper runs, and duty.failed in its log; `tokensidecar rotate` does it now",
            )
        if inactive := [use.value for use in keeper.uses(name) if ring.active(use, now) is None]:
            good = False
            says = f"profile {name!r} has no active key for {', '.join(inactive)}"
            yield Finding("keys", Verdict.PROBLEM, says, "`tokensidecar rotate`")
        if differing := keeper.differing().get(name):
            good = False
            says = f"profile {name!r}: the keys have other settings than this file: {', '.join(differing)}"
            yield Finding(
                "keys",
                Verdict.WARN,
                says,
                "raise keys.settings_revision where the file is newer; the next rotation follows it",
            )
        if now - keeper.data_keys_time(name) > REKEY_EVERY + REKEY_LATE:
            good = False
            says = f"profile {name!r}: its seals were last renewed {spell(round((now - keeper.data_keys_time(name)) / 86400) * 86400)} ago"
            yield Finding("keys", Verdict.WARN, says, "`tokensidecar rekey`, or see duty.failed in a keeper's log")
        if good:
            roles = " and ".join("issues" if role is Role.ISSUE else "opens" for role in seen.config.keys.keks)
            yield Finding(
                "keys", Verdict.OK, f"profile {name!r}: {len(ring.keys)} keys; a sidecar of this role {roles}"
            )


Check = Callable[[Seen], Iterator[Finding]]
CHECKS: tuple[Check, ...] = (
    _configuration,
    _sidecar,
    _store,
    _kms,
    _clock,
    _permissions,
    _certificates,
    _times,
    _state,
    _keys,
)
"""In the order in which they are told. What is examined later is one more."""


def findings(seen: Seen) -> list[Finding]:
    """All of them."""
    return [finding for check in CHECKS for finding in check(seen)]


def worst(found: list[Finding]) -> Verdict:
    """The verdict of all of them together."""
    return max((each.verdict for each in found), key=list(Verdict).index, default=Verdict.OK)
