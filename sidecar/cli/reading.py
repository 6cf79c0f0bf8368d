"""What commands read: tokens from standard input or a file, never from the arguments; claims as JSON."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from sidecar.cli.exits import Code, CommandError

STANDARD_INPUT = "-"
MAX_TOKEN_FILE = 64 * 1024
MAX_CLAIMS_FILE = 1024 * 1024
NAME_MAX = 255
_LIKE_A_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]*\.")  # the beginning of a JSON object in base64url, and a dot


def token(source: str) -> str:
    """The token in a file, or in standard input for "-"; white space around it is dropped."""
    if source != STANDARD_INPUT and (_LIKE_A_TOKEN.search(source) or len(source) > NAME_MAX):
        raise CommandError(
            Code.USAGE,
            "a token is not an argument, where every user of this machine could read it: give it on standard input, or in a file",
        )
    text = _read(source, MAX_TOKEN_FILE, "the token").decode("utf-8", errors="replace").strip()
    if not text:
        raise CommandError(Code.USAGE, f"no token in {_name(source)}")
    return text


def claims(source: str | None, pairs: list[str]) -> str | None:
    """The text of one JSON object: of the file as it is, with the pairs `name=value` after it; None if neither is given."""
    text = None if source is None else claims_file(source)
    more = dict(map(_pair, pairs))
    if len(more) != len(pairs):
        raise CommandError(Code.USAGE, "--claim names a claim twice")
    if not more:
        return text
    added = json.dumps(more, ensure_ascii=False, separators=(",", ":"))
    if text is None or not json.loads(text):
        return added
    if twice := sorted(more.keys() & json.loads(text).keys()):
        raise CommandError(Code.USAGE, f"--claim {twice[0]} is in --claims already")
    return text.rstrip()[:-1] + "," + added[1:]


def claims_file(source: str) -> str:
    """The text of a file (or standard input for "-") that holds one JSON object."""
    content = _read(source, MAX_CLAIMS_FILE, "the claims")
    try:
        text = content.decode()
        parsed = json.loads(text)
    except (ValueError, RecursionError) as error:
        what = (
            f"line {error.lineno}, column {error.colno}: {error.msg}"
            if isinstance(error, json.JSONDecodeError)
            else "not UTF-8 text"
        )
        raise CommandError(Code.USAGE, f"{_name(source)} is not JSON: {what}") from error
    if not isinstance(parsed, dict):
        raise CommandError(Code.USAGE, f"{_name(source)} is not a JSON object, but {_kind(parsed)}")
    return text


def _pair(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise CommandError(Code.USAGE, "--claim must be name=value")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def _read(source: str, most: int, what: str) -> bytes:
    try:
        if source == STANDARD_INPUT:
            if sys.stdin.isatty():
                print(f"reading {what} from the terminal; end with Ctrl-D", file=sys.stderr)
            content = sys.stdin.buffer.read(most + 1)
        else:
            with Path(source).open("rb") as file:
                content = file.read(most + 1)
    except OSError as error:
        raise CommandError(Code.USAGE, f"{_name(source)} cannot be read: {error.strerror}") from error
    if len(content) > most:
        raise CommandError(Code.USAGE, f"{_name(source)} has more than {most:,} bytes")
    return content


def _name(source: str) -> str:
    return "standard input" if source == STANDARD_INPUT else source


def _kind(value: object) -> str:
    return {list: "an array", str: "text", bool: "true or false", type(None): "null"}.get(type(value), "a number")
