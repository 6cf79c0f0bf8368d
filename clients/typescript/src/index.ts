// The token sidecar's client: `connect` for tokens, `connectAdmin` for keys.

export type {
  Key,
  KeyRevocation,
  KeyState,
  KeyUse,
  RevokeKeysRequest,
  RotateRequest,
  Rotation,
  TokenSidecarAdmin,
} from "./admin.js";
export type { CallOptions } from "./channel.js";
export type { Claims, ClaimValue } from "./claims.js";
export type {
  IssuedToken,
  IssueRequest,
  Result,
  TokenSidecar,
  ValidatedToken,
  ValidateRequest,
} from "./client.js";
export { type ConnectOptions, connect, connectAdmin } from "./connect.js";
export type { FieldViolation } from "./details.js";
export {
  DeniedError,
  InvalidRequestError,
  type Reason,
  RejectedError,
  TokenSidecarError,
  UnavailableError,
} from "./errors.js";
