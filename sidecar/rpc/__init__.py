"""The gRPC door: servers, servicers, and the boundary that every call of ours passes."""

import os

# gRPC would write lines of its own between those of the log: one for each handshake that fails, for whoever wants to fill a disk.
# GRPC_VERBOSITY=INFO shows them. Before gRPC is imported, which reads it once.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
