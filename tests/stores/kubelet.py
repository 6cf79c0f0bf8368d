"""Mounts a Secret the way the kubelet does: files in a folder of a fresh name, and links to them that move all at once."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping
from pathlib import Path

_counter = itertools.count(1)


def mount(folder: Path, data: Mapping[str, bytes]) -> None:
    """Make the folder show exactly this data. The order is the kubelet's: new folder, `..data` renamed over, links, old folder removed."""
    folder.mkdir(exist_ok=True)
    link = folder / "..data"
    before = link.readlink() if link.is_symlink() else None
    fresh = folder / f"..2026_11_24_12_00_00.{next(_counter)}"
    fresh.mkdir()
    for name, content in data.items():
        (fresh / name).write_bytes(content)
        (fresh / name).chmod(0o644)
    unfinished = folder / "..data_tmp"
    unfinished.symlink_to(fresh.name)
    unfinished.replace(link)
    for name in data:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    for file in folder.iterdir():
        if file.is_symlink() and file.name != "..data" and file.name not in data:
            file.unlink()
    if before is not None:
        shutil.rmtree(folder / before)
