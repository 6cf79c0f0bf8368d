"""Logs: JSON lines in a pipe, readable lines on a terminal, always on stderr; and the one way in which lines leave the process.

Constant event names (`ring.rotated`), values as fields. The last processor redacts whatever looks like a token or is called like a
secret: nobody should rely on it, and a test with marked secrets checks that nobody needs it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import select
import sys
import traceback
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

# structlog imports rich wherever that is installed, which costs 60 ms and 5 MB, for tracebacks that this program never prints.
sys.modules.setdefault("rich", None)  # type: ignore[arg-type] # None is how Python spells "not to be had"
import structlog  # noqa: E402

if sys.modules["rich"] is None:
    del sys.modules["rich"]

LINE_MAX = select.PIPE_BUF  # up to here, a write to a pipe is whole or not at all

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{6,}(\.[A-Za-z0-9_-]*){1,}")
_SECRET_NAMES = frozenset(
    {"token", "refresh_token", "claims", "claims_json", "key", "jwk", "secret", "password", "authorization"}
)


class LineWriter:
    """Writes whole lines to a descriptor without ever waiting for its reader.

    A reader that has stopped reading must not stop the sidecar: the line is dropped and counted.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self.dropped = 0

    def write(self, line: bytes) -> bool:
        """True: the kernel has taken the whole line. `line` is at most LINE_MAX bytes, newline included: a longer one could wait."""
        try:
            if len(line) > LINE_MAX:
                raise OSError("longer than a write that is whole or not at all")
            ready = self._poll.poll(0)
            if ready and ready[0][1] & select.POLLOUT and os.write(self._descriptor, line) == len(line):
                return True
        except OSError:
            pass
        self.dropped += 1
        return False


class _Logger:
    """What structlog's bound logger writes to; every level ends in the same line."""

    def __init__(self, writer: LineWriter) -> None:
        self._writer = writer

    def msg(self, message: str) -> None:
        data = message.encode("utf-8", "replace")
        self._writer.write(data[: LINE_MAX - 1] + b"\n")

    debug = info = warning = warn = error = critical = exception = log = msg


def get_logger() -> Any:
    """A logger; every other module takes it from here."""
    return structlog.get_logger()


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace values that are named like secrets or look like tokens. Control characters never pass to a terminal."""
    return {name: "[redacted]" if name in _SECRET_NAMES else _clean(value) for name, value in event.items()}


def _first(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {"time": event.pop("time"), "level": event.pop("level"), "event": event.pop("event"), **event}


def _clean(value: object) -> object:
    if isinstance(value, str):
        return _TOKEN.sub("[token]", value)[:1024]
    if isinstance(value, (list, tuple)):
        return [_clean(v) for v in value[:64]]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return _TOKEN.sub("[token]", str(value))[:1024]


def _readable(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    # Every value goes through JSON, so that no escape sequence reaches the terminal.
    time, level, name = event.pop("time"), event.pop("level"), event.pop("event")
    fields = "  ".join(f"{k}={v if _plain(v) else json.dumps(v)}" for k, v in event.items())
    return f"{time[11:19]} {level:<7} {name:<22} {fields}".rstrip()


def _plain(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_./:@%+,-]+", value) is not None


def configure(level: str, form: str = "auto") -> LineWriter:
    """Set up structlog for the process. `form`: json, text, or auto, which is text if stderr is a terminal."""
    writer = LineWriter(sys.stderr.fileno())
    human = sys.stderr.isatty() if form == "auto" else form == "text"
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            _first,
            redact,
            _readable if human else structlog.processors.JSONRenderer(sort_keys=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: _Logger(writer),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_Libraries()], level=logging.WARNING, force=True)
    return writer


def silence() -> None:
    """No log: for commands that tell what they find in words of their own."""
    configure("error")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.basicConfig(handlers=[logging.NullHandler()], force=True)


class _Libraries(logging.Handler):
    """What libraries say through the standard module. Their words may quote anything, an exception's text included: only the place is kept."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        get_logger().log(
            record.levelno,
            "library.spoke",
            library=record.name,
            place=f"{record.filename}:{record.lineno} {record.funcName}",
            **({"error_type": type(error).__name__, "frames": frames(error)} if error else {}),
        )


def frames(error: BaseException) -> list[str]:
    """Where an unexpected exception came from: file, line and function. Not its text, and no variables: those may hold secrets."""
    return [f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)[-12:]]
