"""Reload: a changed config file is read again, and what can change while calls are in work does so at once.

That is the policy, rates included. Everything else is part of sockets, keys or rings that are open: a change there is told, and waits for a
restart. A file that is no good leaves all as it was. Nor does a reload ever take default deny away: a file without any policy could be
one that is half written.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from sidecar.audit import Audit
from sidecar.caller import SIDECAR
from sidecar.config import Config, ConfigError, load
from sidecar.errors import InvalidRequestError, SidecarError, Violation
from sidecar.logs import frames, get_logger
from sidecar.metrics import Metrics
from sidecar.policy import Policy, Verb

EVERY = 1.0  # seconds between looks at the file

_LIVE = frozenset({"policy", "notes", "digest"})

_log = get_logger()


class Reload:
    """The verb, and the loop that notices a change. `config` is what this process was built from."""

    def __init__(self, config: Config, env: Mapping[str, str], policy: Policy, audit: Audit, metrics: Metrics) -> None:
        self._config = config
        self._env = env
        self._policy = policy
        self._audit = audit
        self._metrics = metrics
        self._seen = self._stamp()

    async def watch(self) -> None:
        """Look once a second; a file that has just changed may not be whole yet, so it must stay the same for one look more."""
        before = self._seen
        while True:
            await asyncio.sleep(EVERY)
            stamp = self._stamp()
            if stamp == before and stamp != self._seen:
                try:
                    await self()
                except Exception as error:  # noqa: BLE001
                    # A loop that died would keep every later policy out, and nobody would notice.
                    _log.error("config.refused", error_type=type(error).__name__, frames=frames(error))
                    self._told("INTERNAL")
            before = stamp

    async def __call__(self) -> bool:
        """Read the file and put its policy in force; False: it stays as it was, and the log says why."""
        stamp = self._stamp()
        outcome = "OK"
        try:
            with self._audit.decision(SIDECAR, Verb.CONFIG, "", secrets.token_hex(8)) as decision:
                config = self._read()
                decision.facts["config_hash"] = config.digest
            if self._audit.required:
                await self._audit.on_record()
        except SidecarError as error:
            outcome = error.reason.name
            for violation in error.violations:
                _log.error(
                    "config.refused", source=self._config.source, where=violation.field, problem=violation.problem
                )
            if not error.violations:
                _log.error("config.refused", source=self._config.source, problem=error.message)
                stamp = self._seen  # it was not the file's fault: try again
        else:
            self._policy.replace(config.policy)
            waiting = [one.name for one in fields(Config) if one.name not in _LIVE and self._differs(config, one.name)]
            _log.info("config.reloaded", source=config.source, config_hash=config.digest, rules=len(config.policy))
            if waiting:
                _log.warning("config.restart_needed", parts=waiting)
        self._seen = stamp
        self._told(outcome)
        return outcome == "OK"

    def _told(self, outcome: str) -> None:
        self._metrics.config_good.set(float(outcome == "OK"))
        self._metrics.reloads.labels(outcome).inc()

    def _read(self) -> Config:
        if self._config.source is None:
            raise _refusal([("config", "there is no config file to read again")])
        try:
            config = load(self._config.source, self._env)
        except ConfigError as error:
            raise _refusal(error.problems) from error
        if self._policy.configured and not config.policy:
            raise _refusal([("policy", "a reload does not take the last policy away: restart, if that is meant")])
        return config

    def _differs(self, config: Config, name: str) -> bool:
        return bool(getattr(config, name) != getattr(self._config, name))

    def _stamp(self) -> tuple[int, ...]:
        """What changes with the file that the path leads to, a swapped link included."""
        if self._config.source is None:
            return ()
        try:
            found = Path(self._config.source).stat()
        except OSError:
            return (0,)
        return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _refusal(problems: list[tuple[str, str]]) -> InvalidRequestError:
    error = InvalidRequestError(*(Violation(key, problem) for key, problem in problems))
    error.stage = "config"
    return error
