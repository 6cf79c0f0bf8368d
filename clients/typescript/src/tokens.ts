// What is asked of a sidecar about tokens, and what it answers; and both as the contract's messages.

import { randomUUID } from "node:crypto";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Timestamp, timestampDate } from "@bufbuild/protobuf/wkt";
import { type Claims, parseClaims, stringifyClaims } from "./claims.js";
import { InvalidRequestError } from "./errors.js";
import { duration, requiredDate } from "./time.js";
import type * as v1 from "./tokensidecar/v1/index.js";

/** What the token shall say. */
export interface IssueRequest {
  /** `sub`; at most 255 characters. */
  readonly subject: string;
  /** `aud`; a subset of what the profile allows; at most 16. */
  readonly audiences: readonly string[];
  /** Further claims. Integers beyond ±(2^53 - 1) are given as bigint. */
  readonly claims?: Claims;
  /** Instead of `claims`: the text of a JSON object, whose members are carried over byte for byte. */
  readonly claimsJson?: string;
  /** Lifetime in seconds. Absent: the profile's. Above its maximum: refused. */
  readonly ttl?: number;
  /** `scope`, one word each. */
  readonly scopes?: readonly string[];
  /** `client_id` (RFC 9068). Absent: the caller's name, as the sidecar knows it. */
  readonly clientId?: string;
  /** Absent: "default". */
  readonly profile?: string;
  /** Binds the token to a key of its presenter. */
  readonly confirmation?: Confirmation;
  /** Also makes a refresh token that carries this grant. */
  readonly withRefreshToken?: boolean;
}

/** The key that a token is bound to (RFC 7800); 43 characters of base64url. */
export type Confirmation =
  /** `cnf.jkt`, of a DPoP key (RFC 9449). */
  | { readonly jwkThumbprint: string }
  /** `cnf.x5t#S256`, of a client certificate (RFC 8705). */
  | { readonly certificateThumbprint: string };

/** A new token, and what was granted. */
export interface IssuedToken {
  /** Compact serialization: a secret until it expires. */
  readonly token: string;
  /** `jti`. */
  readonly tokenId: string;
  /** `kid` of the outermost layer. */
  readonly keyId: string;
  /** `iat`. */
  readonly issueTime: Date;
  /** `exp`. */
  readonly expireTime: Date;
  readonly audiences: readonly string[];
  readonly scopes: readonly string[];
  /** For `refresh`; absent unless it was asked for. */
  readonly refreshToken?: string;
  /** `exp` of the refresh token. */
  readonly refreshExpireTime?: Date;
}

/** A token, and what is demanded of it. */
export interface ValidateRequest {
  /** Compact serialization. */
  readonly token: string;
  /** The names of the service that asks; the token's `aud` must hold one of them. */
  readonly audiences: readonly string[];
  /** All of these must be in the token's `scope`. */
  readonly requiredScopes?: readonly string[];
  /** Profiles whose tokens are accepted. Absent: "default" alone. */
  readonly profiles?: readonly string[];
  /** Absent: a fresh one. Give your own to repeat the very same request, for the same answer about a one-time token. */
  readonly requestId?: string;
  /** Demands that the sidecar knows of revocations up to this revision. */
  readonly minRevocationRevision?: bigint;
  /** Proves that the presenter holds the key that the token is bound to; without it a bound token is rejected. */
  readonly possession?: Possession;
}

/** Proof of the kind that the token is bound by. */
export type Possession =
  | { readonly dpop: DpopProof }
  /** SHA-256 of the client certificate that the caller saw (RFC 8705), in base64url. */
  | { readonly certificateThumbprint: string };

/** A DPoP proof, and the request that it must have been made for (RFC 9449, section 4.3). */
export interface DpopProof {
  /** The value of the DPoP header. */
  readonly proof: string;
  /** `htm`: the HTTP method. */
  readonly method: string;
  /** `htu`: the URL as its sender wrote it, without query and fragment. */
  readonly url: string;
  /** The nonce expected in the proof, if the caller uses nonces. */
  readonly nonce?: string;
}

/** What a good token says. */
export interface ValidatedToken {
  /** `sub`. */
  readonly subject: string;
  /** Every claim; integers beyond ±(2^53 - 1) are bigint. */
  readonly claims: Claims;
  /** Every claim: the very text that was signed or sealed. */
  readonly claimsJson: string;
  /** `iss`. */
  readonly issuer: string;
  /** `aud`. */
  readonly audiences: readonly string[];
  /** `scope`, split. */
  readonly scopes: readonly string[];
  /** `client_id`. */
  readonly clientId: string;
  /** `jti`. */
  readonly tokenId: string;
  /** `iat`. */
  readonly issueTime: Date;
  /** `exp`. */
  readonly expireTime: Date;
  /** The profile that it was issued under. */
  readonly profile: string;
  /** `kid` of the outermost layer. */
  readonly keyId: string;
  /** Revision of the ring that the answer rests on. */
  readonly ringRevision: bigint;
  /** Revision of the revocations that the answer rests on; 0 while the sidecar holds none. */
  readonly revocationRevision: bigint;
  /** The key whose possession was proven; absent where the token is bound to none. */
  readonly confirmation?: Confirmation;
}

