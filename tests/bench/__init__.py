"""Benchmarks: figures, not tests. `make bench` writes results.json and results.png beside this file."""
