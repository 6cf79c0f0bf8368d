"""Fuzzes each target for some seconds: `python -m tests.fuzz --seconds 60 [--target gate]`.

By coverage where atheris is there (`uv run --with atheris`), else by hypothesis. Each target has a process of its own; what it finds is
tried again here, where nothing is instrumented, and kept in a folder that the table names.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

from tests.fuzz.campaign import Count
from tests.fuzz.targets import TARGETS, judge


def main() -> int:
    """0: nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz what reads text of others.")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--target", choices=TARGETS, action="append", help="only this one; may be repeated")
    args = parser.parse_args()
    out = Path(tempfile.mkdtemp(prefix="fuzz-found-"))
    rows, found = [], 0
    for name in args.target or TARGETS:
        folder = out / name
        folder.mkdir()
        _run(name, args.seconds, folder)
        count = Count.read(folder)
        problems = sorted({_problem(name, path) for path in folder.glob("*-*")} - {""})
        found += len(problems)
        rows.append((name, count, problems))
    print(f"\n{'target':8} {'by':11} {'inputs':>9} {'a second':>9} {'slowest ms':>11}  found")
    for name, count, problems in rows:
        speed = count.inputs / max(count.seconds, 0.001)
        print(f"{name:8} {count.engine:11} {count.inputs:9} {speed:9.0f} {count.slowest * 1000:11.1f}  {len(problems)}")
        for problem in problems:
            print(f"         {problem}")
    if not found:
        shutil.rmtree(out)
    return 1 if found else 0


def _run(name: str, seconds: int, folder: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz.campaign", name, str(seconds), str(folder)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, env={**os.environ, "TMPDIR": str(folder)})
        try:
            code = process.wait(seconds + 60)
        except BaseException as stopped:
            process.kill()
            process.wait()
            if not isinstance(stopped, subprocess.TimeoutExpired):
                raise
            code = -9
    if code:
        print(f"{name}: ended with {code}; {folder}/log says why")
        (folder / "ended-badly").write_bytes(b"")


def _problem(name: str, path: Path) -> str:
    """What the input does without instruments; empty: nothing."""
    if path.name == "ended-badly":
        return f"the campaign did not end well: {path.parent}/log"
    try:
        judge(name, path.read_bytes())
    except Exception as error:  # noqa: BLE001 # whatever it is, it is the find
        at = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {Path(at.filename).name}:{at.lineno}: {error!s:.100} ({path})"
    return ""


if __name__ == "__main__":
    sys.exit(main())
