// The app plane: issue and validate.

import { randomUUID } from "node:crypto";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";
import type { CallOptions, Channel } from "./channel.js";
import { type Claims, parseClaims, stringifyClaims } from "./claims.js";
import { fromItem, InvalidRequestError, TokenSidecarError } from "./errors.js";
import { duration, requiredDate } from "./time.js";
import * as v1 from "./tokensidecar/v1/index.js";

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
}

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
}

/** How one item of a batch ended. */
export type Result<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: TokenSidecarError };

/** A sidecar's app plane. Made by `connect`; safe for any number of concurrent calls; reconnects by itself. */
export class TokenSidecar {
  readonly #channel: Channel;
  readonly #validateTimeoutMs: number;
  readonly #timeoutMs: number;

  constructor(channel: Channel, validateTimeoutMs: number, timeoutMs: number) {
    this.#channel = channel;
    this.#validateTimeoutMs = validateTimeoutMs;
    this.#timeoutMs = timeoutMs;
  }

  /** Makes a token. Throws InvalidRequestError, DeniedError, UnavailableError. */
  async issue(request: IssueRequest, options?: CallOptions): Promise<IssuedToken> {
    const { issue } = v1.TokenService.method;
    return issued(await this.#channel.call(issue, toIssue(request), this.#timeoutMs, options));
  }

  /**
   * Opens and checks a token; a return means that it is good for one of these audiences, now. Throws RejectedError if it is not,
   * UnavailableError if nobody could judge, InvalidRequestError, DeniedError.
   */
  async validate(request: ValidateRequest, options?: CallOptions): Promise<ValidatedToken> {
    const { validate } = v1.TokenService.method;
    return validated(await this.#channel.call(validate, toValidate(request), this.#validateTimeoutMs, options));
  }

  /** Issues up to 1,000 tokens; results in the order of the requests. Throws only if the batch as a whole failed. */
  async batchIssue(requests: readonly IssueRequest[], options?: CallOptions): Promise<Result<IssuedToken>[]> {
    const { batchIssue } = v1.TokenService.method;
    const request = { requests: requests.map(toIssue) };
    const { results } = await this.#channel.call(batchIssue, request, this.#timeoutMs, options);
    return results.map(({ result }) => settled(result, issued));
  }

  /** Validates up to 1,000 tokens; results in the order of the requests. Throws only if the batch as a whole failed. */
  async batchValidate(requests: readonly ValidateRequest[], options?: CallOptions): Promise<Result<ValidatedToken>[]> {
    const { batchValidate } = v1.TokenService.method;
    const request = { requests: requests.map(toValidate) };
    const { results } = await this.#channel.call(batchValidate, request, this.#timeoutMs, options);
    return results.map(({ result }) => settled(result, validated));
  }

  /** Ends the connection; later calls fail. */
  close(): void {
    this.#channel.close();
  }
}

function toIssue(request: IssueRequest): MessageInitShape<typeof v1.IssueRequestSchema> {
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
    claimsSource: json === undefined ? { case: undefined } : { case: "claimsJson", value: json },
  };
}

function toValidate(request: ValidateRequest): MessageInitShape<typeof v1.ValidateRequestSchema> {
  return {
    token: request.token,
    audiences: [...request.audiences],
    profiles: [...(request.profiles ?? [])],
    requiredScopes: [...(request.requiredScopes ?? [])],
    requestId: request.requestId ?? randomUUID(),
  };
}

function issued(answer: v1.IssueResponse): IssuedToken {
  return {
    token: answer.token,
    tokenId: answer.tokenId,
    keyId: answer.keyId,
    issueTime: requiredDate(answer.issueTime),
    expireTime: requiredDate(answer.expireTime),
    audiences: answer.audiences,
    scopes: answer.scopes,
  };
}

function validated(answer: v1.ValidateResponse): ValidatedToken {
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
  };
}

type ItemResult<A> =
  | { readonly case: "response"; readonly value: A }
  | { readonly case: "error"; readonly value: v1.ItemError }
  | { readonly case: undefined; readonly value?: undefined };

function settled<A, T>(result: ItemResult<A>, open: (answer: A) => T): Result<T> {
  switch (result.case) {
    case "response":
      return { ok: true, value: open(result.value) };
    case "error":
      return { ok: false, error: fromItem(result.value) };
    default:
      return { ok: false, error: new TokenSidecarError("an item has no result", status.INTERNAL, "INTERNAL") };
  }
}
