"""Interoperability: tokens exchanged with other JOSE libraries, each behind a small driver program; see README.md."""
