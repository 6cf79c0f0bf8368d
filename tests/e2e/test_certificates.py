"""Mutual TLS through real sockets: whom a certificate names, what names nobody, and certificates that change while calls are in work."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import threading
import time
from contextlib import nullcontext, suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import grpc
import pytest
import tokensidecar
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from tokensidecar.v1 import admin_service_pb2 as admin_pb, token_service_pb2 as pb

from tests.authority import HOUR, LOCAL, Authority, Pair, dns, uri
from tests.e2e.calls import SECONDS, failed, metric, refused
from tests.e2e.meshed import DOMAIN, Secured
from tests.faults.waiting import wait_for
from tests.running import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SPIFFE = f"spiffe://{DOMAIN}"
ASK = pb.IssueRequest(subject="user-1", audiences=["orders"])


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    made = Secured()
    with made.running:
        yield made


@pytest.fixture
def own() -> Iterator[Secured]:
    made = Secured()
    with made.running:
        yield made


def test_a_spiffe_id_is_the_caller_s_name(secured: Secured) -> None:
    with secured.client(secured.named("/web")) as web:
        token = web.token("user-1")
        assert web.accepts(token).client_id == f"{SPIFFE}/web"
    record = secured.records()[-1]
    assert (record["caller"], record["verb"], record["outcome"]) == (f"{SPIFFE}/web", "issue", "OK")
    assert (record["identified"], record["plane"]) == ("certificate", "app")


def test_a_configured_dns_name_is_the_caller_s_name(secured: Secured) -> None:
    with (
        secured.client(secured.named("/web")) as web,
        secured.client(secured.authority.issue(dns("batch.example.org"), dns("other"))) as batch,
    ):
        batch.accepts(web.token("user-1"))
        assert refused(batch.issue, ASK).message == "no policy lets dns:batch.example.org issue"


@pytest.mark.parametrize(
    ("names", "stage"),
    [
        ((), "caller.no_name"),
        ((dns("web.example.org"),), "caller.no_name"),
        ((dns("BATCH.example.org"),), "caller.no_name"),
        ((dns("batch.example.org"), dns("jobs.example.org")), "caller.several_names"),
        ((uri(f"{SPIFFE}/web"), uri(f"{SPIFFE}/shop/a")), "caller.several_names"),
        ((uri(f"{SPIFFE}/web"), uri("https://example.org/")), "caller.several_names"),
        ((uri("spiffe://other.org/web"),), "caller.trust_domain"),
        ((uri("spiffe://example.org.evil/web"),), "caller.trust_domain"),
        ((uri("https://example.org/web"), dns("batch.example.org")), "caller.spiffe_id"),
        ((uri("spiffe://other.org/web"), dns("batch.example.org")), "caller.trust_domain"),
        ((uri(SPIFFE),), "caller.spiffe_id"),
        ((uri(f"{SPIFFE}/"),), "caller.spiffe_id"),
        ((uri(f"{SPIFFE}/web/"),), "caller.spiffe_id"),
        ((uri(f"{SPIFFE}/shop/../web"),), "caller.spiffe_id"),
        ((uri(f"{SPIFFE}/web?x"),), "caller.spiffe_id"),
        ((uri(f"{SPIFFE}/web#x"),), "caller.spiffe_id"),
        ((uri(f"{SPIFFE}:443/web"),), "caller.spiffe_id"),
        ((uri("spiffe://user@example.org/web"),), "caller.spiffe_id"),
        ((uri("SPIFFE://example.org/web"),), "caller.spiffe_id"),
        ((uri("spiffe://EXAMPLE.org/web"),), "caller.spiffe_id"),
        ((uri(f"{SPIFFE}/we%62"),), "caller.spiffe_id"),
    ],
)  # fmt: skip
def test_any_other_name_names_nobody(secured: Secured, names: tuple[object, ...], stage: str) -> None:
    """The common name, which one of them would like to be, counts for nothing."""
    with secured.client(secured.authority.issue(*names, common_name=f"{SPIFFE}/web")) as nobody:  # type: ignore[arg-type]
        for rpc, request in ((nobody.issue, ASK), (nobody.validate, pb.ValidateRequest(token="t", audiences=["a"]))):
            refusal = refused(rpc, request)
            assert (refusal.code, refusal.reason) == ("PERMISSION_DENIED", "CALLER_UNIDENTIFIED")
    records = secured.records()[-2:]
    assert {(r["caller"], r["identified"], r["outcome"], r["stage"]) for r in records} == {
        ("unidentified", "certificate", "CALLER_UNIDENTIFIED", stage)
    }


def test_a_certificate_of_a_ca_names_nobody(secured: Secured) -> None:
    with secured.client(secured.named("/web", ca=True)) as nobody:
        assert refused(nobody.issue, ASK).reason == "CALLER_UNIDENTIFIED"


def test_who_has_no_good_certificate_cannot_connect(secured: Secured) -> None:
    stranger = Authority()
    for pair in (
        None,
        stranger.issue(uri(f"{SPIFFE}/web")),
        Authority("CA").issue(uri(f"{SPIFFE}/web")),  # by name alone the same
        secured.named("/web", until=-timedelta(minutes=1)),
        secured.named("/web", since=HOUR, until=2 * HOUR),
        secured.named("/web", self_signed=True),
        secured.named("/web", uses=(ExtendedKeyUsageOID.SERVER_AUTH,)),
    ):
        with secured.client(pair) as nobody:
            assert failed(nobody.issue, ASK).code() is grpc.StatusCode.UNAVAILABLE


def test_plaintext_gets_no_answer(secured: Secured) -> None:
    with socket.create_connection(("127.0.0.1", secured.app), 5) as plain:
        plain.settimeout(5)
        plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        with suppress(ConnectionError):
            assert b"HTTP" not in plain.recv(1024)


@pytest.mark.parametrize(
    ("version", "ciphers"),
    [
        (ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0"),
        (ssl.TLSVersion.TLSv1_2, "AES128-GCM-SHA256:AES256-GCM-SHA384:AES128-SHA:@SECLEVEL=0"),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0"),
        (ssl.TLSVersion.TLSv1_2, "aNULL:eNULL:@SECLEVEL=0"),
    ],
    ids=["TLS 1.1", "without forward secrecy", "CBC", "anonymous"],
)
def test_weak_tls_is_not_spoken(secured: Secured, version: ssl.TLSVersion, ciphers: str) -> None:
    secured.named("/web").write(secured.folder / "client", "web")

    def handshake(of: ssl.TLSVersion, with_: str) -> str | None:
        context = ssl.create_default_context(cadata=secured.authority.certificate.decode())
        context.load_cert_chain(secured.folder / "client/web.crt", secured.folder / "client/web.key")
        context.set_ciphers(with_)
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = of
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection(("127.0.0.1", secured.app), 5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as found,
        ):
            return found.version()

    assert handshake(ssl.TLSVersion.TLSv1_2, "ECDHE+AESGCM") == "TLSv1.2"
    assert handshake(ssl.TLSVersion.TLSv1_3, "ECDHE+AESGCM") == "TLSv1.3"
    old = version is ssl.TLSVersion.TLSv1_1
    warned = pytest.warns(DeprecationWarning, match="TLSv1_1") if old else nullcontext()
    with warned, pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(version, ciphers)


def test_policies_hold_for_certificates(secured: Secured) -> None:
    with (
        secured.client(secured.named("/web")) as web,
        secured.client(secured.named("/shop/a")) as shop,
        secured.client(secured.named("/shopping")) as other,
    ):
        for profile in ("second", "none"):  # another caller's profile looks like none
            refusal = refused(web.issue, pb.IssueRequest(profile=profile, subject="user-1", audiences=["orders"]))
            assert refusal.message == "the profile does not exist or is not for this caller"
        shop.token(profile="second")
        assert refused(shop.issue, ASK).reason == "CALLER_DENIED"
        assert refused(other.issue, ASK).message == f"no policy lets {SPIFFE}/shopping issue"
        # Its own name as subject, nobody else's.
        web.issue(pb.IssueRequest(subject=f"{SPIFFE}/web", audiences=["orders"]), timeout=SECONDS)
        for subject in (f"{SPIFFE}/shop/a", f"{SPIFFE}/webx", "caller", "root"):
            refusal = refused(web.issue, pb.IssueRequest(subject=subject, audiences=["orders"]))
            assert (refusal.code, refusal.reason) == ("PERMISSION_DENIED", "CALLER_DENIED")
        impersonating = pb.IssueRequest(subject="user-1", audiences=["orders"], client_id=f"{SPIFFE}/shop/a")
        assert refused(web.issue, impersonating).reason == "CALLER_DENIED"


def test_rates_of_a_pattern_are_each_caller_s_own(own: Secured) -> None:
    ask = pb.IssueRequest(profile="second", subject="s", audiences=["orders"])
    with own.client(own.named("/shop/a")) as first, own.client(own.named("/shop/b")) as second:
        first.batch_issue(pb.BatchIssueRequest(requests=[ask] * 20), timeout=SECONDS)
        assert refused(first.issue, ask).reason == "OVERLOADED"
        second.issue(ask, timeout=SECONDS)


def test_an_app_may_not_use_admin_verbs(secured: Secured) -> None:
    app = secured.named("/web")
    with secured.client(app) as web, secured.client(app, plane="admin") as admin:
        for plane in (web, admin):
            assert refused(plane.rotate, pb.RotateRequest(profile="default")).reason == "CALLER_DENIED"
        assert failed(web.list_keys, admin_pb.ListKeysRequest()).code() is grpc.StatusCode.UNIMPLEMENTED
        for rpc, request in (
            (admin.list_keys, admin_pb.ListKeysRequest()),
            (admin.revoke_keys, admin_pb.RevokeKeysRequest(profile="default", key_ids=["k"])),
            (admin.issue, ASK),
        ):
            assert refused(rpc, request).reason == "CALLER_DENIED"


def test_an_operator_s_certificate_rotates(secured: Secured) -> None:
    with secured.client(secured.named("/operator"), plane="admin") as operator:
        operator.rotate(pb.RotateRequest(profile="default", reason="by certificate"), timeout=SECONDS)
        assert refused(operator.rotate, pb.RotateRequest(profile="second")).reason == "CALLER_DENIED"
    record = next(r for r in secured.records() if r["verb"] == "rotate" and r.get("outcome") == "OK")
    assert (record["caller"], record["identified"], record["plane"]) == (f"{SPIFFE}/operator", "certificate", "admin")


def test_a_certificate_that_ends_during_a_connection_ends_its_calls(secured: Secured) -> None:
    with secured.client(secured.named("/web", until=timedelta(seconds=3))) as web:
        web.token("user-1")
        wait_for(lambda: _reason(web.issue) == "CALLER_UNIDENTIFIED", 10)
    assert secured.records()[-1]["stage"] == "caller.certificate_time"


def test_nothing_but_lines_of_ours_is_in_the_log(secured: Secured) -> None:
    with secured.client(None) as nobody:
        failed(nobody.issue, ASK)
    assert [line for line in secured.running.stderr().splitlines() if not line.startswith('{"time"')] == []


def _reason(rpc: grpc.UnaryUnaryMultiCallable) -> str:  # type: ignore[type-arg]
    try:
        rpc(ASK, timeout=SECONDS)
    except grpc.RpcError as error:
        return str(dict(error.trailing_metadata() or ()).get("tokensidecar-reason", error.code()))  # type: ignore[attr-defined]
    return "OK"


# -- rotation


def served(secured: Secured, roots: bytes | None = None) -> bytes:
    """The certificate that a new connection is shown, in DER."""
    context = ssl.create_default_context(cadata=(roots or secured.authority.certificate).decode())
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", secured.app), 5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as found,
    ):
        return found.getpeercert(binary_form=True) or b""


def _serves(secured: Secured, pair: Pair) -> bool:
    return served(secured) == der(pair)


def der(pair: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.certificate.decode())


def test_certificates_change_under_load_without_a_dropped_call(own: Secured) -> None:
    """By swapped links, as kubelets do it, and by overwritten files; calls on old connections and on new ones."""
    stop, wrong, count = threading.Event(), list[str](), [0]
    web = own.named("/web")
    links = own.folder / "mount"
    own.write(own.authority.issue(*LOCAL), folder=links / "..0")
    for name in ("server.crt", "server.key", "ca.crt"):
        (links / name).symlink_to(f"..data/{name}")
        (own.tls / name).unlink()
        (own.tls / name).symlink_to(links / name)
    (links / "..data").symlink_to("..0")

    def call(*, afresh: bool) -> None:
        client = own.client(web)
        while not stop.is_set():
            if afresh:
                client.channel.close()
                client = own.client(web)
            try:
                client.token("user-1")
                count[0] += 1
            except grpc.RpcError as error:
                wrong.append(str(error))
        client.channel.close()

    threads = [threading.Thread(target=call, kwargs={"afresh": afresh}) for afresh in (False, False, True, True)]
    for thread in threads:
        thread.start()
    seen = set()
    for number in range(1, 4):
        fresh = own.authority.issue(*LOCAL)
        own.write(fresh, folder=links / f"..{number}")
        (links / "..new").symlink_to(f"..{number}")
        (links / "..new").rename(links / "..data")
        wait_for(partial(_serves, own, fresh), 15)
        seen.add(der(fresh))
    stop.set()
    for thread in threads:
        thread.join(30)
    assert wrong == []
    assert count[0] > 50
    assert len(seen) == 3
    address = f"127.0.0.1:{own.app}"
    assert metric(own.running, "tokensidecar_tls_good", address=address) == 1
    assert {r["outcome"] for r in own.records() if "certificates_hash" in r} == {"OK"}


def test_what_is_no_good_leaves_the_old_in_force_with_an_alarm(own: Secured) -> None:
    address = f"127.0.0.1:{own.app}"
    good = Pair((own.tls / "server.crt").read_bytes(), b"")
    fresh, other = own.authority.issue(*LOCAL), own.authority.issue(*LOCAL)

    def told(words: str) -> bool:
        refusals = own.events("tls.refused")
        in_force = metric(own.running, "tokensidecar_tls_good", address=address)
        return bool(refusals) and words in refusals[-1]["problem"] and in_force == 0

    for server, ca, words in (
        (Pair(fresh.certificate, fresh.key[:100]), None, "not whole"),
        (Pair(fresh.certificate, other.key), None, "is not the key of"),
        (own.authority.issue(*LOCAL, until=-timedelta(seconds=1)), None, "has expired"),
        (fresh, b"", "not certificates"),
    ):
        own.write(server, ca)
        wait_for(partial(told, words))
        assert _serves(own, good)
    with own.client(own.named("/web")) as web:
        web.token("user-1")
    (own.tls / "server.key").unlink()
    wait_for(lambda: "cannot be read" in own.events("tls.refused")[-1]["problem"], 10)
    own.write(fresh)
    wait_for(lambda: served(own) == der(fresh), 10)
    wait_for(lambda: metric(own.running, "tokensidecar_tls_good", address=address) == 1)
    assert 0 < metric(own.running, "tokensidecar_tls_certificate_expiry_seconds", address=address) <= 3600
    assert metric(own.running, "tokensidecar_tls_certificate_age_seconds", address=address) >= 3600
    assert 0 < metric(own.running, "tokensidecar_tls_client_ca_expiry_seconds", address=address) <= 3600
    assert not any(pair.key.splitlines()[1].decode() in own.running.log() for pair in (fresh, other))


def test_a_new_bundle_lets_others_in_and_keeps_the_former_out(own: Secured) -> None:
    others = Authority("others")
    theirs, ours = others.issue(uri(f"{SPIFFE}/web")), own.named("/web")
    server = own.authority.issue(*LOCAL)
    own.write(server, own.authority.certificate + others.certificate)
    wait_for(lambda: served(own) == der(server), 10)
    for pair in (theirs, ours):
        with own.client(pair) as web:
            web.token("user-1")
    own.write(server, others.certificate)

    def kept_out() -> bool:
        with own.client(ours) as web:
            return _reason(web.issue) == str(grpc.StatusCode.UNAVAILABLE)

    wait_for(kept_out, 10)
    with own.client(theirs) as web:
        web.token("user-1")


def test_a_rotation_in_two_steps_is_no_alarm(own: Secured) -> None:
    fresh = own.authority.issue(*LOCAL, key=ec.generate_private_key(ec.SECP384R1()))
    (own.tls / "server.crt").write_bytes(fresh.certificate)
    time.sleep(0.4)
    (own.tls / "server.key").write_bytes(fresh.key)
    wait_for(lambda: served(own) == der(fresh), 10)
    assert own.events("tls.refused") == []


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [("server.key", None, "cannot be read"), ("ca.crt", b"", "not certificates"), ("server.key", 0o644, "chmod o=")],
)
def test_a_start_with_bad_files_is_refused_in_one_line(name: str, data: bytes | int | None, words: str) -> None:
    made = Secured()
    file = made.tls / name
    if data is None:
        file.unlink()
    elif isinstance(data, int):
        file.chmod(data)
    else:
        file.write_bytes(data)
    try:
        made.running.start()
        assert made.running.process.wait(20) == 1
        line = made.running.stderr().splitlines()[-1]
        assert line.startswith("tokensidecar serve: ")
        assert words in line
    finally:
        made.running.kill()
        made.running.remove()


# -- clients


def test_the_python_client_and_the_command_line_connect_with_a_certificate(secured: Secured) -> None:
    folder = secured.folder / "own"
    secured.named("/web").write(folder, "web")
    secured.named("/operator").write(folder, "operator")
    ca, address = f"{secured.tls}/ca.crt", f"localhost:{secured.app}"
    tls = tokensidecar.Tls(ca, f"{folder}/web.crt", f"{folder}/web.key")
    with tokensidecar.connect(address, tls=tls) as client:
        token = client.issue("user-1", ["orders"]).token
        assert client.validate(token, ["orders"]).client_id == f"{SPIFFE}/web"
    named = tokensidecar.Tls(ca, f"{folder}/operator.crt", f"{folder}/operator.key", "localhost")
    with tokensidecar.connect_admin(f"127.0.0.1:{secured.admin}", tls=named) as admin:
        assert {key.profile for key in admin.keys("default")} == {"default"}

    def command(*words: str, name: str = "web") -> subprocess.CompletedProcess[str]:
        network = ["--ca", ca, "--cert", f"{folder}/{name}.crt", "--key", f"{folder}/{name}.key"]
        tool = [str(ROOT / ".venv/bin/tokensidecar"), *words, *network]
        return subprocess.run(tool, input=token, capture_output=True, text=True, check=False, timeout=60)

    done = command("validate", "-a", "orders", "--address", address, "--json")
    assert (done.returncode, json.loads(done.stdout)["valid"]) == (0, True), done.stderr
    assert command("issue", "-s", "user-1", "-a", "orders", "--address", address).returncode == 0
    listed = command(
        "keys", "--address", f"localhost:{secured.admin}", "--profile", "default", "--json", name="operator"
    )
    assert listed.returncode == 0, listed.stderr
    denied = command("rotate", "--address", f"localhost:{secured.admin}")
    assert denied.returncode == 1
    assert "no policy lets" in denied.stderr


def test_a_client_trusts_only_the_authority_that_it_was_given(secured: Secured, tmp_path: Path) -> None:
    secured.named("/web").write(tmp_path, "web")
    (tmp_path / "other.crt").write_bytes(Authority().certificate)
    tls = tokensidecar.Tls(f"{tmp_path}/other.crt", f"{tmp_path}/web.crt", f"{tmp_path}/web.key")
    with pytest.raises(tokensidecar.ConnectError, match="over TLS with these certificates"):
        tokensidecar.connect(f"localhost:{secured.app}", tls=tls, start_timeout=1)
    for wrong, address, words in (
        (tokensidecar.Tls(certificate=f"{tmp_path}/web.crt"), "localhost:1", "belong together"),
        (tokensidecar.Tls(ca=f"{tmp_path}/none"), "localhost:1", "No such file"),
        (tls, secured.running.app_socket, "TLS is for"),
    ):
        with pytest.raises(ValueError, match=words):
            tokensidecar.connect(address, tls=wrong)
