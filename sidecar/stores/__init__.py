"""Stores: one file for each technology, each a `ports.Store`."""
