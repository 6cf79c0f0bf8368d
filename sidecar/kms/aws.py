"""A key-encryption key in AWS KMS: data keys are wrapped by Encrypt and unwrapped by Decrypt, under one symmetric key.

Rules:
 1. The key is named by its ARN, never by an alias: whoever may move an alias could put rings under another key, and nothing here would
    show it.
 2. Each call carries the encryption context: profile, role and store. KMS opens nothing under another one; key policies can ask for it
    (`kms:EncryptionContext:role`), and CloudTrail records it in the clear, so nothing in it is secret.
 3. Calls run in threads of their own and nobody waits for one longer than `DEADLINE`: one that hangs holds up neither the event loop nor
    the end of the process.
 4. Credentials are what boto3 finds: a web identity (IRSA), a container's endpoint (ECS, EKS Pod Identity), and the rest of its chain.
 5. Of what KMS and boto3 say, only the code of an error goes any further: their texts may quote a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable
from typing import Any

import boto3.session
import botocore.session
from botocore import exceptions as boto
from botocore.config import Config

from sidecar.errors import UnavailableKmsError

KEY_BYTES = 32
BLOB_MAX = 6144  # bytes that Decrypt takes
DEADLINE = 10.0  # seconds that anybody waits for one call, retries and credentials included
CALLS_AT_ONCE = 4  # one that hangs counts until it ends
_TIMES: dict[str, Any] = {"connect_timeout": 2, "read_timeout": 4}  # seconds, of each attempt
_ATTEMPTS: dict[str, Any] = {"mode": "standard", "total_max_attempts": 4}

_CODE = re.compile(r"[A-Za-z0-9.]{1,64}")
_NOT_OPENED = {"InvalidCiphertextException", "IncorrectKeyException"}
_DENIED = {"AccessDenied", "AccessDeniedException"}
_UNUSABLE = {"DisabledException", "KMSInvalidStateException", "KeyUnavailableException"}
_THROTTLED = {
    "LimitExceededException",
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
_IDENTITY = {
    "ExpiredToken", "ExpiredTokenException", "IncompleteSignature", "InvalidClientTokenId", "InvalidSignatureException",
    "MissingAuthenticationToken", "MissingAuthenticationTokenException", "SignatureDoesNotMatch", "UnrecognizedClientException",
}  # fmt: skip
_WITHOUT_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.InvalidConfigError,
    boto.ProfileNotFound,
    boto.MetadataRetrievalError,
    OSError,  # the file of a web identity, or of a container's authorization, cannot be read
)


class AwsKms:
    """Wraps data keys under the key of that ARN; see `ports.Kms`."""

    def __init__(self, arn: str, *, region: str = "", endpoint: str = "", deadline: float = DEADLINE) -> None:
        """Asks nobody; the first call does. `region` and `endpoint` empty: the ARN's own."""
        self._arn = arn
        self._region = region or arn.split(":")[3]
        self._endpoint = endpoint or None
        self._deadline = deadline
        self._client: Any = None
        self._making = threading.Lock()
        self._slots = asyncio.Semaphore(CALLS_AT_ONCE)

    async def wrap(self, data_key: bytes, context: dict[str, str]) -> bytes:
        """What Encrypt makes of it. `UnavailableKmsError`, with words for an operator."""
        if len(data_key) != KEY_BYTES:
            raise ValueError(f"a data key has {KEY_BYTES} bytes")
        wrapped = await self._ask("encrypt", "CiphertextBlob", context, Plaintext=data_key)
        if not 0 < len(wrapped) <= BLOB_MAX or data_key in wrapped:
            raise self._nonsense("a blob that wraps nothing")
        return wrapped

    async def unwrap(self, wrapped: bytes, context: dict[str, str]) -> bytes:
        """The data key. `UnavailableKmsError`: not wrapped by this key for this context, or KMS does not answer."""
        if not 0 < len(wrapped) <= BLOB_MAX:
            raise self._not_opened(context)
        data_key = await self._ask("decrypt", "Plaintext", context, CiphertextBlob=wrapped)
        if len(data_key) != KEY_BYTES:
            raise self._nonsense(f"a data key of {len(data_key)} bytes")
        return data_key

    def __repr__(self) -> str:
        return f"AwsKms({self._arn})"

    async def _ask(self, operation: str, wanted: str, context: dict[str, str], **blob: bytes) -> bytes:
        """The bytes of that name in the answer."""
        asked: dict[str, Any] = {"KeyId": self._arn, "EncryptionContext": {"tokensidecar": "kek v1", **context}, **blob}
        try:
            async with asyncio.timeout(self._deadline):
                await self._slots.acquire()
                answer = await self._in_a_thread(lambda: getattr(self._connected(), operation)(**asked))
        except TimeoutError:
            raise UnavailableKmsError(
                f"AWS KMS did not answer within {self._deadline:.0f} s at {self._place()}: {_REACH}"
            ) from None
        except Exception as error:  # noqa: BLE001 # whatever boto3 and what it stands on raise; the chain of causes may quote the request
            raise self._problem(error, operation, context) from None
        found = answer.get(wanted) if isinstance(answer, dict) else None
        if not isinstance(found, bytes):
            raise self._nonsense(f"without {wanted}")
        if answer.get("KeyId") != self._arn:
            raise self._nonsense("under another key")
        return found

    async def _in_a_thread(self, call: Callable[[], Any]) -> Any:
        """As `asyncio.to_thread`, in a thread that the end of the process does not wait for. Gives the slot back when the call ends."""
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[Any] = loop.create_future()

        def settle(answer: Any, error: Exception | None) -> None:
            self._slots.release()
            if outcome.done():
                return
            if error is None:
                outcome.set_result(answer)
            else:
                outcome.set_exception(error)

        def work() -> None:
            answer, failed = None, None
            try:
                answer = call()
            except Exception as error:  # noqa: BLE001
                failed = error
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, answer, failed)

        threading.Thread(target=work, name="aws-kms", daemon=True).start()
        return await outcome

    def _connected(self) -> Any:
        """The client, made at the first call, and again after one that had no credentials: boto3 looks for them once."""
        with self._making:
            if self._client is None:
                plain = botocore.session.get_session()
                # Also of the calls that get credentials, whose own defaults are a minute and five attempts.
                plain.set_default_client_config(Config(**_TIMES, retries=_ATTEMPTS))
                config = Config(
                    **_TIMES,
                    retries=_ATTEMPTS,
                    ignore_configured_endpoint_urls=True,  # which may be plaintext: keys.aws.endpoint alone says where
                    user_agent_extra="tokensidecar",
                )
                session = boto3.session.Session(botocore_session=plain, region_name=self._region)
                self._client = session.client("kms", endpoint_url=self._endpoint, config=config)
            return self._client

    def _place(self) -> str:
        return self._endpoint or f"its endpoint in {self._region}"

    def _not_opened(self, context: dict[str, str]) -> UnavailableKmsError:
        return UnavailableKmsError(
            f"the KMS key {self._arn} does not open the keys of profile {context.get('profile', '')!r}: they are under another key, or the "
            "store is another one or damaged. Name the key that belongs to the store, as keys.kek or keys.further_kek"
        )

    def _nonsense(self, what: str) -> UnavailableKmsError:
        return UnavailableKmsError(f"what answers at {self._place()} is no AWS KMS: it answered {what}. See keys.aws")

    def _problem(self, error: Exception, operation: str, context: dict[str, str]) -> UnavailableKmsError:
        """What an operator can do about it."""
        if isinstance(error, boto.ClientError):
            return self._refused(error, operation, context)
        kind = type(error).__name__
        if isinstance(error, (boto.HTTPClientError, boto.ConnectionError)):
            return UnavailableKmsError(
                f"AWS KMS cannot be reached at {_where(error) or self._place()} ({kind}): {_REACH}"
            )
        if isinstance(error, _WITHOUT_CREDENTIALS):
            self._client = None
            return UnavailableKmsError(
                f"there are no credentials for AWS KMS ({kind}): give this process a role, by the service account's annotation "
                "(eks.amazonaws.com/role-arn), a task role or the environment"
            )
        return self._nonsense(f"what nobody can read ({kind})")

    def _refused(self, error: boto.ClientError, operation: str, context: dict[str, str]) -> UnavailableKmsError:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if not _CODE.fullmatch(code):
            code = "without a code"
        right = f"kms:{operation.capitalize()}"
        if error.operation_name.lower() != operation:
            self._client = None
            return UnavailableKmsError(
                f"AWS does not give this process its role ({code} to {error.operation_name}): see the role's trust policy, and the "
                "audience and expiry of the service account's token"
            )
        if code in _NOT_OPENED:
            return self._not_opened(context)
        if code in _DENIED:
            return UnavailableKmsError(
                f"AWS KMS denies {right} with {self._arn} for profile {context.get('profile', '')!r} ({code}): allow it in the policy of the "
                "role and of the key, for this encryption context"
            )
        if code == "NotFoundException":
            return UnavailableKmsError(f"there is no KMS key {self._arn} in {self._region}: see keys.kek")
        if code in _UNUSABLE:
            return UnavailableKmsError(
                f"the KMS key {self._arn} cannot be used now ({code}): enable it, or cancel its deletion"
            )
        if code in _THROTTLED:
            return UnavailableKmsError(f"AWS KMS takes no more calls for now ({code}): the account's quota is used up")
        if code in _IDENTITY:
            self._client = None
            return UnavailableKmsError(
                f"AWS KMS does not accept these credentials ({code}): see the role, and this machine's clock"
            )
        return UnavailableKmsError(
            f"AWS KMS refuses {right} with {self._arn} ({code}): it must be a symmetric key for encryption (SYMMETRIC_DEFAULT)"
            if code in {"InvalidKeyUsageException", "ValidationException", "UnsupportedOperationException"}
            else f"AWS KMS failed {right} with {self._arn} ({code})"
        )


_REACH = "see network, endpoint (keys.aws.endpoint) and whether AWS is well"


def _where(error: Exception) -> str:
    """The address that could not be reached, which may be that of credentials."""
    address = getattr(error, "kwargs", {}).get("endpoint_url")
    return address if isinstance(address, str) and address.isascii() and address.isprintable() else ""
