"""Licences of everything that an SBOM names, checked: `python .ci/licences.py SBOM.json > LICENCES.md`; 1 if one is not allowed.

What a package says of itself is read from where it is installed: the SPDX expression of its metadata (PEP 639) or, where it has none,
its older `License` field and classifiers, by their names in `_OLD`. What is not understood is not allowed.
"""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import PackageMetadata

# Licences of works that may be distributed with, or linked from, a work under Apache-2.0 without asking more than a notice.
ALLOWED = {
    *(
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CC0-1.0",
        "ISC",
        "MIT",
        "MIT-0",
        "PSF-2.0",
        "Unlicense",
        "Zlib",
    ),
}
# The weak copyleft that is borne, by name: each is an unmodified library of its own, named in NOTICE, that its user can replace.
BORNE = {
    ("jwcrypto", "LGPL-3.0-or-later"): "installed beside, unmodified and replaceable: see NOTICE",
    ("psycopg", "LGPL-3.0-only"): "only with the extra postgres; unmodified and replaceable: see NOTICE",
    ("psycopg-binary", "LGPL-3.0-only"): "only with the extra postgres; unmodified and replaceable: see NOTICE",
}
_OLD = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",  # says which of the BSD licences only in its text; all of them are allowed
    "MIT License": "MIT",
}


def licence(metadata: PackageMetadata) -> str:
    """An SPDX expression, or the words of the package where they are none that is known; empty: it says nothing."""
    if "License-Expression" in metadata:
        return metadata["License-Expression"]
    classifiers = [
        value.split(" :: ")[-1] for value in metadata.get_all("Classifier", []) if value.startswith("License ::")
    ]
    said = "".join(metadata.get_all("License", [])).strip()
    spdx = _OLD.get(said, said)
    if spdx in ALLOWED or not classifiers:
        return spdx.split("\n", 1)[0]
    return " AND ".join(_OLD.get(name, name) for name in classifiers)


def allowed(expression: str) -> bool:
    """Whether the licence may be used: one of those joined by OR alone; otherwise all that the expression names."""
    names = re.split(r" AND | OR | WITH ", re.sub(r"[()]", "", expression))
    enough = any if " OR " in expression and not re.search(r" AND | WITH |\(", expression) else all
    return enough(name.strip() in ALLOWED for name in names)


def main(sbom: str) -> int:
    """Writes the table; the exit code."""
    refused = []
    print("| package | version | licence | |\n| --- | --- | --- | --- |")
    for component in json.loads(Path(sbom).read_text(encoding="utf-8"))["components"]:
        name, version = component["name"], component["version"]
        properties = {one["name"]: one["value"] for one in component.get("properties", [])}
        if "uv:workspace:path" in properties:
            continue
        try:
            found = distribution(name)
        except PackageNotFoundError:
            if marker := properties.get("uv:package:marker"):
                print(f"| {name} | {version} | not looked at | not installed here: only where {marker} |")
            else:
                refused.append(f"{name} {version} is not installed, so its licence is not known: make setup-dev")
            continue
        if found.version != version:
            refused.append(f"{name} is locked at {version}, and {found.version} is installed: make setup-dev")
        expression = licence(found.metadata)
        note = BORNE.get((name, expression), "")
        if not note and not allowed(expression):
            says = f"is under {expression!r}" if expression else "says nothing of its licence"
            refused.append(
                f"{name} {version} {says}: take another package, or name it in {Path(__file__).name} and in NOTICE"
            )
        print(f"| {name} | {version} | {expression} | {note} |")
    for line in refused:
        print(f"licences: {line}", file=sys.stderr)
    return 1 if refused else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python .ci/licences.py SBOM.json")
    sys.exit(main(sys.argv[1]))
