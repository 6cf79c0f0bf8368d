"""`python -m tests.conformance` writes the matrix into clients/README.md."""

from tests.conformance.matrix import README, filled

README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")
