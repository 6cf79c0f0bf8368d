// Tokens for outgoing calls, kept while they are fresh.

import { type CallCredentials, credentials, InterceptingCall, type Interceptor, Metadata } from "@grpc/grpc-js";
import type { TokenSidecar } from "./client.js";
import { TokenSidecarError, UnavailableError } from "./errors.js";
import { parseOrigin } from "./origin.js";
import type { IssuedToken } from "./tokens.js";

/** What a token for an outgoing call shall say. Equal grants share one token. */
export interface Grant {
  /** `sub`. */
  readonly subject: string;
  /** `aud`: the service that is called. */
  readonly audiences: readonly string[];
  readonly scopes?: readonly string[];
  /** Absent: "default". */
  readonly profile?: string;
}

/** A token is renewed after this part of its life. */
const RENEWED_AFTER = 0.8;
/** `iat` and `exp` are whole seconds. */
const ROUNDING_MS = 1000;
/** Between tries of a renewal while the sidecar is away. */
const RENEW_PAUSE_MS = 1000;
/** Of more grants, that whose token expires soonest is forgotten. */
const MOST_GRANTS = 1000;

interface Slot {
  token?: IssuedToken;
  /** By the clock. */
  renew: number;
  expire: number;
  call?: Promise<IssuedToken>;
}

/**
 * Issues tokens for outgoing calls and keeps each for 80 % of its life. Whoever wants the same at the same time shares one call, and its
 * failure too. Make one and keep it.
 */
export class TokenSource {
  readonly #sidecar: Pick<TokenSidecar, "issue">;
  readonly #now: () => number;
  readonly #slots = new Map<string, Slot>();

  /** `now`: milliseconds, of a clock that never jumps; for tests. */
  constructor(sidecar: Pick<TokenSidecar, "issue">, now = () => performance.now()) {
    this.#sidecar = sidecar;
    this.#now = now;
  }

  /**
   * A token that is good for at least a fifth of its life; for less only while somebody else renews it, and where the sidecar does not
   * answer. Throws as `issue` does.
   */
  async token(grant: Grant): Promise<IssuedToken> {
    const slot = this.#slot(keyOf(grant));
    const now = this.#now();
    if (slot.token && now < slot.renew) return slot.token;
    if (slot.call) return slot.token && now < slot.expire ? slot.token : slot.call;
    slot.call = this.#renewed(slot, grant, now);
    return slot.call;
  }

  /** The life is reckoned by the sidecar's own times, from before the call: this machine's clock may jump. */
  async #renewed(slot: Slot, grant: Grant, asked: number): Promise<IssuedToken> {
    const { subject, audiences, scopes = [], profile = "" } = grant;
    try {
      const token = await this.#sidecar.issue({ subject, audiences, scopes, profile });
      const life = token.expireTime.getTime() - token.issueTime.getTime();
      Object.assign(slot, { token, renew: asked + life * RENEWED_AFTER, expire: asked + life - ROUNDING_MS });
      return token;
    } catch (error) {
      if (!(error instanceof UnavailableError && slot.token && this.#now() < slot.expire)) throw error;
      slot.renew = Math.min(this.#now() + RENEW_PAUSE_MS, slot.expire);
      return slot.token;
    } finally {
      delete slot.call;
    }
  }

  #slot(key: string): Slot {
    const known = this.#slots.get(key);
    if (known) return known;
    if (this.#slots.size >= MOST_GRANTS) {
      const idle = [...this.#slots].filter(([, slot]) => !slot.call);
      const [first] = idle.reduce((a, b) => (b[1].expire < a[1].expire ? b : a), idle[0] ?? ["", { expire: 0 }]);
      this.#slots.delete(first);
    }
    const made: Slot = { renew: 0, expire: 0 };
    this.#slots.set(key, made);
    return made;
  }

  /** For a token that the other side turned down: the next one is fresh. A younger one is kept. */
  forget(grant: Grant, token: string): void {
    const key = keyOf(grant);
    if (this.#slots.get(key)?.token?.token === token) this.#slots.delete(key);
  }

  /**
   * A `fetch` that adds tokens of the grant to requests to one origin, such as "https://billing:8443", and to no other. A request that
   * there is no token for is not sent. A token that is answered by 401 is not used again. `base`: what sends the requests.
   */
  fetch(grant: Grant, origin: string, base: typeof fetch = fetch): typeof fetch {
    const here = parseOrigin(origin);
    return async (input, init) => {
      const request = new Request(input, init);
      if (new URL(request.url).origin !== here) return base(request);
      const { token } = await this.token(grant);
      request.headers.set("Authorization", `Bearer ${token}`);
      const response = await base(request);
      if (response.status === 401) this.forget(grant, token);
      return response;
    };
  }

  /** Adds a token to each call of a grpc-js client on a connection with TLS. Without a token nothing is sent. */
  credentials(grant: Grant): CallCredentials {
    return credentials.createFromMetadataGenerator((_, callback) => {
      this.token(grant).then(
        ({ token }) => callback(null, bearer(token)),
        (error: Error) => callback(noToken(error)),
      );
    });
  }

  /**
   * Adds a token to each call of a grpc-js client, on a connection without TLS too: within one machine, or where a proxy beside this
   * program encrypts. `new Client(…, { interceptors: [source.interceptor(grant)] })`. Without a token nothing is sent.
   */
  interceptor(grant: Grant): Interceptor {
    return (options, nextCall) =>
      new InterceptingCall(nextCall(options), {
        start: (metadata, listener, next) => {
          this.token(grant).then(
            ({ token }) => {
              metadata.set("authorization", `Bearer ${token}`);
              next(metadata, listener);
            },
            (error: Error) => {
              const { code, message } = noToken(error);
              listener.onReceiveStatus({ code, details: message, metadata: new Metadata() });
            },
          );
        },
      });
  }
}

/** The same for equal grants alone. */
function keyOf({ profile = "", subject, audiences, scopes = [] }: Grant): string {
  return JSON.stringify([profile, subject, audiences, scopes]);
}

function bearer(token: string): Metadata {
  const metadata = new Metadata();
  metadata.set("authorization", `Bearer ${token}`);
  return metadata;
}

function noToken(error: Error): Error & { code: number } {
  const code = error instanceof TokenSidecarError ? error.code : 13; // INTERNAL
  return Object.assign(new Error(`no token: ${error.message}`), { code });
}
