#!/bin/sh
# Writes the typed Python stubs into DIR (default: the Python client's package). Run by `make generate`.
# An old generator, pinned: generated code refuses a runtime older than its generator and accepts newer ones.
set -eu
cd "$(dirname "$0")"
out=${1:-../clients/python}
uv run --quiet --no-project --isolated --python 3.11 \
  --with grpcio-tools==1.71.2 --with mypy-protobuf==3.6.0 --with protobuf==5.29.5 --with "setuptools<81" \
  python -m grpc_tools.protoc -I. --python_out="$out" --grpc_python_out="$out" \
  --mypy_out="$out" --mypy_grpc_out="$out" tokensidecar/v1/*.proto
printf '"""Generated from proto/ by `make generate`; never edited."""\n' > "$out/tokensidecar/v1/__init__.py"
