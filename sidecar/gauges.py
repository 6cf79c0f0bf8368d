"""What is read off the sidecar's state whenever somebody scrapes: the gauges, each with its sentence for the exposition and README.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sidecar.audit import Audit, Backlog
from sidecar.chain import anchor
from sidecar.keeper import Keeper

Reading = tuple[str, str, dict[str, str], float]
"""Name, help, labels, value."""
_SILENCE, _DESTRUCTION = "tokensidecar_keeper_silence_seconds", "tokensidecar_destruction_due_seconds"
SOMETIMES = {
    _SILENCE: "Since a keeper last wrote here; where one does.",
    _DESTRUCTION: "Until the next retired key dies; where there is one.",
    "tokensidecar_members": "Processes that use the store, by role, as their last word there says; where it keeps one.",
    "tokensidecar_tls_good": "1 while the files of a TLS address, as last read, are in force; 0: what was before is.",
    "tokensidecar_tls_certificate_age_seconds": "Since the certificate in force became valid.",
    "tokensidecar_tls_certificate_expiry_seconds": "Until the certificate in force expires.",
    "tokensidecar_tls_client_ca_expiry_seconds": "Until the last CA of client certificates expires.",
    "tokensidecar_service_account_keys_good": "1 while the last look for the keys of service account tokens was good.",
    "tokensidecar_service_account_keys_age_seconds": "Since the keys of service account tokens were last read.",
}
"""Those that may have no value, and what they say."""


@dataclass(frozen=True, slots=True)
class Gauges:
    """Where they are read. `ready`: whether calls are taken. `heard`: store time of a keeper's last write; None: the store does not tell.

    `backlog`: what the audit's sink still has to do. `further`: of certificates, and of keys of service accounts.
    """

    keeper: Keeper
    audit: Audit
    backlog: Callable[[], Backlog]
    ready: Callable[[], bool]
    heard: Callable[[], float | None]
    further: Callable[[], Iterator[tuple[str, dict[str, str], float]]] = lambda: iter(())

    def __call__(self) -> Iterator[Reading]:
        """All of them, now."""
        yield "tokensidecar_ready", "1 when calls are taken.", {}, float(self.ready())
        yield "tokensidecar_clock_skew_seconds", "This machine's clock less the store's.", {}, self.keeper.skew()
        if (heard := self.heard()) is not None:
            silence = max(self.keeper.now() - heard, 0.0)
            yield _SILENCE, SOMETIMES[_SILENCE], {}, silence
        yield from self._of_audit()
        if (denylist := self.keeper.denylist) is not None:
            held = "Revocations in memory, of tokens, subjects and families."
            yield "tokensidecar_revocations_held", held, {}, float(denylist.held)
            seen = "Revocations up to this revision are obeyed here."
            yield "tokensidecar_revocation_revision", seen, {}, float(denylist.revision)
        for name in self.keeper.profiles:
            yield from self._of_profile(name)
        for name in self.keeper.rings():
            yield from self._of_ring(name)
        for name, labels, value in self.further():
            yield name, SOMETIMES[name], labels, value

    def _of_audit(self) -> Iterator[Reading]:
        backlog = self.backlog()
        yield "tokensidecar_audit_lost_records", "Audit records that could not be written.", {}, float(self.audit.lost)
        waiting = "Audit records that are not on the disk yet."
        yield "tokensidecar_audit_waiting_records", waiting, {}, float(backlog.records)
        lag = "Since the oldest record was taken that is not on the disk yet; 0: there is none."
        yield "tokensidecar_audit_lag_seconds", lag, {}, backlog.seconds
        signed = "Number of the audit file's last signed record; 0: there is no audit file."
        yield "tokensidecar_audit_checkpoint", signed, {}, float(backlog.head.seq)
        digits = (
            "The first 13 hexadecimal digits of that record's chain value, as a number: an anchor outside the file."
        )
        yield "tokensidecar_audit_checkpoint_head", digits, {}, float(anchor(backlog.head))

    def _of_profile(self, name: str) -> Iterator[Reading]:
        labels, stale = {"profile": name}, float(self.keeper.stale(name))
        yield "tokensidecar_state_age_seconds", "Since the store was last read.", labels, self.keeper.staleness(name)
        yield "tokensidecar_state_stale", "1 when calls get STATE_STALE.", labels, stale
        rolled_back = float(name in self.keeper.alarms())
        yield "tokensidecar_ring_rolled_back", "1 while the store has an older state.", labels, rolled_back

    def _of_ring(self, name: str) -> Iterator[Reading]:
        ring, now, labels = self.keeper.rings()[name], self.keeper.now(), {"profile": name}
        settings = "Settings that this configuration has otherwise than the newest keys."
        differing = float(len(self.keeper.differing().get(name, ())))
        yield "tokensidecar_settings_differing", settings, labels, differing
        yield "tokensidecar_ring_revision", "Revision of the ring in memory.", labels, float(ring.revision)
        for use in ring.uses():
            by_use = {**labels, "use": use.value}
            if key := ring.active(use, now):
                yield "tokensidecar_key_age_seconds", "Age of the active key.", by_use, now - key.activate_time
            due = ring.rotation_due(use, self.keeper.profiles[name].rotate_every, now)
            if due is not None:
                yield "tokensidecar_rotation_due_seconds", "Until the next scheduled rotation.", by_use, due - now
            ends = [key.destroy_time for key in ring.keys if key.use is use and key.destroy_time is not None]
            if ends:
                yield _DESTRUCTION, SOMETIMES[_DESTRUCTION], by_use, min(ends) - now
