"""Kinds of values that more than one section of the config file has."""

from __future__ import annotations

from sidecar.claims import RESERVED
from sidecar.fields import Text

PROFILE_NAME = Text("a name of a-z, 0-9, _ and -, at most 64 characters", "[a-z0-9][a-z0-9_-]{0,63}")
LINE = Text("text of 1 to 255 characters without control characters", r"[^\x00-\x1f\x7f]{1,255}")
CLAIM = Text(
    "the name of a claim that is not a registered one",
    rf"(?!(?:{'|'.join(sorted(RESERVED))})$)[^\x00-\x1f\x7f]{{1,128}}",
)
PATH = r"/[^\x00-\x1f\x7f]+"
FILE = Text("an absolute path", PATH)
DNS = r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"
