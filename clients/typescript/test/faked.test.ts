// Against `tokensidecar fake`, where TOKENSIDECAR_TEST_FAKE names the command.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { FakeControl } from "../src/fake.js";
import { connect, RejectedError, UnavailableError } from "../src/index.js";

const { TOKENSIDECAR_TEST_FAKE } = process.env;

if (TOKENSIDECAR_TEST_FAKE) {
  test("time goes by, and calls fail, as the test says", async () => {
    const words = ["fake", "--free-ports", "--until-eof"];
    const fake = spawn(TOKENSIDECAR_TEST_FAKE, words, { stdio: ["pipe", "pipe", "inherit"] });
    const [line] = await once(createInterface(fake.stdout), "line");
    const where = JSON.parse(line);
    const sidecar = await connect({ address: where.app, timeoutMs: 10_000, validateTimeoutMs: 10_000 });
    const control = new FakeControl(where.control);
    const audiences = ["orders"];
    const { token } = await sidecar.issue({ subject: "ada", audiences, ttl: 60 });
    await control.fail({ method: "Validate", reason: "STATE_STALE", count: 3 }); // as often as the client tries
    await assert.rejects(sidecar.validate({ token, audiences }), UnavailableError);
    assert.equal((await sidecar.validate({ token, audiences })).subject, "ada");
    await control.advance(120);
    await assert.rejects(
      sidecar.validate({ token, audiences }),
      (error) => error instanceof RejectedError && error.reason === "TOKEN_EXPIRED",
    );
    control.close();
    sidecar.close();
    fake.stdin.end();
    assert.deepEqual(await once(fake, "exit"), [0, null]);
  });
}
