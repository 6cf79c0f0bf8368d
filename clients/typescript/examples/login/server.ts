// Login with encrypted tokens: POST /login gives one, GET /me takes it. Neither holds a key: the sidecar does.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { connect, RejectedError, type TokenSidecar, UnavailableError } from "tokensidecar";
import { Users } from "./users.js";

const AUDIENCE = "login-example";
const BODY_LIMIT = 4096;

/** What is answered: a status, a JSON body, and headers beside the usual ones. */
interface Answer {
  readonly status: number;
  readonly body: object;
  readonly headers?: Readonly<Record<string, string>>;
}

async function login(request: IncomingMessage, sidecar: TokenSidecar, users: Users): Promise<Answer> {
  const credentials = await readJson(request);
  const { user: name, password } = (credentials ?? {}) as { user?: unknown; password?: unknown };
  if (typeof name !== "string" || typeof password !== "string") {
    return { status: 400, body: { error: "send JSON with user and password" } };
  }
  const user = await users.login(name, password);
  if (!user) return challenge({ error: "wrong user or password" });
  const issued = await sidecar.issue({ subject: user.id, audiences: [AUDIENCE], claims: { email: user.email } });
  const seconds = Math.floor((issued.expireTime.getTime() - issued.issueTime.getTime()) / 1000);
  return { status: 200, body: { access_token: issued.token, token_type: "Bearer", expires_in: seconds } };
}

async function me(request: IncomingMessage, sidecar: TokenSidecar): Promise<Answer> {
  const token = /^Bearer +(\S+) *$/i.exec(request.headers.authorization ?? "")?.[1];
  if (token === undefined) return challenge({ error: "send a Bearer token" });
  const { subject, claims } = await sidecar.validate({ token, audiences: [AUDIENCE] });
  return { status: 200, body: { user_id: subject, email: claims.email } };
}

/** RFC 6750, section 3: an error code only where a token was presented. */
function challenge(body: object, parameters = ""): Answer {
  return { status: 401, body, headers: { "WWW-Authenticate": `Bearer realm="${AUDIENCE}"${parameters}` } };
}

/** Whatever is not a clear yes is a no; and only the sidecar's word about the token is a 401. */
function refusal(error: unknown): Answer {
  if (error instanceof RejectedError) {
    const text = error.reason === "TOKEN_EXPIRED" ? "the token has expired" : "the token is not valid";
    return challenge({ error: text }, `, error="invalid_token", error_description="${text}"`);
  }
  if (error instanceof UnavailableError) {
    const seconds = Math.ceil((error.retryAfterMs ?? 1000) / 1000);
    return { status: 503, body: { error: "try again" }, headers: { "Retry-After": String(seconds) } };
  }
  console.error(error);
  return { status: 500, body: { error: "our fault" } };
}

async function answer(request: IncomingMessage, sidecar: TokenSidecar, users: Users): Promise<Answer> {
  switch (`${request.method} ${request.url}`) {
    case "POST /login":
      return login(request, sidecar, users);
    case "GET /me":
      return me(request, sidecar);
    default:
      return { status: 404, body: { error: "there is POST /login and GET /me" } };
  }
}

/** The body, or undefined if it is too long or no JSON. */
async function readJson(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size <= BODY_LIMIT) chunks.push(chunk);
  }
  if (size > BODY_LIMIT) return undefined;
  try {
    return JSON.parse(Buffer.concat(chunks).toString());
  } catch {
    return undefined;
  }
}

function send(response: ServerResponse, { status, body, headers }: Answer): void {
  // A token must not stay in a cache (RFC 6750, section 5.3).
  response.writeHead(status, { "Content-Type": "application/json", "Cache-Control": "no-store", ...headers });
  response.end(`${JSON.stringify(body)}\n`);
}

/** The HTTP server, not yet listening. */
export function loginServer(sidecar: TokenSidecar, users: Users): Server {
  return createServer((request, response) => {
    answer(request, sidecar, users)
      .catch(refusal)
      .then((end) => send(response, end));
  });
}

const sidecar = await connect();
const server = loginServer(sidecar, await Users.demo());
server.listen(Number(process.env.PORT ?? 8080), "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
});
process.once("SIGTERM", () => {
  server.close(() => sidecar.close());
  server.closeIdleConnections();
});
