// Express, Fastify and a gRPC server behind `protect`.

import assert from "node:assert/strict";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { after, before, beforeEach, describe, test } from "node:test";
import * as grpc from "@grpc/grpc-js";
import express from "express";
import Fastify from "fastify";
import { type Claims, connect, type IssueRequest, protect, type TokenSidecar } from "../src/index.js";
import type { DpopProof, ValidateRequest } from "../src/tokensidecar/v1/index.js";
import { FakeSidecar, Refusal } from "./fake.js";

const fake = new FakeSidecar();
let sidecar: TokenSidecar;
const turnedDown: Error[] = [];

before(async () => {
  await fake.start();
  sidecar = await connect({ address: fake.appSocket, validateTimeoutMs: 5000 });
});
after(() => {
  sidecar.close();
  fake.end();
});
beforeEach(() => {
  fake.asked.length = 0;
  fake.refusals.length = 0;
  turnedDown.length = 0;
});

function tenant(claims: Claims): { tenant: string } {
  if (typeof claims.tenant !== "string") throw new TypeError("no tenant");
  return { tenant: claims.tenant };
}

function orders(dpopOrigin?: string) {
  return protect(sidecar, {
    audiences: ["orders"],
    requiredScopes: ["read", "write"],
    claims: tenant,
    onTurnedDown: (error) => turnedDown.push(error),
    ...(dpopOrigin && { dpopOrigin }),
  });
}

async function issue(changes: Partial<IssueRequest> = {}): Promise<string> {
  const request = { subject: "ada", audiences: ["orders"], scopes: ["read", "write"], claims: { tenant: "acme" } };
  return (await sidecar.issue({ ...request, ...changes })).token;
}

/** The DPoP proof of the last request. */
function proven(): DpopProof {
  const last = fake.asked.at(-1)?.request as ValidateRequest | undefined;
  const possession = last?.possession;
  assert.ok(possession?.proof.case === "dpop");
  return possession.proof.value;
}

/** An address to ask, and its end. */
interface Running {
  readonly url: string;
  readonly end: () => Promise<unknown>;
}

