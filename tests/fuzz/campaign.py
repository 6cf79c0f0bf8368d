"""One target, in a process of its own: `python -m tests.fuzz.campaign TARGET SECONDS FOLDER`. What it finds goes into the folder."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PROGRESS = 10  # seconds


@dataclass(slots=True)
class Count:
    """What a campaign has done so far; `slowest` is in CPU seconds, of instrumented code."""

    engine: str = ""
    inputs: int = 0
    seconds: float = 0
    slowest: float = 0

    @classmethod
    def read(cls, folder: Path) -> Count:
        """As it was written last."""
        with contextlib.suppress(FileNotFoundError):
            return cls(**json.loads((folder / "count.json").read_text()))
        return cls()

    def write(self, folder: Path) -> None:
        """Whole or not at all."""
        (folder / "count.new").write_text(json.dumps(asdict(self)))
        (folder / "count.new").rename(folder / "count.json")


def main() -> int:
    """Ends when the time is over; libFuzzer ends the process by itself."""
    name, seconds, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        atheris = None
    # Instruments first: what is loaded before stays as it is.
    with atheris.instrument_imports(include=["sidecar", "tomllib"]) if atheris else contextlib.nullcontext():
        from tests.fuzz.targets import inputs, judge
    kept = inputs(name)
    try_one = _trying(lambda data: judge(name, data), Count("atheris" if atheris else "hypothesis"), name, folder)
    if atheris:
        _by_coverage(atheris, kept, try_one, seconds, folder)
    else:
        _by_chance(kept, try_one, seconds)
    return 0


def _trying(judge: Callable[[bytes], float], count: Count, name: str, folder: Path) -> Callable[[bytes], None]:
    begun = shown = written = time.monotonic()

    def try_one(data: bytes) -> None:
        nonlocal shown, written
        try:
            count.slowest = max(count.slowest, judge(data))
        except Exception as error:  # noqa: BLE001 # whatever it is, it is the find
            at = traceback.extract_tb(error.__traceback__)[-1]
            where = hashlib.sha256(f"{type(error)} {at.filename} {at.lineno}".encode()).hexdigest()[:16]
            path = folder / f"found-{where}"  # the first of its kind
            if not path.exists():
                path.write_bytes(data)
                print(f"{name}: {type(error).__name__} at {at.filename}:{at.lineno}", flush=True)
        count.inputs += 1
        now = time.monotonic()
        count.seconds = now - begun
        if now - written > 0.5:
            written = now
            count.write(folder)
        if now - shown > PROGRESS:
            shown = now
            print(f"{name}: {count.inputs} inputs in {count.seconds:.0f} s", flush=True)

    return try_one


def _by_coverage(atheris: Any, kept: list[bytes], try_one: Callable[[bytes], None], seconds: int, folder: Path) -> None:
    from tests.fuzz.mutations import WORDS

    corpus = folder / "corpus"
    corpus.mkdir()
    for number, data in enumerate(kept):
        (corpus / str(number)).write_bytes(data)
    words = ("".join(f"\\x{byte:02x}" for byte in word) for word in WORDS if len(word) <= 64)
    (folder / "words").write_text("".join(f'"{word}"\n' for word in words))
    options = {
        "max_total_time": seconds,
        "max_len": 64 * 1024,
        "timeout": 10,
        "rss_limit_mb": 2048,
        "dict": folder / "words",
        "artifact_prefix": f"{folder}/",
    }
    atheris.Setup([sys.argv[0], *(f"-{option}={value}" for option, value in options.items()), str(corpus)], try_one)
    atheris.Fuzz()


def _by_chance(kept: list[bytes], try_one: Callable[[bytes], None], seconds: int) -> None:
    from hypothesis import HealthCheck, Phase, given, seed, settings, strategies as st

    from tests.fuzz.mutations import mutated

    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        number += 1

        @seed(number)
        @settings(
            max_examples=200,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(mutated(kept) | st.binary(max_size=200))
        def tried(data: bytes) -> None:
            try_one(data)

        tried()


if __name__ == "__main__":
    sys.exit(main())
