"""Writes deploy/postgres/schema.sql: `python -m tests.stores.schema`."""

from __future__ import annotations

from sidecar.stores.postgres_schema import script
from tests.running import ROOT

if __name__ == "__main__":
    (ROOT / "deploy/postgres/schema.sql").write_text(script())
