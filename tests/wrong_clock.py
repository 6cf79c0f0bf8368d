"""A wall clock that real processes go by and tests set (libfaketime)."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Clock:
    """The wall clock of sidecars: right, but for an offset that may change at any moment."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.jump(0)
        # Which library, and how it is loaded: as the tool itself does it.
        command = ["faketime", "-m", "--exclude-monotonic", "-f", "+0", "env"]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        env = dict(line.split("=", 1) for line in lines if line.startswith(("LD_PRELOAD=", "FAKETIME_DONT_")))
        # The boot-time clock goes on as it does: nobody can set it.
        self.env = {**env, "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1"}

    def jump(self, seconds: int) -> None:
        """From now on so far from the right time; 0: right again."""
        unfinished = self._file.with_suffix(".new")
        unfinished.write_text(f"{seconds:+d}\n")
        unfinished.replace(self._file)