async function withExpress(dpopOrigin?: string): Promise<Running> {
  const protection = orders(dpopOrigin);
  const router = express.Router(); // which cuts off part of the path
  router.get("/orders/:id", protection.express, (request, response) => {
    const { token, claims } = protection.caller(request);
    response.send(`${token.subject} of ${claims.tenant}`);
  });
  const app = express();
  app.use("/api", router);
  app.get("/open", (request, response) => {
    response.send(protection.caller(request).claims.tenant);
  });
  const server = app.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}`, end: async () => server.close() };
}

async function withFastify(dpopOrigin?: string): Promise<Running> {
  const protection = orders(dpopOrigin);
  const app = Fastify();
  app.get("/api/orders/:id", { onRequest: protection.fastify }, async (request) => {
    const { token, claims } = protection.caller(request);
    return `${token.subject} of ${claims.tenant}`;
  });
  app.get("/open", async (request) => protection.caller(request).claims.tenant);
  return { url: await app.listen({ port: 0, host: "127.0.0.1" }), end: () => app.close() };
}

const INVALID_TOKEN = 'Bearer realm="tokensidecar", error="invalid_token"';

for (const [name, start] of [
  ["Express", withExpress],
  ["Fastify", withFastify],
] as const) {
  describe(name, () => {
    async function ask(running: Running, headers: Record<string, string>): Promise<Response> {
      return fetch(`${running.url}/api/orders/1%2F2?page=3`, { headers });
    }

    test("only a good token reaches the handler, with typed claims; the rest is answered as RFC 6750 says", async () => {
      const running = await start();
      const good = await issue();
      const expected: [string | undefined, number, string | null][] = [
        [`Bearer ${good}`, 200, null],
        [`bearer  ${good}`, 200, null],
        [undefined, 401, 'Bearer realm="tokensidecar"'],
        ["Basic YTpi", 401, 'Bearer realm="tokensidecar"'],
        [`DPoP ${good}`, 401, 'Bearer realm="tokensidecar"'],
        ["Bearer", 400, 'Bearer realm="tokensidecar", error="invalid_request"'],
        ["Bearer a b", 400, 'Bearer realm="tokensidecar", error="invalid_request"'],
        ["Bearer x.y", 401, `${INVALID_TOKEN}, error_description="TOKEN_INVALID"`],
        [
          `Bearer ${await issue({ audiences: ["mail"] })}`,
          401,
          `${INVALID_TOKEN}, error_description="TOKEN_AUDIENCE_MISMATCH"`,
        ],
        [`Bearer ${await issue({ claims: { tenant: 7 } })}`, 401, INVALID_TOKEN],
        [
          `Bearer ${await issue({ scopes: ["read"] })}`,
          403,
          'Bearer realm="tokensidecar", error="insufficient_scope", scope="read write"',
        ],
      ];
      for (const [authorization, status, challenge] of expected) {
        turnedDown.length = 0;
        const answer = await ask(running, authorization === undefined ? {} : { authorization });
        assert.equal(answer.status, status, authorization);
        assert.equal(answer.headers.get("www-authenticate"), challenge, authorization);
        assert.equal(await answer.text(), status === 200 ? "ada of acme" : "", authorization);
        assert.equal(turnedDown.length, status === 200 ? 0 : 1, authorization);
      }
      await running.end();
    });

    test("where nobody can judge it is closed: 503, or 500 for our own fault", async () => {
      const running = await start();
      const authorization = `Bearer ${await issue()}`;
      fake.refusals.push(
        ...Array.from({ length: 3 }, () => new Refusal(grpc.status.UNAVAILABLE, "STATE_STALE", "stale", "", 1500)),
      );
      const stale = await ask(running, { authorization });
      assert.deepEqual([stale.status, stale.headers.get("retry-after"), await stale.text()], [503, "2", ""]);
      fake.refusals.push(new Refusal(grpc.status.PERMISSION_DENIED, "CALLER_DENIED", "denied"));
      const denied = await ask(running, { authorization });
      assert.deepEqual([denied.status, await denied.text()], [500, ""]);
      await running.end();
    });

    test("on a route that is not protected nobody is a caller", async () => {
      const running = await start();
      const answer = await fetch(`${running.url}/open`, { headers: { authorization: `Bearer ${await issue()}` } });
      assert.equal(answer.status, 500);
      assert.equal(fake.asked.filter(({ method }) => method === "Validate").length, 0);
      await running.end();
    });

    test("a DPoP proof goes along, with method and URL of this service; a bound token without is turned down", async () => {
      const running = await start("https://api.example.com/");
      const bound = await issue({ confirmation: { jwkThumbprint: "thumb" } });
      const good = await issue();
      const answer = await ask(running, { authorization: `DPoP ${bound}`, dpop: "proof" });
      assert.deepEqual([answer.status, await answer.text()], [200, "ada of acme"]);
      const { proof, method, url } = proven();
      assert.deepEqual([proof, method, url], ["proof", "GET", "https://api.example.com/api/orders/1%2F2"]);
      const turned: [Record<string, string>, number][] = [
        [{ authorization: `DPoP ${good}`, dpop: "proof" }, 401],
        [{ authorization: `DPoP ${bound}` }, 400],
        [{ authorization: `Bearer ${bound}`, dpop: "proof" }, 401],
      ];
      for (const [headers, status] of turned) {
        const answer = await ask(running, headers);
        assert.equal(answer.status, status);
        assert.match(answer.headers.get("www-authenticate") ?? "", /^Bearer .*, DPoP .*algs="ES256 /);
      }
      assert.equal((await ask(running, { authorization: `Bearer ${good}` })).status, 200);
      await running.end();
    });
  });
}

describe("gRPC", () => {
  const text = { serialize: (value: string) => Buffer.from(value), deserialize: (bytes: Buffer) => bytes.toString() };
  const method = (name: string, responseStream: boolean) => ({
    path: `/test.Greeter/${name}`,
    requestStream: false as const,
    responseStream,
    requestSerialize: text.serialize,
    requestDeserialize: text.deserialize,
    responseSerialize: text.serialize,
    responseDeserialize: text.deserialize,
  });

  async function serve(dpopOrigin?: string) {
    const protection = orders(dpopOrigin);
    const greeting = (call: { metadata: grpc.Metadata }) => {
      const { token, claims } = protection.caller(call);
      return `${token.subject} of ${claims.tenant}`;
    };
    const server = new grpc.Server({ interceptors: [protection.grpc] });
    server.addService(
      { unary: method("Unary", false), stream: method("Stream", true) },
      {
        unary: (call: grpc.ServerUnaryCall<string, string>, done: grpc.sendUnaryData<string>) =>
          done(null, greeting(call)),
        stream: (call: grpc.ServerWritableStream<string, string>) => {
          call.write(greeting(call));
          call.end();
        },
      },
    );
    const port = await new Promise<number>((resolve, reject) =>
      server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, at) =>
        error ? reject(error) : resolve(at),
      ),
    );
    const client = new grpc.Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure());
    const ask = async (path: string, ...pairs: [string, string][]): Promise<string | grpc.status> => {
      const metadata = new grpc.Metadata();
      for (const [name, value] of pairs) metadata.add(name, value);
      if (path.endsWith("Unary")) {
        return new Promise((resolve) =>
          client.makeUnaryRequest(path, text.serialize, text.deserialize, "x", metadata, (error, answer) =>
            resolve(error ? error.code : (answer ?? "")),
          ),
        );
      }
      const call = client.makeServerStreamRequest(path, text.serialize, text.deserialize, "x", metadata);
      return new Promise((resolve) =>
        call.on("data", resolve).on("error", (error: grpc.ServiceError) => resolve(error.code)),
      );
    };
    const end = () => {
      client.close();
      server.forceShutdown();
    };
    return { ask, end };
  }

  for (const path of ["/test.Greeter/Unary", "/test.Greeter/Stream"]) {
    test(`${path}: only a good token gets through`, async () => {
      const { ask, end } = await serve();
      assert.equal(await ask(path, ["authorization", `Bearer ${await issue()}`]), "ada of acme");
      const good = `Bearer ${await issue()}`;
      const expected: [[string, string][], grpc.status][] = [
        [[], grpc.status.UNAUTHENTICATED],
        [[["authorization", "Bearer x"]], grpc.status.UNAUTHENTICATED],
        [[["authorization", `Bearer ${await issue({ scopes: [] })}`]], grpc.status.PERMISSION_DENIED],
      ];
      for (const [pairs, code] of expected) assert.equal(await ask(path, ...pairs), code);
      fake.refusals.push(new Refusal(grpc.status.PERMISSION_DENIED, "CALLER_DENIED", "denied"));
      assert.equal(await ask(path, ["authorization", good]), grpc.status.INTERNAL);
      fake.refusals.push(
        ...Array.from({ length: 3 }, () => new Refusal(grpc.status.UNAVAILABLE, "STATE_STALE", "stale")),
      );
      assert.equal(await ask(path, ["authorization", good]), grpc.status.UNAVAILABLE);
      end();
    });
  }

  test("a DPoP proof is for POST and the method's path", async () => {
    const { ask, end } = await serve("https://api.example.com");
    const bound = await issue({ confirmation: { jwkThumbprint: "thumb" } });
    assert.equal(
      await ask("/test.Greeter/Unary", ["authorization", `DPoP ${bound}`], ["dpop", "proof"]),
      "ada of acme",
    );
    const { method, url } = proven();
    assert.deepEqual([method, url], ["POST", "https://api.example.com/test.Greeter/Unary"]);
    end();
  });
});

test("a protection that could not protect is refused when it is made", () => {
  assert.throws(() => protect(sidecar, { audiences: [] }), TypeError);
  for (const dpopOrigin of ["api.example.com", "https://api.example.com/v1", "https://a@b", ""]) {
    assert.throws(() => protect(sidecar, { audiences: ["orders"], dpopOrigin }), TypeError, dpopOrigin);
  }
});
