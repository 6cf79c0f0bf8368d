"""The command line: one file per command; `main` reads the arguments."""
