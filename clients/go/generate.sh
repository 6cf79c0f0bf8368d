#!/bin/sh
# Writes the Go stubs of proto/ into DIR/tokensidecarv1 and DIR/tokensidecarfakev1 (default: this module).
# The one place that pins the generators: a plugin of just this version is taken
# from PATH, any other is built by the go command from its module.
set -eu
protoc_gen_go=v1.36.12
protoc_gen_go_grpc=v1.6.2

cd "$(dirname "$0")"
out=${1:-.}
python=${PYTHON:-../../.venv/bin/python} # with grpcio-tools, which bundles protoc

plugins=$(mktemp -d)
trap 'rm -rf "$plugins"' EXIT
if [ "$(protoc-gen-go --version 2>&1)" != "protoc-gen-go $protoc_gen_go" ]; then
  GOBIN=$plugins go install "google.golang.org/protobuf/cmd/protoc-gen-go@$protoc_gen_go"
fi
if [ "$(protoc-gen-go-grpc --version 2>&1)" != "protoc-gen-go-grpc ${protoc_gen_go_grpc#v}" ]; then
  GOBIN=$plugins go install "google.golang.org/grpc/cmd/protoc-gen-go-grpc@$protoc_gen_go_grpc"
fi

PATH=$plugins:$PATH "$python" -m grpc_tools.protoc -I ../../proto \
  --go_out="$out" --go_opt=module="$(go list -m)" \
  --go-grpc_out="$out" --go-grpc_opt=module="$(go list -m)" \
  ../../proto/tokensidecar/v1/*.proto ../../proto/tokensidecar/fake/v1/*.proto
