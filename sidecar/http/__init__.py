"""The HTTP door: liveness, readiness, metrics and public keys."""
