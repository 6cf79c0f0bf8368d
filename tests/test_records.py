"""A decision as lines: each is whole JSON of at most 4,096 bytes, and together they say all of it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings, strategies as st

from sidecar.records import LINE_MAX, lines

BASE = {
    "audit": 1,
    "time": "2026-01-01T00:00:00.000000+00:00",
    "caller": "spiffe://" + "e" * 255 + "/" + "p" * 1783,  # 2,048 characters
    "plane": "admin",
    "identified": "certificate",
    "verb": "revoke_keys",
    "profile": "p" * 64,
    "phase": "intent",
    "request_id": "r" * 128,
}


def read(entry: dict[str, Any]) -> list[dict[str, Any]]:
    made = lines(entry)
    assert all(len(line) <= LINE_MAX and line.endswith(b"\n") and line.count(b"\n") == 1 for line in made)
    return [json.loads(line) for line in made]


def whole(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """One record again."""
    if len(parts) > 1:
        assert [part.pop("part") for part in parts] == [f"{n}/{len(parts)}" for n in range(1, len(parts) + 1)]
    found: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            if name == "key_ids":
                found.setdefault(name, []).extend(value)
            elif name == "rolled_back":
                found.setdefault(name, {}).update(value)
            else:
                assert found.setdefault(name, value) == value
    return found


def test_what_fits_is_one_line_in_ascii() -> None:
    entry = {"audit": 1, "why": "ü", "key_ids": ["k"]}
    assert lines(entry) == [b'{"audit":1,"why":"\\u00fc","key_ids":["k"]}\n']


def test_a_reason_of_256_emoji_and_sixteen_keys_are_on_record() -> None:
    entry = {**BASE, "caller": "unix:admin", "key_ids": ["k" * 43] * 16, "why": "🔥" * 256}
    (found,) = read(entry)  # as they are, characters take a third
    assert found == entry


def test_the_longest_names_with_the_longest_reason_take_as_many_lines_as_they_need() -> None:
    entry = {**BASE, "key_ids": [f"{n:043}" for n in range(1000)], "why": "🔥" * 256}
    found = read(entry)
    assert len(found) > 10
    assert whole(found) == entry


def test_profiles_that_went_back_are_all_named() -> None:
    entry = {**BASE, "rolled_back": {f"profile-{n}": "the store has revision 1, and 2 was seen" for n in range(200)}}
    assert whole(read(entry)) == entry


@settings(max_examples=200)
@given(
    why=st.text(st.characters(exclude_categories=("Cs",)), max_size=256),
    keys=st.lists(st.text("abcXYZ019_-", min_size=1, max_size=64), max_size=300),
)
def test_nothing_is_lost_and_no_line_is_too_long(why: str, keys: list[str]) -> None:
    entry = {**BASE, "caller": "unix:admin", "key_ids": keys, "why": why}
    made = lines(entry)
    assert whole([json.loads(line) for line in made]) == entry
    if why.isprintable():
        assert max(map(len, made)) <= LINE_MAX
