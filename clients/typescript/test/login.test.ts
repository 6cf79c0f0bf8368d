// The login example as its own process, asked over HTTP. A relay stands between it and the sidecar, so that the test can take
// the sidecar away.

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, connect as dial, type NetConnectOpts, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { parseAddress } from "../src/address.js";
import { connect } from "../src/index.js";
import { sidecars } from "./sidecars.js";

const { planes, end } = await sidecars();
const [first] = planes;
assert.ok(first);
const { app } = first;
const directory = mkdtempSync(join(tmpdir(), "login-"));
const relayPath = join(directory, "relay.sock");
const SERVER = fileURLToPath(new URL("../examples/login/server.js", import.meta.url));

/** Passes bytes on to a sidecar, until it is told to stop. */
class Relay {
  readonly #sockets = new Set<Socket>();
  #server: Server | undefined;

  constructor(private readonly to: NetConnectOpts) {}

  async start(): Promise<void> {
    this.#server = createServer((inward) => {
      const outward = dial(this.to);
      for (const [from, into] of [
        [inward, outward],
        [outward, inward],
      ] as const) {
        this.#sockets.add(from);
        from.pipe(into);
        from.on("error", () => into.destroy());
        from.on("close", () => into.destroy());
      }
    });
    await once(this.#server.listen(relayPath), "listening");
  }

  stop(): void {
    this.#server?.close();
    for (const socket of this.#sockets) socket.destroy();
    this.#sockets.clear();
  }
}

const relay = new Relay(parseAddress(app, "address").socket);
let child: ChildProcess;
let url: string;

before(async () => {
  await relay.start();
  const env = { ...process.env, TOKENSIDECAR_ADDRESS: `unix:${relayPath}`, PORT: "0" };
  child = spawn(process.execPath, [SERVER], { env, stdio: ["ignore", "pipe", "inherit"] });
  assert.ok(child.stdout);
  const { value } = await createInterface(child.stdout)[Symbol.asyncIterator]().next();
  assert.match(value ?? "it ended", /^http:\/\/127\.0\.0\.1:\d+$/);
  url = value;
});

after(async () => {
  child.kill("SIGTERM");
  const [code] = child.exitCode === null ? await once(child, "exit") : [child.exitCode];
  relay.stop();
  rmSync(directory, { recursive: true });
  end();
  assert.equal(code, 0);
});

function login(body: unknown): Promise<Response> {
  return fetch(`${url}/login`, { method: "POST", body: typeof body === "string" ? body : JSON.stringify(body) });
}

function me(authorization?: string): Promise<Response> {
  return fetch(`${url}/me`, authorization === undefined ? {} : { headers: { authorization } });
}

const ada = { user: "ada", password: "correct horse battery staple" };

async function token(): Promise<string> {
  const response = await login(ada);
  assert.equal(response.status, 200);
  const body = (await response.json()) as { access_token: string; token_type: string; expires_in: number };
  assert.equal(body.token_type, "Bearer");
  assert.equal(body.expires_in, 300);
  assert.equal(response.headers.get("cache-control"), "no-store");
  return body.access_token;
}

test("login, then a request with the token, is answered with user id and e-mail", async () => {
  const response = await me(`Bearer ${await token()}`);
  assert.equal(response.status, 200);
  assert.deepEqual(await response.json(), { user_id: "user-1815", email: "ada@example.com" });
});

test("whoever steals the token reads its header and nothing else", async () => {
  const parts = (await token()).split(".").map((part) => Buffer.from(part, "base64url").toString("latin1"));
  assert.equal(parts.length, 5);
  const header = JSON.parse(parts[0] ?? "");
  assert.deepEqual([header.alg, header.enc, header.cty], ["A256KW", "A256GCM", "JWT"]);
  for (const part of parts) assert.doesNotMatch(part, /ada|example|user-1815/);
});

test("a wrong password and an unknown user look the same", async () => {
  const answers = [];
  for (const [user, password] of [
    ["ada", "wrong"],
    ["eve", "wrong"],
    ["eve", ada.password],
  ]) {
    const response = await login({ user, password });
    answers.push([response.status, response.headers.get("www-authenticate"), await response.text()]);
  }
  assert.deepEqual(answers[0], [401, 'Bearer realm="login-example"', '{"error":"wrong user or password"}\n']);
  assert.deepEqual(answers[1], answers[0]);
  assert.deepEqual(answers[2], answers[0]);
});

test("a login that is no JSON, incomplete or too long is 400", async () => {
  for (const body of [
    "",
    "{",
    "null",
    "[]",
    '{"user":"ada"}',
    { user: 1, password: 2 },
    `"${"x".repeat(1_000_000)}"`,
  ]) {
    assert.equal((await login(body)).status, 400, JSON.stringify(body).slice(0, 40));
  }
});

test("without a token: 401 and a challenge without an error code (RFC 6750, section 3.1)", async () => {
  for (const authorization of [undefined, "Basic YWRhOng=", "Bearer", "Bearer a b"]) {
    const response = await me(authorization);
    assert.equal(response.status, 401, authorization);
    assert.equal(response.headers.get("www-authenticate"), 'Bearer realm="login-example"');
  }
});

test("a bad token is 401 invalid_token: forged, tampered with, or for another service", async () => {
  const good = await token();
  const direct = await connect({ address: app });
  const other = await direct.issue({ subject: "user-1815", audiences: ["another-service"] });
  direct.close();
  const tampered = good.replace(/\.(.)/, (_, character) => (character === "A" ? ".B" : ".A"));
  for (const bad of ["forged", "a.b.c.d.e", tampered, other.token]) {
    const response = await me(`Bearer ${bad}`);
    assert.equal(response.status, 401);
    assert.equal(
      response.headers.get("www-authenticate"),
      'Bearer realm="login-example", error="invalid_token", error_description="the token is not valid"',
    );
    assert.doesNotMatch(await response.text(), /ada@example/);
  }
});

test("while the sidecar is down everything is 503, and then goes on where it was", async () => {
  const good = await token();
  relay.stop();
  for (const response of [await me(`Bearer ${good}`), await me("Bearer forged"), await login(ada)]) {
    assert.equal(response.status, 503);
    assert.match(response.headers.get("retry-after") ?? "", /^[1-9]\d*$/);
  }
  assert.equal((await login({ ...ada, password: "wrong" })).status, 401);
  await relay.start();
  const deadline = performance.now() + 5000;
  let status = 503;
  while (status === 503 && performance.now() < deadline) status = (await me(`Bearer ${good}`)).status;
  assert.equal(status, 200);
});

test("anything else is 404", async () => {
  for (const path of ["/", "/me?x=1", "/login"]) assert.equal((await fetch(url + path)).status, 404, path);
});