/** A refresh token, and how to narrow what it grants. */
export interface RefreshRequest {
  readonly refreshToken: string;
  /** Absent: as granted. */
  readonly audiences?: readonly string[];
  /** Absent: as granted. */
  readonly scopes?: readonly string[];
  /** Required where the grant is bound. */
  readonly possession?: Possession;
}

/** The token to end: an access token, or a refresh token with its family. */
export interface RevokeRequest {
  readonly token: string;
  /** For the audit log; at most 256 characters. */
  readonly reason?: string;
}

/** When a revocation holds. */
export interface Revocation {
  /** For `ValidateRequest.minRevocationRevision`. */
  readonly revocationRevision: bigint;
  /** By then every sidecar obeys, or refuses to answer. */
  readonly effectiveTime: Date;
}

export function toIssue(request: IssueRequest): MessageInitShape<typeof v1.IssueRequestSchema> {
  const { claims, claimsJson, ttl, subject } = request;
  if (claims !== undefined && claimsJson !== undefined) {
    throw new InvalidRequestError("claims and claimsJson: give one of them", [
      { field: "claims_source", description: "both are set" },
    ]);
  }
  const json = claims === undefined ? claimsJson : stringifyClaims(claims);
  return {
    profile: request.profile ?? "",
    subject,
    audiences: [...request.audiences],
    ...(ttl === undefined ? {} : { ttl: duration(ttl) }),
    clientId: request.clientId ?? "",
    scopes: [...(request.scopes ?? [])],
    ...(request.confirmation && { confirmation: toConfirmation(request.confirmation) }),
    withRefreshToken: request.withRefreshToken ?? false,
    claimsSource: json === undefined ? { case: undefined } : { case: "claimsJson", value: json },
  };
}

export function toValidate(request: ValidateRequest): MessageInitShape<typeof v1.ValidateRequestSchema> {
  return {
    token: request.token,
    audiences: [...request.audiences],
    profiles: [...(request.profiles ?? [])],
    requiredScopes: [...(request.requiredScopes ?? [])],
    requestId: request.requestId ?? randomUUID(),
    minRevocationRevision: request.minRevocationRevision ?? 0n,
    ...toPossession(request.possession),
  };
}

function toConfirmation(key: Confirmation): MessageInitShape<typeof v1.ConfirmationSchema> {
  return "jwkThumbprint" in key
    ? { method: { case: "jwkThumbprintSha256", value: key.jwkThumbprint } }
    : { method: { case: "certificateThumbprintSha256", value: key.certificateThumbprint } };
}

/** The member `possession` of a request, where there is one. */
export function toPossession(possession: Possession | undefined) {
  if (!possession) return {};
  const proof =
    "dpop" in possession
      ? { case: "dpop" as const, value: { ...possession.dpop } }
      : { case: "certificateThumbprintSha256" as const, value: possession.certificateThumbprint };
  return { possession: { proof } };
}

export function issued(answer: v1.IssueResponse): IssuedToken {
  return {
    token: answer.token,
    tokenId: answer.tokenId,
    keyId: answer.keyId,
    issueTime: requiredDate(answer.issueTime),
    expireTime: requiredDate(answer.expireTime),
    audiences: answer.audiences,
    scopes: answer.scopes,
    ...(answer.refreshToken && { refreshToken: answer.refreshToken }),
    ...(answer.refreshExpireTime && { refreshExpireTime: timestampDate(answer.refreshExpireTime) }),
  };
}

export function validated(answer: v1.ValidateResponse): ValidatedToken {
  return {
    subject: answer.subject,
    claims: parseClaims(answer.claimsJson),
    claimsJson: answer.claimsJson,
    issuer: answer.issuer,
    audiences: answer.audiences,
    scopes: answer.scopes,
    clientId: answer.clientId,
    tokenId: answer.tokenId,
    issueTime: requiredDate(answer.issueTime),
    expireTime: requiredDate(answer.expireTime),
    profile: answer.profile,
    keyId: answer.keyId,
    ringRevision: answer.ringRevision,
    revocationRevision: answer.revocationRevision,
    ...confirmed(answer.confirmation?.method),
  };
}

function confirmed(method: v1.Confirmation["method"] | undefined): { confirmation?: Confirmation } {
  switch (method?.case) {
    case "jwkThumbprintSha256":
      return { confirmation: { jwkThumbprint: method.value } };
    case "certificateThumbprintSha256":
      return { confirmation: { certificateThumbprint: method.value } };
    default:
      return {};
  }
}

/** What Revoke and its like answer. */
export function revoked(answer: { revocationRevision: bigint; effectiveTime?: Timestamp | undefined }): Revocation {
  return {
    revocationRevision: answer.revocationRevision,
    effectiveTime: requiredDate(answer.effectiveTime),
  };
}
