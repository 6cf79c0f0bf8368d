"""The fields of the config file: each one's kind, default, limits and purpose, in one table.

What reads a value also describes it: the JSON Schema and the table in README.md are made from the same objects, so that neither can say
anything else than the reader does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Protocol

JsonSchema = dict[str, object]

_DURATION = re.compile(r"(?:0|[1-9][0-9]{0,6})(?:s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Kind(Protocol):
    """One kind of value."""

    def read(self, value: object) -> object:
        """The value as the program uses it. ValueError: a sentence that says what it must be."""
        ...

    def schema(self) -> JsonSchema:
        """The same, as JSON Schema (draft 2020-12)."""
        ...


@dataclass(frozen=True, slots=True)
class Text:
    """Text that matches a pattern as a whole; `meaning` is its description in words."""

    meaning: str
    pattern: str

    def read(self, value: object) -> str:
        """The text itself."""
        if not isinstance(value, str) or not re.fullmatch(self.pattern, value):
            raise ValueError(f"must be {self.meaning}")
        return value

    def schema(self) -> JsonSchema:
        """A string with the pattern, anchored."""
        return {"type": "string", "pattern": f"^(?:{self.pattern})$"}


@dataclass(frozen=True, slots=True)
class Texts:
    """A list of different texts of one kind; returned as a tuple."""

    item: Text
    least: int = 0

    def read(self, value: object) -> tuple[str, ...]:
        """All of them, in order."""
        if not isinstance(value, list) or len(value) < self.least:
            raise ValueError(f"must be a list of {'at least one of ' if self.least else ''}{self.item.meaning}")
        items = tuple(self.item.read(each) for each in value)
        if len(set(items)) != len(items):
            raise ValueError("must not name anything twice")
        return items

    def schema(self) -> JsonSchema:
        """An array of unique items."""
        return {"type": "array", "items": self.item.schema(), "minItems": self.least, "uniqueItems": True}


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words. `later` are words of the design that this version lacks: refused by name."""

    words: tuple[str, ...]
    later: tuple[str, ...] = ()

    def read(self, value: object) -> str:
        """The word."""
        if isinstance(value, str) and value.partition(":")[0] in self.later:
            raise ValueError(f"{value!r} is not in this version; it must be {self._words()}")
        if not isinstance(value, str) or value not in self.words:
            raise ValueError(f"must be {self._words()}")
        return value

    def _words(self) -> str:
        return " or ".join(f'"{word}"' for word in self.words)

    def schema(self) -> JsonSchema:
        """An enum."""
        return {"enum": list(self.words)}


@dataclass(frozen=True, slots=True)
class Words:
    """A table from names of one kind to words of another."""

    name: Text
    word: Choice | Text

    def read(self, value: object) -> dict[str, str]:
        """The table."""
        if not isinstance(value, dict):
            raise ValueError("must be a table")  # noqa: TRY004 # as every kind
        return {self.name.read(name): self.word.read(word) for name, word in value.items()}

    def schema(self) -> JsonSchema:
        """An object of such names."""
        return {
            "type": "object",
            "propertyNames": {"pattern": f"^(?:{self.name.pattern})$"},
            "additionalProperties": self.word.schema(),
        }


