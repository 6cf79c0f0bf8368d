"""What is counted and measured, for Prometheus. README.md lists every metric, and a test compares the list with this module.

Labels hold only names from the contract and the configuration, never what a caller sent.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from itertools import accumulate
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from sidecar.errors import Reason, SidecarError
from sidecar.policy import Verb

disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for every series, that nobody asked for

_PORT_BUCKETS = (0.001, 0.0025, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0)
_BUCKETS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


class Port(Enum):
    """Whom the sidecar asks; the value is part of its metrics' names."""

    STORE = "store"
    KMS = "kms"


CALLERS = 200  # with a series each


_SPELLED = {Port.STORE: "store", Port.KMS: "KMS"}


class TokenCount:
    """Counts one token when its block ends. A verb that learns the profile on the way writes it here."""

    __slots__ = ("_metrics", "_verb", "profile", "quiet")

    def __init__(self, metrics: Metrics, verb: Verb, profile: str, quiet: bool) -> None:
        self._metrics = metrics
        self._verb = verb
        self.quiet = quiet
        self.profile = profile

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            if not self.quiet:
                self._metrics.count_token(self.profile, self._verb, "OK")
        elif isinstance(error, SidecarError):
            self._metrics.count_token(self.profile, self._verb, error.reason.name)


class Metrics:
    """One registry per process. What every call counts is in plain numbers until somebody scrapes."""

    def __init__(self, profiles: tuple[str, ...], version: str) -> None:
        self.registry = CollectorRegistry()
        self._profiles = frozenset(profiles)
        self._callers: set[str] = set()  # that have a series of their own
        self._hot = _Hot()
        self.registry.register(self._hot)
        self._plain = Counter(
            "tokensidecar_plain_tokens",
            "Genuine tokens of nested profiles that were signed alone: who still sends them, and whether they were accepted.",
            ["profile", "caller", "accepted"],
            registry=self.registry,
        )
        self.in_flight = Gauge("tokensidecar_rpcs_in_flight", "Calls being worked on.", registry=self.registry)
        self.refreshes = Counter(
            "tokensidecar_refreshes", "Reads of the store for news, by outcome.", ["outcome"], registry=self.registry
        )
        self.duties = Counter(
            "tokensidecar_duties",
            "Scheduled rotations, destructions and renewals of data keys, by outcome; CLAIM_LOST: another keeper does it.",
            ["duty", "outcome"],
            registry=self.registry,
        )
        self.reloads = Counter(
            "tokensidecar_config_reloads", "Config files read again, by outcome.", ["outcome"], registry=self.registry
        )
        self.tls_reloads = Counter(
            "tokensidecar_tls_reloads",
            "Certificates, keys and CAs of a TLS address that were read again, by outcome.",
            ["address", "outcome"],
            registry=self.registry,
        )
        self.config_good = Gauge(
            "tokensidecar_config_good",
            "1 when the config file, as it was last read, is in force; 0: it was refused, and what was before is.",
            registry=self.registry,
        )
        self.config_good.set(1)
        Gauge(
            "tokensidecar_build_info", "Always 1; the version is a label.", ["version"], registry=self.registry
        ).labels(version).set(1)
        self._port_seconds = {port: self._of_port(port) for port in Port}
        self._port_errors = {
            port: Counter(
                f"tokensidecar_{port.value}_errors",
                f"Operations of the {_SPELLED[port]} that failed, by reason.",
                ["operation", "reason"],
                registry=self.registry,
            )
            for port in Port
        }

    def call(self, method: str, code: str, reason: str, started: float) -> float:
        """Count one call that `time.perf_counter()` saw start at `started`; gives its seconds."""
        seconds = time.perf_counter() - started
        self._hot.calls[method, code, reason] += 1
        timer = self._hot.seconds[method]
        timer[bisect_left(_BUCKETS, seconds)] += 1
        timer[-1] += seconds
        return seconds

    def _of_port(self, port: Port) -> Histogram:
        return Histogram(
            f"tokensidecar_{port.value}_duration_seconds",
            f"Time that operations of the {_SPELLED[port]} took.",
            ["operation"],
            buckets=_PORT_BUCKETS,
            registry=self.registry,
        )

    def may_fail(self, port: Port, operation: str) -> None:
        """Begin its failures at zero, so that the first is an increase."""
        for reason in (f"{port.name}_UNAVAILABLE", Reason.INTERNAL.name):
            self._port_errors[port].labels(operation, reason)

    def asked(self, port: Port, operation: str, reason: str, seconds: float) -> None:
        """Count one operation of a port. `reason` is empty where it did not fail."""
        self._port_seconds[port].labels(operation).observe(seconds)
        if reason:
            self._port_errors[port].labels(operation, reason).inc()

    def known(self, profile: str) -> str:
        """The profile if it is configured, else nothing: what callers send is no label."""
        return profile if profile in self._profiles else ""

    def token(self, verb: Verb, profile: str, *, quiet: bool = False) -> TokenCount:
        """A block around one token. `quiet`: an OK is not counted."""
        return TokenCount(self, verb, profile, quiet)

    def count_token(self, profile: str, verb: Verb, outcome: str) -> None:
        """Count one token. A profile that is not configured counts as none: labels are not for callers to fill."""
        self._hot.tokens[profile if profile in self._profiles else "", verb, outcome] += 1

    def count_plain(self, profile: str, caller: str, *, accepted: bool) -> None:
        """Count one plain JWS of a nested profile. Certificates name callers without end: of many, the later ones are counted as one."""
        if caller not in self._callers and len(self._callers) < CALLERS:
            self._callers.add(caller)
        self._plain.labels(profile, caller if caller in self._callers else "others", str(accepted).lower()).inc()

    def watch(
        self, gauges: Callable[[], Iterator[tuple[str, str, dict[str, str], float]]], sometimes: Mapping[str, str]
    ) -> None:
        """Read gauges only when somebody scrapes: (name, help, labels, value). `sometimes`: help of those that may have no value."""
        self.registry.register(_Watched(gauges, sometimes))

    def text(self) -> bytes:
        """The exposition, in the Prometheus text format 0.0.4."""
        return generate_latest(self.registry)


