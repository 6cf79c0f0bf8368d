"""The ledger's part of a PostgreSQL store: what is asked, and how answers are read (see `ports.Ledger`).

What happens within each call is in the functions of `postgres_schema.py`. A page of revocations comes as one value, packed, so that a
million of them are 34 MB on the wire and not twice that.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from sidecar.errors import UnavailableStoreError
from sidecar.ports import Ended, Revocation, Revocations, Spent, Turn

if TYPE_CHECKING:
    from sidecar.ports import Spending

Query = tuple[str, tuple[object, ...]]
"""Text and values."""

_KINDS = {Ended.TOKEN: 1, Ended.SUBJECT: 2, Ended.FAMILY: 3}
_ENDED = {number: kind for kind, number in _KINDS.items()}
_ENTRY = struct.Struct(">h16sqq")
_PAGE = """
SELECT s.revocations, page.packed, page.last FROM tokensidecar.store AS s, (
  SELECT string_agg(int2send(kind) || digest || int8send(before) || int8send(until), ''::bytea ORDER BY revision) AS packed,
    max(revision) AS last
  FROM (SELECT * FROM tokensidecar.revocations WHERE revision > %s ORDER BY revision LIMIT %s) AS entry
) AS page
"""
_SPEND = """
SELECT turn, successor, spent_time FROM tokensidecar.spend(
  %s::smallint, %s, %s, %s, %s, %s, %s, %s::bytea[], %s::bigint[], %s
)
"""


def revoke(revocation: Revocation) -> Query:
    """Answered with its revision."""
    return "SELECT tokensidecar.revoke(%s::smallint, %s, %s, %s)", _values(revocation)


def revision(row: tuple[Any, ...]) -> int:
    """At which it is held."""
    return int(row[0])


def page(after: int, limit: int) -> Query:
    """One statement, and so one moment."""
    return _PAGE, (after, limit)


def read_page(row: tuple[Any, ...], limit: int) -> Revocations:
    """`UnavailableStoreError`: what is stored is none."""
    present, packed, last = row
    try:
        entries = tuple(
            Revocation(_ENDED[kind], digest, before, until)
            for kind, digest, before, until in _ENTRY.iter_unpack(packed or b"")
        )
    except (struct.error, KeyError) as error:
        raise UnavailableStoreError("the database holds revocations that this version does not know") from error
    return Revocations(int(last) if entries and len(entries) == limit else int(present), entries)


def consume(token: bytes, request: bytes, until: int) -> Query:
    """Answered with true or false."""
    return "SELECT tokensidecar.consume(%s, %s, %s)", (token, request, until)


def spend(spending: Spending) -> Query:
    """Answered with turn, successor and time."""
    bars, issued = [digest for digest, _ in spending.bars], [at for _, at in spending.bars]
    values = (
        *_values(spending.family),
        spending.token,
        spending.successor,
        spending.first,
        bars,
        issued,
        spending.grace,
    )
    return _SPEND, values


def read_spent(row: tuple[Any, ...]) -> Spent:
    """The turn that it took."""
    turn, successor, time = row
    return Spent(Turn(turn), successor, time)


def _values(revocation: Revocation) -> tuple[object, ...]:
    return _KINDS[revocation.kind], revocation.digest, revocation.before, revocation.until
