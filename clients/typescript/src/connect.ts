// Finds a running sidecar, waiting a little for one that is still starting.

import { connect as dial } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { credentials, status } from "@grpc/grpc-js";
import { type Address, candidates, distrust, type Plane } from "./address.js";
import { TokenSidecarAdmin } from "./admin.js";
import { Channel } from "./channel.js";
import { TokenSidecar } from "./client.js";
import { UnavailableError } from "./errors.js";

/** Times in milliseconds. */
export interface ConnectOptions {
  /**
   * `unix:/path` or `host:port`. Absent: TOKENSIDECAR_ADDRESS (admin: TOKENSIDECAR_ADMIN_ADDRESS), else the socket in
   * /run/tokensidecar, $XDG_RUNTIME_DIR/tokensidecar or /tmp/tokensidecar-$UID if root or this user owns it, else 127.0.0.1:8790
   * (admin: 8791).
   */
  readonly address?: string;
  /** How long to wait for a sidecar that is not there yet; 10000. */
  readonly waitMs?: number;
  /** Deadline of a Validate; 250. */
  readonly validateTimeoutMs?: number;
  /** Deadline of every other call; 1000. */
  readonly timeoutMs?: number;
  /**
   * TLS, for a sidecar that is named as `host:port`; with `certificate` and `key` mutual TLS. A socket is refused then, and none is
   * looked for.
   */
  readonly tls?: TlsOptions;
  /**
   * Sends `validate` calls that are made at the same time as one batch: those of one turn of the event loop, and those that come while
   * another batch is under way, up to 64. Each has its own result and deadline. It saves work, on both sides, where dozens of calls run
   * at once.
   */
  readonly coalesce?: boolean;
  /** The least deadline until a first call has been answered; 2000. */
  readonly firstTimeoutMs?: number;
}

/** PEM, each. */
export interface TlsOptions {
  /** The authorities whose certificates are accepted. Absent: those of this system. */
  readonly ca?: Buffer;
  readonly certificate?: Buffer;
  readonly key?: Buffer;
  /** The name that the sidecar's certificate is for; "localhost". */
  readonly serverName?: string;
}

/** Connects to the app plane. Throws UnavailableError, which lists all that was tried; TypeError for a malformed address. */
export async function connect(options: ConnectOptions = {}): Promise<TokenSidecar> {
  const channel = await reach(addresses("app", options), options);
  return new TokenSidecar(channel, options.validateTimeoutMs ?? 250, options.timeoutMs ?? 1000, options.coalesce);
}

/** Connects to the admin plane: for operators, never for a request's path. Throws as `connect` does. */
export async function connectAdmin(options: ConnectOptions = {}): Promise<TokenSidecarAdmin> {
  return new TokenSidecarAdmin(await reach(addresses("admin", options), options), options.timeoutMs ?? 1000);
}

/** Whoever demands TLS gets TLS, or nothing. */
function addresses(plane: Plane, { address, tls }: ConnectOptions): Address[] {
  const all = candidates(plane, address);
  if (!tls) return all;
  const [named] = all;
  if (all.length === 1 && named?.target.startsWith("unix:")) {
    throw new TypeError(`${named.text} is a socket, and tls is for host:port: leave one of them out`);
  }
  return all.filter(({ target }) => !target.startsWith("unix:"));
}

const ROUND_MS = 100;
const ATTEMPT_MS = 1000;

/** A connection to the first of these addresses at which a sidecar answers. */
export async function reach(addresses: readonly Address[], options: ConnectOptions): Promise<Channel> {
  const { waitMs = 10_000, firstTimeoutMs = 2000, tls } = options;
  const secure = tls && credentials.createSsl(tls.ca ?? null, tls.key ?? null, tls.certificate ?? null);
  const end = performance.now() + waitMs;
  for (;;) {
    const tried: string[] = [];
    for (const address of addresses) {
      const problem = (address.foundAt && distrust(address.foundAt)) ?? (await refusal(address));
      if (problem === undefined) {
        const channel = new Channel(address.target, firstTimeoutMs, secure, tls?.serverName);
        if (await channel.ready(ATTEMPT_MS)) return channel;
        channel.close();
      }
      tried.push(
        `  ${address.text}: ${problem ?? `listens, but does not speak gRPC${tls ? " over TLS with a certificate that is accepted" : ""}`}`,
      );
    }
    if (performance.now() + ROUND_MS > end) {
      const message = `no sidecar within ${waitMs} ms; tried\n${tried.join("\n")}`;
      throw new UnavailableError(message, status.UNAVAILABLE, "ERROR_REASON_UNSPECIFIED");
    }
    await sleep(ROUND_MS);
  }
}

/** Why nothing answers at an address, or undefined. gRPC itself would only say, after its whole deadline, that it was not ready. */
function refusal(address: Address): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = dial(address.socket);
    const end = (problem?: string) => {
      socket.destroy();
      resolve(problem);
    };
    socket.setTimeout(ATTEMPT_MS, () => end("no answer"));
    socket.once("connect", () => end());
    socket.once("error", (error: NodeJS.ErrnoException) =>
      end(PROBLEM[error.code ?? ""] ?? error.code ?? error.message),
    );
  });
}

const PROBLEM: Readonly<Record<string, string>> = {
  ECONNREFUSED: "connection refused",
  ENOENT: "not there",
  EACCES: "permission denied",
  ENOTFOUND: "unknown host",
};
