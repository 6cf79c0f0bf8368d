#!/bin/sh
# Writes the stubs of proto/: messages and clients into DIR/src, servers for the tests' fake into DIR/tests/fake
# (default: this crate). generate/Cargo.toml pins the generator. Never edit what it writes.
set -eu
cd "$(dirname "$0")"
out=${1:-.}
python=${PYTHON:-../../.venv/bin/python} # with grpcio-tools, which bundles protoc

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$python" -m grpc_tools.protoc -I ../../proto --include_imports --include_source_info \
  --descriptor_set_out="$scratch/descriptors" ../../proto/tokensidecar/v1/*.proto
mkdir -p "$scratch/client" "$scratch/fake" "$out/src" "$out/tests/fake"
cargo run --quiet --locked --package generate -- "$scratch/descriptors" "$scratch/client" "$scratch/fake"
mv "$scratch/client/tokensidecar.v1.rs" "$out/src/tokensidecar.v1.rs"
mv "$scratch/fake/tokensidecar.v1.rs" "$out/tests/fake/tokensidecar.v1.rs"
