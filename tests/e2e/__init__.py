"""Tests through the real RPC: a sidecar process, real sockets, plain gRPC."""
