"""Where sockets and state live, and who may look inside.

Rules:
 1. A directory that is configured (by environment) or exists in its system place is used as it is; `remarks` says what its mode means.
 2. What this program makes itself is 0700, and 0750 where sockets are, whatever the umask.
 3. The fallback in /tmp is used only if it is a real directory of this user and closed to everybody else.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

PRIVATE = 0o700
SOCKETS = 0o750
_SYSTEM_RUNTIME = Path("/run/tokensidecar")
_SYSTEM_STATE = Path("/var/lib/tokensidecar")


class UnsafeDirectoryError(Exception):
    """A directory that cannot be made, or that others could tamper with. The message says which one, and what to do."""


def runtime_candidates(env: Mapping[str, str]) -> tuple[Path, ...]:
    """Every runtime directory that a sidecar of this user, or a system-wide one, may have: where clients look, in order."""
    if configured := env.get("TOKENSIDECAR_RUNTIME_DIR"):
        return (Path(configured),)
    xdg = env.get("XDG_RUNTIME_DIR")
    return (_SYSTEM_RUNTIME, *((Path(xdg, "tokensidecar"),) if xdg else ()), fallback_runtime())


def fallback_runtime() -> Path:
    """The last resort, by this user's id."""
    return Path("/tmp", f"tokensidecar-{os.getuid()}")  # noqa: S108 # `make_private` refuses one that is not ours alone


def runtime(env: Mapping[str, str]) -> Path:
    """The runtime directory that a server of this user takes. Makes nothing."""
    *candidates, last = runtime_candidates(env)
    return next((path for path in candidates if _usable(path)), last)


def state(env: Mapping[str, str]) -> Path:
    """The directory of database and key-encryption key that a server of this user takes. Makes nothing."""
    if configured := env.get("TOKENSIDECAR_STATE_DIR"):
        return Path(configured)
    if _usable(_SYSTEM_STATE):
        return _SYSTEM_STATE
    if xdg := env.get("XDG_STATE_HOME"):
        return Path(xdg, "tokensidecar")
    return Path(env.get("HOME") or Path.home(), ".local/state/tokensidecar")


def _usable(path: Path) -> bool:
    """Whether this process may write to it, or to the directory of the app plane's socket in it (a pod mounts that alone), or can make it."""
    if path.is_dir():
        return any(os.access(each, os.W_OK | os.X_OK) for each in (path, path / "app"))
    return not path.exists() and os.access(path.parent, os.W_OK | os.X_OK)


def make_private(path: Path) -> None:
    """Make sure that the runtime or state directory is there; made here, it is 0700.

    Raises:
        UnsafeDirectoryError: it cannot be made, is no directory, or is the fallback in /tmp and not this user's alone.
    """
    _make(path, PRIVATE)
    if path != fallback_runtime():
        return
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise UnsafeDirectoryError(
            f"{path} is not a directory that only this user can enter, and /tmp is everybody's: "
            "remove it, or name another one by TOKENSIDECAR_RUNTIME_DIR"
        )


def make_for_socket(path: Path, group: int | None = None) -> None:
    """Make sure that a socket's directory is there; made here, it is 0750, and of that group id if one is given.

    Raises:
        UnsafeDirectoryError: it cannot be made, or is no directory.
    """
    if _make(path, SOCKETS) and group is not None:
        try:
            os.chown(path, -1, group)
        except OSError as error:
            raise UnsafeDirectoryError(f"cannot give {path} to group {group}: {error.strerror}") from error


def _make(path: Path, mode: int) -> bool:
    """True if it was made here. Missing parents are made 0700."""
    try:
        if not path.parent.is_dir():
            _make(path.parent, PRIVATE)
        path.mkdir(mode=mode)
        path.chmod(mode)  # the umask may have taken bits away
    except FileExistsError as error:
        if not path.is_dir():
            raise UnsafeDirectoryError(f"{path} is in the way: it is not a directory") from error
        return False
    except OSError as error:
        raise UnsafeDirectoryError(f"cannot make {path}: {error.strerror}") from error
    return True


def remarks(path: Path, holds: str) -> tuple[str, ...]:
    """What the mode of an existing directory means for what it holds ("sockets", "keys"), one sentence each; empty if nothing."""
    try:
        found = path.stat()
    except OSError:
        return ()
    said = []
    if found.st_mode & stat.S_IWOTH:
        sticky = (
            " the sticky bit keeps them from others' files, not from names not yet taken"
            if found.st_mode & stat.S_ISVTX
            else ""
        )
        said.append(
            f"{path} can be written by every user of this machine (mode {stat.S_IMODE(found.st_mode):04o}): "
            f"they can replace its {holds}{';' + sticky if sticky else ''}. In a pod of your own containers alone that may be meant"
        )
    elif found.st_mode & stat.S_IWGRP:
        said.append(
            f"{path} can be written by group {found.st_gid} (mode {stat.S_IMODE(found.st_mode):04o}): its members can replace its {holds}"
        )
    if found.st_uid not in (0, os.getuid()):
        said.append(f"{path} belongs to user {found.st_uid}, who can replace its {holds}")
    return tuple(said)
