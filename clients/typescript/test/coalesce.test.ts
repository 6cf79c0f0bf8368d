// Validate calls that go together.

import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { status } from "@grpc/grpc-js";
import { connect, RejectedError, type TokenSidecar, UnavailableError } from "../src/index.js";
import type { BatchValidateRequest } from "../src/tokensidecar/v1/index.js";
import { FakeSidecar, Refusal } from "./fake.js";

const fake = new FakeSidecar();
let sidecar: TokenSidecar;
const audiences = ["orders"];

before(async () => {
  await fake.start();
  sidecar = await connect({ address: fake.appSocket, coalesce: true, validateTimeoutMs: 10_000 });
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

const batches = () => fake.asked.filter(({ method }) => method === "BatchValidate");

test("calls at the same time go together, and each gets its own result", async () => {
  const tokens = await Promise.all(
    Array.from({ length: 200 }, async (_, index) =>
      index % 3 === 0 ? `bad-${index}` : (await sidecar.issue({ subject: `user-${index}`, audiences })).token,
    ),
  );
  fake.asked.length = 0;
  const results = await Promise.allSettled(tokens.map((token) => sidecar.validate({ token, audiences })));
  for (const [index, result] of results.entries()) {
    if (index % 3 === 0) {
      assert.ok(result.status === "rejected" && result.reason instanceof RejectedError, String(index));
      assert.equal(result.reason.reason, "TOKEN_INVALID");
      assert.ok(result.reason.requestId);
    } else assert.equal(result.status === "fulfilled" && result.value.subject, `user-${index}`);
  }
  const sizes = batches().map(({ request }) => (request as BatchValidateRequest).requests.length);
  assert.deepEqual(
    sizes.toSorted((a, b) => a - b),
    [8, 64, 64, 64],
  );
  assert.equal(fake.asked.length, 4);
});

test("a call that is alone goes alone", async () => {
  for (let count = 0; count < 3; count += 1) {
    await assert.rejects(sidecar.validate({ token: "x", audiences }), RejectedError);
  }
  assert.deepEqual(
    fake.asked.map(({ method }) => method),
    ["Validate", "Validate", "Validate"],
  );
});

test("a call in a batch ends at its own deadline and with its own signal", async () => {
  fake.delayMs = 300;
  const { token } = await sidecar.issue({ subject: "a", audiences });
  const stop = new AbortController();
  const started = performance.now();
  const calls = [
    sidecar.validate({ token, audiences }, { timeoutMs: 30 }),
    sidecar.validate({ token, audiences }, { signal: stop.signal }),
    sidecar.validate({ token, audiences }),
  ] as const;
  setTimeout(() => stop.abort(new Error("gone")), 20);
  await assert.rejects(calls[1], /gone/);
  await assert.rejects(
    calls[0],
    (error) => error instanceof UnavailableError && error.code === status.DEADLINE_EXCEEDED,
  );
  assert.ok(performance.now() - started < 250);
  assert.equal((await calls[2]).subject, "a");
  assert.equal(batches().length, 1);
});

test("what is too large for a batch goes alone", async () => {
  const sent = ["a".repeat(16_000), "b".repeat(40_000), "c".repeat(16_000)];
  await Promise.allSettled(sent.map((token) => sidecar.validate({ token, audiences })));
  assert.deepEqual(fake.asked.map(({ method }) => method).toSorted(), ["BatchValidate", "Validate"]);
});

test("a batch that fails fails each of its calls", async () => {
  fake.refusals.push(new Refusal(status.RESOURCE_EXHAUSTED, "OVERLOADED", "too much"));
  const results = await Promise.allSettled(
    Array.from({ length: 5 }, () => sidecar.validate({ token: "x", audiences })),
  );
  assert.ok(results.every((result) => result.status === "rejected" && result.reason instanceof UnavailableError));
});
