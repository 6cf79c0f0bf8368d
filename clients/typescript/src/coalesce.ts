// Gathers Validate calls into batches. The rule: at the end of a turn of the event loop what waits goes out, if nothing is under way; else
// when that has ended, after a millisecond (the shortest timer there is), or as soon as there are 64.

import { randomUUID } from "node:crypto";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { create, toBinary } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";
import type { CallOptions, Channel } from "./channel.js";
import { fromItem, TokenSidecarError, UnavailableError } from "./errors.js";
import * as v1 from "./tokensidecar/v1/index.js";

const ITEMS = 64;
const WAIT_MS = 1;
/** Of one batch, so that it and its answer keep below 1 MiB each. */
const BYTES = 384 * 1024;
/** Of one call in a batch: twice the longest token. A larger one goes alone, and spoils no batch. */
const CALL_BYTES = 32 * 1024;

type Request = MessageInitShape<typeof v1.ValidateRequestSchema>;
type Method = typeof v1.TokenService.method.validate;

interface Waiting {
  readonly request: Request;
  readonly bytes: number;
  /** By performance.now(). */
  readonly deadline: number;
  readonly resolve: (answer: v1.ValidateResponse) => void;
  readonly reject: (error: unknown) => void;
}

export class Coalescer {
  #waiting: Waiting[] = [];
  #bytes = 0;
  #underway = 0;
  #turn: NodeJS.Immediate | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(private readonly channel: Channel) {}

  /** As `Channel.call`. The call ends at its own deadline and with its own signal, whatever the batch does. */
  call(method: Method, request: Request, defaultTimeoutMs: number, options: CallOptions = {}) {
    const bytes = toBinary(method.input, create(method.input, request)).length;
    const { signal } = options;
    if (bytes > CALL_BYTES || options.logId !== undefined) {
      return this.channel.call(method, request, defaultTimeoutMs, options);
    }
    const timeoutMs = this.channel.timeoutMs(defaultTimeoutMs, options);
    return new Promise<v1.ValidateResponse>((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const leave = () => {
        clearTimeout(late);
        signal?.removeEventListener("abort", abort);
      };
      const abort = () => {
        leave();
        reject(signal?.reason);
      };
      const late = setTimeout(() => {
        leave();
        reject(new UnavailableError("Deadline exceeded", status.DEADLINE_EXCEEDED, "ERROR_REASON_UNSPECIFIED"));
      }, timeoutMs);
      signal?.addEventListener("abort", abort, { once: true });
      this.#add({
        request,
        bytes,
        deadline: performance.now() + timeoutMs,
        resolve: (answer) => {
          leave();
          resolve(answer);
        },
        reject: (error) => {
          leave();
          reject(error);
        },
      });
    });
  }

  #add(call: Waiting): void {
    if (this.#bytes + call.bytes > BYTES) this.#flush();
    this.#waiting.push(call);
    this.#bytes += call.bytes;
    if (this.#waiting.length === ITEMS) this.#flush();
    else if (this.#underway === 0) this.#turn ??= setImmediate(() => this.#flush());
    else this.#timer ??= setTimeout(() => this.#flush(), WAIT_MS);
  }

  #flush(): void {
    if (this.#turn) clearImmediate(this.#turn);
    if (this.#timer) clearTimeout(this.#timer);
    this.#turn = undefined;
    this.#timer = undefined;
    const calls = this.#waiting;
    if (calls.length === 0) return;
    this.#waiting = [];
    this.#bytes = 0;
    this.#underway += 1;
    this.#judge(calls).finally(() => {
      this.#underway -= 1;
      if (this.#underway === 0) this.#flush();
    });
  }

  /** Gives every call its result. The batch lives as long as the most patient of its calls. */
  async #judge(calls: readonly Waiting[]): Promise<void> {
    const { validate, batchValidate } = v1.TokenService.method;
    const timeoutMs = Math.max(1, Math.max(...calls.map(({ deadline }) => deadline)) - performance.now());
    const [first] = calls;
    try {
      if (calls.length === 1 && first) {
        first.resolve(await this.channel.call(validate, first.request, timeoutMs, { timeoutMs }));
        return;
      }
      const logId = randomUUID();
      const requests = calls.map(({ request }) => request);
      const { results } = await this.channel.call(batchValidate, { requests }, timeoutMs, { timeoutMs, logId });
      const many = asMany(results, calls.length);
      for (const [index, call] of calls.entries()) {
        const result = many[index]?.result;
        if (result?.case === "response") call.resolve(result.value);
        else if (result?.case === "error") call.reject(fromItem(result.value, logId));
        else call.reject(new TokenSidecarError("an item has no result", status.INTERNAL, "INTERNAL"));
      }
    } catch (error) {
      for (const { reject } of calls) reject(error);
    }
  }
}

/** The results of a batch, if they are as many as the requests. */
export function asMany<T>(results: readonly T[], count: number): readonly T[] {
  if (results.length === count) return results;
  const message = "the batch has another number of results than of requests";
  throw new TokenSidecarError(message, status.INTERNAL, "INTERNAL");
}
