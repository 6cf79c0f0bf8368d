#!/bin/sh
# Writes the TypeScript stubs into DIR (default: src, inside the package). Needs `npm ci`.
set -eu
cd "$(dirname "$0")"
out=$(realpath "${1:-src}")
PATH=$PWD/node_modules/.bin:$PATH
buf generate ../../proto --template '{"version":"v2","plugins":[
  {"local":"protoc-gen-es","out":"'"$out"'","opt":["target=ts","import_extension=js"]}]}'
{
  printf '// Generated from proto/ by generate.sh; never edited.\n'
  for file in "$out"/tokensidecar/v1/*_pb.ts; do printf 'export * from "./%s.js";\n' "$(basename "$file" .ts)"; done
} > "$out/tokensidecar/v1/index.ts"
