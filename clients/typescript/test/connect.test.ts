// Connecting, deadlines, cancellation and errors, as only a sidecar that obeys the test can show them.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { after, before, beforeEach, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { status } from "@grpc/grpc-js";
import { candidates, parseAddress } from "../src/address.js";
import { TokenSidecar } from "../src/client.js";
import { reach } from "../src/connect.js";
import {
  connect,
  connectAdmin,
  DeniedError,
  InvalidRequestError,
  RejectedError,
  TokenSidecarError,
  UnavailableError,
} from "../src/index.js";
import type { ValidateRequest } from "../src/tokensidecar/v1/index.js";
import { FakeSidecar, Refusal } from "./fake.js";

const fake = new FakeSidecar();
const orders = { subject: "user-7", audiences: ["orders"] };
const anyToken = { token: "a.b.c.d.e", audiences: ["orders"] };
let sidecar: TokenSidecar;

before(async () => {
  await fake.start();
  sidecar = await connect({ address: fake.appSocket });
  await sidecar.issue(orders);
});
after(() => {
  sidecar.close();
  fake.end();
});
beforeEach(() => {
  fake.asked.length = 0;
  fake.refusals.length = 0;
  fake.delayMs = 0;
});

/** Runs with these variables in the environment. */
async function withEnvironment<T>(variables: Record<string, string>, run: () => Promise<T>): Promise<T> {
  const saved = { ...process.env };
  Object.assign(process.env, variables);
  try {
    return await run();
  } finally {
    process.env = saved;
  }
}

function unavailable(code: status, message: RegExp) {
  return (error: unknown) => {
    assert.ok(error instanceof UnavailableError, String(error));
    assert.equal(error.code, code);
    assert.match(error.message, message);
    return true;
  };
}

test("without an argument the environment says where", async () => {
  const variables = { TOKENSIDECAR_ADDRESS: fake.appTcp, TOKENSIDECAR_ADMIN_ADDRESS: fake.adminSocket };
  await withEnvironment(variables, async () => {
    const found = await connect();
    assert.ok((await found.issue(orders)).token);
    found.close();
    const keys = await connectAdmin();
    assert.equal((await keys.listKeys()).length, 2);
    keys.close();
  });
});

test("the authority is localhost, over the socket and over TCP", async () => {
  for (const address of [fake.appSocket, fake.appTcp]) {
    const client = await connect({ address });
    await client.issue(orders);
    client.close();
    assert.equal(fake.asked.at(-1)?.authority, "localhost", address);
  }
});

test("no proxy of the environment ever sees a token", async () => {
  const variables = { http_proxy: "http://127.0.0.1:9", grpc_proxy: "http://127.0.0.1:9", no_proxy: "" };
  await withEnvironment(variables, async () => {
    const client = await connect({ address: fake.appTcp, waitMs: 0 });
    assert.ok((await client.issue(orders)).token);
    client.close();
  });
});

test("where nothing is found, the error lists all that was tried", async () => {
  const nowhere = candidates("admin", undefined, { XDG_RUNTIME_DIR: "/nonexistent" }, 4_000_000_000).slice(1, 3);
  const refused = parseAddress("127.0.0.1:9", "address");
  await assert.rejects(reach([...nowhere, refused], { waitMs: 0 }), (error: unknown) => {
    assert.ok(error instanceof UnavailableError);
    assert.deepEqual(error.message.split("\n"), [
      "no sidecar within 0 ms; tried",
      "  unix:/nonexistent/tokensidecar/admin/admin.sock: not there",
      "  unix:/tmp/tokensidecar-4000000000/admin/admin.sock: not there",
      "  127.0.0.1:9: connection refused",
    ]);
    return true;
  });
});

test("the socket in a runtime directory is found, before the port", async () => {
  const own = new FakeSidecar({ below: "tokensidecar" });
  await own.start();
  const addresses = candidates("app", undefined, { XDG_RUNTIME_DIR: own.directory }).slice(1);
  const found = new TokenSidecar(await reach(addresses, { waitMs: 0 }), 250, 1000);
  await found.issue(orders);
  found.close();
  assert.equal(own.asked.length, 1);
  own.end();
});

test("a sidecar that is still starting is waited for, and no longer than was asked", async () => {
  const late = new FakeSidecar();
  const started = sleep(400).then(() => late.start());
  const client = await connect({ address: late.appSocket });
  await started;
  assert.ok((await client.issue(orders)).token);
  client.close();
  late.end();

  const start = performance.now();
  await assert.rejects(
    connect({ address: late.appSocket, waitMs: 300 }),
    unavailable(status.UNAVAILABLE, /^no sidecar within 300 ms; tried\n {2}unix:.*app\.sock: not there$/),
  );
  assert.ok(performance.now() - start < 5000);
});

