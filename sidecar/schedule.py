"""What is due, done by its verb, by a keeper that runs and by a command alike."""

from __future__ import annotations

import asyncio
import secrets

from sidecar import logs
from sidecar.caller import SIDECAR
from sidecar.destroy import Destroy
from sidecar.duties import CLAIM_SECONDS, Claim, Duties, Duty
from sidecar.errors import ChangedRingError, Reason, SidecarError
from sidecar.keeper import Changed, Keeper
from sidecar.metrics import Metrics
from sidecar.profile import ring_owner
from sidecar.rekey import Rekey
from sidecar.rotate import Rotate

DUTIES_EVERY = 1.0  # seconds between looks at what is due
_DONE = {"rotate": "ring.rotated", "destroy": "keys.destroyed", "rekey": "ring.rekeyed"}

_log = logs.get_logger()


class Perform:
    """The verb of a duty, called as caller `sidecar`."""

    def __init__(self, rotate: Rotate, destroy: Destroy, rekey: Rekey) -> None:
        self._rotate = rotate
        self._destroy = destroy
        self._rekey = rekey

    async def __call__(self, duty: Duty, *, request_id: str) -> Changed | None:
        """None: nothing was due after all. Raises what the verb does."""
        if duty.kind == "rotate":
            uses = (duty.use,) if duty.use else None
            return await self._rotate(
                SIDECAR, ring_owner(duty.profile), uses, why="due", request_id=request_id, alive=lambda: None
            )
        if duty.kind == "rekey":
            return await self._rekey(SIDECAR, duty.profile, request_id=request_id)
        return await self._destroy(SIDECAR, duty.profile, request_id=request_id)


class Schedule:
    """Does what is due, for as long as the process runs."""

    def __init__(self, keeper: Keeper, duties: Duties, perform: Perform, metrics: Metrics) -> None:
        self._keeper = keeper
        self._duties = duties
        self._perform = perform
        self._metrics = metrics

    async def watch(self) -> None:
        """Do what is due. A duty that failed, or that another keeper does, is looked at again a minute later."""
        retry_at: dict[Duty, float] = {}
        while True:
            await asyncio.sleep(DUTIES_EVERY)
            await self.do_what_is_due(retry_at)

    async def do_what_is_due(self, retry_at: dict[Duty, float]) -> bool:
        """Whether anything was done. `retry_at`: store times before which a duty is left alone; what failed is added."""
        now, done = self._keeper.now(), False
        for duty in (owed := self._duties.due(now)):
            if now < retry_at.get(duty, 0.0):
                continue
            outcome = await self._duty(duty)
            self._metrics.duties.labels(duty.kind, outcome).inc()
            if outcome != "OK":
                retry_at[duty] = now + CLAIM_SECONDS
            if outcome == Reason.KMS_UNAVAILABLE.name:  # one asks for all: each would wait, and rotations behind it
                retry_at |= dict.fromkeys((other for other in owed if other.kind == "rekey"), now + CLAIM_SECONDS)
            done = done or outcome == "OK"
        return done

    async def _duty(self, duty: Duty) -> str:
        """Claim it, then do it; the outcome as the metric has it."""
        request_id = secrets.token_hex(8)
        try:
            claim = await self._duties.claim(duty)
            if claim is not Claim.WON:
                return str(claim.value)
            if changed := await self._perform(duty, request_id=request_id):
                _log.info(_DONE[duty.kind], profile=duty.profile, ring_revision=changed.revision, request_id=request_id)
        except ChangedRingError:
            return "RING_CHANGED"  # somebody else did it
        except SidecarError as error:
            reason, problem = error.reason.name, error.message
            _log.warning("duty.failed", duty=duty.kind, profile=duty.profile, reason=reason, problem=problem)
            return reason
        except Exception as error:  # noqa: BLE001
            # A loop that died would stop rotation for good, and nobody would notice until the keys are old.
            kind, frames = type(error).__name__, logs.frames(error)
            _log.error("duty.failed", duty=duty.kind, profile=duty.profile, error_type=kind, frames=frames)
            return "INTERNAL"
        return "OK"
