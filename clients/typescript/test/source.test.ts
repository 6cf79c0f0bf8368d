// Tokens for outgoing calls.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import * as grpc from "@grpc/grpc-js";
import { DeniedError, type Grant, type IssuedToken, TokenSource, UnavailableError } from "../src/index.js";

const billing: Grant = { subject: "orders", audiences: ["billing"], scopes: ["read"] };

/** Issues tokens of 100 s under a clock that the test moves. */
class Issuer {
  now = 5_000;
  issued = 0;
  error: Error | undefined;
  readonly source = new TokenSource(this, () => this.now);

  async issue(): Promise<IssuedToken> {
    await new Promise((resolve) => setImmediate(resolve));
    this.issued += 1;
    if (this.error) throw this.error;
    // The sidecar's clock may be any: only the difference counts.
    const times = { issueTime: new Date(1_000_000), expireTime: new Date(1_100_000) };
    return { token: `token-${this.issued}`, tokenId: "", keyId: "", audiences: [], scopes: [], ...times };
  }

  async taken(grant = billing): Promise<string> {
    return (await this.source.token(grant)).token;
  }
}

const away = () => new UnavailableError("down", grpc.status.UNAVAILABLE, "ERROR_REASON_UNSPECIFIED");

test("a token is kept for four fifths of its life", async () => {
  const issuer = new Issuer();
  assert.equal(await issuer.taken(), "token-1");
  issuer.now += 79_000;
  assert.equal(await issuer.taken(), "token-1");
  issuer.now += 2_000;
  assert.equal(await issuer.taken(), "token-2");
});

test("only equal grants share a token", async () => {
  const issuer = new Issuer();
  const grants: Grant[] = [
    billing,
    { subject: "orders", audiences: ["billing"] },
    { subject: "orders", audiences: ["billing", "read"] },
    { ...billing, profile: "service" },
    { ...billing, subject: "others" },
  ];
  assert.equal(new Set(await Promise.all(grants.map((grant) => issuer.taken(grant)))).size, grants.length);
});

test("whoever wants the same at the same time shares one call, and its failure", async () => {
  const issuer = new Issuer();
  const all = await Promise.all(Array.from({ length: 50 }, () => issuer.taken()));
  assert.deepEqual([new Set(all).size, issuer.issued], [1, 1]);
  issuer.error = new DeniedError("no", grpc.status.PERMISSION_DENIED, "CALLER_DENIED");
  issuer.now += 200_000;
  const failed = await Promise.allSettled(Array.from({ length: 50 }, () => issuer.taken()));
  assert.ok(failed.every(({ status }) => status === "rejected"));
  assert.equal(issuer.issued, 2);
});

test("a token serves on while the sidecar is away, and no longer than it is good", async () => {
  const issuer = new Issuer();
  await issuer.taken();
  issuer.error = away();
  issuer.now += 90_000;
  assert.equal(await issuer.taken(), "token-1");
  await issuer.taken();
  assert.equal(issuer.issued, 2); // not tried again at once
  issuer.now += 2_000;
  await issuer.taken();
  assert.equal(issuer.issued, 3);
  issuer.now += 8_000;
  await assert.rejects(issuer.taken(), UnavailableError);
});

test("a token that was turned down is forgotten, and a younger one is not", async () => {
  const issuer = new Issuer();
  const first = await issuer.taken();
  issuer.source.forget(billing, first);
  assert.equal(await issuer.taken(), "token-2");
  issuer.source.forget(billing, first);
  assert.equal(await issuer.taken(), "token-2");
});

test("fetch adds a token for its origin alone, and sends nothing without one", async () => {
  const issuer = new Issuer();
  const got: (string | undefined)[] = [];
  let status = 200;
  const elsewhere = createServer((request, response) => {
    got.push(request.headers.authorization);
    response.end();
  }).listen(0, "127.0.0.1");
  await once(elsewhere, "listening");
  const away = `http://127.0.0.1:${(elsewhere.address() as AddressInfo).port}`;
  const here = createServer((request, response) => {
    got.push(request.headers.authorization);
    if (request.url === "/away") response.writeHead(302, { location: away });
    else response.statusCode = status;
    response.end();
  }).listen(0, "127.0.0.1");
  await once(here, "listening");
  const origin = `http://127.0.0.1:${(here.address() as AddressInfo).port}`;
  const call = issuer.source.fetch(billing, origin);
  await call(`${origin}/`);
  await call(`${origin}/away`);
  await call(away);
  assert.deepEqual(got.splice(0), ["Bearer token-1", "Bearer token-1", undefined, undefined]);
  status = 401;
  await call(`${origin}/`, { method: "POST", body: "x" });
  await call(new Request(origin));
  assert.deepEqual(got.splice(0), ["Bearer token-1", "Bearer token-2"]);
  issuer.error = new DeniedError("no", grpc.status.PERMISSION_DENIED, "CALLER_DENIED");
  await assert.rejects(call(`${origin}/`), DeniedError);
  assert.deepEqual(got, []);
  assert.throws(() => issuer.source.fetch(billing, `${origin}/path`), TypeError);
  here.close();
  elsewhere.close();
});

test("the interceptor adds a token to each gRPC call, and none is sent without one", async () => {
  const issuer = new Issuer();
  const got: string[] = [];
  const bytes = (value: Buffer) => value;
  const path = "/test.Echo/Echo";
  const method = {
    path,
    requestStream: false as const,
    responseStream: false as const,
    requestSerialize: bytes,
    requestDeserialize: bytes,
    responseSerialize: bytes,
    responseDeserialize: bytes,
  };
  const server = new grpc.Server();
  server.addService(
    { echo: method },
    {
      echo: (call: grpc.ServerUnaryCall<Buffer, Buffer>, done: grpc.sendUnaryData<Buffer>) => {
        got.push(String(call.metadata.get("authorization")));
        done(null, call.request);
      },
    },
  );
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, at) =>
      error ? reject(error) : resolve(at),
    ),
  );
  const client = new grpc.Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure(), {
    interceptors: [issuer.source.interceptor(billing)],
  });
  const ask = () =>
    new Promise<grpc.status>((resolve) =>
      client.makeUnaryRequest(path, bytes, bytes, Buffer.from("x"), (error) => resolve(error?.code ?? 0)),
    );
  assert.equal(await ask(), 0);
  issuer.error = away();
  issuer.now += 200_000;
  assert.equal(await ask(), grpc.status.UNAVAILABLE);
  assert.deepEqual(got, ["Bearer token-1"]);
  client.close();
  server.forceShutdown();
});
