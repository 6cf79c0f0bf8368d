// The app plane: issue, validate, refresh, revoke.

import { randomUUID } from "node:crypto";
import { status } from "@grpc/grpc-js";
import type { CallOptions, Channel } from "./channel.js";
import { asMany, Coalescer } from "./coalesce.js";
import { fromItem, TokenSidecarError } from "./errors.js";
import {
  type IssuedToken,
  type IssueRequest,
  issued,
  type RefreshRequest,
  type Revocation,
  type RevokeRequest,
  revoked,
  toIssue,
  toPossession,
  toValidate,
  type ValidatedToken,
  type ValidateRequest,
  validated,
} from "./tokens.js";
import * as v1 from "./tokensidecar/v1/index.js";

/** How one item of a batch ended. */
export type Result<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: TokenSidecarError };

/** A sidecar's app plane. Made by `connect`; safe for any number of concurrent calls; reconnects by itself. */
export class TokenSidecar {
  readonly #channel: Channel;
  readonly #validateTimeoutMs: number;
  readonly #timeoutMs: number;
  readonly #batches: Coalescer | undefined;

  constructor(channel: Channel, validateTimeoutMs: number, timeoutMs: number, coalesce = false) {
    this.#batches = coalesce ? new Coalescer(channel) : undefined;
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
    const message = toValidate(request);
    const judge = this.#batches ?? this.#channel;
    return validated(await judge.call(validate, message, this.#validateTimeoutMs, options));
  }

  /** Issues up to 1,000 tokens; results in the order of the requests. Throws only if the batch as a whole failed. */
  async batchIssue(requests: readonly IssueRequest[], options?: CallOptions): Promise<Result<IssuedToken>[]> {
    const { batchIssue } = v1.TokenService.method;
    const request = { requests: requests.map(toIssue) };
    const logId = options?.logId ?? randomUUID();
    const { results } = await this.#channel.call(batchIssue, request, this.#timeoutMs, { ...options, logId });
    return asMany(results, requests.length).map(({ result }) => settled(result, issued, logId));
  }

  /** Validates up to 1,000 tokens; results in the order of the requests. Throws only if the batch as a whole failed. */
  async batchValidate(requests: readonly ValidateRequest[], options?: CallOptions): Promise<Result<ValidatedToken>[]> {
    const { batchValidate } = v1.TokenService.method;
    const request = { requests: requests.map(toValidate) };
    const logId = options?.logId ?? randomUUID();
    const { results } = await this.#channel.call(batchValidate, request, this.#timeoutMs, { ...options, logId });
    return asMany(results, requests.length).map(({ result }) => settled(result, validated, logId));
  }

  /**
   * Trades a refresh token for a new pair. It is repeated by itself like `validate`: within its grace (10 s) the sidecar answers a repeat
   * with the same pair, as long as the new refresh token is unspent. Throws RejectedError; with REFRESH_REUSED its family is revoked.
   */
  async refresh(request: RefreshRequest, options?: CallOptions): Promise<IssuedToken> {
    const { refresh } = v1.TokenService.method;
    const init = {
      refreshToken: request.refreshToken,
      audiences: [...(request.audiences ?? [])],
      scopes: [...(request.scopes ?? [])],
      ...toPossession(request.possession),
    };
    const { tokens } = await this.#channel.call(refresh, init, this.#timeoutMs, options);
    if (!tokens) throw new TokenSidecarError("the answer has no tokens", status.INTERNAL, "INTERNAL");
    return issued(tokens);
  }

  /**
   * Ends a token, and of a refresh token its family: logout. No error if it is unknown or ended already (RFC 7009). Never repeated by
   * itself; to repeat it does no harm.
   */
  async revoke(request: RevokeRequest, options?: CallOptions): Promise<Revocation> {
    const { revoke } = v1.TokenService.method;
    const init = { token: request.token, reason: request.reason ?? "" };
    return revoked(await this.#channel.call(revoke, init, this.#timeoutMs, options));
  }

  /** Ends the connection; later calls fail. */
  close(): void {
    this.#channel.close();
  }
}

type ItemResult<A> =
  | { readonly case: "response"; readonly value: A }
  | { readonly case: "error"; readonly value: v1.ItemError }
  | { readonly case: undefined; readonly value?: undefined };

function settled<A, T>(result: ItemResult<A>, open: (answer: A) => T, logId: string): Result<T> {
  switch (result.case) {
    case "response":
      return { ok: true, value: open(result.value) };
    case "error":
      return { ok: false, error: fromItem(result.value, logId) };
    default:
      return { ok: false, error: new TokenSidecarError("an item has no result", status.INTERNAL, "INTERNAL") };
  }
}
