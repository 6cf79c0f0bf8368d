"""Token Sidecar's server: issue, validate and rotate encrypted JWTs over gRPC. The map is README.md beside this file."""

__version__ = "0.1.0"
