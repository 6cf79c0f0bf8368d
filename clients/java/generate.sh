#!/bin/sh
# Writes the Java stubs of proto/ into DIR (default: src/generated/java). The one place that pins the generators, fetched
# by Maven. Stubs of this protoc run on every protobuf-java from this version on; those of a newer one would refuse the
# protobuf-java that grpc-java itself asks for.
set -eu
protoc=3.25.9
protoc_gen_grpc_java=1.83.1

cd "$(dirname "$0")"
out=${1:-src/generated/java}
case $(uname -m) in
  x86_64) system=linux-x86_64 ;;
  aarch64) system=linux-aarch_64 ;;
  *) echo "no generator for $(uname -m)" >&2; exit 1 ;;
esac

fetched=$(mktemp -d)
trap 'rm -rf "$fetched"' EXIT
for artifact in com.google.protobuf:protoc:$protoc:exe:$system com.google.protobuf:protobuf-java:$protoc:jar \
  io.grpc:protoc-gen-grpc-java:$protoc_gen_grpc_java:exe:$system; do
  mvn -q -B dependency:copy "-Dartifact=$artifact" "-DoutputDirectory=$fetched" -Dmdep.stripClassifier -Dmdep.stripVersion
done
chmod +x "$fetched"/*.exe
(cd "$fetched" && jar xf protobuf-java.jar google/protobuf) # the well-known types

mkdir -p "$out"
"$fetched/protoc.exe" -I ../../proto -I "$fetched" --java_out="$out" \
  --plugin=protoc-gen-grpc-java="$fetched/protoc-gen-grpc-java.exe" --grpc-java_out="$out" \
  ../../proto/tokensidecar/v1/*.proto
