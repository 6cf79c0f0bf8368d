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
from sidecar.jose.suites import CONTENT, KEY_MANAGEMENT, SIGNATURES, Management, encrypted_key_size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping

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
    """What can be seen. `header` and `payload` are None where they cannot be read; `broken` is (stage, sentence) or None.

    `suites`: what each algorithm in the header is, and what is not of its exact length, a sentence each.
    """

    kind: str
    suites: tuple[str, ...]
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
        suites=tuple(_suites(_parsed(_text(decoded[0])), parts)),
        parts=parts,
        header=_text(decoded[0]),
        payload=_text(decoded[1]) if names is JWS_PARTS else None,
        broken=broken,
    )


def _suites(header: Any, parts: tuple[Part, ...]) -> Iterator[str]:
    """What the header's algorithms are, as far as they exist here."""
    if not isinstance(header, dict) or len(parts) not in (3, 5):
        return
    alg, sizes = header.get("alg"), {part.name: part.size for part in parts}
    if not isinstance(alg, str):
        return
    if len(parts) == 3:
        signature = SIGNATURES.get(alg)
        if signature is None:
            yield f"{alg}: not a signature algorithm of this version"
            return
        kind = {"oct": "a MAC: who verifies can sign", "RSA": "an RSA signature"}.get(
            signature.kty, f"a signature by a key on {signature.curve}"
        )
        yield f"{alg}: {kind}{_made(signature.makes)}"
        yield from _odd(alg, "signature", sizes, signature.signature or None)
        return
    management, enc = KEY_MANAGEMENT.get(alg), header.get("enc")
    content = CONTENT.get(enc) if isinstance(enc, str) else None
    if management is None:
        yield f"{alg}: not a key management of this version"
    else:
        who = (
            "who opens can make"
            if management.symmetric
            else "who has the public key can make, so it must be signed inside"
        )
        yield f"{alg}: the content key is {management.how.value}; {who}{_made(management.makes)}"
    if content is None:
        yield f"{enc!s:.32}: not a content encryption of this version"
    else:
        yield f"{enc}: a content key of {content.key * 8} bits, authenticated"
        yield from _odd(str(enc), "initialization vector", sizes, content.iv)
        yield from _odd(str(enc), "tag", sizes, content.tag)
    if management and content and management.how is not Management.RSA:
        yield from _odd(alg, "encrypted key", sizes, encrypted_key_size(management.how, content))


def _made(makes: bool) -> str:
    return "" if makes else "; opened with imported keys alone, never made here"


def _odd(algorithm: str, name: str, sizes: Mapping[str, int | None], due: int | None) -> Iterator[str]:
    if due is not None and sizes[name] != due:
        yield f"{algorithm}: its {name} has {due} bytes, and this one {'none' if sizes[name] is None else sizes[name]}"


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
            "suites": list(seen.suites),
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
    for sentence in seen.suites:
        out.print(screen.clean(sentence))
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
