"""Clients record every call and every answer while things break; afterwards the history is held against what was promised."""
