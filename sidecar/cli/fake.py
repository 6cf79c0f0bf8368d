"""`tokensidecar fake`: a sidecar for the tests of others, in memory and at once. Its clock and its failures are set over gRPC.

The verbs, rules and doors are the real ones; store, key-encryption key, audit sink and clock are not. Nothing is written to a disk but the
sockets that are asked for, and everything ends with the process. FakeService is served here and nowhere else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import uvloop
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from tokensidecar.fake.v1 import fake_service_pb2 as pb, fake_service_pb2_grpc
from tokensidecar.v1 import admin_service_pb2, token_service_pb2
from tokensidecar.v1.errors_pb2 import ErrorReason

from sidecar import app, directories, logs
from sidecar.addresses import Address
from sidecar.audit import Audit, Promise
from sidecar.cli.exits import Code, CommandError
from sidecar.cli.serve import loaded
from sidecar.clocks import SystemClock
from sidecar.config import Config
from sidecar.errors import Reason, SidecarError
from sidecar.keyring import Role
from sidecar.kms.memory import MemoryKms
from sidecar.pins import Pins
from sidecar.policy import Verb
from sidecar.ports import Clock, Kms, Store
from sidecar.rpc import messages
from sidecar.rpc.boundary import UNARY_BYTES, Boundary, Call, Door, RequestT
from sidecar.rpc.server import ListenError
from sidecar.salt import SALT_BYTES
from sidecar.stores.memory import Disk, MemoryStore

PORTS = {"app": "127.0.0.1:8790", "admin": "127.0.0.1:8791", "control": "127.0.0.1:8793"}
FAILURES = 1000
DUE_ROUNDS = 10  # what is due may make more due
WORDS = "a failure that was planned for a test"
METHODS = sorted(
    {
        *token_service_pb2.DESCRIPTOR.services_by_name["TokenService"].methods_by_name,
        *admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].methods_by_name,
    }
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--config", metavar="FILE", help="profiles and policy of this file; default: the embedded ones")
    for plane, at in PORTS.items():
        what = "FakeService" if plane == "control" else f"the {plane} plane"
        parser.add_argument(f"--{plane}", metavar="ADDRESS", help=f"where {what} listens; default: {at}")
    parser.add_argument("--free-ports", action="store_true", help="free ports of 127.0.0.1 where no address is given")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input does, as with its parent")
    parser.add_argument("--json", action="store_true", help="say the addresses as JSON; so it is in a pipe")
    parser.add_argument("--log-level", choices=logs.LEVELS, default="warning", help="default: warning")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM, SIGINT or the end of standard input; the exit code."""
    env = {f"TOKENSIDECAR_LISTEN_{plane.upper()}": getattr(args, plane) or PORTS[plane] for plane in ("app", "admin")}
    config = loaded(args.config or os.devnull, {**env, "TOKENSIDECAR_LISTEN_HTTP": "off"})
    control = args.control or PORTS["control"]
    if args.free_ports:
        listen = config.listen
        config = replace(
            config,
            listen=replace(
                listen,
                app=listen.app if args.app else _free(listen.app),
                admin=listen.admin if args.admin else _free(listen.admin),
            ),
        )
        control = args.control or "127.0.0.1:0"
    logs.configure(args.log_level)
    as_json = args.json or not sys.stdout.isatty()
    try:
        return uvloop.run(_serve(config, control, as_json=as_json, until_eof=args.until_eof))
    except (ListenError, SidecarError, OSError, directories.UnsafeDirectoryError) as error:
        raise CommandError(Code.FAILURE, str(error)) from error


def _free(addresses: tuple[Address, ...]) -> tuple[Address, ...]:
    return tuple(replace(address, port=0) for address in addresses)


async def _serve(config: Config, control: str, *, as_json: bool, until_eof: bool) -> int:
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if until_eof:
        loop.add_reader(sys.stdin.fileno(), lambda: None if os.read(sys.stdin.fileno(), 4096) else stopping.set())
    fake = FakeApp(config)
    try:
        await fake.start()
        where = fake.addresses() | {"control": await fake.serve_control(control)}
        print(json.dumps(where) if as_json else "\n".join(f"{plane:8} {at}" for plane, at in where.items()), flush=True)
        await stopping.wait()
    finally:
        await fake.stop()
    return Code.OK


class FakeClock:
    """A `ports.Clock` that goes on as the machine's does, from wherever it was put."""

    def __init__(self) -> None:
        self._real = SystemClock()
        self.ahead = 0.0  # seconds that went by by hand
        self.skew = 0.0  # of the wall clock alone

    def wall(self) -> float:
        """See `ports.Clock`."""
        return self._real.wall() + self.ahead + self.skew

    def boot(self) -> float:
        """See `ports.Clock`."""
        return self._real.boot() + self.ahead


@dataclass
class Planned:
    """One thing that goes wrong. `method` empty: any; `left` None: until further notice; `reason` None: nothing but the delay."""

    method: str
    reason: Reason | None
    delay: float
    left: int | None
    after_effect: bool
    retry_after: float | None

    def error(self) -> SidecarError:
        """As the sidecar's own code would raise it."""
        error = SidecarError(WORDS, stage="fake", retry_after=self.retry_after)
        error.reason = self.reason or error.reason
        return error


