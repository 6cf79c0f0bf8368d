// The token sidecar's client: `connect` for tokens, `connectAdmin` for keys.

export type {
  Key,
  KeyRevocation,
  KeyState,
  KeyUse,
  RevokeKeysRequest,
  RevokeSubjectRequest,
  RevokeTokenIdRequest,
  RotateRequest,
  Rotation,
  TokenSidecarAdmin,
} from "./admin.js";
export type { CallOptions } from "./channel.js";
export type { Claims, ClaimValue } from "./claims.js";
export type { Result, TokenSidecar } from "./client.js";
export { type ConnectOptions, connect, connectAdmin, type TlsOptions } from "./connect.js";
export type { FieldViolation } from "./details.js";
export {
  DeniedError,
  InvalidRequestError,
  type Reason,
  RejectedError,
  TokenSidecarError,
  UnavailableError,
} from "./errors.js";
export { type Authorized, type Protection, type ProtectOptions, protect } from "./protect.js";
export { type Grant, TokenSource } from "./source.js";
export type {
  Confirmation,
  DpopProof,
  IssuedToken,
  IssueRequest,
  Possession,
  RefreshRequest,
  Revocation,
  RevokeRequest,
  ValidatedToken,
  ValidateRequest,
} from "./tokens.js";
