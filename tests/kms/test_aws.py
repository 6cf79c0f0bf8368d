"""The KMS of AWS: the contract against moto's server, how credentials are found, and what becomes of every bad answer."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from sidecar.errors import UnavailableKmsError
from sidecar.kms import aws
from sidecar.kms.aws import AwsKms
from sidecar.ports import Kms
from tests.kms.aws_servers import IDENTITY, REGION, Aws, Handle, answering, http_server, reply
from tests.kms.contract import CONTEXT, KEY, KmsContract

ARN = f"arn:aws:kms:{REGION}:123456789012:key/0f3d1c5e-1111-2222-3333-444455556666"
SECRETS = (KEY.hex(), base64.b64encode(KEY).decode(), "a-secret-of-nobody")


@pytest.fixture(scope="module")
def moto() -> Iterator[Aws]:
    server = Aws()
    server.start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials in the environment, and nothing of the machine's own."""
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "absent"))
    for name, value in IDENTITY.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No second attempts, which take seconds."""
    monkeypatch.setattr(aws, "_ATTEMPTS", {"mode": "standard", "total_max_attempts": 1})


class TestAwsKms(KmsContract):
    @pytest.fixture
    def kms(self, moto: Aws) -> Kms:
        return AwsKms(moto.make_key(), endpoint=moto.endpoint)

    @pytest.fixture
    def other_kms(self, moto: Aws) -> Kms:
        return AwsKms(moto.make_key(), endpoint=moto.endpoint)


async def test_encryption_context_names_profile_role_and_store(moto: Aws) -> None:
    """Whoever may use the key, and knows the context, opens the blob by AWS's own client; so this is what is on the wire."""
    arn = moto.make_key()
    wrapped = await AwsKms(arn, endpoint=moto.endpoint).wrap(KEY, CONTEXT)
    context = {"tokensidecar": "kek v1", "profile": "default", "role": "issue", "store_id": "ab"}
    assert moto.client().decrypt(CiphertextBlob=wrapped, EncryptionContext=context)["Plaintext"] == KEY


async def test_the_region_is_the_key_s_own(moto: Aws) -> None:
    elsewhere = moto.make_key().replace(REGION, "ap-south-1")
    with pytest.raises(UnavailableKmsError, match=f"there is no KMS key {elsewhere} in ap-south-1"):
        await AwsKms(elsewhere, endpoint=moto.endpoint).wrap(KEY, CONTEXT)
    key = moto.make_key()
    kms = AwsKms(key.replace(REGION, "eu-west-9"), region=REGION, endpoint=moto.endpoint)
    with pytest.raises(UnavailableKmsError, match="under another key"):
        await kms.wrap(KEY, CONTEXT)


# Credentials


def _without_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)


