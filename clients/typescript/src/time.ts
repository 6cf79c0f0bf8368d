// Protobuf's times as the native ones.

import { type Duration, durationFromMs, type Timestamp, timestampDate } from "@bufbuild/protobuf/wkt";
import { status } from "@grpc/grpc-js";
import { InvalidRequestError, TokenSidecarError } from "./errors.js";

/** A time that every answer has. */
export function requiredDate(time: Timestamp | undefined): Date {
  if (!time) throw new TokenSidecarError("the answer lacks a time", status.INTERNAL, "INTERNAL");
  return timestampDate(time);
}

/** Seconds, exact to the millisecond. The sidecar judges whether they are too many. */
export function duration(seconds: number): Duration {
  if (!Number.isFinite(seconds)) {
    throw new InvalidRequestError("ttl: not a number of seconds", [{ field: "ttl", description: "not a number" }]);
  }
  return durationFromMs(Math.round(seconds * 1000));
}
