"""Health, reflection and HTTP, as probes, tools and scrapers meet them."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from tokensidecar.v1 import token_service_pb2 as pb

from tests.e2e.calls import SECONDS, Plane

if TYPE_CHECKING:
    from tests.conftest import StartSidecar
    from tests.running import RunningSidecar

TOKENS, ADMIN, STATE = "tokensidecar.v1.TokenService", "tokensidecar.v1.AdminService", "tokensidecar.state"
SERVING, NOT_SERVING, UNKNOWN = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
    health_pb2.HealthCheckResponse.SERVICE_UNKNOWN,
)


# -- health


@pytest.mark.parametrize("target", ["app_socket", "app_tcp", "admin_socket", "admin_tcp"])
def test_health_is_told_for_each_service_on_every_plane(sidecar: RunningSidecar, target: str) -> None:
    with grpc.insecure_channel(getattr(sidecar, target)) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", TOKENS, STATE):
            request = health_pb2.HealthCheckRequest(service=service)
            assert health.Check(request, timeout=SECONDS).status == SERVING
        listed = health.List(health_pb2.HealthListRequest(), timeout=SECONDS).statuses
        assert {name: each.status for name, each in listed.items()} == dict.fromkeys(
            ("", TOKENS, ADMIN, STATE), SERVING
        )
        with pytest.raises(grpc.RpcError) as unknown:
            health.Check(health_pb2.HealthCheckRequest(service="other"), timeout=SECONDS)
        assert unknown.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_watch_tells_of_the_end_before_the_socket_goes(start_sidecar: StartSidecar) -> None:
    running = start_sidecar()
    with grpc.insecure_channel(running.app_socket) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watches = {
            service: health.Watch(health_pb2.HealthCheckRequest(service=service), timeout=60)
            for service in ("", TOKENS, STATE)
        }
        unknown = health.Watch(health_pb2.HealthCheckRequest(service="other"), timeout=60)
        assert next(unknown).status == UNKNOWN
        for watch in watches.values():
            assert next(watch).status == SERVING
        running.stop()
        for watch in watches.values():
            assert [each.status for each in watch] == [NOT_SERVING]
            assert watch.code() == grpc.StatusCode.OK


def test_watches_are_bounded_and_given_back(sidecar: RunningSidecar) -> None:
    with grpc.insecure_channel(sidecar.app_tcp) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watches = []
        for _ in range(64):
            watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=60)
            assert next(watch).status == SERVING
            watches.append(watch)
        over = health.Watch(health_pb2.HealthCheckRequest(), timeout=60)
        with pytest.raises(grpc.RpcError) as refusal:
            next(over)
        assert refusal.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        for watch in watches:
            watch.cancel()
        for _ in range(100):
            again = health.Watch(health_pb2.HealthCheckRequest(), timeout=60)
            try:
                assert next(again).status == SERVING
                break
            except grpc.RpcError:
                continue
        else:
            pytest.fail("no watch was given back")
        again.cancel()


# -- reflection


def reflect(
    channel: grpc.Channel, version: str, request: reflection_pb2.ServerReflectionRequest
) -> reflection_pb2.ServerReflectionResponse:
    rpc = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    (answer,) = rpc(iter([request]), timeout=SECONDS)
    found: reflection_pb2.ServerReflectionResponse = answer
    return found


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
@pytest.mark.parametrize("plane", ["app", "admin"])
def test_reflection_lists_what_the_plane_serves(sidecar: RunningSidecar, plane: str, version: str) -> None:
    with grpc.insecure_channel(getattr(sidecar, f"{plane}_socket")) as channel:
        answer = reflect(channel, version, reflection_pb2.ServerReflectionRequest(list_services=""))
        assert {service.name for service in answer.list_services_response.service} == {
            TOKENS,
            *([ADMIN] if plane == "admin" else []),
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol=TOKENS)
        answer = reflect(channel, version, request)
        files = [FileDescriptorProto.FromString(f) for f in answer.file_descriptor_response.file_descriptor_proto]
        (methods,) = ([m.name for m in s.method] for f in files for s in f.service if s.name == "TokenService")
        assert methods == [method.name for method in pb.DESCRIPTOR.services_by_name["TokenService"].methods]
        nothing = reflect(channel, version, reflection_pb2.ServerReflectionRequest(file_containing_symbol="no.Such"))
        assert nothing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


# -- HTTP


def get(sidecar: RunningSidecar, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(sidecar.http, timeout=SECONDS)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def test_published_profiles_alone_have_public_keys_over_http(configured: RunningSidecar, web: Plane) -> None:
    status, headers, body = get(configured, "/.well-known/jwks.json")
    assert (status, headers["content-type"]) == (200, "application/jwk-set+json")
    assert "max-age" in headers["cache-control"]
    own = json.loads(web.get_jwks(pb.GetJwksRequest(profile="outside"), timeout=SECONDS).jwks_json)
    assert json.loads(body) == own
    assert len(own["keys"]) == 1
    assert json.loads(web.get_jwks(pb.GetJwksRequest(profile="web"), timeout=SECONDS).jwks_json)["keys"]


def test_without_a_published_profile_the_key_set_is_empty(sidecar: RunningSidecar) -> None:
    assert get(sidecar, "/.well-known/jwks.json")[2] == b'{"keys":[]}'


def test_probes_answer_in_words(sidecar: RunningSidecar) -> None:
    assert get(sidecar, "/livez")[::2] == (200, b"ok\n")
    assert get(sidecar, "/readyz?verbose")[::2] == (200, b"ready\n")
    assert get(sidecar, "/readyz", "HEAD")[::2] == (200, b"")


def test_metrics_are_in_the_prometheus_text_format(sidecar: RunningSidecar, app: Plane) -> None:
    app.accepts(app.token())
    status, headers, body = get(sidecar, "/metrics")
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    text = body.decode()
    for name in (
        'tokensidecar_tokens_total{outcome="OK",profile="default",verb="validate"}',
        'tokensidecar_rpcs_total{code="OK",method="tokensidecar.v1.TokenService/Issue",reason=""}',
        "tokensidecar_rpcs_in_flight 0.0",
        "tokensidecar_ready 1.0",
        'tokensidecar_ring_revision{profile="default"}',
        'tokensidecar_key_age_seconds{profile="default",use="signature"}',
        'tokensidecar_state_stale{profile="default"} 0.0',
        "tokensidecar_build_info{version=",
    ):
        assert f"\n{name}" in text, name


def test_what_is_not_there_is_404_and_what_is_no_reading_405(sidecar: RunningSidecar) -> None:
    status, _, body = get(sidecar, "/")
    assert status == 404
    assert b"/readyz" in body
    for path in ("/livez/", "/../livez", "/metrics/x", "/%6civez", "//livez"):
        assert get(sidecar, path)[0] == 404
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"):
        status, headers, _ = get(sidecar, "/metrics", method)
        assert (status, headers["allow"]) == (405, "GET, HEAD")


def test_answers_are_not_to_be_sniffed_or_kept(sidecar: RunningSidecar) -> None:
    _, headers, _ = get(sidecar, "/metrics")
    assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
