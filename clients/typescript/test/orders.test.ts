// The orders example as its own process, asked over HTTP.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { connect } from "../src/index.js";
import { sidecars } from "./sidecars.js";

const { planes, end } = await sidecars();
after(end);

test("orders lets a good token through, and calls billing with its own", async () => {
  const [first] = planes;
  assert.ok(first);
  const script = fileURLToPath(new URL("../examples/orders/server.js", import.meta.url));
  const server = spawn(process.execPath, [script], {
    env: { ...process.env, TOKENSIDECAR_ADDRESS: first.app, PORT: "0" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const [url] = await once(createInterface(server.stdout), "line");
  const sidecar = await connect({ address: first.app });
  const request = { subject: "ada", audiences: ["orders"], claims: { tenant: "acme" } };
  const { token } = await sidecar.issue({ ...request, scopes: ["orders.read"] });
  const narrow = await sidecar.issue(request);
  sidecar.close();
  const ask = (headers: Record<string, string>) => fetch(`${url}/orders`, { headers });
  const answer = await ask({ authorization: `Bearer ${token}` });
  assert.equal(await answer.text(), "orders of ada at acme: a bill, for orders");
  assert.equal((await ask({ authorization: `Bearer ${narrow.token}` })).status, 403);
  assert.equal((await ask({})).status, 401);
  server.kill("SIGTERM");
  assert.deepEqual(await once(server, "exit"), [0, null]);
});