test("what listens but speaks no gRPC is not a sidecar", async () => {
  const server = createServer((socket) => socket.on("error", () => {}).end("HTTP/1.1 400 Bad Request\r\n\r\n"));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  assert.ok(address && typeof address === "object");
  try {
    await assert.rejects(
      connect({ address: `127.0.0.1:${address.port}`, waitMs: 0 }),
      unavailable(status.UNAVAILABLE, /does not speak gRPC/),
    );
  } finally {
    server.close();
  }
});

test("a closed client fails, and an open one lets the process end", async () => {
  const client = await connect({ address: fake.appSocket });
  client.close();
  await assert.rejects(client.issue(orders), unavailable(status.UNAVAILABLE, /closed/));

  const script = `import { connect } from "tokensidecar";
    await (await connect()).issue({ subject: "user-7", audiences: ["orders"] });`;
  const child = spawn(process.execPath, ["--input-type=module", "--eval", script], {
    env: { ...process.env, TOKENSIDECAR_ADDRESS: fake.appSocket },
    timeout: 10_000,
  });
  assert.deepEqual(await once(child, "exit"), [0, null]);
});

test("a malformed address is a TypeError", async () => {
  await assert.rejects(connect({ address: "http://localhost" }), TypeError);
});

test("while the sidecar is down calls fail at once, and work again when it is back", async () => {
  const own = new FakeSidecar();
  await own.start();
  const client = await connect({ address: own.appSocket });
  const { token } = await client.issue(orders);
  own.stop();
  const request = { token, audiences: ["orders"] };
  await assert.rejects(client.validate(request), unavailable(status.UNAVAILABLE, /./));
  await own.start();
  const deadline = performance.now() + 5000;
  let subject: string | undefined;
  while (subject === undefined && performance.now() < deadline) {
    subject = await client.validate(request).then(
      (valid) => valid.subject,
      () => sleep(50).then(() => undefined),
    );
  }
  assert.equal(subject, "user-7");
  client.close();
  own.end();
});

test("a call that is too slow ends at its deadline: Validate sooner than the others, or when the call says so", async () => {
  fake.delayMs = 500;
  const tooSlow = unavailable(status.DEADLINE_EXCEEDED, /./);
  const start = performance.now();
  await assert.rejects(sidecar.validate(anyToken), tooSlow);
  assert.ok(performance.now() - start >= 240);
  assert.ok((await sidecar.issue(orders)).token);
  await assert.rejects(sidecar.issue(orders, { timeoutMs: 50 }), tooSlow);
  await assert.rejects(sidecar.validate(anyToken, { timeoutMs: 5000 }), RejectedError);
});

test("until one call has been answered the deadline is longer", async () => {
  const client = await connect({ address: fake.appTcp });
  const { token } = await sidecar.issue(orders);
  fake.delayMs = 400;
  assert.equal((await client.validate({ token, audiences: ["orders"] })).subject, "user-7");
  await assert.rejects(client.validate(anyToken), unavailable(status.DEADLINE_EXCEEDED, /./));
  client.close();
});

test("a signal cancels the call, which throws the signal's reason", async () => {
  fake.delayMs = 500;
  const controller = new AbortController();
  const call = sidecar.issue(orders, { signal: controller.signal });
  const reason = new Error("the client went away");
  setTimeout(() => controller.abort(reason), 20);
  await assert.rejects(call, reason);
  await assert.rejects(sidecar.issue(orders, { signal: controller.signal }), reason);
  assert.equal(fake.asked.length, 1);
});

test("each Validate carries a fresh request id, and each of a batch", async () => {
  const requests = [anyToken, anyToken, { ...anyToken, requestId: "mine" }];
  for (const request of requests) await assert.rejects(sidecar.validate(request), RejectedError);
  await sidecar.batchValidate(requests);
  const ids = fake.asked.flatMap(({ request }) =>
    "requests" in (request as object)
      ? (request as { requests: ValidateRequest[] }).requests.map((each) => each.requestId)
      : [(request as ValidateRequest).requestId],
  );
  assert.equal(ids.length, 6);
  assert.deepEqual([ids[2], ids[5]], ["mine", "mine"]);
  assert.equal(new Set(ids).size, 5);
  assert.ok(ids.every((id) => id.length > 0));
});

test("a Validate is tried again on UNAVAILABLE, with the same request id; an Issue is not", async () => {
  const { token } = await sidecar.issue(orders);
  fake.asked.length = 0;
  const stale = new Refusal(status.UNAVAILABLE, "STATE_STALE", "not seen the store for too long");
  fake.refusals.push(stale, stale);
  assert.equal((await sidecar.validate({ token, audiences: ["orders"] })).subject, "user-7");
  const ids = fake.asked.map(({ request }) => (request as ValidateRequest).requestId);
  assert.equal(ids.length, 3);
  assert.equal(new Set(ids).size, 1);

  fake.asked.length = 0;
  fake.refusals.push(stale);
  await assert.rejects(
    sidecar.issue(orders),
    (error) => error instanceof UnavailableError && error.reason === "STATE_STALE",
  );
  assert.equal(fake.asked.length, 1);
});

