// Where a sidecar may be, in the order of the server: the address that was given, the socket in each runtime directory, the port.

import { lstatSync } from "node:fs";
import type { NetConnectOpts } from "node:net";
import { dirname, join } from "node:path";

/** The two planes of a sidecar: app serves tokens, admin serves keys. Each has its own address. */
export type Plane = "app" | "admin";

export interface Address {
  /** As in the options and in messages: `unix:/path` or `host:port`. */
  readonly text: string;
  /** As grpc-js wants it. */
  readonly target: string;
  /** As node:net wants it. */
  readonly socket: NetConnectOpts;
  /** Path of a socket that nobody named, and that counts only if root or this user owns it. */
  readonly foundAt?: string;
}

const VARIABLE = { app: "TOKENSIDECAR_ADDRESS", admin: "TOKENSIDECAR_ADMIN_ADDRESS" } as const;
const PORT = { app: 8790, admin: 8791 } as const;
const UNIX = /^unix:(?:\/\/(?=\/))?(\/[^/].*)$/;
const HOST_PORT = /^(\[[0-9a-f:.]+\]|[^\s:/[\]]+):([0-9]{1,5})$/i;

/** Reads `unix:/path`, `unix:///path` or `host:port`. Throws TypeError; `from` names the setting in its message. */
export function parseAddress(text: string, from: string): Address {
  const path = UNIX.exec(text)?.[1];
  if (path !== undefined) return { text: `unix:${path}`, target: `unix:${path}`, socket: { path } };
  const [, host, port] = HOST_PORT.exec(text) ?? [];
  if (host === undefined || Number(port) < 1 || Number(port) > 65535) {
    throw new TypeError(`${from} is ${JSON.stringify(text)}; expected unix:/path or host:port`);
  }
  return { text, target: `dns:${text}`, socket: { host: host.replace(/^\[|\]$/g, ""), port: Number(port) } };
}

/** Every address to try, in order. One that was given stands alone. */
export function candidates(
  plane: Plane,
  given: string | undefined,
  env: NodeJS.ProcessEnv = process.env,
  uid: number | undefined = process.getuid?.(),
): Address[] {
  if (given !== undefined) return [parseAddress(given, "address")];
  const variable = env[VARIABLE[plane]];
  if (variable) return [parseAddress(variable, VARIABLE[plane])];
  const sockets = runtimeDirectories(env, uid).map((directory) => {
    const path = join(directory, plane, `${plane}.sock`);
    return { ...parseAddress(`unix:${path}`, "address"), foundAt: path };
  });
  return [...sockets, parseAddress(`127.0.0.1:${PORT[plane]}`, "address")];
}

/** Where a sidecar may have put its sockets, in the order in which it chooses. */
function runtimeDirectories(env: NodeJS.ProcessEnv, uid: number | undefined): string[] {
  if (env.TOKENSIDECAR_RUNTIME_DIR) return [env.TOKENSIDECAR_RUNTIME_DIR];
  const directories = ["/run/tokensidecar"];
  if (env.XDG_RUNTIME_DIR) directories.push(join(env.XDG_RUNTIME_DIR, "tokensidecar"));
  if (uid !== undefined) directories.push(`/tmp/tokensidecar-${uid}`);
  return directories;
}

/**
 * Why a socket that nobody named is not to be used, or undefined. The two directories above it count too: whoever owns one could
 * have put another socket there, and would get every token.
 */
export function distrust(path: string, uid: number | undefined = process.getuid?.()): string | undefined {
  const socket = lstatSync(path, { throwIfNoEntry: false });
  if (!socket) return "not there";
  if (!socket.isSocket()) return "not a socket";
  for (const each of [path, dirname(path), dirname(dirname(path))]) {
    const owner = lstatSync(each).uid;
    if (owner !== 0 && owner !== uid) return `${each} belongs to uid ${owner}, neither root nor this user`;
  }
  return undefined;
}
