"""HTTP/2 by hand (RFC 9113), for what no honest gRPC client does. Header fields go without compression (RFC 7541, section 6.2.2)."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
VALIDATE = "/tokensidecar.v1.TokenService/Validate"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


def fields(*pairs: tuple[str, str]) -> bytes:
    """A header block."""
    block = bytearray()
    for pair in pairs:
        block.append(0)
        for text in pair:
            raw = text.encode()
            block += _integer(len(raw)) + raw
    return bytes(block)


def request_fields(path: str = VALIDATE, *further: tuple[str, str]) -> bytes:
    """The header block of a gRPC request."""
    return fields(
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *further,
    )


def message(data: bytes, *, compressed: int = 0, length: int | None = None) -> bytes:
    """A length-prefixed gRPC message."""
    return bytes([compressed]) + struct.pack("!I", len(data) if length is None else length) + data


class Wire:
    """A connection; `target` as gRPC spells it. Without `greet`, not a byte is sent by itself."""

    def __init__(self, target: str, *, greet: bool = True, settings: bytes = b"", seconds: float = 20) -> None:
        if target.startswith("unix:"):
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(seconds)
            self._socket.connect(target.removeprefix("unix:"))
        else:
            host, port = target.rsplit(":", 1)
            self._socket = socket.create_connection((host, int(port)), timeout=seconds)
        if greet:
            self.send(PREFACE + frame(SETTINGS, 0, 0, settings))

    def send(self, data: bytes) -> bool:
        """False if the other side has hung up."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def call(self, stream: int, data: bytes, *further: tuple[str, str], path: str = VALIDATE) -> bool:
        """A whole unary request."""
        return self.send(
            frame(HEADERS, END_HEADERS, stream, request_fields(path, *further))
            + frame(DATA, END_STREAM, stream, message(data))
        )

    def frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Type, flags, stream and payload of what comes, until the other side hangs up. TimeoutError if it is silent too long."""
        while len(head := self._exactly(9)) == 9:
            length = int.from_bytes(head[:3], "big")
            yield head[3], head[4], int.from_bytes(head[5:9], "big") & 0x7FFFFFFF, self._exactly(length)

    def until(self, kind: int, stream: int = 0, flags: int = 0) -> bytes | None:
        """The payload of the first such frame; None if the other side hung up before."""
        for found, found_flags, found_stream, payload in self.frames():
            if (found, found_stream) == (kind, stream) and found_flags & flags == flags:
                return payload
        return None

    def _exactly(self, length: int) -> bytes:
        data = b""
        try:
            while len(data) < length and (more := self._socket.recv(length - len(data))):
                data += more
        except ConnectionResetError:
            pass
        return data

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _integer(value: int) -> bytes:
    """RFC 7541, section 5.1, with a prefix of seven bits."""
    if value < 127:
        return bytes([value])
    value -= 127
    out = bytearray([127])
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    out.append(value)
    return bytes(out)
