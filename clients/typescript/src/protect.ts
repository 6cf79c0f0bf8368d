// Lets only good tokens through to a service and hands it their claims: Express, Fastify, gRPC.

import type { IncomingMessage, ServerResponse } from "node:http";
import { Metadata, ServerInterceptingCall, type ServerInterceptor, ServerListenerBuilder, status } from "@grpc/grpc-js";
import type { Claims } from "./claims.js";
import type { TokenSidecar } from "./client.js";
import { RejectedError, UnavailableError } from "./errors.js";
import { parseOrigin } from "./origin.js";
import type { ValidatedToken } from "./tokens.js";

/** What is demanded of a token. `C` is what its claims are read into. */
export interface ProtectOptions<C> {
  /** The names of this service: the token must be for one of them. */
  readonly audiences: readonly string[];
  /** Profiles whose tokens are accepted. Absent: "default" alone. */
  readonly profiles?: readonly string[];
  /** All of these must be in the token. */
  readonly requiredScopes?: readonly string[];
  /** Reads the claims; where it throws, the token is turned down. Absent: as they are. */
  readonly claims?: (claims: Claims) => C;
  /**
   * Where clients reach this service, such as "https://api.example.com": then tokens that are bound to a key of their presenter are
   * accepted too, with a proof for each request (RFC 9449) that was made for that. It is not taken from the request, for a proof made for
   * somebody else would then pass with a forged Host. A bound token without its proof is turned down in any case.
   */
  readonly dpopOrigin?: string;
  /** Told of each request that is turned down, to log it. */
  readonly onTurnedDown?: (error: Error) => void;
}

/** Who may use the service. */
export interface Authorized<C> {
  readonly token: ValidatedToken;
  readonly claims: C;
}

/**
 * Protects routes and services; whatever happens but a good token, they are not reached. Over HTTP it answers as RFC 6750, section 3, says:
 * 401 without a token or with one that is no good, 400 for a malformed Authorization, 403 without a required scope, 503 when nobody can
 * judge now, 500 if this program may not or got it wrong. Over gRPC: UNAUTHENTICATED, PERMISSION_DENIED, UNAVAILABLE, INTERNAL.
 */
export function protect<C = Claims>(sidecar: TokenSidecar, options: ProtectOptions<C>): Protection<C> {
  if (options.audiences.length === 0) throw new TypeError("audiences: name those that a token must be for");
  return new Protection(sidecar, options);
}

type ExpressRequest = IncomingMessage & { readonly originalUrl?: string };

/** What is used of Fastify's. */
interface FastifyRequest {
  readonly raw: IncomingMessage;
}
interface FastifyReply {
  code(status: number): unknown;
  header(name: string, value: string | string[]): unknown;
  send(body: string): unknown;
}

/** Made by `protect`. */
export class Protection<C> {
  readonly #sidecar: TokenSidecar;
  readonly #options: ProtectOptions<C>;
  readonly #origin: string | undefined;
  readonly #callers = new WeakMap<object, Authorized<C>>();

  constructor(sidecar: TokenSidecar, options: ProtectOptions<C>) {
    this.#sidecar = sidecar;
    this.#options = options;
    this.#origin = options.dpopOrigin === undefined ? undefined : parseOrigin(options.dpopOrigin);
  }

  /**
   * Who makes a request of Express, of Fastify or of node:http, or a call of gRPC. Throws where it is not protected by this: nobody is ever
   * taken for somebody.
   */
  caller(of: IncomingMessage | FastifyRequest | { readonly metadata: Metadata }): Authorized<C> {
    const key = "raw" in of ? of.raw : "metadata" in of ? of.metadata : of;
    const caller = this.#callers.get(key);
    if (!caller) throw new Error("this route is not protected");
    return caller;
  }

  /** Middleware for Express, and for any server of that form: `app.get("/orders", orders.express, …)`. */
  readonly express = (request: ExpressRequest, response: ServerResponse, next: (error?: unknown) => void): void => {
    this.#http(request, request.originalUrl ?? request.url ?? "/")
      .then((answer) => {
        if (!answer) {
          next();
          return;
        }
        for (const [name, value] of answer.headers) response.setHeader(name, value);
        response.statusCode = answer.status;
        response.end();
      })
      .catch(next);
  };

  /** Hook for Fastify: `{ onRequest: orders.fastify }`. */
  readonly fastify = async (request: FastifyRequest, reply: FastifyReply): Promise<unknown> => {
    const answer = await this.#http(request.raw, request.raw.url ?? "/");
    if (!answer) return undefined;
    for (const [name, value] of answer.headers) reply.header(name, value);
    reply.code(answer.status);
    reply.send("");
    return reply;
  };

