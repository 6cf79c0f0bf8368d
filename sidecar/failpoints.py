"""Named points at which a test kills the process, the way a power cut would (etcd's gofail is the model).

`TOKENSIDECAR_FAILPOINT=rotate.saved` kills at the first arrival there, `rotate.saved:3` at the third. Whoever can set the server's
environment can stop the server anyway.
"""

from __future__ import annotations

import itertools
import os
import signal

NAMES = (
    "start.kek_made",
    "start.store_made",
    "start.before_save",
    "start.saved",
    "rotate.intended",
    "rotate.before_save",
    "rotate.saved",
    "rotate.swapped",
    "rotate.recorded",
    "revoke_keys.intended",
    "revoke_keys.before_save",
    "revoke_keys.saved",
    "revoke_keys.swapped",
    "revoke_keys.recorded",
    "revoke.intended",
    "revoke.held",
    "revoke.recorded",
    "consume.judged",
    "consume.held",
    "consume.recorded",
    "refresh.judged",
    "refresh.spent",
    "refresh.recorded",
    "destroy.intended",
    "destroy.before_save",
    "destroy.saved",
    "destroy.scrubbed",
    "destroy.recorded",
    "duty.before_claim",
    "duty.claimed",
    "rekey.intended",
    "rekey.before_save",
    "rekey.saved",
    "rekey.swapped",
    "rekey.scrubbed",
    "rekey.recorded",
    "accept_rollback.intended",
    "accept_rollback.before_save",
    "accept_rollback.saved",
    "accept_rollback.pinned",
    "accept_rollback.recorded",
    "pins.written",
    "migrate.tables_made",
)
"""Every point, in the order in which its operation passes it."""

_name, _, _count = os.environ.get("TOKENSIDECAR_FAILPOINT", "").partition(":")
_arrivals = itertools.count(1)


def failpoint(name: str) -> None:
    """Die here, at once and without cleaning up, if the environment says so."""
    if name == _name and next(_arrivals) == int(_count or 1):
        os.kill(os.getpid(), signal.SIGKILL)
