"""Doors for audit records: one sink per module; each says what it promises."""