  /** Interceptor for a gRPC server: `new Server({ interceptors: [orders.grpc] })`. A stream is judged once, as it begins. */
  readonly grpc: ServerInterceptor = (method, call) => {
    const listener = new ServerListenerBuilder()
      .withOnReceiveMetadata((metadata, next) => {
        this.#judge({
          authorization: texts(metadata, "authorization"),
          proofs: texts(metadata, "dpop"),
          method: "POST",
          path: method.path,
        }).then(
          (caller) => {
            this.#callers.set(metadata, caller);
            next(metadata);
          },
          (error: Error) => call.sendStatus({ ...grpcStatus(error), metadata: new Metadata() }),
        );
      })
      .build();
    return new ServerInterceptingCall(call, { start: (next) => next(listener) });
  };

  async #http(request: IncomingMessage, url: string): Promise<HttpAnswer | undefined> {
    const { authorization = [], dpop = [] } = request.headersDistinct;
    const [path = "/"] = url.split("?");
    try {
      const method = request.method ?? "";
      this.#callers.set(request, await this.#judge({ authorization, proofs: dpop, method, path }));
      return undefined;
    } catch (error) {
      return httpAnswer(error, this.#options.requiredScopes ?? [], this.#origin !== undefined);
    }
  }

  async #judge(came: Presented): Promise<Authorized<C>> {
    try {
      return await this.#judged(came);
    } catch (error) {
      this.#options.onTurnedDown?.(error as Error);
      throw error;
    }
  }

  async #judged(came: Presented): Promise<Authorized<C>> {
    const { audiences, profiles, requiredScopes, claims: read } = this.#options;
    const origin = this.#origin;
    const { token, bound } = presentedToken(came.authorization, origin !== undefined);
    const [proof] = came.proofs;
    if (bound && (proof === undefined || came.proofs.length > 1 || proof.length > LONGEST_TOKEN)) {
      throw new TurnedDown("malformed");
    }
    const validated = await this.#sidecar.validate({
      token,
      audiences,
      ...(profiles && { profiles }),
      ...(requiredScopes && { requiredScopes }),
      ...(bound && proof && { possession: { dpop: { proof, method: came.method, url: `${origin}${came.path}` } } }),
    });
    // RFC 9449, section 7.1.
    if (bound && !(validated.confirmation && "jwkThumbprint" in validated.confirmation))
      throw new TurnedDown("no good");
    try {
      return { token: validated, claims: read ? read(validated.claims) : (validated.claims as C) };
    } catch {
      throw new TurnedDown("no good"); // what was thrown may quote a claim
    }
  }
}

/** What came with a request: the values of two headers, and what a proof must have been made for. */
interface Presented {
  readonly authorization: readonly string[];
  readonly proofs: readonly string[];
  readonly method: string;
  readonly path: string;
}

/** In bytes, by the contract. A longer one would make the request to the sidecar invalid, as if it were our mistake. */
const LONGEST_TOKEN = 16 * 1024;
const B64TOKEN = /^[A-Za-z0-9\-._~+/=]+$/;

/** A request that is turned down before its token is judged, or although it is good. */
class TurnedDown extends Error {
  constructor(readonly why: "no token" | "malformed" | "no good") {
    super(
      {
        "no token": "no bearer token",
        malformed: "the authorization is malformed",
        "no good": "the token is not one of this service",
      }[why],
    );
  }
}

/** The one header of RFC 6750, section 2.1, and of RFC 9449, section 7.1; body and query are not looked at. */
function presentedToken(values: readonly string[], dpop: boolean): { token: string; bound: boolean } {
  const [value] = values;
  if (value === undefined) throw new TurnedDown("no token");
  if (values.length > 1) throw new TurnedDown("malformed");
  const space = value.indexOf(" ");
  const scheme = (space < 0 ? value : value.slice(0, space)).toLowerCase();
  const bound = dpop && scheme === "dpop";
  if (!bound && scheme !== "bearer") throw new TurnedDown("no token");
  const token = space < 0 ? "" : value.slice(space).replace(/^ +| +$/g, "");
  if (!B64TOKEN.test(token)) throw new TurnedDown("malformed");
  if (token.length > LONGEST_TOKEN) throw new TurnedDown("no good");
  return { token, bound };
}

function texts(metadata: Metadata, name: string): string[] {
  return metadata.get(name).map(String);
}

interface HttpAnswer {
  readonly status: number;
  readonly headers: readonly (readonly [string, string | string[]])[];
}

function httpAnswer(error: unknown, scopes: readonly string[], dpop: boolean): HttpAnswer {
  const challenge = (code: number, parameters = ""): HttpAnswer => {
    // RFC 6750 wants at least one parameter.
    const bearer = `Bearer realm="tokensidecar"${parameters}`;
    const both = [bearer, `DPoP realm="tokensidecar"${parameters}, algs="ES256 ES384 EdDSA PS256 RS256"`];
    return { status: code, headers: [["WWW-Authenticate", dpop ? both : bearer]] };
  };
  if (error instanceof TurnedDown) {
    if (error.why === "no token") return challenge(401);
    if (error.why === "malformed") return challenge(400, ', error="invalid_request"');
    return challenge(401, ', error="invalid_token"');
  }
  if (error instanceof RejectedError) {
    return error.reason === "TOKEN_SCOPE_MISSING"
      ? challenge(403, `, error="insufficient_scope", scope="${scopes.join(" ")}"`)
      : challenge(401, `, error="invalid_token", error_description="${error.reason}"`);
  }
  if (error instanceof UnavailableError) {
    const seconds = error.retryAfterMs === undefined ? [] : [String(Math.max(1, Math.ceil(error.retryAfterMs / 1000)))];
    return { status: 503, headers: seconds.map((text) => ["Retry-After", text] as const) };
  }
  return { status: 500, headers: [] };
}

/** Tells whoever calls no more than HTTP would. */
function grpcStatus(error: Error): { code: number; details: string } {
  if (error instanceof TurnedDown) {
    const details = error.why === "no token" ? "a bearer token is required" : error.message;
    return { code: status.UNAUTHENTICATED, details };
  }
  if (error instanceof RejectedError) {
    const code = error.reason === "TOKEN_SCOPE_MISSING" ? status.PERMISSION_DENIED : status.UNAUTHENTICATED;
    return { code, details: error.reason };
  }
  if (error instanceof UnavailableError) {
    return { code: status.UNAVAILABLE, details: "the token cannot be judged now" };
  }
  return { code: status.INTERNAL, details: "the token cannot be judged" };
}