test("each Rotate carries a fresh request id", async () => {
  const keys = await connectAdmin({ address: fake.adminSocket });
  await keys.rotate();
  await keys.rotate({ requestId: "mine" });
  keys.close();
  const ids = fake.asked.map(({ request }) => (request as { requestId: string }).requestId);
  assert.match(ids[0] ?? "", /^[0-9a-f-]{36}$/);
  assert.equal(ids[1], "mine");
});

test("every page of keys is fetched", async () => {
  const keys = await connectAdmin({ address: fake.adminTcp });
  const all = await keys.listKeys();
  fake.pageSize = 1;
  assert.deepEqual(await keys.listKeys(), all);
  fake.pageSize = 1000;
  keys.close();
  assert.ok(fake.asked.length > all.length);
});

test("each code has its class, with reason, fields and time to wait", async () => {
  const ends: [Refusal, new (...all: never[]) => TokenSidecarError][] = [
    [new Refusal(status.UNAUTHENTICATED, "TOKEN_REVOKED", "rejected"), RejectedError],
    [new Refusal(status.UNAUTHENTICATED, undefined, "rejected"), RejectedError],
    [new Refusal(status.PERMISSION_DENIED, "CALLER_DENIED", "no"), DeniedError],
    [new Refusal(status.INVALID_ARGUMENT, "REQUEST_INVALID", "at most 16", "audiences"), InvalidRequestError],
    [new Refusal(status.UNAVAILABLE, "SUBJECT_REVOKED", "not yet", "", 1500), UnavailableError],
    [new Refusal(status.RESOURCE_EXHAUSTED, "OVERLOADED", "too much", "", 250), UnavailableError],
    [new Refusal(status.RESOURCE_EXHAUSTED, undefined, "message too large"), TokenSidecarError],
    [new Refusal(status.ABORTED, "RING_CHANGED", "look again"), TokenSidecarError],
    [new Refusal(status.UNIMPLEMENTED, "NOT_IMPLEMENTED", "not in this version"), TokenSidecarError],
    [new Refusal(status.INTERNAL, "INTERNAL", "our fault"), TokenSidecarError],
  ];
  for (const [refusal, kind] of ends) {
    fake.refusals.push(refusal);
    const error: unknown = await sidecar.issue(orders).catch((thrown: unknown) => thrown);
    assert.ok(error instanceof TokenSidecarError, `${refusal.reason}: ${error}`);
    assert.equal(error.constructor, kind);
    assert.equal(error.name, kind.name);
    assert.equal(error.code, refusal.code);
    assert.equal(error.reason, refusal.reason ?? "ERROR_REASON_UNSPECIFIED");
    assert.equal(error.message, refusal.message);
    if (error instanceof UnavailableError) assert.equal(error.retryAfterMs, refusal.retryMs);
    if (error instanceof InvalidRequestError) {
      assert.deepEqual(error.fields, [{ field: "audiences", description: "at most 16" }]);
    }
    assert.match(error.stack ?? "", /connect\.test/);
  }
});

test("a reason that this client does not know is ERROR_REASON_UNSPECIFIED, and the code still decides", async () => {
  for (const reason of ["TOKEN_FROM_TOMORROW", "toString", "2"]) {
    fake.refusals.push(new Refusal(status.UNAUTHENTICATED, reason as "TOKEN_INVALID", "rejected"));
    await assert.rejects(
      sidecar.validate(anyToken),
      (error) => error instanceof RejectedError && error.reason === "ERROR_REASON_UNSPECIFIED",
      reason,
    );
  }
});

test("no error shows the token", async () => {
  const token = "canary-7f3a.b.c.d.e";
  fake.delayMs = 100;
  for (const options of [{}, { timeoutMs: 10 }]) {
    const error = await sidecar.validate({ token, audiences: ["orders"] }, options).catch((thrown: unknown) => thrown);
    assert.ok(error instanceof TokenSidecarError);
    const { inspect } = await import("node:util");
    assert.doesNotMatch(inspect(error, { depth: 10, showHidden: true }), /canary/);
  }
});

test("a request that cannot be sent is refused before it is", async () => {
  const both = { ...orders, claims: {}, claimsJson: "{}" };
  await assert.rejects(sidecar.issue(both), InvalidRequestError);
  await assert.rejects(sidecar.issue({ ...orders, ttl: Number.NaN }), InvalidRequestError);
  await assert.rejects(sidecar.issue({ ...orders, claims: { n: 2 ** 60 } }), InvalidRequestError);
  assert.equal(fake.asked.length, 0);
});
