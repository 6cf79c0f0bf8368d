"""The promises, as rules over a history. Knows nothing of how the sidecars came to their answers.

1. No token is accepted that was never issued, and what it says is what was asked for.
2. A good token is not called bad: by no reason that does not apply to it.
3. From its `effective_time` on a revocation that was acknowledged is obeyed; at once where `min_revocation_revision` asks for it, and by
   Refresh, which looks into the store.
4. A one-time token is accepted for one request.
5. Repeats of one refresh get one successor. The successor that was acknowledged is good, unless its family was ended. After a reuse that
   was told, the family is dead.
6. One request id is one rotation, and an acknowledged one is in the ring at the end.
7. Nobody is told INTERNAL, and no answer is outside the contract.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.history.record import REASONS, Call, History, Issued, claims_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BROKEN = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"})
"""gRPC's own: the connection or the time was over."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the configuration says, in seconds."""

    max_staleness: float
    max_skew: float
    grace: float = 10.0

    @property
    def everywhere(self) -> float:
        return self.max_staleness + 2 * self.max_skew


@dataclass(frozen=True, slots=True)
class Revoked:
    """A revocation that was asked for, or a reuse that was told. `told`: from when it must be obeyed by Validate; None: it may have happened."""

    call: Call
    told: float | None
    revision: int