class FailingBoundary(Boundary):
    """The boundary, with planned failures between it and the verbs."""

    planned: list[Planned]

    def wrap(
        self,
        service: str,
        name: str,
        verb: Verb,
        kind: type[RequestT],
        serve: Callable[[Call[RequestT]], Awaitable[Message]],
        door: Door,
        *,
        limit: int = UNARY_BYTES,
        items: Callable[[RequestT], int] = lambda _: 1,
    ) -> grpc.RpcMethodHandler[bytes, bytes]:
        """See `Boundary.wrap`."""

        async def failing(call: Call[RequestT]) -> Message:
            failure = self._next(name)
            if failure is None:
                return await serve(call)
            await asyncio.sleep(failure.delay)
            if failure.reason is None:
                return await serve(call)
            if failure.after_effect:
                await serve(call)
            raise failure.error()

        return super().wrap(service, name, verb, kind, failing, door, limit=limit, items=items)

    def _next(self, name: str) -> Planned | None:
        for failure in self.planned:
            if failure.method in ("", name) and failure.left != 0:
                if failure.left is not None:
                    failure.left -= 1
                return failure
        return None


class _Nowhere:
    """A sink of audit records that keeps none."""

    promise = Promise.ACCEPTED
    lost = 0

    def write(self, line: bytes) -> bool:  # noqa: ARG002 - as every sink
        return True

    def pending(self) -> None:
        return None


class FakeApp(app.App):
    """The whole sidecar, on a store, a KMS and a clock in memory."""

    clock: FakeClock

    def __init__(self, config: Config) -> None:
        keks = dict.fromkeys(Role, "memory")
        keys = replace(
            config.keys, store="sqlite:memory", keks=keks, further_keks={}, role="both", mounted=False, in_cluster=False
        )
        listen = replace(config.listen, envoy=(), forward_auth=())
        super().__init__(replace(config, source=None, keys=keys, listen=listen))
        self.clock = FakeClock()
        self.planned: list[Planned] = []
        self._control = grpc.aio.server()

    def addresses(self) -> dict[str, str]:
        """Where each plane listens, as a client takes it."""
        served = [str(server.address) for server in self._servers]  # in the order of `listen`
        return {"app": served[0], "admin": served[len(self.config.listen.app)]}

    async def serve_control(self, address: str) -> str:
        """Serve FakeService; gives the address, with its port."""
        fake_service_pb2_grpc.add_FakeServiceServicer_to_server(_Control(self), self._control)
        try:
            port = self._control.add_insecure_port(address)
        except RuntimeError:
            raise ListenError(f"{address}: cannot be used; choose another --control") from None
        await self._control.start()
        return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"

    async def stop(self) -> None:
        """End everything, at once."""
        await self._control.stop(0)
        await super().stop()

    async def move_clock(self, *, advance: float, skew: float | None) -> float:
        """Let time go by, and what is due be done; gives store time."""
        self.clock.ahead += advance
        if skew is not None:
            self.clock.skew = skew
        for _ in range(DUE_ROUNDS):
            await self.keeper.refresh()
            if not await self._schedule.do_what_is_due({}):
                break
        self._tell_state()
        return self.keeper.now()

    # -- what it stands on

    def _prepare(self) -> None:
        for address in (*self.config.listen.app, *self.config.listen.admin):
            if address.kind == "unix":
                directories.make_for_socket(Path(address.path).parent)

    def _pins(self) -> Pins:
        return Pins(None)

    async def _opened_store(self, clock: Clock) -> Store:
        return MemoryStore(Disk(clock))

    async def _opened_kms(self) -> Mapping[Role, Kms]:
        kms = MemoryKms()
        return dict.fromkeys(Role, kms)

    async def _opened_audit(self) -> Audit:
        return Audit(_Nowhere(), required=False, salt=os.urandom(SALT_BYTES), now=self.clock.wall)

    def _boundary(self) -> Boundary:
        boundary = FailingBoundary(self.metrics, self._policy, self._audit)
        boundary.planned = self.planned
        return boundary


Context = grpc.aio.ServicerContext[Any, Any]


class _Control(fake_service_pb2_grpc.FakeServiceServicer):
    """FakeService."""

    def __init__(self, fake: FakeApp) -> None:
        self._fake = fake

    async def MoveClock(self, request: pb.MoveClockRequest, context: Context) -> pb.MoveClockResponse:  # noqa: N802
        advance = _seconds(request.advance)
        if advance < 0:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "advance: time never goes back; start another fake")
        skew = _seconds(request.skew) if request.HasField("skew") else None
        return pb.MoveClockResponse(time=messages.timestamp(await self._fake.move_clock(advance=advance, skew=skew)))

    async def SetFailures(self, request: pb.SetFailuresRequest, context: Context) -> pb.SetFailuresResponse:  # noqa: N802
        try:
            if len(request.failures) > FAILURES:
                raise ValueError(f"failures: at most {FAILURES}")
            planned = [_planned(one) for one in request.failures]
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        self._fake.planned[:] = planned
        return pb.SetFailuresResponse()


def _planned(failure: pb.Failure) -> Planned:
    """ValueError: what cannot be."""
    if failure.method and failure.method not in METHODS:
        raise ValueError(f"method: {failure.method!r} is none of {', '.join(METHODS)}")
    reason = None
    if failure.reason:
        if failure.reason not in ErrorReason.values():
            raise ValueError(f"reason: {failure.reason} is none of the contract")
        reason = Reason[ErrorReason.Name(failure.reason)]
    elif failure.after_effect or failure.HasField("retry_after"):
        raise ValueError("reason: what shall be answered?")
    delay = _seconds(failure.delay)
    if delay < 0:
        raise ValueError("delay: never negative")
    retry_after = _seconds(failure.retry_after) if failure.HasField("retry_after") else None
    return Planned(failure.method, reason, delay, failure.count or None, failure.after_effect, retry_after)


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
