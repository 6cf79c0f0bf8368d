"""What protects a route, and what puts tokens on outgoing calls, in Python: a real sidecar, a real web server, real gRPC servers."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import httpx
import pytest
import tokensidecar
import uvicorn
from fastapi import Depends, FastAPI, Request, WebSocket
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import BaseModel
from tokensidecar import Authorize, AuthorizeCalls, Authorized, Grant, JwkThumbprint, TokenSource, interceptor
from tokensidecar.asgi import Protect, authorized
from tokensidecar.fastapi import Bearer
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.conftest import StartSidecar
from tests.dpop import Presenter
from tests.running import ROOT, RunningSidecar, free_port


class Claims(BaseModel):
    tenant: str
    account: int = 0


@pytest.fixture
def client(sidecar: RunningSidecar) -> Iterator[tokensidecar.Client]:
    with tokensidecar.connect(sidecar.app_socket) as found:
        yield found


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Its origin."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", ws="websockets-sansio"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            end = time.monotonic() + 10
            while not server.started and time.monotonic() < end:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def routes() -> FastAPI:
    app = FastAPI()

    @app.get("/orders/{number}")
    async def orders(number: int, request: Request) -> dict[str, Any]:
        return {"number": number, "of": authorized(request.scope).token.subject}

    @app.websocket("/feed")
    async def feed(web_socket: WebSocket) -> None:
        await web_socket.accept()
        await web_socket.send_text(authorized(web_socket.scope).token.subject)
        await web_socket.close()

    return app


# -- ASGI


@pytest.mark.parametrize(
    ("headers", "status", "challenge"),
    [
        ({}, 401, "Bearer"),
        ({"authorization": "Bearer"}, 400, 'Bearer error="invalid_request"'),
        ({"authorization": "Bearer a b"}, 400, 'Bearer error="invalid_request"'),
        ({"authorization": "Basic dTpw"}, 401, "Bearer"),
        ({"authorization": "DPoP a.b.c.d.e", "dpop": "x"}, 401, "Bearer"),
        ({"authorization": "Bearer nonsense"}, 401, 'Bearer error="invalid_token"'),
        ({"authorization": f"Bearer {'a' * 20_000}"}, 401, 'Bearer error="invalid_token"'),
    ],
)
def test_a_request_without_a_good_token_gets_the_answer_of_rfc_6750(
    client: tokensidecar.Client, headers: dict[str, str], status: int, challenge: str
) -> None:
    with served(Protect(routes(), client, ["orders"])) as origin:
        answer = httpx.get(f"{origin}/orders/1", headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"], answer.content) == (status, challenge, b"")


def test_two_authorizations_are_a_malformed_request(client: tokensidecar.Client) -> None:
    token = client.issue("user-42", ["orders"]).token
    with served(Protect(routes(), client, ["orders"])) as origin:
        answer = httpx.get(f"{origin}/orders/1", headers=[("authorization", f"Bearer {token}")] * 2)
    assert answer.status_code == 400


def test_a_scope_that_is_missing_is_named(client: tokensidecar.Client) -> None:
    token = client.issue("user-42", ["orders"], scopes=["read"]).token
    with served(Protect(routes(), client, ["orders"], required_scopes=["read", "write"])) as origin:
        answer = httpx.get(f"{origin}/orders/1", headers=bearer(token))
    assert answer.status_code == 403
    assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="read write"'


def test_a_web_socket_opens_with_a_good_token_alone(client: tokensidecar.Client) -> None:
    token = client.issue("user-42", ["orders"]).token
    with served(Protect(routes(), client, ["orders"])) as origin:
        url = f"{origin.replace('http', 'ws')}/feed"
        with connect(url, additional_headers=bearer(token)) as feed:
            assert feed.recv(5) == "user-42"
        with pytest.raises(InvalidStatus) as refused:
            connect(url)
    assert refused.value.response.status_code in (401, 403)  # the second where the server can answer nothing else


def test_nothing_gets_through_while_the_sidecar_is_down(start_sidecar: StartSidecar) -> None:
    running = start_sidecar()
    with tokensidecar.connect(running.app_socket) as client:
        token = client.issue("user-42", ["orders"]).token
        with served(Protect(routes(), client, ["orders"])) as origin:
            assert httpx.get(f"{origin}/orders/1", headers=bearer(token)).status_code == 200
            running.stop()
            assert httpx.get(f"{origin}/orders/1", headers=bearer(token)).status_code == 503
            running.start()
            running.wait_until_ready()
            end = time.monotonic() + 10
            while (status := httpx.get(f"{origin}/orders/1", headers=bearer(token)).status_code) == 503:
                assert time.monotonic() < end
            assert status == 200


def test_a_bound_token_needs_its_proof(client: tokensidecar.Client) -> None:
    presenter = Presenter()
    token = client.issue("user-42", ["orders"], confirmation=JwkThumbprint(presenter.thumbprint)).token
    public = "https://api.example.com"
    with served(Protect(routes(), client, ["orders"], origin=public)) as origin:

        def ask(scheme: str, *proofs: str) -> httpx.Response:
            headers = [("authorization", f"{scheme} {token}"), *(("dpop", proof) for proof in proofs)]
            return httpx.get(f"{origin}/orders/1?page=2", headers=headers)

        def proof(url: str) -> str:
            return presenter.proof(token, method="GET", url=url)

        good = proof(f"{public}/orders/1")
        assert ask("DPoP", good).status_code == 200
        for turned_down in (
            ask("Bearer"),
            ask("DPoP"),
            ask("DPoP", good),  # a second time
            ask("DPoP", proof(f"{public}/orders/2")),
            ask("DPoP", proof(f"{origin}/orders/1")),
            ask("DPoP", proof(f"{public}/orders/1"), proof(f"{public}/orders/1")),
        ):
            assert turned_down.status_code == 401
            assert turned_down.headers["www-authenticate"].startswith("DPoP error=")


# -- FastAPI


def test_a_route_gets_claims_of_its_own_type(client: tokensidecar.Client) -> None:
    app = FastAPI()
    orders = Bearer(client, ["orders"], claims=Claims.model_validate_json)

    @app.get("/me")
    async def me(caller: Authorized[Claims] = Depends(orders)) -> dict[str, Any]:  # noqa: B008, FAST002 # a local name in a local route
        return {"subject": caller.token.subject, "account": caller.claims.account}

    with served(app) as origin:
        good = client.issue("user-42", ["orders"], claims={"tenant": "acme", "account": 2**63 - 1}).token
        assert httpx.get(f"{origin}/me", headers=bearer(good)).json() == {"subject": "user-42", "account": 2**63 - 1}
        without = client.issue("user-42", ["orders"]).token
        answer = httpx.get(f"{origin}/me", headers=bearer(without))
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')
        assert httpx.get(f"{origin}/me").status_code == 401


# -- gRPC


class Greeter(health_pb2_grpc.HealthServicer):
    """A service of two methods that says who calls."""

    def Check(self, request, context):  # noqa: N802 # the contract's name
        context.set_trailing_metadata((("caller", interceptor.authorized().token.subject),))
        return health_pb2.HealthCheckResponse()

    def Watch(self, request, context):  # noqa: N802 # the contract's name
        for _ in range(3):
            yield health_pb2.HealthCheckResponse(status=len(interceptor.authorized().token.subject))


class AioGreeter(health_pb2_grpc.HealthServicer):
    async def Check(self, request, context):  # noqa: N802 # the contract's name
        context.set_trailing_metadata((("caller", interceptor.authorized().token.subject),))
        return health_pb2.HealthCheckResponse()

    async def Watch(self, request, context) -> AsyncIterator[health_pb2.HealthCheckResponse]:  # noqa: N802 # the contract's name
        for _ in range(3):
            yield health_pb2.HealthCheckResponse(status=len(interceptor.authorized().token.subject))


def ask_all(address: str, client: tokensidecar.Client) -> None:
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        def metadata(token: str) -> list[tuple[str, str]]:
            return [("authorization", f"Bearer {token}")]

        good = metadata(client.issue("user-42", ["orders"], scopes=["read"]).token)
        _, call = stub.Check.with_call(health_pb2.HealthCheckRequest(), metadata=good, timeout=5)
        assert dict(call.trailing_metadata())["caller"] == "user-42"
        assert [a.status for a in stub.Watch(health_pb2.HealthCheckRequest(), metadata=good, timeout=5)] == [7, 7, 7]
        without = metadata(client.issue("user-42", ["orders"]).token)
        for given, code in (
            ([], grpc.StatusCode.UNAUTHENTICATED),
            (metadata("nonsense"), grpc.StatusCode.UNAUTHENTICATED),
            ([*good, *good], grpc.StatusCode.UNAUTHENTICATED),
            (without, grpc.StatusCode.PERMISSION_DENIED),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                stub.Check(health_pb2.HealthCheckRequest(), metadata=given, timeout=5)
            assert refused.value.code() is code
            with pytest.raises(grpc.RpcError) as refused:
                list(stub.Watch(health_pb2.HealthCheckRequest(), metadata=given, timeout=5))
            assert refused.value.code() is code


def test_a_grpc_server_lets_good_tokens_through_alone(client: tokensidecar.Client) -> None:
    with ThreadPoolExecutor(2) as threads:
        protect = interceptor.Protect(client, ["orders"], required_scopes=["read"])
        server = grpc.server(threads, interceptors=[protect])
        health_pb2_grpc.add_HealthServicer_to_server(Greeter(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            ask_all(f"127.0.0.1:{port}", client)
        finally:
            server.stop(None).wait()


async def test_a_grpc_server_on_asyncio_lets_good_tokens_through_alone(client: tokensidecar.Client) -> None:
    protect = interceptor.AioProtect(client, ["orders"], required_scopes=["read"])
    server = grpc.aio.server(interceptors=[protect])
    health_pb2_grpc.add_HealthServicer_to_server(AioGreeter(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        await asyncio.to_thread(ask_all, f"127.0.0.1:{port}", client)
    finally:
        await server.stop(None)


def test_a_method_can_be_left_open(client: tokensidecar.Client) -> None:
    with ThreadPoolExecutor(2) as threads:
        protect = interceptor.Protect(client, ["orders"], open_methods=["/grpc.health.v1.Health/Watch"])
        server = grpc.server(threads, interceptors=[protect])

        class Open(Greeter):
            def Watch(self, request, context):  # noqa: N802 # the contract's name
                yield health_pb2.HealthCheckResponse()

        health_pb2_grpc.add_HealthServicer_to_server(Open(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                assert len(list(stub.Watch(health_pb2.HealthCheckRequest(), timeout=5))) == 1
                with pytest.raises(grpc.RpcError):
                    stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        finally:
            server.stop(None).wait()


# -- on asyncio


async def test_a_validate_that_waits_holds_nobody_up(client: tokensidecar.Client) -> None:
    token = client.issue("user-42", ["orders"]).token
    found = await asyncio.gather(*(client.validate_async(token, ["orders"]) for _ in range(200)))
    assert {each.subject for each in found} == {"user-42"}
    with pytest.raises(tokensidecar.RejectedError):
        await client.validate_async(token, ["billing"])


# -- tokens for outgoing calls


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


GRANT = Grant("orders", ["billing"], scopes=["read"])


def test_a_token_is_kept_for_four_fifths_of_its_life(client: tokensidecar.Client) -> None:
    clock = Clock()
    source = TokenSource(client, now=clock)
    first = source.token(GRANT)
    assert source.token(Grant("orders", ("billing",), scopes=("read",))) == first
    assert source.token(Grant("orders", ["billing"])) != first
    clock.ahead = 0.75 * 300
    assert source.token(GRANT) == first
    clock.ahead = 0.85 * 300
    second = source.token(GRANT)
    assert second != first
    source.forget(GRANT)
    assert source.token(GRANT) != second


def test_who_wants_the_same_at_once_shares_one_call(client: tokensidecar.Client) -> None:
    source = TokenSource(client)
    with ThreadPoolExecutor(20) as threads:
        assert len(set(threads.map(lambda _: source.token(GRANT), range(20)))) == 1


def test_a_kept_token_outlives_a_sidecar_that_is_down_but_not_itself(start_sidecar: StartSidecar) -> None:
    running, clock = start_sidecar(), Clock()
    with tokensidecar.connect(running.app_socket) as client:
        source = TokenSource(client, now=clock)
        first = source.token(GRANT)
        running.stop()
        clock.ahead = 0.9 * 300
        assert source.token(GRANT) == first
        clock.ahead = 300
        with pytest.raises(tokensidecar.UnavailableError):
            source.token(GRANT)


def test_outgoing_calls_carry_a_token(client: tokensidecar.Client) -> None:
    source = TokenSource(client)
    with served(Protect(routes(), client, ["billing"], required_scopes=["read"])) as origin:
        assert httpx.get(f"{origin}/orders/1", auth=Authorize(source, GRANT)).status_code == 200
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads, interceptors=[interceptor.Protect(client, ["billing"])])
        health_pb2_grpc.add_HealthServicer_to_server(Greeter(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = health_pb2_grpc.HealthStub(grpc.intercept_channel(channel, AuthorizeCalls(source, GRANT)))
                stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
                assert len(list(stub.Watch(health_pb2.HealthCheckRequest(), timeout=5))) == 3
        finally:
            server.stop(None).wait()


def test_a_token_that_was_ended_is_refused(client: tokensidecar.Client) -> None:
    token = client.issue("user-42", ["orders"]).token
    client.validate(token, ["orders"])
    revocation = client.revoke(token, reason="logout")
    assert revocation.revision >= 1
    with pytest.raises(tokensidecar.RejectedError) as refused:
        client.validate(token, ["orders"], min_revocation_revision=revocation.revision)
    assert refused.value.reason is tokensidecar.Reason.TOKEN_REVOKED
    assert client.revoke(token).revision >= revocation.revision
    assert client.revoke("nonsense").revision >= revocation.revision


# -- examples


def test_the_first_example_runs_and_says_what_it_misses(sidecar: RunningSidecar) -> None:
    command = [sys.executable, str(ROOT / "clients/python/examples/issue.py")]
    good = subprocess.run(
        command,
        env=sidecar.env | {"TOKENSIDECAR_ADDRESS": sidecar.app_socket},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert good.stdout.splitlines()[0].startswith("user-42 of acme until "), good.stderr
    assert good.stdout.splitlines()[1:] == ["at billing: TOKEN_AUDIENCE_MISMATCH"]
    without = subprocess.run(
        command,
        env=sidecar.env | {"TOKENSIDECAR_ADDRESS": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert without.returncode == 1
    assert "127.0.0.1:1" in without.stderr


def test_the_example_of_a_service_runs(sidecar: RunningSidecar, client: tokensidecar.Client) -> None:
    good = client.issue("user-42", ["orders"], scopes=["read"], claims={"tenant": "acme"}).token
    port = free_port()
    arguments = ["--app-dir", str(ROOT / "clients/python/examples"), "orders:app", "--port", str(port)]
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", *arguments],
        env=sidecar.env | {"TOKENSIDECAR_ADDRESS": sidecar.app_socket},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end, answer = time.monotonic() + 20, None
        while answer is None and time.monotonic() < end:
            try:
                answer = httpx.get(f"http://127.0.0.1:{port}/orders", headers=bearer(good))
            except httpx.ConnectError:
                time.sleep(0.05)
        assert answer is not None
        assert answer.json() == {"orders of": "user-42", "at": "acme"}
        assert httpx.get(f"http://127.0.0.1:{port}/orders").status_code == 401
    finally:
        server.terminate()
        server.wait(10)
