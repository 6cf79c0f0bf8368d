"""Exit codes, and the exception that ends a command with one of them and one line on standard error."""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """What a script can tell from the exit code alone."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    REJECTED = 3
    UNREACHABLE = 4


MEANINGS = {
    Code.OK: "done",
    Code.FAILURE: "failed: the sidecar refused or could not answer",
    Code.USAGE: "wrong usage: arguments, claims, or configuration",
    Code.REJECTED: "the token was rejected; the reason is on standard error",
    Code.UNREACHABLE: "no sidecar could be reached",
}


class CommandError(Exception):
    """Ends the command. The message is one line, or several that belong together, and holds no secret."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