@dataclass(frozen=True, slots=True)
class Moment:
    """A day, whose first moment in UTC is meant, or a date and time with its offset; TOML's own. Returned in seconds since the epoch."""

    def read(self, value: object) -> float:
        """Seconds."""
        if isinstance(value, datetime):
            if value.tzinfo is not None:
                return value.timestamp()
        elif isinstance(value, date):
            return datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp()
        raise ValueError(
            "must be a date such as 2027-01-31, or a date and time such as 2027-01-31T12:00:00Z, without quotes"
        )

    def schema(self) -> JsonSchema:
        """Text, as JSON has no dates."""
        return {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ].*)?$"}


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    def read(self, value: object) -> bool:
        """The flag."""
        if value is True or value is False:
            return value
        raise ValueError("must be true or false")

    def schema(self) -> JsonSchema:
        """A boolean."""
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number within limits, both included."""

    least: int
    most: int
    shown: Callable[[int], str] = str

    def read(self, value: object) -> int:
        """The number."""
        if not isinstance(value, int) or isinstance(value, bool) or not self.least <= value <= self.most:
            raise ValueError(f"must be a whole number from {self.shown(self.least)} to {self.shown(self.most)}")
        return value

    def schema(self) -> JsonSchema:
        """An integer."""
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True, slots=True)
class Share:
    """A number from 0 to 1."""

    def read(self, value: object) -> float:
        """The number."""
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 1:
            raise ValueError("must be a number from 0 to 1")
        return float(value)

    def schema(self) -> JsonSchema:
        """A number."""
        return {"type": "number", "minimum": 0, "maximum": 1}


@dataclass(frozen=True, slots=True)
class Duration:
    """Whole seconds, minutes, hours or days, as text ("5m"); returned in seconds. The limits are seconds, both included."""

    least: int
    most: int

    def read(self, value: object) -> int:
        """Seconds."""
        if not isinstance(value, str) or not _DURATION.fullmatch(value):
            raise ValueError('must be a duration such as "30s", "5m", "1h" or "7d"')
        seconds = int(value[:-1]) * _SECONDS[value[-1]]
        if not self.least <= seconds <= self.most:
            raise ValueError(f"must be from {spell(self.least)} to {spell(self.most)}")
        return seconds

    def schema(self) -> JsonSchema:
        """A string; the limits are in the description, for JSON Schema has no durations of this form."""
        return {
            "type": "string",
            "pattern": f"^(?:{_DURATION.pattern})$",
            "description": f"from {spell(self.least)} to {spell(self.most)}",
        }


def spell(seconds: int) -> str:
    """Seconds as the config file spells them: "90s", "5m", "1h", "30d"."""
    unit = next(u for u in "dhms" if seconds % _SECONDS[u] == 0) if seconds else "s"
    return f"{seconds // _SECONDS[unit]}{unit}"


@dataclass(frozen=True, slots=True)
class Location:
    """`scheme:value`. `schemes` says what each scheme's value must look like; `later` as for Choice."""

    schemes: Mapping[str, str]
    meaning: str
    later: tuple[str, ...] = ()

    def read(self, value: object) -> str:
        """The text itself."""
        scheme = value.partition(":")[0] if isinstance(value, str) else ""
        if scheme in self.later:
            raise ValueError(f"{scheme}: is not in this version; it must be {self.meaning}")
        if not isinstance(value, str) or not re.fullmatch(self._pattern(), value):
            raise ValueError(f"must be {self.meaning}")
        return value

    def _pattern(self) -> str:
        return "|".join(f"{scheme}:{pattern}" for scheme, pattern in self.schemes.items())

    def schema(self) -> JsonSchema:
        """A string with the pattern."""
        return {"type": "string", "pattern": f"^(?:{self._pattern()})$"}


@dataclass(frozen=True, slots=True)
class Locations:
    """One location, or a table with one for each of these names; returned as it is written."""

    one: Location
    names: tuple[str, ...]

    def read(self, value: object) -> str | dict[str, str]:
        """The text, or the table."""
        if not isinstance(value, dict):
            return self.one.read(value)
        if not value or not value.keys() <= set(self.names):
            raise ValueError(f"must be {self.one.meaning}, or a table of {' and '.join(self.names)}, each such a text")
        return {name: self.one.read(each) for name, each in value.items()}

    def schema(self) -> JsonSchema:
        """Either of the two."""
        table: JsonSchema = {
            "type": "object",
            "properties": {name: self.one.schema() for name in self.names},
            "minProperties": 1,
            "additionalProperties": False,
        }
        return {"anyOf": [self.one.schema(), table]}


@dataclass(frozen=True, slots=True)
class Field:
    """One key of the file. `default` is how the effective default is written in the tables; empty: none, it is required or unset."""

    kind: Kind
    purpose: str
    default: str = ""
    required: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """One table of the file: its fields, and the names that a later version will have (with what they are for)."""

    fields: Mapping[str, Field]
    later: Mapping[str, str] = field(default_factory=dict)

    def schema(self, instead: Mapping[str, JsonSchema] | None = None) -> JsonSchema:
        """An object with these properties, those of `instead` in place of or beside them, and no others."""
        return {
            "type": "object",
            "properties": {name: _described(each) for name, each in self.fields.items()} | dict(instead or {}),
            "required": [name for name, each in self.fields.items() if each.required],
            "additionalProperties": False,
        }


def _described(each: Field) -> JsonSchema:
    schema = each.kind.schema()
    limits = f" ({schema['description']})" if "description" in schema else ""
    return {**schema, "description": each.purpose + limits}
