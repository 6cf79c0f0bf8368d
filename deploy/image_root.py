"""Collects what the server needs into a folder that becomes the image's root.

That is the virtual environment whose Python runs this, the interpreter, its standard library, and every shared library
that these load, each at the path that it has here. Run by the Dockerfile, as root. Usage: image_root.py FOLDER
"""

from __future__ import annotations

import compileall
import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

UID = 65532
PROGRAMS = ("python", "python3", "python3.11", "tokensidecar")
# Of the standard library: tests, desktop windows, and what installs packages.
LEFT_OUT = shutil.ignore_patterns(
    *("__pycache__", "test", "tests", "idlelib", "tkinter", "turtledemo", "turtle.py", "lib2to3", "pydoc_data"),
    *("ensurepip", "config-3.11*", "site-packages", "dist-packages", "EXTERNALLY-MANAGED"),
)


def place(root: Path, path: Path) -> Path:
    """The path inside the image, its folder made."""
    target = root / path.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def copy_program(root: Path, path: Path) -> None:
    """Copies a program and the links that lead to it."""
    while path.is_symlink():
        link = path.readlink()
        target = place(root, path)
        if not target.is_symlink():
            target.symlink_to(link)
        path = path.parent / link
    shutil.copy2(path, place(root, path))


def shared_libraries(binary: Path) -> set[Path]:
    """What the dynamic loader loads for a program or an extension module, the loader included.

    Raises:
        RuntimeError: a library is missing here, and so would be in the image.
    """
    done = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False)  # noqa: S603, S607
    if "not found" in done.stdout:
        raise RuntimeError(f"{binary} lacks a library:\n{done.stdout}")
    words = {word for line in done.stdout.splitlines() for word in line.split()}
    return {Path(word) for word in words if word.startswith("/") and not word.endswith(":")}


def main() -> None:
    """Fills the folder."""
    root = Path(sys.argv[1])
    venv = Path(sys.prefix)
    standard = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(venv, place(root, venv), symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "bin"))
    shutil.copytree(standard, place(root, standard), symlinks=True, ignore=LEFT_OUT)
    for name in PROGRAMS:
        if (venv / "bin" / name).exists():
            copy_program(root, venv / "bin" / name)
    binaries = {Path(sys.executable).resolve(), *venv.rglob("*.so"), *standard.rglob("*.so")}
    for library in sorted(set().union(*map(shared_libraries, binaries))):
        shutil.copy2(library, place(root, library), follow_symlinks=True)

    (root / "etc/tokensidecar").mkdir(parents=True)
    for directory in ("run/tokensidecar", "var/lib/tokensidecar"):  # in a cluster, volumes are mounted over these
        (root / directory).mkdir(parents=True)
        os.chown(root / directory, UID, UID)
    (root / "etc/passwd").write_text(
        f"tokensidecar:x:{UID}:{UID}::/var/lib/tokensidecar:/nonexistent\n", encoding="utf-8"
    )
    (root / "etc/group").write_text(f"tokensidecar:x:{UID}:\n", encoding="utf-8")
    for file in Path("/etc").glob("ld.so.conf*"):
        copy = shutil.copytree if file.is_dir() else shutil.copy2
        copy(file, place(root, file))
    # The loader's cache, for libraries in unusual folders.
    subprocess.run(["ldconfig", "-r", str(root)], check=True)  # noqa: S603, S607

    # By content, not by date: layers may change dates, and the root is read-only when the server runs.
    for folder in (venv, standard):
        compileall.compile_dir(
            root / folder.relative_to("/"), stripdir=str(root), prependdir="/", quiet=1, workers=0,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )  # fmt: skip


if __name__ == "__main__":
    main()
