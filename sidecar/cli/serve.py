"""`tokensidecar serve`: the server, in the foreground."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping

from sidecar.cli.exits import Code, CommandError
from sidecar.config import Config, ConfigError, load

_PR_SET_PDEATHSIG = 1


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="default: TOKENSIDECAR_CONFIG, else /etc/tokensidecar/config.toml, else the embedded defaults",
    )
    parser.add_argument("--end-with-parent", action="store_true", help=argparse.SUPPRESS)  # for `demo --serve`


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; the exit code."""
    if args.end_with_parent:
        _end_with_parent()
    config = loaded(args.config)
    from sidecar import app  # here, so that a bad config is told without loading the server

    try:
        return app.run(config)
    except app.StartError as error:
        raise CommandError(Code.FAILURE, str(error)) from error


def loaded(path: str | None, env: Mapping[str, str] = os.environ) -> Config:
    """The effective configuration; its problems end the command."""
    try:
        return load(path, env)
    except ConfigError as error:
        lines = [f"{error.source}:", *(f"  {key}: {problem}" for key, problem in error.problems)]
        raise CommandError(Code.USAGE, "\n".join(lines)) from error


def _end_with_parent() -> None:
    """SIGTERM to this process when its parent is gone, however that ended (Linux)."""
    if sys.platform == "linux":
        import ctypes

        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:  # it was faster
            sys.exit(Code.FAILURE)
