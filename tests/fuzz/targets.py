"""What is fuzzed: every door through which text or bytes of others come in. Each takes any bytes and raises what it documents alone.

What a checksum, seal or signature keeps out is also tried beneath it: the input is made to fit, and read again.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import math
import re
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from google.protobuf.message import Message
from tokensidecar.v1 import admin_service_pb2 as admin, token_service_pb2 as pb

from sidecar import chain, claims, config, sealing
from sidecar.data_keys import DamagedRingError, DataKeys, _context
from sidecar.errors import (
    InvalidRequestError,
    InvalidTokenError,
    SidecarError,
    UnavailableKmsError,
    UnavailableStoreError,
)
from sidecar.gate import JWE, JWS, OWN, foreign, gate
from sidecar.jose import keys as jose_keys
from sidecar.keyring import Answered, Key, KeyUse, Ring, Role, Settings
from sidecar.kms.file import FileKms
from sidecar.ports import Document
from sidecar.profile import DEFAULT
from sidecar.rpc import messages, servicers
from sidecar.rpc.boundary import UNARY_BYTES, _unpacked
from sidecar.rpc.status import trailers
from sidecar.stores import layout
from sidecar.stores.sqlite import SqliteStore
from sidecar.validate import Accepted
from tests.forgeries import decode, encode
from tests.fuzz import callers
from tests.hand_clock import HandClock

LIMIT = 0.05
"""CPU seconds that one input may take."""
CORPUS = Path(__file__).parent / "corpus"
NOW = 1_700_000_001.0
SETTINGS = Settings.of(DEFAULT, KeyUse.SIGNATURE)


class SlowInputError(Exception):
    """An input took longer than `LIMIT`, each time that it was tried."""


@dataclass(frozen=True, slots=True)
class Target:
    """`documented`: the errors that may come out. `longest`: bytes, as far as the limit of time is to hold."""

    run: Callable[[bytes], object]
    documented: tuple[type[Exception], ...]
    seeds: Callable[[], Iterable[bytes]] = tuple
    longest: int = 64 * 1024


def judge(name: str, data: bytes) -> float:
    """The CPU seconds that the input took. `SlowInputError`, or whatever came out that is not documented."""
    target, spent = TARGETS[name], math.inf
    data = data[: target.longest]
    for _ in range(4):  # a busy machine, or the garbage of others, is not the input's fault
        begun = time.process_time()
        with contextlib.suppress(*target.documented):
            target.run(data)
        spent = min(spent, time.process_time() - begun)
        if spent <= LIMIT:
            return spent
    raise SlowInputError(f"{spent * 1000:.0f} ms")


def inputs(name: str) -> list[bytes]:
    """What fuzzing begins with: the corpus, and what only a program can make."""
    kept = [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]
    return [*kept, *TARGETS[name].seeds()]


@cache
def _folder() -> Path:
    """For what must be a file; it goes with the process."""
    _folder.kept = tempfile.TemporaryDirectory(prefix="fuzz-")  # type: ignore[attr-defined]
    return Path(_folder.kept.name)  # type: ignore[attr-defined]


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


# Tokens: the text itself, and as the header of one.

FORMS = (OWN, callers.FORM, foreign(), foreign(frozenset({"x5c", "jku", "jwk", "nonce"})))


def _gate(data: bytes) -> None:
    text, header = data.decode("utf-8", "replace"), encode(data)
    for form in FORMS:
        for whole in (text, f"{header}.e30.AAAA", f"{header}..AAAA.AAAA.AAAA", f"{header}.AAAA.AAAA.AAAA.AAAA"):
            for segments in (JWS, JWE, JWS | JWE):
                with contextlib.suppress(InvalidTokenError):
                    token = gate(whole, segments=segments, form=form)
                    assert ".".join(encode(decode(part)) for part in token.segments) == whole
                    assert len(token.segments) in segments
                    assert form.kid.fullmatch(token.kid)


# Claims: of a token, and further ones of a request to issue.


def _claims(data: bytes) -> None:
    for other_system in (False, True):
        with contextlib.suppress(InvalidTokenError):
            found = claims.parse(data, foreign=other_system)
            assert found.payload == data
            messages.accepted(
                Accepted("default", "key", 1, found), pb.ValidateResponse(), with_claims=True
            ).SerializeToString()
            with contextlib.suppress(SidecarError):
                claims.check(
                    found,
                    issuer=found.issuer,
                    settings=replace(SETTINGS, max_ttl=2**53),
                    audiences=found.audiences,
                    now=found.issue_time,
                )
                claims.check_scopes(found, found.scopes)
    _built(audiences=("orders",), further=data)


def _built(
    *,
    audiences: tuple[str, ...],
    further: bytes | None,
    subject: str = "user",
    ttl: int | None = None,
    client_id: str = "",
    scopes: tuple[str, ...] = (),
) -> None:
    try:
        claims.build(
            profile=DEFAULT,
            settings=SETTINGS,
            subject=subject,
            audiences=audiences,
            ttl=ttl,
            client_id=client_id,
            scopes=scopes,
            further=further,
            token_id="id",
            now=NOW,
        )
    except InvalidRequestError as refused:
        trailers(refused, "id")


# Requests: the bytes as each message of ours, and what the servicers do before a verb is called.


def _rpc(data: bytes) -> None:
    for kind, unpack in _REQUESTS.items():
        try:
            unpack(_unpacked(kind, data, UNARY_BYTES))
        except (InvalidRequestError, InvalidTokenError) as refused:
            trailers(refused, "id")


def _issue(request: pb.IssueRequest) -> None:
    grant = messages.grant(request)
    _built(
        audiences=grant.audiences,
        further=grant.further,
        subject=grant.subject,
        ttl=grant.ttl,
        client_id=grant.client_id,
        scopes=grant.scopes,
    )


def _each(unpack: Callable[[Message], None]) -> Callable[[Message], None]:
    def run(batch: Message) -> None:
        servicers._count(len(batch.requests))  # type: ignore[attr-defined]
        for request in batch.requests:  # type: ignore[attr-defined]
            try:
                unpack(request)
            except SidecarError as error:
                messages.item_error(error).SerializeToString()

    return run


def _validate(request: pb.ValidateRequest) -> None:
    gate(messages.demand(request).token, segments=JWS | JWE)


def _rotate(request: pb.RotateRequest) -> None:
    messages.uses(request.key_use)
    messages.words("request_id", request.request_id, 128)
    messages.words("reason", request.reason)


_REQUESTS: dict[type[Message], Callable[..., object]] = {
    pb.IssueRequest: _issue,
    pb.ValidateRequest: _validate,
    pb.BatchIssueRequest: _each(_issue),
    pb.BatchValidateRequest: _each(_validate),
    pb.RotateRequest: _rotate,
    pb.GetJwksRequest: lambda request: messages.uses(request.key_use),
    admin.ListKeysRequest: lambda request: servicers._page_start(request.page_token),
    admin.RevokeKeysRequest: lambda request: messages.words("reason", request.reason),
}


def _rpc_seeds() -> list[bytes]:
    issue = pb.IssueRequest(subject="user", audiences=["orders"], scopes=["read"], client_id="web")
    issue.ttl.seconds = 300
    issue.claims.update({"a": [1, {"b": None}, 2.5, True], "role": "admin"})
    text = pb.IssueRequest(subject="user", audiences=["orders"], claims_json='{"tenant":"a"}')
    validate = pb.ValidateRequest(token="e30.e30.e30", audiences=["orders"], required_scopes=["read"], with_claims=True)
    page = servicers._page_token("default", "signature", NOW, "key")
    requests = [
        issue,
        text,
        validate,
        pb.BatchIssueRequest(requests=[issue, text]),
        pb.BatchValidateRequest(requests=[validate, validate]),
        pb.RotateRequest(profile="default", request_id="one", reason="why", expected_ring_revision=3),
        admin.ListKeysRequest(page_size=3, page_token=page),
    ]
    return [request.SerializeToString() for request in requests]


# The ring's document: as it is, and sealed and signed again by who has both data keys.

STORE_ID = "0123456789abcdef" * 2


@cache
def _kms() -> FileKms:
    path = _folder() / "kek"
    path.write_text("0f" * 32)
    path.chmod(0o600)
    return FileKms(path)


@cache
def _data_keys() -> DataKeys:
    raw = {role: bytes([number]) * 32 for number, role in enumerate(Role)}
    wrap, loop = _kms().wrap, _loop()
    wrapped = {r: loop.run_until_complete(wrap(key, _context("default", r, STORE_ID))) for r, key in raw.items()}
    return DataKeys(raw, wrapped, NOW)


def _opened(content: bytes, known: DataKeys | None, *roles: Role) -> None:
    kms = dict.fromkeys(roles, _kms())
    with contextlib.suppress(DamagedRingError, UnavailableKmsError):
        _loop().run_until_complete(sealing.open_ring(content, "default", 3, store_id=STORE_ID, kms=kms, known=known))


def _ring(data: bytes) -> None:
    _opened(data, None, *Role)
    try:
        document = json.loads(data)
        if not isinstance(document, dict):
            return
        data_keys = _data_keys()
        document |= {
            "data_keys": {role.value: b64encode(data_keys.wrapped[role]).decode() for role in Role},
            "data_keys_time": data_keys.create_time,
        }
        document = {name: value for name, value in document.items() if name not in ("seals", "signature")}
        text = sealing._canonical(document)
        document["seals"] = {r.value: b64encode(data_keys.derived(r).seal(text)).decode() for r in Role}
        document["signature"] = b64encode(data_keys.sign(sealing._signed(text))).decode()
        text = sealing._canonical(document)
    except (ValueError, RecursionError):  # not even JSON
        return
    _opened(text, data_keys, *Role)


def _ring_seeds() -> list[bytes]:
    made = {KeyUse.SIGNATURE: jose_keys.generate("ES256"), KeyUse.ENCRYPTION: jose_keys.generate("A256KW")}
    held = [Key(m.key_id, use, m.algorithm, Settings.of(DEFAULT, use), NOW, NOW) for use, m in made.items()]
    lost = replace(held[0], key_id="A" * 43, compromise_time=NOW)
    ring = Ring("default", 3, (lost, *held), (Answered("a request", 3, NOW),))
    return [sealing.seal_ring(ring, {m.key_id: m for m in made.values()}, _data_keys())]


# Stores: files of a folder, with the checksum as it is and made to fit; and a database with some bytes of it changed.


def _files(data: bytes) -> None:
    for read in (
        lambda: layout.read_ring_line(data[: layout.LINE_MAX], len(data)),
        lambda: layout.read_ring("default", data),
        lambda: layout.read_store(data),
    ):
        with contextlib.suppress(layout.DamagedFileError):
            read()
    line, _, content = data.partition(b"\n")
    numbers = [int(number) for number in re.findall(rb"[0-9]{1,15}", line)[:2]] or [0]
    document = Document(numbers[0], content)
    with contextlib.suppress(layout.DamagedFileError, UnavailableStoreError):
        whole = layout.ring_bytes("default", document, float(numbers[-1]))
        assert layout.read_ring("default", whole)[0] == document
    with contextlib.suppress(UnavailableStoreError):
        name = layout.file_name(data.decode("utf-8", "replace"))
        assert layout.file_name(layout.profile_of(name) or "") == name


def _files_seeds() -> list[bytes]:
    return [layout.ring_bytes("default", Document(3, b"{}"), NOW), layout.store_bytes(layout.StoreFile(STORE_ID, NOW))]


@cache
def _database() -> bytes:
    path = _folder() / "whole.db"

    async def make() -> None:
        store = await SqliteStore.open(path, HandClock())
        await store.save("default", b'{"a":"document"}', expected=0)
        await store.scrub()
        await store.close()

    _loop().run_until_complete(make())
    return path.read_bytes()


def _sqlite(data: bytes) -> None:
    """Two bytes of the input are where, and one is what to write there: within the pages that hold something."""
    damaged = bytearray(_database())
    for at in range(0, min(len(data) - 2, 96), 3):
        damaged[int.from_bytes(data[at : at + 2], "big") % len(damaged)] = data[at + 2]
    path = _folder() / "damaged.db"
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    path.write_bytes(damaged)

    async def use() -> None:
        store = await SqliteStore.open(path, HandClock())
        try:
            for name in await store.revisions():
                await store.load(name)
            await store.now()
            await store.save("default", b"{}", expected=1)
        finally:
            await store.close()

    _loop().run_until_complete(use())


def _sqlite_seeds() -> list[bytes]:
    """A byte in the middle of whatever stands out: headers of the pages, the schema, and the rows."""
    whole, found = _database(), []
    for word in (b"SQLite", b"\r\0", b"STRICT", b"documents", b"store", b"REAL", b"NOT NULL", b"default", b'{"a'):
        at = whole.find(word)
        found += [at.to_bytes(2, "big") + bytes([value]) for value in (0, 1, 255) if at >= 0]
    return found


# The audit file: as it is, and linked again from record to record.


def _audit(data: bytes) -> None:
    for text in (data, _linked(data)):
        for line in io.BytesIO(text):
            chain.head_of(line.rstrip(b"\n"))
        for keys in ([lambda *_: True], [lambda *_: False]):
            with contextlib.suppress(chain.BrokenChainError):
                chain.verify([("audit.jsonl", io.BytesIO(text))], keys, {3: "0" * 13})


def _linked(data: bytes) -> bytes:
    value, lines = chain.Chain(), []
    for line in io.BytesIO(data).readlines()[:100]:
        signed, body = b'"signature"' in line, line.partition(b',"seq":')[0]
        facts = {"text": body.decode("latin-1")}
        lines.append(value.checkpoint(facts, lambda _: bytes(64)) if signed or not lines else value.link(body + b"}\n"))
    return b"".join(lines)


def _audit_seeds() -> list[bytes]:
    linked = chain.Chain()
    lines = [linked.checkpoint({"audit": 1, "lost": 0}, lambda _: bytes(64))]
    lines += [linked.link(b'{"audit":1,"verb":"issue"}\n') for _ in range(3)]
    return [b"".join(lines), b"".join([*lines, linked.checkpoint({"audit": 1, "lost": 2}, lambda _: bytes(64))])]


# Configuration


def _config(data: bytes) -> None:
    path = _folder() / "config.toml"
    path.write_bytes(data)
    config.load(str(path), {"HOME": str(_folder()), "XDG_RUNTIME_DIR": str(_folder())})


TARGETS = {
    "gate": Target(_gate, ()),
    "claims": Target(_claims, ()),
    "rpc": Target(_rpc, (), _rpc_seeds),
    "ring": Target(_ring, (), _ring_seeds),
    "files": Target(_files, (), _files_seeds),
    "sqlite": Target(_sqlite, (UnavailableStoreError,), _sqlite_seeds),
    "audit": Target(_audit, (), _audit_seeds),
    "callers": Target(callers.run, (), callers.seeds),
    # The owner's own file, and the time that a list of all its problems takes goes with their square.
    "config": Target(_config, (config.ConfigError,), longest=3 * 1024),
}
