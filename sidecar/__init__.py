"""Token Sidecar's server: issue, validate and rotate encrypted JWTs over gRPC. The map is README.md beside this file."""

import os

__version__ = "0.1.0"

# gRPC would write lines of its own between those of the log: one for each handshake that fails, for whoever wants to fill a disk.
# GRPC_VERBOSITY=INFO shows them. Here, as it must stand before gRPC is imported, which reads it once.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
