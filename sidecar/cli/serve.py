"""`tokensidecar serve`: the server, in the foreground."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sidecar.cli.exits import Code, CommandError
from sidecar.config import ConfigError, load

if TYPE_CHECKING:
    import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="default: TOKENSIDECAR_CONFIG, else /etc/tokensidecar/config.toml, else the embedded defaults",
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; the exit code."""
    try:
        config = load(args.config, os.environ)
    except ConfigError as error:
        lines = [f"{error.source}:", *(f"  {key}: {problem}" for key, problem in error.problems)]
        raise CommandError(Code.USAGE, "\n".join(lines)) from error
    from sidecar import app  # here, so that a bad config is told without loading the server

    try:
        return app.run(config)
    except app.StartError as error:
        raise CommandError(Code.FAILURE, str(error)) from error
