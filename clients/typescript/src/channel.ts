// One connection to a sidecar, and one way to call it: typed by the generated stubs, with a deadline, cancellable.

import { randomUUID } from "node:crypto";
import type { DescMessage, DescMethodUnary, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  type ChannelCredentials,
  type ChannelOptions,
  Client,
  credentials,
  Metadata,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import { fromStatus, UnavailableError } from "./errors.js";

/** For one call. */
export interface CallOptions {
  /** Deadline in milliseconds from now, instead of the default. */
  readonly timeoutMs?: number;
  /** Cancels the call; it then throws the signal's reason. */
  readonly signal?: AbortSignal;
  /** Names the call in the sidecar's log. Absent: a fresh one. */
  readonly logId?: string;
}

// What may be repeated on UNAVAILABLE, and on the CANCELLED of a server that ends, within the call's deadline: reads, what carries a
// request id, which stays the same, and Refresh, whose grace is longer than its deadline.
const RETRIES = {
  methodConfig: [
    {
      name: [
        { service: "tokensidecar.v1.TokenService", method: "Validate" },
        { service: "tokensidecar.v1.TokenService", method: "BatchValidate" },
        { service: "tokensidecar.v1.TokenService", method: "Refresh" },
        { service: "tokensidecar.v1.TokenService", method: "Rotate" },
        { service: "tokensidecar.v1.AdminService", method: "ListKeys" },
      ],
      retryPolicy: {
        maxAttempts: 3,
        initialBackoff: "0.02s",
        maxBackoff: "0.1s",
        backoffMultiplier: 2,
        retryableStatusCodes: ["UNAVAILABLE", "CANCELLED"],
      },
    },
  ],
};

const OPTIONS: ChannelOptions = {
  // On a Unix socket the authority would be the path, which other gRPC stacks refuse.
  "grpc.default_authority": "localhost",
  // Else `http_proxy` in the environment sends tokens through a proxy, even those for 127.0.0.1.
  "grpc.enable_http_proxy": 0,
  "grpc.service_config": JSON.stringify(RETRIES),
  "grpc.service_config_disable_resolution": 1,
  // A sidecar restarts in under a second; the default would wait up to two minutes.
  "grpc.initial_reconnect_backoff_ms": 50,
  "grpc.min_reconnect_backoff_ms": 50,
  "grpc.max_reconnect_backoff_ms": 1000,
};

export class Channel {
  readonly #client: Client;
  #answered = false;
  #closed = false;

  /** `firstTimeoutMs`: the least deadline until one call has been answered; the first does more than the others. */
  constructor(
    target: string,
    private readonly firstTimeoutMs: number,
    secure?: ChannelCredentials,
    serverName = "localhost",
  ) {
    const named = { "grpc.default_authority": serverName, "grpc.ssl_target_name_override": serverName };
    const options = secure ? { ...OPTIONS, ...named } : OPTIONS;
    this.#client = new Client(target, secure ?? credentials.createInsecure(), options);
  }

  /** True as soon as a gRPC connection stands, false if none does within `ms` milliseconds. */
  ready(ms: number): Promise<boolean> {
    return new Promise((resolve) => this.#client.waitForReady(Date.now() + ms, (error) => resolve(!error)));
  }

  /** How long a call may take that begins now, in milliseconds. */
  timeoutMs(defaultTimeoutMs: number, options: CallOptions): number {
    return options.timeoutMs ?? Math.max(defaultTimeoutMs, this.#answered ? 0 : this.firstTimeoutMs);
  }

  /** Throws TokenSidecarError, or the signal's reason. */
  async call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    defaultTimeoutMs: number,
    options: CallOptions = {},
  ): Promise<MessageShape<O>> {
    const { signal } = options;
    signal?.throwIfAborted();
    if (this.#closed) {
      throw new UnavailableError("this client is closed", status.UNAVAILABLE, "ERROR_REASON_UNSPECIFIED");
    }
    const timeoutMs = this.timeoutMs(defaultTimeoutMs, options);
    const requestId = options.logId ?? randomUUID();
    const bytes = toBinary(method.input, create(method.input, request));
    try {
      const answer = await this.#unary(method, bytes, Date.now() + timeoutMs, requestId, signal);
      this.#answered = true;
      return answer;
    } catch (error) {
      signal?.throwIfAborted();
      throw fromStatus(error as ServiceError, requestId);
    }
  }

  close(): void {
    this.#closed = true;
    this.#client.close();
  }

  #unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: Uint8Array,
    deadline: number,
    requestId: string,
    signal: AbortSignal | undefined,
  ): Promise<MessageShape<O>> {
    const metadata = new Metadata();
    metadata.set("x-request-id", requestId);
    return new Promise((resolve, reject) => {
      const call = this.#client.makeUnaryRequest(
        `/${method.parent.typeName}/${method.name}`,
        (bytes: Uint8Array) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength),
        (bytes: Buffer) => fromBinary(method.output, bytes),
        request,
        metadata,
        { deadline },
        (error, answer) => {
          signal?.removeEventListener("abort", cancel);
          if (answer === undefined) reject(error);
          else resolve(answer);
        },
      );
      const cancel = () => call.cancel();
      signal?.addEventListener("abort", cancel, { once: true });
    });
  }
}
