"""Which DPoP proofs this sidecar has seen (RFC 9449 section 11.1), in bounded memory: what does not fit is refused, never forgotten early.

Each profile has a memory of its own, so that one that is flooded takes no room from another. 16 bytes of a hash are kept of each proof.
"""

from __future__ import annotations

from sidecar.errors import OverloadedError, UnprovenPossessionError

MOST = 100_000
"""Proofs that one profile remembers: about 10 MB."""
SWEEP = 1.0  # seconds between looks for what may be forgotten


class Replay:
    """Proofs that were taken, each until it is too old to be taken again. Times are seconds since the epoch."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._seen: dict[str, dict[bytes, tuple[float, bytes]]] = {}
        self._swept: dict[str, float] = {}

    def take(self, profile: str, proof: bytes, until: float, now: float, request: bytes = b"") -> None:
        """Remember the proof. `UnprovenPossessionError`: it came before, in another `request` or one without a name.

        `OverloadedError`: too many are remembered.
        """
        seen = self._seen.setdefault(profile, {})
        proof = proof[:16]
        if proof in seen:
            if request and seen[proof][1] == request:
                return
            raise UnprovenPossessionError(stage="possession.replayed")
        if len(seen) >= self._most and abs(now - self._swept.get(profile, 0.0)) >= SWEEP:
            self._swept[profile] = now
            for one in [one for one, (end, _) in seen.items() if end < now]:
                del seen[one]
        if len(seen) >= self._most:
            raise OverloadedError("too many proofs at once", stage="possession.full")
        seen[proof] = (until, request)
