#!/bin/sh
# Writes the typed Python stubs into DIR (default: the Python client's package), and those of Envoy's ext_authz, which the server alone
# uses, into SERVER (default: the server's own folder). Run by `make generate`: generate.sh [DIR SERVER]
# An old generator, pinned: generated code refuses a runtime older than its generator and accepts newer ones.
set -eu
cd "$(dirname "$0")"
out=${1:-../clients/python} server=${2:-..}
with() {
  uv run --quiet --no-project --isolated --python 3.11 \
    --with grpcio-tools==1.71.2 --with mypy-protobuf==3.6.0 --with protobuf==5.29.5 --with googleapis-common-protos==1.70.0 \
    --with "setuptools<81" "$@"
}
with python -m grpc_tools.protoc -I. --python_out="$out" --grpc_python_out="$out" \
  --mypy_out="$out" --mypy_grpc_out="$out" tokensidecar/v1/*.proto tokensidecar/fake/v1/*.proto
google=$(with python -c 'import google.rpc, pathlib; print(pathlib.Path(google.rpc.__path__[0]).parents[1])')
with python -m grpc_tools.protoc -I.. -I"$google" --python_out="$server" --mypy_out="$server" ../sidecar/envoy/ext_authz.proto
for package in v1 fake fake/v1; do
  printf '"""Generated from proto/ by `make generate`; never edited."""\n' > "$out/tokensidecar/$package/__init__.py"
done
