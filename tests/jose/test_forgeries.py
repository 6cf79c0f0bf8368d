"""Every forgery in `tests.forgeries`, against gate, engine and claims. The same texts go through the real RPC elsewhere."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from sidecar import claims, gate
from sidecar.errors import InvalidTokenError
from tests import forgeries
from tests.jose.reading import PAYLOAD, Reader

READER = Reader()
GENUINE = READER.make(PAYLOAD)

GENERATORS: dict[str, Callable[[], Iterator[tuple[str, str]]]] = {
    "forgeries": lambda: forgeries.forgeries(GENUINE, READER.public_jwk),
    "oversized": lambda: forgeries.oversized(GENUINE),
    "inner": lambda: forgeries.inner_forgeries(READER.wrap, READER.unwrap(GENUINE).decode(), READER.public_jwk),
    "claims": lambda: forgeries.claim_forgeries(READER.make, PAYLOAD),
}


def answer(text: str) -> str:
    """What a caller would be told."""
    try:
        READER.read(text)
    except InvalidTokenError as refused:
        return f"{refused}{refused.__cause__ or ''}"
    return "read"


def test_the_genuine_token_is_read() -> None:
    assert READER.read(GENUINE).payload == PAYLOAD


@pytest.mark.parametrize("generator", GENERATORS)
def test_no_forgery_is_read(generator: str) -> None:
    tried = 0
    for name, text in GENERATORS[generator]():
        tried += 1
        assert answer(text) == "the token is not valid", name
    assert tried > 5


def test_forgeries_have_names_of_their_own() -> None:
    names = [name for generator in GENERATORS.values() for name, _ in generator()]
    assert len(names) == len(set(names))


def test_forgeries_other_than_the_oversized_ones_fit_a_unary_request() -> None:
    sizes = [len(text.encode()) for name in ("forgeries", "inner", "claims") for _, text in GENERATORS[name]()]
    assert max(sizes) < 60_000


def test_forgeries_reach_every_rule() -> None:
    reached = set()
    for generator in GENERATORS.values():
        for _, text in generator():
            with pytest.raises(InvalidTokenError) as refused:
                READER.read(text)
            reached.add(refused.value.stage)
    assert gate.RULES.keys() | claims.RULES.keys() <= reached
    assert reached >= {"jose.key", "jose.length", "jose.decryption", "jose.signature"}


def test_no_forgery_opens_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []

    class Watched(socket.socket):
        def __init__(self, *args: object) -> None:
            opened.append(args)
            raise OSError

    monkeypatch.setattr(socket, "socket", Watched)
    monkeypatch.setattr(socket, "create_connection", lambda *args, **_: opened.append(args))
    for name, text in GENERATORS["forgeries"]():
        if "fetch" in name or "file" in name:
            with pytest.raises(InvalidTokenError):
                READER.read(text)
    assert opened == []


def test_a_token_changed_in_any_one_character_is_refused() -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
    for index, character in enumerate(GENUINE):
        other = alphabet[(alphabet.index(character) + 1 + index % 63) % len(alphabet)]
        with pytest.raises(InvalidTokenError):
            READER.read(GENUINE[:index] + other + GENUINE[index + 1 :])


def test_a_token_cut_anywhere_is_refused() -> None:
    for index in range(len(GENUINE)):
        with pytest.raises(InvalidTokenError):
            READER.read(GENUINE[:index])


def test_parts_of_two_genuine_tokens_do_not_mix() -> None:
    other = READER.make(PAYLOAD.replace(b"user-42", b"user-43"))
    for index in range(1, 5):
        with pytest.raises(InvalidTokenError):
            READER.read(forgeries.with_segment(GENUINE, index, other.split(".")[index]))
    assert READER.read(other).subject == "user-43"


def test_a_token_of_other_keys_is_refused() -> None:
    with pytest.raises(InvalidTokenError):
        Reader().read(GENUINE)
    with pytest.raises(InvalidTokenError):
        READER.read(Reader(encryption=READER.encryption).make(PAYLOAD))
