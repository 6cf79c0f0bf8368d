// What an error carries beside its code: the trailing metadata `tokensidecar-reason`, and google.rpc.Status in
// `grpc-status-details-bin`, of which BadRequest (1: field_violations {1: field, 2: description}) and RetryInfo (1: retry_delay)
// are read here by their field numbers.

import { fromBinary } from "@bufbuild/protobuf";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";
import { type Any, AnySchema, DurationSchema, durationMs } from "@bufbuild/protobuf/wkt";
import type { Metadata } from "@grpc/grpc-js";

/** One thing that is wrong with a request. */
export interface FieldViolation {
  /** Name of the field in the contract, such as `audiences`. */
  readonly field: string;
  readonly description: string;
}

export interface Details {
  readonly reason: string | undefined;
  readonly fields: readonly FieldViolation[];
  readonly retryAfterMs?: number;
}

/** Reads what is there; details that cannot be read count as absent, for the code alone decides. */
export function readDetails(metadata: Metadata): Details {
  const reason = metadata.get("tokensidecar-reason")[0]?.toString();
  const status = metadata.get("grpc-status-details-bin")[0];
  let details: Details = { reason, fields: [] };
  if (!Buffer.isBuffer(status)) return details;
  try {
    for (const bytes of lengthDelimited(status, 3)) {
      const any: Any = fromBinary(AnySchema, bytes);
      if (any.typeUrl.endsWith("/google.rpc.BadRequest")) {
        details = { ...details, fields: lengthDelimited(any.value, 1).map(violation) };
      } else if (any.typeUrl.endsWith("/google.rpc.RetryInfo")) {
        const [delay] = lengthDelimited(any.value, 1);
        if (delay) details = { ...details, retryAfterMs: durationMs(fromBinary(DurationSchema, delay)) };
      }
    }
  } catch {
    return { reason, fields: [] };
  }
  return details;
}

function violation(bytes: Uint8Array): FieldViolation {
  const text = (fieldNumber: number) => Buffer.from(lengthDelimited(bytes, fieldNumber)[0] ?? []).toString();
  return { field: text(1), description: text(2) };
}

/** The values of one field of messages, text or bytes. */
function lengthDelimited(message: Uint8Array, fieldNumber: number): Uint8Array[] {
  const values: Uint8Array[] = [];
  const reader = new BinaryReader(message);
  while (reader.pos < reader.len) {
    const [number, wireType] = reader.tag();
    if (number === fieldNumber && wireType === WireType.LengthDelimited) values.push(reader.bytes());
    else reader.skip(wireType, number);
  }
  return values;
}
