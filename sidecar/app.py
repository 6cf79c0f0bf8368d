"""Build everything from a Config, start it, keep it going, drain it, stop it. The only module that sees every other; it only connects."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import uvloop

from sidecar import __version__, directories, logs, process
from sidecar.addresses import Address
from sidecar.audit import Audit, Backlog
from sidecar.authorize import Authorize
from sidecar.backends import Passive, Telling, elsewhere, open_further_kms, open_kms, open_store, open_traces
from sidecar.caller import Caller, Plane
from sidecar.certificates import UnusableCertificateError
from sidecar.clocks import SystemClock
from sidecar.commits import Commits
from sidecar.config import Config, Keys as KeysConfig
from sidecar.data_keys import DamagedRingError
from sidecar.denylist import Denylist
from sidecar.destroy import Destroy
from sidecar.duties import Duties
from sidecar.envoy.authorization import AUTHORIZATION_SERVICE, authorization_services
from sidecar.errors import SidecarError, StaleStateError, UnavailableStoreError
from sidecar.failpoints import failpoint
from sidecar.gauges import SOMETIMES, Gauges
from sidecar.http.forward_auth import LIMITS, PATH, ForwardAuth
from sidecar.http.key_set import KeySet, UnusableKeySetError
from sidecar.http.server import Answer, HttpServer
from sidecar.issue import Issue
from sidecar.jose.keys import choose_engine
from sidecar.keeper import Keeper
from sidecar.keyring import KeyUse, Role
from sidecar.keys import Keys
from sidecar.metrics import Metrics, Port
from sidecar.pins import FILE as PINS_FILE, Pins
from sidecar.policy import Policy
from sidecar.ports import Clock, Kms, Ledger, Member, Membered, Store
from sidecar.refresh import Refresh
from sidecar.rekey import Rekey
from sidecar.reload import Reload
from sidecar.revoke import Revoke
from sidecar.revoke_keys import RevokeKeys
from sidecar.rotate import Rotate
from sidecar.rpc.boundary import Boundary
from sidecar.rpc.health import Health
from sidecar.rpc.peer import door
from sidecar.rpc.server import SERVICES, ListenError, Server, plane_services
from sidecar.rpc.servicers import Verbs
from sidecar.rpc.tls import ServingCertificates
from sidecar.salt import UnusableSaltError, audit_salt
from sidecar.schedule import Perform, Schedule
from sidecar.service_accounts import ALGORITHMS, ServiceAccounts
from sidecar.sinks.chained import UnusableFileError
from sidecar.sinks.file import FileSink
from sidecar.sinks.stdout import StdoutSink
from sidecar.timed import time_port
from sidecar.traces import Traces, UnavailableTracesError
from sidecar.validate import Validate

GRACE = 10.0  # seconds that calls in work get to finish after SIGTERM
PRESENCE_SECONDS = 60.0  # between words that this process is there
FORGET_SECONDS = 60.0  # between looks at what the ledger may forget
FORGOTTEN_AT_ONCE = 500
HEARTBEAT_SECONDS = 300.0  # between a keeper's writes of the time; a kubelet renews every mount for each
KEEPER_WAIT_STEP = 0.5  # seconds
KEEPER_WAIT = 600.0  # seconds that a sidecar waits for a keeper's first rings: a Secret takes minutes to reach a mount

_log = logs.get_logger()


class StartError(Exception):
    """The sidecar cannot start; the text says why and what to do."""


_UNSTARTABLE = (
    SidecarError,
    DamagedRingError,
    ListenError,
    UnusableCertificateError,
    UnusableFileError,
    UnusableKeySetError,
    UnusableSaltError,
    UnavailableTracesError,
    directories.UnsafeDirectoryError,
)
"""What a person can mend; the text says how."""


class StoppedStartError(Exception):
    """The sidecar was told to stop before it had started."""


class App:
    """The whole sidecar as an object; tests build the same one. `stopping`, once set, also ends a start that waits.

    `keeping`: as a keeper's process, which has write credentials and serves no app plane.
    """

    def __init__(self, config: Config, *, keeping: bool = False) -> None:
        self.config = config
        self.clock: Clock = SystemClock()
        self.stopping = asyncio.Event()
        self._keeping = keeping
        self._app_addresses = () if keeping else config.listen.app
        self._servers: list[Server] = []
        self._loops: list[asyncio.Task[None]] = []
        self._credentials: list[ServingCertificates | KeySet] = []  # kept as fresh as their files
        self._http: HttpServer | None = None
        self._forward_auth: list[HttpServer] = []
        self._file_sink: FileSink | None = None
        self._reload: Reload | None = None
        self._traces: Traces | None = None
        self._keys: Keys | None = None
        self._members: Counter[str] = Counter()  # by role, as the store has them
        self._heard: float | None = None  # store time of a keeper's last write, where the store tells
        self._ready = "starting"  # why not ready; empty when ready

    async def start(self) -> None:
        """Load or make the rings, then listen. `StoppedStartError`: it was told to stop meanwhile."""
        config, clock = self.config, self.clock
        self._prepare()
        self.metrics = Metrics((*config.profiles, *config.imported), __version__)
        choose_engine(config.keys.engine)
        self._traces = open_traces(config.traces)
        self.store = await self._opened_store(clock)
        time_port(Port.STORE, (self.store,), self.metrics, self._traces)
        failpoint("start.store_made")
        kms, pins = await self._opened_kms(), self._pins()
        further = await open_further_kms(config.keys, self.store)
        time_port(Port.KMS, (*kms.values(), *further.values()), self.metrics, self._traces)
        self._ledger = ledger = self.store if isinstance(self.store, Ledger) else None
        denylist = Denylist(ledger) if ledger else None
        self.keeper = Keeper(config.rings, self.store, kms, clock, further_kms=further, pins=pins, denylist=denylist)
        await self.keeper.start()
        spread = random.random()  # noqa: S311 - to be apart from other keepers
        self.duties = Duties(self.keeper, self.store, holder=secrets.token_hex(8), spread=spread)
        self._audit = await self._opened_audit()
        gauges = Gauges(
            self.keeper,
            self._audit,
            self._backlog,
            lambda: not self._ready,
            lambda: self._heard,
            self._of_others,
        )
        self.metrics.watch(gauges, SOMETIMES)
        self._commits = Commits()
        served = {
            Plane.APP: "a sidecar's; this is a keeper" if self._keeping else ", ".join(map(str, config.listen.app)),
            Plane.ADMIN: ", ".join(map(str, config.listen.admin)) or "nowhere, as configured",
        }
        self._policy = policy = Policy(
            config.profiles,
            served,
            config.policy,
            imported=config.imported,
            elsewhere=elsewhere(config.keys, writable=self.keeper.writable),
        )
        rotate = Rotate(self.keeper, policy, self._audit, self._commits)
        destroy = Destroy(self.keeper, policy, self._audit, self._commits)
        perform = Perform(rotate, destroy, Rekey(self.keeper, self._audit, self._commits))
        self._schedule = Schedule(self.keeper, self.duties, perform, self.metrics)
        validate = Validate(
            self.keeper, policy, self._audit, self.metrics, config.imported, ledger=ledger, commits=self._commits
        )
        issue = Issue(self.keeper, policy, self._audit, self.metrics)
        refresh, revoke = None, None
        if ledger and denylist:
            refresh = Refresh(self.keeper, ledger, denylist, issue, policy, self._audit, self.metrics, self._commits)
            revoke = Revoke(self.keeper, ledger, denylist, validate, refresh, policy, self._audit, self._commits)
        verbs = self.verbs = Verbs(
            issue=issue,
            validate=validate,
            refresh=refresh,
            revoke=revoke,
            rotate=rotate,
            revoke_keys=RevokeKeys(self.keeper, policy, self._audit, self._commits, mounted=config.keys.mounted),
            keys=Keys(self.keeper, policy, self._audit),
            fresh_id=lambda: secrets.token_urlsafe(16),
        )
        services = [*SERVICES.values(), *([(AUTHORIZATION_SERVICE,)] if config.listen.envoy else [])]
        self.health = Health(tuple(dict.fromkeys(s for each in services for s in each)))
        self._keys = verbs.keys
        await self._listen(verbs, clock)
        self._reload = Reload(config, os.environ, policy, self._audit, self.metrics)
        self._loops = [
            asyncio.create_task(self._refreshing()),
            asyncio.create_task(self._schedule.watch()),
            *([asyncio.create_task(self._forgetting(ledger))] if ledger else []),
            *([asyncio.create_task(self._being_there(self.store))] if isinstance(self.store, Membered) else []),
            *([asyncio.create_task(self._reload.watch())] if config.source else []),
            *(asyncio.create_task(each.watch()) for each in self._credentials),
        ]
        if self._keeping and isinstance(self.store, Passive):
            self._loops.append(asyncio.create_task(self._beating(self.store)))
        self.health.set_serving()
        self._tell_state()
        self._ready = ""

    def hang_up(self) -> None:
        """Read the config file again now, as SIGHUP asks."""
        if self._reload:
            self._reloading = asyncio.create_task(self._reload())

    async def _listen(self, verbs: Verbs, clock: Clock) -> None:
        listen, boundary = self.config.listen, self._boundary()
        accounts = await self._service_accounts(clock)
        app, admin = (plane_services(plane, verbs, boundary) for plane in (Plane.APP, Plane.ADMIN))
        authorize = self._authorize(verbs)
        proxied = self.config.envoy_certificate == "xfcc"
        envoy = authorization_services(authorize, boundary, proxied=proxied)
        for plane, addresses, services in (
            (Plane.APP, self._app_addresses, app),
            (Plane.ADMIN, listen.admin, admin),
            (Plane.APP, () if self._keeping else listen.envoy, envoy),
        ):
            for address in addresses:
                certificates = None
                if address.tls:
                    certificates = ServingCertificates(address, address.tls, self._audit, self.metrics, clock.wall)
                    self._credentials.append(certificates)
                who = door(address, plane, accounts=accounts, now=clock.wall)
                server = Server(address, services(who), self.health, certificates)
                self._servers.append(server)
                await server.start()
        for address in () if self._keeping else listen.forward_auth:
            await self._listen_forward_auth(address, authorize)
        await self._listen_http()

    async def _service_accounts(self, clock: Clock) -> ServiceAccounts | None:
        """What verifies service account tokens, if an address wants them."""
        rules = self.config.service_accounts
        if rules is None:
            return None
        ca, token = (Path(name) if name else None for name in (rules.keys_ca, rules.keys_token))
        key_set = KeySet(rules.keys, ALGORITHMS, ca=ca, token=token, now=clock.boot)
        await key_set.start()
        self._credentials.append(key_set)
        return ServiceAccounts(rules.issuer, rules.audience, rules.max_ttl, key_set, clock.wall)

    def _of_others(self) -> Iterator[tuple[str, dict[str, str], float]]:
        for each in self._credentials:
            yield from each.readings()
        for role, count in self._members.items():
            yield "tokensidecar_members", {"role": role}, float(count)

    async def _listen_forward_auth(self, address: Address, authorize: Authorize) -> None:
        caller, spoken = Caller(address.caller, Plane.APP), self.config.forward_auth
        asked = ForwardAuth(authorize, caller, spoken, self._policy, self._audit, self.metrics, self._traces)
        http = HttpServer(asked={PATH: asked}, limits=LIMITS)
        try:
            await http.start(address.host, address.port)
        except OSError as error:
            raise ListenError(f"{address}: {error.strerror}; choose another [listen] forward_auth address") from None
        self._forward_auth.append(http)

    def _authorize(self, verbs: Verbs) -> Authorize:
        config = self.config
        return Authorize(
            config.routes,
            config.profiles,
            verbs.validate,
            verbs.issue,
            now=self.keeper.now,
            fresh_id=verbs.fresh_id,
        )

    async def _listen_http(self) -> None:
        """The http plane; a sidecar that waits for its keeper has it already."""
        address = self.config.listen.http
        if address is None or self._http is not None:
            return
        http = HttpServer(
            {
                "/livez": lambda: Answer(200, b"ok\n"),
                "/readyz": self._readyz,
                "/metrics": lambda: Answer(200, self.metrics.text(), "text/plain; version=0.0.4; charset=utf-8"),
                "/.well-known/jwks.json": self._jwks,
            }
        )
        try:
            await http.start(address.host, address.port)
        except OSError as error:
            raise ListenError(f"{address}: {error.strerror}; choose another [listen] http address") from None
        self._http = http

    # -- what it stands on; tests and `tokensidecar fake` put something else there

    def _prepare(self) -> None:
        refuse_what_cannot_work(self.config.keys, keeping=self._keeping)
        listen = self.config.listen
        gateways = () if self._keeping else (*listen.envoy, *listen.forward_auth)
        prepare_directories(self.config, (*self._app_addresses, *listen.admin, *gateways))

    def _pins(self) -> Pins:
        return Pins(self.config.state_dir / PINS_FILE)

    async def _opened_kms(self) -> Mapping[Role, Kms]:
        return await open_kms(self.config.keys, self.store)

    async def _opened_audit(self) -> Audit:
        config = self.config
        self._file_sink = await open_file_sink(config, self.clock.wall)
        return Audit(
            self._file_sink or StdoutSink(logs.LineWriter(sys.stdout.fileno())),
            required=config.audit.required,
            salt=audit_salt(config.state_dir, config.audit.salt_file),
            now=self.clock.wall,
            clear=config.audit.names == "clear",
        )

    def _boundary(self) -> Boundary:
        return Boundary(self.metrics, self._policy, self._audit, self._traces)

    async def _opened_store(self, clock: Clock) -> Store:
        """The store. Who only reads one waits until a keeper has written a ring of its profiles, and says so on /readyz.

        A start that ends at once instead would be repeated ever later by the kubelet, and its reason would be in a log alone; one that
        waits for ever would never be noticed.
        """
        keys, until = self.config.keys, clock.boot() + KEEPER_WAIT
        if not keys.awaits_keeper or self._keeping:
            return await open_store(keys, clock, keeping=self._keeping)
        while True:
            problem = f"{keys.store} holds no ring of a configured profile yet"
            store: Store | None = None
            try:
                store = await open_store(keys, clock, keeping=False)
                if store.writable or (await store.revisions()).keys() & self.config.profiles.keys():
                    return store
            except UnavailableStoreError as error:
                problem = error.message
            if store is not None:
                await store.close()
            if clock.boot() > until:
                raise UnavailableStoreError(f"{problem}. No keeper wrote one within {KEEPER_WAIT:.0f} s")
            waiting = f"waiting for a keeper: {problem}"
            if waiting != self._ready:
                self._ready = waiting
                _log.warning("store.awaited", problem=problem)
            await self._listen_http()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), KEEPER_WAIT_STEP)
                raise StoppedStartError

    async def stop(self) -> None:
        """Drain: say so, take no new calls, let calls and commits in work finish, close."""
        self._ready = "stopping"
        for loop in self._loops:
            loop.cancel()
        if hasattr(self, "health"):
            self.health.close()
        await asyncio.gather(*(server.stop(GRACE) for server in self._servers))
        if hasattr(self, "_commits"):
            await self._commits.drain()
        for http in self._forward_auth:
            await http.stop()
        if self._http:
            await self._http.stop()
        if self._file_sink:
            await self._file_sink.close()
        if hasattr(self, "store"):
            await self.store.close()
        if self._traces:
            await self._traces.close()

    # -- loops

    async def _refreshing(self) -> None:
        """Look for news. A sidecar that cannot goes on with what it has, until that is stale."""
        failing = False
        while True:
            await self._news()
            try:
                await self.keeper.refresh()
                if isinstance(self.store, Passive):
                    self._heard = await self.store.written()
            except SidecarError as error:
                self.metrics.refreshes.labels(error.reason.name).inc()
                if not failing:
                    _log.warning("store.lost", reason=error.reason.name, problem=error.message)
                failing = True
            except Exception as error:  # noqa: BLE001
                # A loop that died would make this sidecar stale for good.
                self.metrics.refreshes.labels("INTERNAL").inc()
                if not failing:
                    _log.error("store.lost", error_type=type(error).__name__, frames=logs.frames(error))
                failing = True
            else:
                self.metrics.refreshes.labels("OK").inc()
                if failing:
                    _log.info("store.found")
                failing = False
            self._tell_state()

    async def _news(self) -> None:
        """Return when it is time to look: after the interval, jittered, or as soon as the store tells of a change."""
        seconds = self.config.keys.refresh_interval * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
        if not isinstance(self.store, Telling):
            await asyncio.sleep(seconds)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.store.changed()

    async def _beating(self, store: Passive) -> None:
        """Write the time, so that readers can tell for how long they have heard nothing of a keeper."""
        while True:
            try:
                await store.heartbeat()
            except SidecarError as error:
                _log.warning("heartbeat.failed", reason=error.reason.name, problem=error.message)
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _being_there(self, store: Membered) -> None:
        """Say so in the store; a keeper counts who else does, so that a fleet of a thousand is not read a thousand times."""
        role = "keeper" if self._keeping else self.config.keys.role
        member = Member(secrets.token_hex(8), role, __version__, socket.gethostname())
        while True:
            try:
                await store.present(member)
                found = await store.members(2.5 * PRESENCE_SECONDS) if self.keeper.writable else ()
                self._members = Counter(each.role for each in found)
            except SidecarError:
                self._members = Counter()  # that the store is lost is told by who refreshes
            except Exception as error:  # noqa: BLE001
                self._members = Counter()
                _log.error("presence.failed", error_type=type(error).__name__, frames=logs.frames(error))
            await asyncio.sleep(PRESENCE_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 - jitter

    async def _forgetting(self, ledger: Ledger) -> None:
        """Have the ledger delete what is past its time, a little at once."""
        while True:
            await asyncio.sleep(FORGET_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
            try:
                gone = FORGOTTEN_AT_ONCE
                while gone >= FORGOTTEN_AT_ONCE:
                    gone = await ledger.forget(FORGOTTEN_AT_ONCE)
            except SidecarError as error:
                _log.warning("ledger.not_swept", reason=error.reason.name, problem=error.message)
            except Exception as error:  # noqa: BLE001
                # A loop that died would let the ledger grow for ever.
                _log.error("ledger.not_swept", error_type=type(error).__name__, frames=logs.frames(error))

    def _tell_state(self) -> None:
        self.health.set_fresh(not any(self.keeper.stale(profile) for profile in self.config.rings))

    def _backlog(self) -> Backlog:
        return self._file_sink.backlog if self._file_sink else Backlog()

    # -- answers over HTTP

    def _readyz(self) -> Answer:
        if self._ready:
            return Answer(503, f"not ready: {self._ready}\n".encode())
        # Stale state is told but does not make the pod unready: a database failover must not take down every app.
        stale = [f"profile {name}: state is stale" for name in self.config.profiles if self.keeper.stale(name)]
        return Answer(200, "".join(["ready\n", *(f"but {line}\n" for line in stale)]).encode())

    def _jwks(self) -> Answer:
        if self._keys is None:
            return Answer(503, f"not ready: {self._ready}\n".encode())
        try:
            members = self._published(self._keys)
        except StaleStateError:  # a profile has no ring yet: part of a key set would be taken for all of it
            return Answer(503, b"no keys yet\n")
        body = '{"keys":[' + ",".join(filter(None, members)) + "]}"
        return Answer(200, body.encode(), "application/jwk-set+json", "public, max-age=300")

    def _published(self, keys: Keys) -> list[str]:
        return [
            keys.jwks_of(name, tuple(KeyUse))[0][len('{"keys":[') : -len("]}")]
            for name, profile in self.config.profiles.items()
            if profile.published
        ]


def prepare_directories(config: Config, addresses: Iterable[Address] = ()) -> None:
    """Make what is missing of the state directory, and of the runtime and socket directories of these addresses."""
    directories.make_private(config.state_dir)
    for address in addresses:
        if address.kind == "unix":
            folder = Path(address.path).parent
            if folder.is_relative_to(config.runtime_dir):
                directories.make_private(config.runtime_dir)
            directories.make_for_socket(folder)


def refuse_what_cannot_work(keys: KeysConfig, *, keeping: bool) -> None:
    """`StartError`: with these settings this process would only seem to work."""
    if keys.private and keys.in_cluster and not keys.single_pod:
        raise StartError(
            f"{keys.store} is this pod's alone, so no other pod could validate its tokens: share a store (keys.store), or say "
            "keys.single_pod = true if that is meant"
        )
    if keeping and len(keys.keks) < len(Role):
        raise StartError('a keeper has both roles: keys.role = "both", and the key-encryption keys of issue and open')
    if keys.scheme == "kubernetes" and not keeping:
        raise StartError(
            f'{keys.store} is for `tokensidecar keeper`; a sidecar reads the Secret where it is mounted: keys.store = "file:/path"'
        )


async def open_file_sink(config: Config, now: Callable[[], float], *, beside: bool = False) -> FileSink | None:
    """The audit file that is configured; None: records go to standard output. `beside`: for a command, also while a sidecar writes it."""
    if config.audit.file is None:
        return None
    sink = FileSink(config.audit.file, config.state_dir, now, beside=beside)
    await sink.open()
    return sink


async def _run(config: Config, *, keeping: bool) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    app = App(config, keeping=keeping)
    app.stopping = stopping
    loop.add_signal_handler(signal.SIGHUP, app.hang_up)
    try:
        await app.start()
        for plane, addresses in (
            ("app", () if keeping else config.listen.app),
            ("admin", config.listen.admin),
            ("envoy", () if keeping else config.listen.envoy),
            ("forward_auth", () if keeping else config.listen.forward_auth),
        ):
            if addresses:
                _log.info("sidecar.serving", plane=plane, addresses=list(map(str, addresses)))
        if config.listen.http:
            _log.info("sidecar.serving", plane="http", addresses=[str(config.listen.http)])
        for note in config.notes:
            _log.info("sidecar.note", note=note)
        await stopping.wait()
        _log.info("sidecar.stopping")
    except StoppedStartError:
        _log.info("sidecar.stopping")
    finally:
        await app.stop()
        for number in (signal.SIGTERM, signal.SIGINT):
            # A second signal on the way out must not turn a clean end into a killed one.
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
    _log.info("sidecar.stopped")
    return 0


def run(config: Config, *, keeping: bool = False) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. `keeping` as for `App`. `StartError`: something that a person can mend."""
    logs.configure(config.log_level, config.log_format)
    failed = process.harden()
    if failed:
        _log.warning("process.not_hardened", problems=failed)
    try:
        return uvloop.run(_run(config, keeping=keeping))
    except _UNSTARTABLE as error:
        raise StartError(str(error)) from error