class Checker:
    """Holds one history against the rules."""

    def __init__(self, history: History, bounds: Bounds) -> None:
        self._history = history
        self._bounds = bounds
        self._issued = history.issued()
        self._validated = defaultdict[str, list[Call]](list)
        for call in history.of("validate"):
            self._validated[call.token].append(call)
        self._families = self._family_of_refresh_tokens()
        self._by_token_id = defaultdict[str, list[Revoked]](list)
        self._by_family = defaultdict[int, list[Revoked]](list)
        self._by_subject = defaultdict[str, list[Revoked]](list)
        self._collect_revocations()

    def violations(self) -> list[str]:
        """In words; empty: all promises were kept."""
        return [
            *self._answers(),
            *(v for text in self._validated for v in self._token(text)),
            *self._one_time(),
            *self._refreshes(),
            *self._rotations(),
        ]

    # What was revoked

    def _family_of_refresh_tokens(self) -> dict[str, int]:
        found = {}
        for call in self._history.of("issue", "refresh"):
            if call.ok:
                made = call.answer.tokens if call.verb == "refresh" else call.answer
                if made.refresh_token:
                    found[made.refresh_token] = call.family
        return found

    def _collect_revocations(self) -> None:
        for call in self._history.of("revoke", "revoke_subject", "revoke_token_id"):
            if not call.maybe:
                continue
            revoked = Revoked(call, None, 0)
            if call.ok:
                told = call.answer.effective_time.seconds + call.answer.effective_time.nanos / 1e9
                revoked = Revoked(call, told, call.answer.revocation_revision)
            if call.verb == "revoke_subject":
                self._by_subject[call.request.subject].append(revoked)
            elif call.verb == "revoke_token_id":
                self._by_token_id[call.request.token_id].append(revoked)
            elif call.token in self._families:
                self._by_family[self._families[call.token]].append(revoked)
            elif call.token in self._issued:
                self._by_token_id[self._issued[call.token].token_id].append(revoked)
        for call in self._history.of("refresh"):
            if call.outcome == "REFRESH_REUSED":
                self._by_family[call.family].append(Revoked(call, call.ended + self._bounds.everywhere, 0))

    def _concerning(self, token: Issued, *, surely: bool) -> Iterator[Revoked]:
        """Revocations of that token. `surely`: not those by a subject's time that it only may fall under."""
        yield from self._by_token_id[token.token_id]
        if token.family:
            yield from self._by_family[token.family]
        for revoked in self._by_subject[token.subject]:
            before = revoked.call.request.issued_before.seconds or revoked.call.began
            if token.issue_time <= before + (0 if surely else self._bounds.max_skew + 1):
                yield revoked

    # The rules

    def _answers(self) -> Iterator[str]:
        for call in self._history.calls:
            if call.outcome == "INTERNAL" or call.outcome not in REASONS | BROKEN | {"OK"}:
                yield f"7 answer: {call}"

    def _token(self, text: str) -> Iterator[str]:
        token = self._issued.get(text)
        for call in self._validated[text]:
            if call.ok:
                yield from self._accepted(call, token)
            elif token is not None:
                yield from self._refused(call, token)

    def _accepted(self, call: Call, token: Issued | None) -> Iterator[str]:
        if token is None:
            yield f"1 never issued: {call}"
            return
        if call.answer.token_id != token.token_id or token.subject not in ("", claims_of(call.answer)["sub"]):
            yield f"1 says something else: {call}"
        for revoked in self._concerning(token, surely=True):
            if revoked.told is not None and call.began > revoked.told:
                yield f"3 accepted after effective_time {revoked.told:.3f}: {call}; {revoked.call}"
            if 0 < revoked.revision <= call.request.min_revocation_revision:
                yield f"3 accepted at the demanded revision {revoked.revision}: {call}; {revoked.call}"

    def _refused(self, call: Call, token: Issued) -> Iterator[str]:
        match call.outcome:
            case "TOKEN_EXPIRED":
                good = call.ended < token.expire_time
            case "TOKEN_REVOKED":
                good = not any(r.call.began < call.ended for r in self._concerning(token, surely=False))
            case "TOKEN_ALREADY_CONSUMED":
                good = not any(
                    other.began < call.ended and other.request.request_id != call.request.request_id and other.maybe
                    for other in self._validated[call.token]
                    if other is not call
                )
            case _:
                good = call.outcome.startswith("TOKEN_")
        if good:
            yield f"2 good token refused: {call}"

    def _one_time(self) -> Iterator[str]:
        for text, calls in self._validated.items():
            if text in self._issued and self._issued[text].profile == "once":
                accepted = {call.request.request_id for call in calls if call.ok}
                if len(accepted) > 1:
                    yield f"4 accepted {len(accepted)} times: {'; '.join(str(call) for call in calls if call.ok)}"

    def _refreshes(self) -> Iterator[str]:
        by_family = defaultdict[int, list[Call]](list)
        for call in self._history.of("refresh"):
            by_family[call.family].append(call)
        for family, calls in by_family.items():
            yield from self._family(family, sorted(calls, key=lambda call: call.began))

    def _family(self, family: int, calls: list[Call]) -> Iterator[str]:
        place = self._places(family, calls)
        successors = defaultdict[int, set[str]](set)
        for call in calls:
            if call.ok:
                successors[place[call.token]].add(call.answer.tokens.token_id)
                for revoked in self._by_family[family]:
                    if revoked.call.ok and revoked.call.ended < call.began:
                        yield f"3 refreshed after the family was ended: {call}; {revoked.call}"
                    if revoked.call.outcome == "REFRESH_REUSED" and revoked.call.ended < call.began:
                        yield f"5 refreshed after a reuse: {call}; {revoked.call}"
            elif (
                call.outcome.startswith(("TOKEN_", "REFRESH_"))
                and call.outcome != "TOKEN_EXPIRED"
                and not self._excused(call, calls, place)
            ):
                yield f"5 a refresh token that is good was refused: {call}"
        for number, made in successors.items():
            if len(made) > 1:
                yield f"5 family {family}, refresh {number}: {len(made)} successors"

    def _places(self, family: int, calls: Iterable[Call]) -> dict[str, int]:
        """By the text of a refresh token, how many refreshes came before it."""
        place = {}
        for call in self._history.of("issue"):
            if call.ok and call.family == family:
                place[call.answer.refresh_token] = 0
        for call in calls:
            if call.ok:
                place[call.answer.tokens.refresh_token] = place[call.token] + 1
        return place

    def _excused(self, call: Call, calls: Iterable[Call], place: dict[str, int]) -> bool:
        """Whether the family may have been ended, or the token spent for longer than the grace, or its successor spent."""
        if call.outcome == "TOKEN_INVALID":
            return False
        for revoked in self._by_family[call.family]:
            if revoked.call.verb != "refresh" and revoked.call.began < call.ended:
                return True
        mine = place[call.token]
        for other in calls:
            if other is call or other.began >= call.ended or not other.maybe:
                continue
            late = call.ended - other.began > self._bounds.grace
            if place[other.token] > mine or (place[other.token] == mine and late) or other.outcome == "REFRESH_REUSED":
                return True
        return False

    def _rotations(self) -> Iterator[str]:
        by_id = defaultdict[str, set[int]](set)
        rotations = [call for call in self._history.of("rotate") if call.ok]
        for call in rotations:
            by_id[call.request.request_id].add(call.answer.ring_revision)
        for request_id, revisions in by_id.items():
            if len(revisions) > 1:
                yield f"6 one request, several rotations: {request_id} at {sorted(revisions)}"
        for call in self._history.of("list_keys"):
            if not call.ok or not call.answer.keys:
                continue
            revision = max(key.ring_revision for key in call.answer.keys)
            for rotation in rotations:
                if rotation.ended < call.began and revision < rotation.answer.ring_revision:
                    yield f"6 rotation lost: {rotation}; the ring is at {revision}"
