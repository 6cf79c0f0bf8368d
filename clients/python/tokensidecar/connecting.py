"""From an address to a channel that is ready for calls."""

from __future__ import annotations

import json
import queue
import socket
import time

import grpc

from tokensidecar.address import Address
from tokensidecar.errors import ConnectError
from tokensidecar.tls import Metadata, Tls, along

ATTEMPT = 1.0  # seconds for one address in one round: a silent one must not keep the others waiting

WATCHING = 0.25  # seconds; grpcio looks each 0.2 whether anybody still wants to hear of a channel's state

_RETRIES = {
    "methodConfig": [
        {
            # What may be repeated on UNAVAILABLE, and on the CANCELLED of a server that ends, within the call's deadline: reads, and what carries a request id.
            "name": [
                {"service": "tokensidecar.v1.TokenService", "method": "Validate"},
                {"service": "tokensidecar.v1.TokenService", "method": "BatchValidate"},
                {"service": "tokensidecar.v1.TokenService", "method": "Rotate"},
                {"service": "tokensidecar.v1.TokenService", "method": "GetJwks"},
                {"service": "tokensidecar.v1.AdminService", "method": "ListKeys"},
                # Within its grace, the same refresh token again is the same refresh.
                {"service": "tokensidecar.v1.TokenService", "method": "Refresh"},
            ],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.02s",
                "maxBackoff": "0.1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ]
}
_AUTHORITY = (("grpc.default_authority", "localhost"),)  # a socket's path is no authority that other stacks accept
_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config", json.dumps(_RETRIES)),
    # A restarted sidecar is found again soon: it is on this machine.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


def first_ready(
    addresses: tuple[Address, ...], wait: float, tls: Tls | None = None, metadata: Metadata | None = None
) -> tuple[Address, grpc.Channel]:
    """Try the addresses in turn, round after round, until one answers or `wait` seconds are over.

    With `tls` there is one address, which was named: nobody's certificate says that what was found is a sidecar.

    Raises:
        ConnectError: none did.
        ValueError: TLS without the name of a TCP address, or its files are no good.
    """
    if tls and (len(addresses) != 1 or addresses[0].path):
        raise ValueError("TLS is for a sidecar on TCP: name its address as host:port")
    credentials = tls.credentials() if tls else None
    end = time.monotonic() + wait
    pause = 0.02
    failures: dict[Address, str] = {}
    while True:
        for address in addresses:
            left = end - time.monotonic()
            if left <= 0 and address in failures:
                continue  # the end of the time says less than what came before
            channel, failure = _open(address, min(ATTEMPT, max(left, 0.05)), tls, credentials)
            if channel is not None:
                return address, along(channel, metadata)
            failures[address] = failure
        if time.monotonic() + pause >= end:
            raise ConnectError(tuple((str(address), failures[address]) for address in addresses))
        time.sleep(pause)
        pause = min(2 * pause, 0.5)


def _open(
    address: Address, seconds: float, tls: Tls | None, credentials: grpc.ChannelCredentials | None
) -> tuple[grpc.Channel | None, str]:
    """A channel that is ready, or why there is none."""
    if problem := address.problem() or _unreachable(address, seconds):
        return None, problem
    if credentials is None:
        channel = grpc.insecure_channel(str(address), options=(*_AUTHORITY, *_OPTIONS))
    else:
        name = (("grpc.ssl_target_name_override", tls.server_name),) if tls and tls.server_name else ()
        channel = grpc.secure_channel(str(address), credentials, options=(*name, *_OPTIONS))
    states: queue.SimpleQueue[grpc.ChannelConnectivity] = queue.SimpleQueue()
    heard = states.put
    channel.subscribe(heard, try_to_connect=True)
    end, ready = time.monotonic() + seconds, False
    try:
        while (left := end - time.monotonic()) > 0:
            state = states.get(timeout=left)
            if state is grpc.ChannelConnectivity.READY:
                ready = True
                return channel, ""
            if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                return (
                    None,
                    f"what listens there does not speak gRPC{' over TLS with these certificates' if tls else ''}",
                )
    except queue.Empty:
        pass
    finally:
        channel.unsubscribe(heard)
        if not ready:
            _let_go(channel)
    return None, "no answer in time"


def _let_go(channel: grpc.Channel) -> None:
    """Close it when its watching thread has ended: a close that waits for that, and is interrupted, never ends."""
    try:
        time.sleep(WATCHING)
    except BaseException:
        time.sleep(WATCHING)
        raise
    finally:
        channel.close()


def _unreachable(address: Address, seconds: float) -> str | None:
    """What the operating system says about connecting, in its own words, which gRPC keeps to itself; None if it connects."""
    try:
        if address.path:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(seconds)
                probe.connect(address.path)
        else:
            socket.create_connection((address.host, address.port), timeout=seconds).close()
    except OSError as error:
        return error.strerror or str(error)
    return None