async def test_a_service_account_s_token_is_exchanged_for_the_role(
    moto: Aws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """IRSA: what the webhook of EKS puts into a pod."""
    _without_environment(monkeypatch)
    token = tmp_path / "token"
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/tokensidecar-validator")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto.endpoint)
    kms = AwsKms(moto.make_key(), endpoint=moto.endpoint)
    with pytest.raises(UnavailableKmsError, match=r"no credentials for AWS KMS .*eks\.amazonaws\.com/role-arn"):
        await kms.wrap(KEY, CONTEXT)
    token.write_text("e30.e30.e30")
    moto.seen.clear()
    assert await kms.unwrap(await kms.wrap(KEY, CONTEXT), CONTEXT) == KEY
    signed = {key for operation, key in moto.seen if operation in ("Encrypt", "Decrypt")}
    assert len(signed) == 1
    assert signed.pop().startswith("ASIA")  # a role's, for a while


async def test_a_role_that_sts_refuses_is_said_to_be_one(
    moto: Aws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _without_environment(monkeypatch)
    (tmp_path / "token").write_text("e30.e30.e30")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/another")
    refusal = (
        b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>Not authorized</Message></Error></ErrorResponse>"
    )
    with http_server(answering(403, refusal)) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", address)
        with pytest.raises(
            UnavailableKmsError, match=r"does not give this process its role \(AccessDenied to AssumeRole"
        ):
            await AwsKms(ARN, endpoint=moto.endpoint).wrap(KEY, CONTEXT)


async def test_a_container_s_credentials_are_asked_for(
    moto: Aws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """ECS tasks and EKS Pod Identity: an address, and a file with what authorizes to ask there."""
    _without_environment(monkeypatch)
    asked = []

    def handle(request: BaseHTTPRequestHandler, body: bytes) -> None:
        asked.append((request.path, request.headers.get("Authorization")))
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        identity = {"AccessKeyId": "ASIATASK", "SecretAccessKey": "s", "Token": "t", "Expiration": until}
        reply(request, 200, identity)

    (tmp_path / "authorization").write_text("of-the-task")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "authorization"))
    with http_server(handle) as address:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{address}/v1/credentials")
        kms = AwsKms(moto.make_key(), endpoint=moto.endpoint)
        moto.seen.clear()
        assert await kms.unwrap(await kms.wrap(KEY, CONTEXT), CONTEXT) == KEY
    assert asked == [("/v1/credentials", "of-the-task")]
    assert {key for operation, key in moto.seen if operation in ("Encrypt", "Decrypt")} == {"ASIATASK"}


async def test_without_any_credentials_it_says_what_to_give(moto: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    arn = moto.make_key()
    _without_environment(monkeypatch)
    kms = AwsKms(arn, endpoint=moto.endpoint)
    with pytest.raises(UnavailableKmsError, match="there are no credentials for AWS KMS"):
        await kms.wrap(KEY, CONTEXT)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-nobody")
    await kms.wrap(KEY, CONTEXT)  # what was not there is looked for again


async def test_an_endpoint_in_the_environment_is_not_followed(moto: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    kms = AwsKms(moto.make_key(), endpoint=moto.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:9")
    await kms.wrap(KEY, CONTEXT)
    assert AwsKms(ARN)._connected().meta.endpoint_url == f"https://kms.{REGION}.amazonaws.com"


# Answers that are no good


def _refused(code: str, status: int = 400) -> Handle:
    return answering(status, {"__type": code, "message": f"the request had {SECRETS[1]}"})


def _echo(request: BaseHTTPRequestHandler, asked: bytes) -> None:
    reply(request, 200, {"CiphertextBlob": json.loads(asked).get("Plaintext", "AAAA"), "KeyId": ARN})


def _cut(request: BaseHTTPRequestHandler, asked: bytes) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "1000")
    request.end_headers()
    request.wfile.write(b'{"Plain')


def _plain(data: bytes, key: str = ARN) -> dict[str, str]:
    return {"Plaintext": base64.b64encode(data).decode(), "KeyId": key}


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize(
    ("handle", "words"),
    [
        (_refused("ThrottlingException"), r"takes no more calls for now \(ThrottlingException\)"),
        (_refused("AccessDeniedException"), r"denies kms:Decrypt with arn:.* for profile 'default'"),
        (_refused("InvalidCiphertextException"), r"does not open the keys of profile 'default'"),
        (_refused("IncorrectKeyException"), r"does not open the keys of profile 'default'"),
        (_refused("DisabledException"), r"cannot be used now \(DisabledException\): enable it"),
        (_refused("KMSInvalidStateException"), r"cannot be used now \(KMSInvalidStateException\)"),
        (_refused("NotFoundException"), "there is no KMS key arn:"),
        (_refused("UnrecognizedClientException"), r"does not accept these credentials \(UnrecognizedClientException\)"),
        (_refused("ExpiredTokenException"), "this machine's clock"),
        (_refused("InvalidKeyUsageException"), "must be a symmetric key for encryption"),
        (_refused("KMSInternalException", 500), r"failed kms:Decrypt with arn:.* \(KMSInternalException\)"),
        (_refused("a code\nwith\x1b[31m more"), r"\(without a code\)"),
        (answering(500, b"<html>bad gateway</html>"), r"\(500\)"),
        (answering(503, b""), r"\(503\)"),
        (answering(200, b"<html>hello</html>"), "is no AWS KMS"),
        (answering(200, b"\xff\x00{"), "is no AWS KMS"),
        (answering(200, b"[" * 100_000), "is no AWS KMS"),
        (answering(200, []), "is no AWS KMS"),
        (answering(200, {}), "is no AWS KMS: it answered without Plaintext"),
        (answering(200, {"Plaintext": 5, "KeyId": ARN}), "is no AWS KMS"),
        (answering(200, {"Plaintext": "ä", "KeyId": ARN}), "is no AWS KMS"),
        (answering(200, _plain(KEY[:31])), "a data key of 31 bytes"),
        (answering(200, _plain(KEY * 1000)), "a data key of 32000 bytes"),
        (answering(200, _plain(b"")), "a data key of 0 bytes"),
        (answering(200, _plain(KEY, ARN[:-1] + "7")), "under another key"),
        (answering(200, {"Plaintext": _plain(KEY)["Plaintext"]}), "under another key"),
        (answering(302, b""), r"\(302\)"),
        (_cut, "is no AWS KMS"),
    ],
)
async def test_an_answer_that_is_no_good_is_told_in_words_and_without_a_secret(handle: Handle, words: str) -> None:
    with http_server(handle) as address, pytest.raises(UnavailableKmsError, match=words) as caught:
        await AwsKms(ARN, endpoint=address).unwrap(b"a blob", CONTEXT)
    told = str(caught.value)
    assert not any(secret in told for secret in SECRETS)
    assert told.isprintable()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.usefixtures("once")
@pytest.mark.parametrize(
    "handle",
    [
        _echo,  # the data key itself
        answering(200, {"CiphertextBlob": "", "KeyId": ARN}),
        answering(200, {"CiphertextBlob": base64.b64encode(bytes(7000)).decode(), "KeyId": ARN}),
    ],
)
async def test_a_blob_that_cannot_be_one_is_not_taken(handle: Handle) -> None:
    with http_server(handle) as address, pytest.raises(UnavailableKmsError, match="a blob that wraps nothing"):
        await AwsKms(ARN, endpoint=address).wrap(KEY, CONTEXT)


async def test_blobs_of_impossible_lengths_cost_no_call(moto: Aws) -> None:
    kms = AwsKms(moto.make_key(), endpoint=moto.endpoint)
    moto.seen.clear()
    for blob in (b"", bytes(aws.BLOB_MAX + 1)):
        with pytest.raises(UnavailableKmsError, match="does not open"):
            await kms.unwrap(blob, CONTEXT)
    assert moto.seen == []


async def test_a_throttled_call_is_made_again() -> None:
    calls = []

    def handle(request: BaseHTTPRequestHandler, asked: bytes) -> None:
        calls.append(asked)
        if len(calls) == 1:
            reply(request, 400, {"__type": "ThrottlingException", "message": ""})
        else:
            reply(request, 200, _plain(KEY))

    with http_server(handle) as address:
        assert await AwsKms(ARN, endpoint=address).unwrap(b"a blob", CONTEXT) == KEY
    assert len(calls) == 2


@pytest.mark.usefixtures("once")
async def test_nobody_there() -> None:
    with pytest.raises(
        UnavailableKmsError, match=r"cannot be reached at http://127.0.0.1:9/ \(EndpointConnectionError\)"
    ):
        await AwsKms(ARN, endpoint="http://127.0.0.1:9").wrap(KEY, CONTEXT)


async def test_a_silent_kms_holds_up_neither_the_loop_nor_who_comes_next() -> None:
    released = threading.Event()

    def handle(request: BaseHTTPRequestHandler, asked: bytes) -> None:
        released.wait(20)
        reply(request, 200, _plain(KEY))

    with http_server(handle) as address:
        kms = AwsKms(ARN, endpoint=address, deadline=0.4)
        await asyncio.to_thread(kms._connected)
        began, ticks = time.monotonic(), 0
        waiting = [asyncio.create_task(kms.unwrap(b"a blob", CONTEXT)) for _ in range(3 * aws.CALLS_AT_ONCE)]
        while not all(task.done() for task in waiting):
            await asyncio.sleep(0.01)
            ticks += 1
        assert time.monotonic() - began < 2
        assert ticks > 20
        for task in waiting:
            with pytest.raises(UnavailableKmsError, match="did not answer within"):
                await task
        assert sum(thread.name == "aws-kms" for thread in threading.enumerate()) <= aws.CALLS_AT_ONCE
        released.set()
        for _ in range(200):  # what hung gives its place back
            if kms._slots._value == aws.CALLS_AT_ONCE:
                break
            await asyncio.sleep(0.02)
        assert await kms.unwrap(b"a blob", CONTEXT) == KEY


async def test_an_answer_in_drops_is_not_waited_for() -> None:
    end = threading.Event()

    def handle(request: BaseHTTPRequestHandler, asked: bytes) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        while not end.wait(0.05):
            request.wfile.write(b" ")
            request.wfile.flush()

    with http_server(handle) as address:
        with pytest.raises(UnavailableKmsError, match="did not answer within"):
            await AwsKms(ARN, endpoint=address, deadline=0.5).unwrap(b"a blob", CONTEXT)
        end.set()


def test_repr_shows_the_arn_alone() -> None:
    assert repr(AwsKms(ARN, endpoint="http://127.0.0.1:9")) == f"AwsKms({ARN})"
