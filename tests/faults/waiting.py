"""To wait for what is due to happen, and not longer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.running import RunningSidecar


def run(running: RunningSidecar) -> None:
    """Start it and wait until it is ready."""
    running.start()
    running.wait_until_ready()


def wait_for(what: Callable[[], bool], seconds: float = 10.0) -> None:
    """Until it is so; AssertionError if it is not in time."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)