class _Hot:
    """What each call counts, on the loop's own thread: a counter of the library takes a lock, and costs ten times as much.

    `seconds` has, by method, how many calls fell into each bucket, those beyond the last, and the sum of all seconds.
    """

    def __init__(self) -> None:
        self.calls: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self.seconds: defaultdict[str, list[float]] = defaultdict(lambda: [0] * (len(_BUCKETS) + 2))
        self.tokens: defaultdict[tuple[str, Verb, str], int] = defaultdict(int)

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        calls = CounterMetricFamily(
            "tokensidecar_rpcs",
            "Calls answered, by gRPC method, status code and reason (empty for OK and for gRPC's own codes).",
            labels=["method", "code", "reason"],
        )
        for labels, count in self.calls.items():
            calls.add_metric(labels, count)
        yield calls
        seconds = HistogramMetricFamily(
            "tokensidecar_rpc_duration_seconds",
            "Time from the first line of our code to the answer.",
            labels=["method"],
        )
        bounds = [*map(str, _BUCKETS), "+Inf"]
        for method, (*counts, total) in self.seconds.items():
            seconds.add_metric([method], list(zip(bounds, accumulate(counts), strict=True)), total)
        yield seconds
        tokens = CounterMetricFamily(
            "tokensidecar_tokens",
            "Tokens by profile (empty: several or none), verb and outcome; each item of a batch counts.",
            labels=["profile", "verb", "outcome"],
        )
        for (profile, verb, outcome), count in self.tokens.items():
            tokens.add_metric([profile, verb.value, outcome], count)
        yield tokens


class _Watched:
    def __init__(
        self, gauges: Callable[[], Iterator[tuple[str, str, dict[str, str], float]]], sometimes: Mapping[str, str]
    ) -> None:
        self._gauges = gauges
        self._sometimes = sometimes

    def describe(self) -> list[Metric]:
        return []  # nothing is read at registration

    def collect(self) -> Iterator[Metric]:
        families: dict[str, GaugeMetricFamily] = {}
        for name, help_, labels, value in self._gauges():
            family = families.setdefault(name, GaugeMetricFamily(name, help_, labels=list(labels)))
            family.add_metric(list(labels.values()), value)
        for name, help_ in self._sometimes.items():
            families.setdefault(name, GaugeMetricFamily(name, help_))
        yield from families.values()


OUTCOMES = ("OK", *(reason.name for reason in Reason))
"""Values of the label `outcome`."""
