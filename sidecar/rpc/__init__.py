"""The gRPC door: servers, servicers, and the boundary that every call of ours passes."""
