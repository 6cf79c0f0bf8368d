// What every sidecar must do, the real one and the fake.

import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { status } from "@grpc/grpc-js";
import {
  connect,
  connectAdmin,
  DeniedError,
  InvalidRequestError,
  type Reason,
  RejectedError,
  TokenSidecarError,
} from "../src/index.js";
import { sidecars } from "./sidecars.js";

const { planes, end } = await sidecars();
after(end);

function rejectedWith(reason: Reason) {
  return (error: unknown) =>
    error instanceof RejectedError && error.code === status.UNAUTHENTICATED && error.reason === reason;
}

for (const { name, app, admin } of planes) {
  describe(name, async () => {
    // A busy machine is not what is tested here.
    const patient = { validateTimeoutMs: 10_000, timeoutMs: 10_000 };
    const sidecar = await connect({ address: app, ...patient });
    const keys = await connectAdmin({ address: admin, ...patient });
    after(() => {
      sidecar.close();
      keys.close();
    });
    const orders = { subject: "user-7", audiences: ["orders"] };

    test("a token that was issued is good, and says what was asked", async () => {
      const before = Date.now();
      const issued = await sidecar.issue({
        ...orders,
        claims: { email: "ada@example.com", roles: ["admin", "Ünïcödé 🔑"], nested: { ok: true, none: null } },
        ttl: 120,
        scopes: ["read", "write"],
        clientId: "web",
      });
      assert.equal(issued.expireTime.getTime() - issued.issueTime.getTime(), 120_000);
      assert.ok(Math.abs(issued.issueTime.getTime() - before) < 5000);
      assert.deepEqual([issued.audiences, issued.scopes], [["orders"], ["read", "write"]]);

      const { token } = issued;
      const valid = await sidecar.validate({ token, audiences: ["orders", "billing"], requiredScopes: ["read"] });
      assert.equal(valid.subject, "user-7");
      assert.equal(valid.tokenId, issued.tokenId);
      assert.equal(valid.keyId, issued.keyId);
      assert.equal(valid.clientId, "web");
      assert.equal(valid.profile, "default");
      assert.deepEqual([valid.audiences, valid.scopes], [["orders"], ["read", "write"]]);
      assert.deepEqual([valid.issueTime, valid.expireTime], [issued.issueTime, issued.expireTime]);
      assert.equal(valid.claims.sub, "user-7");
      assert.equal(valid.claims.email, "ada@example.com");
      assert.deepEqual(valid.claims.roles, ["admin", "Ünïcödé 🔑"]);
      assert.deepEqual(valid.claims.nested, { ok: true, none: null });
      assert.equal(typeof valid.ringRevision, "bigint");
      assert.ok(valid.ringRevision > 0n);
    });

    test("64-bit integers survive, as bigint and as raw JSON", async () => {
      const claims = { max: 2n ** 63n - 1n, min: -(2n ** 63n), unsigned: 2n ** 64n - 1n, small: 7, safe: 2 ** 53 - 1 };
      const { token } = await sidecar.issue({ ...orders, claims });
      const valid = await sidecar.validate({ token, audiences: ["orders"] });
      const { max, min, unsigned, small, safe } = valid.claims;
      assert.deepEqual({ max, min, unsigned, small, safe }, claims);

      const raw = await sidecar.issue({ ...orders, claimsJson: '{"big": 9223372036854775807, "exact": 1.50}' });
      const { claimsJson } = await sidecar.validate({ token: raw.token, audiences: ["orders"] });
      assert.match(claimsJson, /"big": ?9223372036854775807/);
      assert.match(claimsJson, /"exact": ?1\.50\b/);
    });

    test("a token is opaque: no part of it shows a claim", async () => {
      const { token } = await sidecar.issue({ ...orders, claims: { email: "ada@example.com" } });
      const parts = token.split(".");
      assert.equal(parts.length, 5);
      for (const part of [token, ...parts.map((each) => Buffer.from(each, "base64url").toString("latin1"))]) {
        assert.doesNotMatch(part, /ada|user-7|orders/);
      }
    });

    test("a bad token is RejectedError with the reason", async () => {
      const { token } = await sidecar.issue({ ...orders, scopes: ["read"] });
      const flipped = token.replace(/.$/, (last) => (last === "A" ? "B" : "A"));
      for (const bad of ["x", "a.b.c", flipped, token.split(".").slice(1).join(".")]) {
        await assert.rejects(sidecar.validate({ token: bad, audiences: ["orders"] }), rejectedWith("TOKEN_INVALID"));
      }
      await assert.rejects(
        sidecar.validate({ token, audiences: ["billing"] }),
        rejectedWith("TOKEN_AUDIENCE_MISMATCH"),
      );
      await assert.rejects(
        sidecar.validate({ token, audiences: ["orders"], requiredScopes: ["write"] }),
        rejectedWith("TOKEN_SCOPE_MISSING"),
      );
    });

    test("a bad request is InvalidRequestError and names the field", async () => {
      const { token } = await sidecar.issue(orders);
      const invalid = (field: string) => (error: unknown) => {
        assert.ok(error instanceof InvalidRequestError, String(error));
        assert.equal(error.reason, "REQUEST_INVALID");
        assert.match(error.fields[0]?.field ?? "", new RegExp(field));
        return true;
      };
      await assert.rejects(sidecar.validate({ token, audiences: [] }), invalid("audiences"));
      await assert.rejects(sidecar.issue({ ...orders, subject: "" }), invalid("subject"));
      await assert.rejects(sidecar.issue({ ...orders, claims: { iss: "me" } }), invalid("claims"));
      await assert.rejects(keys.revokeKeys({ profile: "", keyIds: ["k"] }), invalid("profile"));
    });

    test("a batch answers item by item, in order", async () => {
      const results = await sidecar.batchIssue([
        orders,
        { ...orders, subject: "" },
        { ...orders, claims: { n: 2n ** 62n } },
      ]);
      const [first, second, third] = results;
      assert.ok(first?.ok && third?.ok && second && !second.ok);
      assert.ok(second.error instanceof InvalidRequestError);
      assert.match(second.error.fields[0]?.field ?? "", /subject/);

      const audiences = ["orders"];
      const opened = await sidecar.batchValidate([
        { token: first.value.token, audiences },
        { token: "forged", audiences },
        { token: third.value.token, audiences: ["billing"] },
        { token: third.value.token, audiences },
      ]);
      assert.deepEqual(
        opened.map((result) => (result.ok ? result.value.tokenId : result.error.reason)),
        [first.value.tokenId, "TOKEN_INVALID", "TOKEN_AUDIENCE_MISMATCH", third.value.tokenId],
      );
      assert.ok(opened[1]?.ok === false && opened[1].error instanceof RejectedError);
      assert.ok(opened[3]?.ok && opened[3].value.claims.n === 2n ** 62n);
    });

    test("a hundred calls at once each get their own answer", async () => {
      const subjects = Array.from({ length: 100 }, (_, index) => `user-${index}`);
      const seen = await Promise.all(
        subjects.map(async (subject) => {
          const { token } = await sidecar.issue({ ...orders, subject });
          return (await sidecar.validate({ token, audiences: ["orders"] })).subject;
        }),
      );
      assert.deepEqual(seen, subjects);
    });

    test("rotation: the old token stays good, the new one is under the new key", async () => {
      const old = await sidecar.issue(orders);
      const before = await keys.listKeys("default");
      const rotation = await keys.rotate({ reason: "test" });
      assert.ok(rotation.ringRevision > (before[0]?.ringRevision ?? 0n));
      assert.ok(rotation.activateTime.getTime() <= Date.now() + 1000);
      const states = (use: string) => rotation.keys.filter((key) => key.keyUse === use).map((key) => key.state);
      for (const use of ["encryption", "signature"]) {
        assert.equal(states(use).filter((state) => state === "active").length, 1);
        assert.ok(states(use).includes("retiring"));
      }
      const young = await sidecar.issue(orders);
      assert.notEqual(young.keyId, old.keyId);
      for (const { token, keyId } of [old, young]) {
        assert.equal((await sidecar.validate({ token, audiences: ["orders"] })).keyId, keyId);
      }
      const retired = rotation.keys.find((key) => key.keyId === old.keyId);
      assert.ok(retired?.retireTime && retired.destroyTime && retired.retireTime < retired.destroyTime);
    });

    test("a rotation that expects another revision is RING_CHANGED, and one that is repeated happens once", async () => {
      const first = await keys.rotate({ keyUse: "signature", requestId: `${name}-once` });
      const again = await keys.rotate({ keyUse: "signature", requestId: `${name}-once` });
      assert.equal(again.ringRevision, first.ringRevision);
      await assert.rejects(
        keys.rotate({ expectedRingRevision: first.ringRevision - 1n }),
        (error) =>
          error instanceof TokenSidecarError && error.reason === "RING_CHANGED" && error.code === status.ABORTED,
      );
      const next = await keys.rotate({ expectedRingRevision: first.ringRevision });
      assert.ok(next.ringRevision > first.ringRevision);
    });

    test("keys are listed with what is public about them", async () => {
      const listed = await keys.listKeys();
      assert.deepEqual(await keys.listKeys("default"), listed);
      const active = listed.filter((key) => key.state === "active");
      const facts = active.map(({ profile, keyUse, algorithm, contentEncryption }) =>
        [profile, keyUse, algorithm, contentEncryption].join(" ").trim(),
      );
      assert.deepEqual(facts.sort(), ["default encryption A256KW A256GCM", "default signature ES256"]);
      for (const key of active) {
        assert.equal(key.retireTime, undefined);
        assert.equal(key.compromiseTime, undefined);
        assert.ok(key.createTime <= key.activateTime);
      }
    });

    test("a compromised key opens nothing, and its successor is active at once", async () => {
      const old = await sidecar.issue(orders);
      const revocation = await keys.revokeKeys({ profile: "default", keyIds: [old.keyId], reason: "test" });
      const revoked = revocation.keys.find((key) => key.keyId === old.keyId);
      assert.equal(revoked?.state, "compromised");
      assert.ok(revoked.compromiseTime);
      assert.ok(revocation.effectiveTime.getTime() > 0);
      await assert.rejects(
        sidecar.validate({ token: old.token, audiences: ["orders"] }),
        rejectedWith("TOKEN_INVALID"),
      );
      const young = await sidecar.issue(orders);
      assert.notEqual(young.keyId, old.keyId);
      assert.equal((await sidecar.validate({ token: young.token, audiences: ["orders"] })).keyId, young.keyId);
    });

    test("an unknown profile is DeniedError", async () => {
      await assert.rejects(
        sidecar.issue({ ...orders, profile: "nobody-has-this" }),
        (error) => error instanceof DeniedError && error.reason === "CALLER_DENIED",
      );
    });
  });
}
