"""What the doctor makes of store and keys: store, key-encryption keys, clock, times, rollback, keys. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterator

from sidecar.duties import REKEY_EVERY
from sidecar.fields import spell
from sidecar.keyring import Role
from sidecar.seen import Finding, Seen, Verdict

LATE = 3600.0  # seconds that a rotation may be late: keepers wait up to ten minutes, and ask again
SILENCE = 900.0  # seconds: a keeper writes the time every five minutes
MISSED_READS = 3  # in `propagation`, before a key would issue that is not known
SHORT_STALENESS = 120  # seconds: databases take minutes to fail over
REKEY_LATE = 15 * 86400.0  # seconds


def store(seen: Seen) -> Iterator[Finding]:
    """See `findings.CHECKS`."""
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


def kms(seen: Seen) -> Iterator[Finding]:
    """See `findings.CHECKS`."""
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


def clock(seen: Seen) -> Iterator[Finding]:
    """See `findings.CHECKS`."""
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


def times(seen: Seen) -> Iterator[Finding]:
    """See `findings.CHECKS`."""
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


def state(seen: Seen) -> Iterator[Finding]:
    """See `findings.CHECKS`."""
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


def keys(seen: Seen) -> Iterator[Finding]:
    """See `findings.CHECKS`."""
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
