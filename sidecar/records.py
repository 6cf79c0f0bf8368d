"""A decision as lines of JSON, each short enough for a pipe to take it whole or not at all.

What is too long for one line takes several: its list (keys that a change names, profiles that went back) is spread over them, `part` says
which of how many each is, and the rest stands in all of them, but for `why`, which is in the first.
"""

from __future__ import annotations

import json
import select
from collections.abc import Mapping

LINE_MAX = select.PIPE_BUF  # bytes, newline included
_SPREAD = ("key_ids", "rolled_back")
# `json.dumps` makes an encoder for every call.
_encode = json.JSONEncoder(separators=(",", ":")).encode
_encode_plain = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_PART = len(b',"part":"999/999"')


def lines(entry: Mapping[str, object]) -> list[bytes]:
    """The lines, in order; one, unless there is no other way."""
    line = _encode(entry).encode() + b"\n"
    if len(line) <= LINE_MAX:
        return [line]
    whole = dict(entry)
    name = next((name for name in _SPREAD if name in entry), "")
    found = whole.pop(name, ())
    items = list(found.items()) if isinstance(found, dict) else list(found) if isinstance(found, list) else []
    bodies: list[dict[str, object]] = []
    while items or not bodies:
        body, taken = dict(whole), 0
        size = len(_line(body)) + len(f',"{name}":[]') + _PART
        for item in items:
            size += len(json.dumps(item, ensure_ascii=False).encode()) + 1
            if size > LINE_MAX and taken:
                break
            taken += 1
        if taken:
            body[name] = dict(items[:taken]) if isinstance(found, dict) else items[:taken]
        bodies.append(body)
        items = items[taken:]
        whole.pop("why", None)
    if len(bodies) == 1:
        return [_line(bodies[0])]
    return [_line({**body, "part": f"{number}/{len(bodies)}"}) for number, body in enumerate(bodies, 1)]


def _line(entry: Mapping[str, object]) -> bytes:
    """With characters as they are, where they can be printed, which takes at most four bytes each instead of twelve."""
    text = _encode_plain(entry)
    return (text if text.isprintable() else _encode(entry)).encode() + b"\n"
