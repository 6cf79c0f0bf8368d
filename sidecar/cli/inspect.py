"""`tokensidecar inspect`: what anybody sees of a token, without a key and without a server; and the first rule of the gate that it breaks."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sidecar.cli import reading, screen
from sidecar.cli.exits import Code
from sidecar.errors import InvalidTokenError
from sidecar.gate import JWE, JWS, RULES, gate

if TYPE_CHECKING:
    import argparse

JWS_PARTS = ("header", "payload", "signature")
JWE_PARTS = ("header", "encrypted key", "initialization vector", "ciphertext", "tag")
_SHOWN = 300  # characters of a header or payload


@dataclass(frozen=True, slots=True)
class Part:
    """One dot-separated part. `size` is bytes once decoded, None where it is not base64url."""

    name: str
    characters: int
    size: int | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What can be seen. `header` and `payload` are None where they cannot be read; `broken` is (stage, sentence) or None."""

    kind: str
    parts: tuple[Part, ...]
    header: str | None
    payload: str | None
    broken: tuple[str, str] | None


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="holds the token; default: standard input")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Say what can be seen; 3 if it breaks a rule of the gate."""
    seen = look(reading.token(args.file))
    if args.json:
        _write_json(seen)
    else:
        _show(seen)
    return Code.REJECTED if seen.broken else Code.OK


def look(text: str) -> Seen:
    """What anybody sees of a text that may be a token. Never raises, whatever it is."""
    segments = text.split(".", 8)
    names = {3: JWS_PARTS, 5: JWE_PARTS}.get(len(segments))
    kind = {
        JWS_PARTS: "JWS, compact serialization (RFC 7515): signed, not encrypted",
        JWE_PARTS: "JWE, compact serialization (RFC 7516): encrypted",
    }
    decoded = [_decoded(segment) for segment in segments]
    named = names or tuple(f"part {i + 1}" for i in range(len(segments)))
    parts = tuple(
        Part(name, len(segment), None if data is None else len(data))
        for name, segment, data in zip(named, segments, decoded, strict=True)
    )
    try:
        gate(text, segments=JWS | JWE)
        broken = None
    except InvalidTokenError as error:
        broken = (error.stage, RULES[error.stage])
    return Seen(
        kind=kind[names] if names else "not a token in compact serialization",
        parts=parts,
        header=_text(decoded[0]),
        payload=_text(decoded[1]) if names is JWS_PARTS else None,
        broken=broken,
    )


def _decoded(segment: str) -> bytes | None:
    try:
        if not segment.isascii() or any(c in segment for c in "+/= \t\r\n"):
            return None
        return urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError:
        return None


def _text(data: bytes | None) -> str | None:
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError:
        return None


def _parsed(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return None


def _write_json(seen: Seen) -> None:
    screen.write_json(
        {
            "kind": seen.kind,
            "header": _parsed(seen.header),
            "payload": _parsed(seen.payload),
            "parts": [{"name": part.name, "characters": part.characters, "bytes": part.size} for part in seen.parts],
            "passes_gate": seen.broken is None,
            "broken_rule": seen.broken and {"stage": seen.broken[0], "rule": seen.broken[1]},
        }
    )


def _show(seen: Seen) -> None:
    from rich.text import Text

    out = screen.console()
    out.print(Text(seen.kind, style="bold"))
    out.print(sizes(seen.parts))
    out.print()
    header = _parsed(seen.header)
    if isinstance(header, dict) and header:
        rows = [(screen.clean(name), json.dumps(value, ensure_ascii=False)) for name, value in header.items()]
        out.print(Text("the header says, to anybody", style="bold"))
        out.print(screen.facts((screen.shortened(name, 20), screen.shortened(value, _SHOWN)) for name, value in rows))
    else:
        out.print("the header cannot be read")
    if seen.payload is not None:
        out.print(Text("the payload is not encrypted; it says, to anybody", style="bold red"))
        out.print(screen.clean(screen.shortened(seen.payload, _SHOWN)))
    out.print()
    if seen.broken:
        out.print(
            Text.assemble(("breaks the gate: ", "bold red"), screen.clean(f"{seen.broken[1]} ({seen.broken[0]})"))
        )
    else:
        out.print(
            Text.assemble(("passes the gate", "bold green"), ": it has the form of a token; `validate` judges it")
        )


def sizes(parts: tuple[Part, ...]) -> Any:
    """A table of the parts and their sizes, with the total."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("part", no_wrap=True)
    table.add_column("characters", justify="right")
    table.add_column("bytes", justify="right")
    for part in parts:
        table.add_row(part.name, f"{part.characters:,}", "not base64url" if part.size is None else f"{part.size:,}")
    total = sum(part.characters for part in parts) + len(parts) - 1
    table.add_row("total, with dots", f"{total:,}", "", style="bold")
    return table
