"""What this process may do and what may be done to it, set before any key is loaded (Linux).

No core dumps, not traceable by other processes of the same user, no new privileges. We promise no wiping of memory: Python copies.
"""

from __future__ import annotations

import ctypes
import resource
import sys

_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38


def harden() -> list[str]:
    """Apply all three; gives what could not be applied, for the log."""
    failed = []
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError):
        failed.append("core dumps are not switched off")
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        if prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            failed.append("the process can be traced")
        if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            failed.append("the process may gain privileges")
    else:
        failed.append("only Linux is known here")
    return failed
