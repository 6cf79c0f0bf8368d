// What a call can end in: one class for a rejected token, three for what an application treats differently, one for all the rest.

import { type ServiceError, status } from "@grpc/grpc-js";
import { type FieldViolation, readDetails } from "./details.js";
import { ErrorReason, type ItemError } from "./tokensidecar/v1/index.js";

/** Why, by the names of the contract. ERROR_REASON_UNSPECIFIED: none was given, or one that this client does not know. */
export type Reason = keyof typeof ErrorReason;

/** Any failure of a call. Thrown itself where no class below fits: RING_CHANGED, NOT_IMPLEMENTED, INTERNAL. */
export class TokenSidecarError extends Error {
  override readonly name: string = "TokenSidecarError";

  /** Finds the call in the sidecar's log, if it got there. Absent for a request that this client refused. */
  readonly requestId?: string;

  /** `code`: the gRPC status code. `message` never quotes a token. */
  constructor(
    message: string,
    readonly code: number,
    readonly reason: Reason,
  ) {
    super(message);
  }
}

/** The token is no good; `reason` says why. Never retry: answer 401. */
export class RejectedError extends TokenSidecarError {
  override readonly name = "RejectedError";
}

/** This caller may not do this here. An unknown and a forbidden profile look the same. Never retry. */
export class DeniedError extends TokenSidecarError {
  override readonly name = "DeniedError";
}

/** Nobody could judge: no sidecar, too slow, overloaded, or its state is stale. It says nothing about the token: answer 503. */
export class UnavailableError extends TokenSidecarError {
  override readonly name = "UnavailableError";

  /** `retryAfterMs`: when to come back, in milliseconds, where the sidecar says so. */
  constructor(
    message: string,
    code: number,
    reason: Reason,
    readonly retryAfterMs?: number,
  ) {
    super(message, code, reason);
  }
}

/** The request is no good; `fields` names what is wrong with it. Never retry. */
export class InvalidRequestError extends TokenSidecarError {
  override readonly name = "InvalidRequestError";

  constructor(
    message: string,
    readonly fields: readonly FieldViolation[],
  ) {
    super(message, status.INVALID_ARGUMENT, "REQUEST_INVALID");
  }
}

/** The error of a unary call. */
export function fromStatus(error: ServiceError, requestId: string): TokenSidecarError {
  const details = readDetails(error.metadata);
  const built = build(error.code, knownReason(details.reason), error.details, details.fields, details.retryAfterMs);
  return Object.assign(built, { requestId });
}

/** The error of one item of a batch. */
export function fromItem(item: ItemError, requestId: string): TokenSidecarError {
  const fields = item.field ? [{ field: item.field, description: item.message }] : [];
  return Object.assign(build(item.code, knownReason(ErrorReason[item.reason]), item.message, fields), { requestId });
}

function knownReason(name: string | undefined): Reason {
  // A generated enum also maps numbers to names.
  return typeof ErrorReason[name as Reason] === "number" ? (name as Reason) : "ERROR_REASON_UNSPECIFIED";
}

function build(
  code: number,
  reason: Reason,
  text: string,
  fields: readonly FieldViolation[],
  retryAfterMs?: number,
): TokenSidecarError {
  const message = text || reason;
  switch (code) {
    case status.UNAUTHENTICATED:
      return new RejectedError(message, code, reason);
    case status.PERMISSION_DENIED:
      return new DeniedError(message, code, reason);
    case status.INVALID_ARGUMENT:
      return new InvalidRequestError(message, fields);
    case status.UNAVAILABLE:
    case status.DEADLINE_EXCEEDED:
    case status.CANCELLED: // by a sidecar that ends: what the caller cancels never comes here
      return new UnavailableError(message, code, reason, retryAfterMs);
    case status.RESOURCE_EXHAUSTED:
      // Without this reason it is gRPC's own: a message over the limit, which no retry makes smaller.
      return reason === "OVERLOADED"
        ? new UnavailableError(message, code, reason, retryAfterMs)
        : new TokenSidecarError(message, code, reason);
    default:
      return new TokenSidecarError(message, code, reason);
  }
}
