"""Several sidecars on one store, and what breaks under them."""

from __future__ import annotations

import contextlib
import http.client
import random
import signal
import time
from typing import TYPE_CHECKING, Self

import grpc

from sidecar.failpoints import NAMES
from sidecar.kms.file import make
from tests.history.checker import Bounds
from tests.kms.aws_servers import IDENTITY
from tests.running import RunningSidecar
from tests.wrong_clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.kms.aws_servers import Aws

BOUNDS = Bounds(max_staleness=30.0, max_skew=5.0)
CONFIG = """
[profiles.default]
issuer = "urn:history"
audiences = ["orders"]

[profiles.once]
issuer = "urn:history"
audiences = ["orders"]
one_time = true

[profiles.session]
issuer = "urn:history"
audiences = ["orders"]
refresh_ttl = "1h"

[keys]
store = "{store}"
kek = "{kek}"
refresh_interval = "1s"
propagation = "3s"
max_staleness = "30s"
rotate_every = "1h"
{further}

[audit]
sink = "file:{audit}"
required = true
"""
JUMPS = (3600, -3600, 3652 * 86400, -3652 * 86400)
STEPS = [name for name in NAMES if name.partition(".")[0] in ("rotate", "revoke", "refresh", "consume")]
_CHANNEL = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)


class Stage:
    """`store`: as in `keys.store`; `further`: more lines of the section; `skew`: clocks are wrong by up to so many seconds, and can jump;
    None: they are right. `aws`: a running server, whose KMS has the key-encryption key; None: a file has it.

    As a context manager: all are ready inside, and gone afterwards.
    """

    def __init__(
        self,
        directory: Path,
        store: str,
        count: int,
        further: str = "",
        skew: int | None = None,
        aws: Aws | None = None,
    ) -> None:
        self.kek = directory / "kek"
        self._aws = aws
        kek, env = f"file:{self.kek}", {}
        if aws is None:
            make(self.kek)
        else:
            kek, env = f"awskms:{aws.make_key()}", IDENTITY
            further += f'[keys.aws]\nendpoint = "{aws.endpoint}"\n'
        self._clocks = [] if skew is None else [Clock(directory / f"clock-{number}") for number in range(count)]
        self._skews = [round((skew or 0) * (2 * number / max(count - 1, 1) - 1)) for number in range(count)]
        for clock, seconds in zip(self._clocks, self._skews, strict=False):
            clock.jump(seconds)
        self.sidecars = [
            RunningSidecar(
                CONFIG.format(store=store, kek=kek, further=further, audit=directory / f"audit-{number}.jsonl"),
                env={**env, **(self._clocks[number].env if self._clocks else {})},
            )
            for number in range(count)
        ]
        self.apps = [grpc.insecure_channel(each.app_socket, _CHANNEL) for each in self.sidecars]
        self.admins = [grpc.insecure_channel(each.admin_socket, _CHANNEL) for each in self.sidecars]
        self.done: list[str] = []
        """What was broken, in order."""

    def __enter__(self) -> Self:
        try:
            for each in self.sidecars:
                each.start()
            for each in self.sidecars:
                each.wait_until_ready(60)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for channel in (*self.apps, *self.admins):
            channel.close()
        for each in self.sidecars:
            each.kill()
            each.remove()

    # What breaks. Each mends itself before it returns.

    def kill(self, rng: random.Random) -> None:
        """kill -9, and a start."""
        victim = rng.choice(self.sidecars)
        victim.kill()
        self._revive(victim)

    def kill_at_a_step(self, rng: random.Random) -> None:
        """Dies by itself at a named step, if it comes there."""
        victim, step = rng.choice(self.sidecars), f"{rng.choice(STEPS)}:{rng.randint(1, 5)}"
        victim.kill()
        victim.env["TOKENSIDECAR_FAILPOINT"] = step
        victim.start()
        self.done[-1] += f" {step}"
        end = time.monotonic() + rng.uniform(2.0, 6.0)
        while victim.running and time.monotonic() < end:
            time.sleep(0.02)
        del victim.env["TOKENSIDECAR_FAILPOINT"]
        victim.kill()
        self._revive(victim)

    def stop(self, rng: random.Random) -> None:
        """SIGTERM, and a start."""
        victim = rng.choice(self.sidecars)
        victim.stop()
        self._revive(victim)

    def pause(self, rng: random.Random) -> None:
        """SIGSTOP for a while: for everybody else it is slow."""
        victim = rng.choice(self.sidecars)
        victim.process.send_signal(signal.SIGSTOP)
        time.sleep(rng.choice((0.2, 1.0, 4.0)))
        victim.process.send_signal(signal.SIGCONT)

    def without_kek(self, rng: random.Random) -> None:
        """The key-encryption key is away: who runs goes on, who starts waits."""
        hidden = self.kek.with_suffix(".away")
        self.kek.rename(hidden)
        try:
            time.sleep(rng.uniform(0.5, 2.0))
        finally:
            hidden.rename(self.kek)

    def without_kms(self, rng: random.Random) -> None:
        """The same, where a server has it: nobody can start until it is back."""
        assert self._aws is not None
        victim = rng.choice(self.sidecars)
        self._aws.stop()
        try:
            victim.kill()
            victim.start()
            time.sleep(rng.uniform(1.0, 4.0))
            assert all(each.running for each in self.sidecars if each is not victim)
            assert victim.running is False or not _ready(victim)
        finally:
            self._aws.start()
        victim.kill()
        self._revive(victim)

    def clock_jumped(self, rng: random.Random) -> None:
        """One machine's clock is wrong for a while: it is stale."""
        number = rng.randrange(len(self._clocks))
        self._clocks[number].jump(rng.choice(JUMPS))
        time.sleep(rng.uniform(0.5, 3.0))
        self._clocks[number].jump(self._skews[number])

    def start_all(self, rng: random.Random) -> None:
        """Everybody at once."""
        for each in self.sidecars:
            each.kill()
        for each in self.sidecars:
            each.start()
        for each in self.sidecars:
            each.wait_until_ready(60)

    @staticmethod
    def _revive(sidecar: RunningSidecar) -> None:
        sidecar.start()
        sidecar.wait_until_ready(60)

    def everything(self) -> list[Callable[[random.Random], None]]:
        """What can break on any store."""
        return [
            self.kill,
            self.kill_at_a_step,
            self.kill_at_a_step,
            self.stop,
            self.pause,
            self.without_kms if self._aws else self.without_kek,
            self.start_all,
            *([self.clock_jumped] if self._clocks else []),
        ]

    def break_for(
        self, seconds: float, seed: int, faults: list[Callable[[random.Random], None]], enough: Callable[[], bool]
    ) -> None:
        """One thing after the other, with little rest between; for longer, on a slow machine, until it was `enough`."""
        rng, begun = random.Random(seed), time.monotonic()
        while True:
            for fault in rng.sample(faults, len(faults)):
                past = time.monotonic() - begun
                if past > 5 * seconds or (past > seconds and enough()):
                    return
                self.done.append(fault.__name__)
                fault(rng)
                time.sleep(rng.uniform(0.5, 2.0))


def _ready(sidecar: RunningSidecar) -> bool:
    with contextlib.suppress(OSError):
        return sidecar.get("/readyz")[0] == http.client.OK
    return False
