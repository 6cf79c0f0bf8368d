"""Writes the tables of README.md from what runs now: `python -m tests.interop`."""

from __future__ import annotations

import sys

from tests.interop.exchange import README, Exchange, filled, strictness


def main() -> int:
    """Needs every library's tools; `AssertionError` if a token does not pass."""
    exchange = Exchange()
    try:
        tables = {"matrix": exchange.matrix(), "structure": strictness(exchange)}
        README.write_text(filled(README.read_text(), tables))
    finally:
        exchange.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
