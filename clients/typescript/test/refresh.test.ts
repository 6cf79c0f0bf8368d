// Refresh and revoke, tokens that are bound, the name of a call, TLS.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { ServerCredentials, status } from "@grpc/grpc-js";
import { candidates } from "../src/address.js";
import {
  connect,
  connectAdmin,
  RejectedError,
  type TokenSidecar,
  TokenSidecarError,
  UnavailableError,
} from "../src/index.js";
import type { IssueRequest, RefreshRequest } from "../src/tokensidecar/v1/index.js";
import { FakeSidecar, Refusal } from "./fake.js";

const fake = new FakeSidecar();
let sidecar: TokenSidecar;

before(async () => {
  await fake.start();
  sidecar = await connect({ address: fake.appSocket, timeoutMs: 5000, validateTimeoutMs: 5000 });
});
after(() => {
  sidecar.close();
  fake.end();
});
beforeEach(() => {
  fake.asked.length = 0;
  fake.refusals.length = 0;
});

test("refresh trades a token for a new pair, also after a lost reply", async () => {
  fake.refusals.push(new Refusal(status.UNAVAILABLE, undefined, "the reply is lost"));
  const dpop = { proof: "p", method: "POST", url: "https://a/b", nonce: "n" };
  const pair = await sidecar.refresh({ refreshToken: "spent", audiences: ["orders"], possession: { dpop } });
  assert.equal(pair.refreshToken, "next");
  assert.equal(fake.asked.length, 2);
  const sent = fake.asked[1]?.request as RefreshRequest;
  assert.deepEqual([sent.refreshToken, sent.audiences], ["spent", ["orders"]]);
  assert.equal(sent.possession?.proof.case === "dpop" && sent.possession.proof.value.nonce, "n");
});

test("a spent refresh token is a rejected token", async () => {
  fake.refusals.push(new Refusal(status.UNAUTHENTICATED, "REFRESH_REUSED", "reused"));
  await assert.rejects(
    sidecar.refresh({ refreshToken: "x" }),
    (error) => error instanceof RejectedError && error.reason === "REFRESH_REUSED",
  );
});

test("revocations say when they hold, and are not repeated", async () => {
  const held = { revocationRevision: 7n, effectiveTime: new Date(1_900_000_000_000) };
  assert.deepEqual(await sidecar.revoke({ token: "x", reason: "logout" }), held);
  const admin = await connectAdmin({ address: fake.adminSocket });
  assert.deepEqual(await admin.revokeSubject({ profile: "default", subject: "ada", issuedBefore: new Date() }), held);
  assert.deepEqual(await admin.revokeTokenId({ profile: "default", tokenId: "t1" }), held);
  admin.close();
  fake.refusals.push(new Refusal(status.UNAVAILABLE, undefined, "down"));
  fake.asked.length = 0;
  await assert.rejects(sidecar.revoke({ token: "x" }), UnavailableError);
  assert.equal(fake.asked.length, 1);
});

test("a token is bound, and comes with a refresh token, where that is asked for", async () => {
  const request = { subject: "ada", audiences: ["orders"], withRefreshToken: true };
  const { token } = await sidecar.issue({ ...request, confirmation: { certificateThumbprint: "x5t" } });
  const sent = fake.asked[0]?.request as IssueRequest;
  assert.ok(sent.withRefreshToken);
  assert.deepEqual(
    [sent.confirmation?.method.case, sent.confirmation?.method.value],
    ["certificateThumbprintSha256", "x5t"],
  );
  const audiences = ["orders"];
  const valid = await sidecar.validate({ token, audiences, possession: { certificateThumbprint: "x5t" } });
  assert.deepEqual(valid.confirmation, { certificateThumbprint: "x5t" });
  await assert.rejects(sidecar.validate({ token, audiences }), RejectedError);
});

test("every call names itself in the sidecar's log, once for all tries, and its error does too", async () => {
  fake.refusals.push(...Array.from({ length: 3 }, () => new Refusal(status.UNAVAILABLE, undefined, "down")));
  await assert.rejects(sidecar.validate({ token: "x", audiences: ["orders"] }), (error) => {
    assert.ok(error instanceof TokenSidecarError && error.requestId);
    assert.deepEqual(
      fake.asked.map(({ logId }) => logId),
      Array(3).fill(error.requestId),
    );
    return true;
  });
  const [item] = await sidecar.batchIssue([{ subject: "", audiences: [] }], { logId: "mine" });
  assert.ok(item && !item.ok && item.error.requestId === "mine");
});

test("TOKENSIDECAR_RUNTIME_DIR is the one place for sockets", () => {
  const env = { TOKENSIDECAR_RUNTIME_DIR: "/srv/ts", XDG_RUNTIME_DIR: "/run/user/7" };
  assert.deepEqual(
    candidates("admin", undefined, env, 7).map(({ text }) => text),
    ["unix:/srv/ts/admin/admin.sock", "127.0.0.1:8791"],
  );
});

test("mutual TLS identifies this program and the sidecar", async () => {
  const directory = mkdtempSync(join(tmpdir(), "tls-"));
  const openssl = (...words: string[]) => execFileSync("openssl", words, { cwd: directory, stdio: "ignore" });
  const fresh = ["-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "1"];
  openssl("req", "-x509", ...fresh, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca");
  for (const name of ["localhost", "orders"]) {
    const signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", `subjectAltName=DNS:${name}`];
    openssl(
      "req",
      "-x509",
      ...fresh,
      ...signed,
      "-keyout",
      `${name}.key`,
      "-out",
      `${name}.pem`,
      "-subj",
      `/CN=${name}`,
    );
  }
  const [ca, certificate, key] = ["ca.pem", "orders.pem", "orders.key"].map((n) => readFileSync(join(directory, n)));
  assert.ok(ca && certificate && key);
  const pair = {
    cert_chain: readFileSync(join(directory, "localhost.pem")),
    private_key: readFileSync(join(directory, "localhost.key")),
  };
  const address = await fake.serveTls(ServerCredentials.createSsl(ca, [pair], true));
  const client = await connect({ address, tls: { ca, certificate, key } });
  assert.ok((await client.issue({ subject: "ada", audiences: ["orders"] })).token);
  client.close();
  for (const tls of [
    { certificate, key },
    { ca, certificate, key, serverName: "elsewhere" },
  ]) {
    await assert.rejects(connect({ address, tls, waitMs: 0 }), UnavailableError);
  }
  rmSync(directory, { recursive: true });
});

test("whoever demands TLS gets TLS, or nothing", async () => {
  await assert.rejects(connect({ address: fake.appSocket, tls: {} }), TypeError);
  await assert.rejects(connect({ address: fake.appTcp, tls: {}, waitMs: 0 }), /does not speak gRPC over TLS/);
});
