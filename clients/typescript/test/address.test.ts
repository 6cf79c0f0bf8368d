import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { candidates, distrust, parseAddress } from "../src/address.js";

test("a socket is unix:/path or unix:///path", () => {
  for (const text of ["unix:/run/app.sock", "unix:///run/app.sock"]) {
    const { target, socket } = parseAddress(text, "address");
    assert.deepEqual({ target, socket }, { target: "unix:/run/app.sock", socket: { path: "/run/app.sock" } });
  }
});

test("a port is host:port, with IPv6 in brackets", () => {
  assert.deepEqual(parseAddress("127.0.0.1:8790", "address").socket, { host: "127.0.0.1", port: 8790 });
  assert.deepEqual(parseAddress("[::1]:8790", "address").socket, { host: "::1", port: 8790 });
  assert.equal(parseAddress("dns:8790", "address").target, "dns:dns:8790");
});

test("anything else is a TypeError that names the setting", () => {
  const malformed = [
    "",
    "unix:",
    "unix:app.sock",
    "unix://app/app.sock",
    "localhost",
    ":8790",
    "localhost:0",
    "a:70000",
  ];
  for (const text of [...malformed, "http://localhost:8790", "::1:8790", "a b:1"]) {
    assert.throws(() => parseAddress(text, "TOKENSIDECAR_ADDRESS"), /^TypeError: TOKENSIDECAR_ADDRESS is /, text);
  }
});

test("without an address: the socket in each runtime directory, in the server's order, then the port", () => {
  const env = { XDG_RUNTIME_DIR: "/run/user/7" };
  const texts = (plane: "app" | "admin", from: NodeJS.ProcessEnv) =>
    candidates(plane, undefined, from, 7).map(({ text }) => text);
  assert.deepEqual(texts("app", env), [
    "unix:/run/tokensidecar/app/app.sock",
    "unix:/run/user/7/tokensidecar/app/app.sock",
    "unix:/tmp/tokensidecar-7/app/app.sock",
    "127.0.0.1:8790",
  ]);
  assert.deepEqual(texts("admin", {}), [
    "unix:/run/tokensidecar/admin/admin.sock",
    "unix:/tmp/tokensidecar-7/admin/admin.sock",
    "127.0.0.1:8791",
  ]);
});

test("an address that was given stands alone, and the option is before the environment", () => {
  const env = { TOKENSIDECAR_ADDRESS: "unix:/a.sock", TOKENSIDECAR_ADMIN_ADDRESS: "127.0.0.1:1" };
  const texts = (plane: "app" | "admin", given?: string) => candidates(plane, given, env, 7).map(({ text }) => text);
  assert.deepEqual(texts("app"), ["unix:/a.sock"]);
  assert.deepEqual(texts("admin"), ["127.0.0.1:1"]);
  assert.deepEqual(texts("app", "127.0.0.1:2"), ["127.0.0.1:2"]);
});

test("a socket that was found counts only if root or this user owns it and its directories", async (context) => {
  const directory = mkdtempSync(join(tmpdir(), "owner-"));
  const path = join(directory, "app", "app.sock");
  mkdirSync(join(directory, "app"));
  assert.equal(distrust(path), "not there");
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(path, resolve));
  context.after(() => {
    server.close();
    rmSync(directory, { recursive: true });
  });
  assert.equal(distrust(path), undefined);
  const me = process.getuid?.() ?? 0;
  assert.equal(
    distrust(path, me + 1),
    me === 0 ? undefined : `${path} belongs to uid ${me}, neither root nor this user`,
  );
  const link = join(directory, "app", "link.sock");
  symlinkSync(path, link);
  assert.equal(distrust(link), "not a socket");
  writeFileSync(join(directory, "app", "file.sock"), "");
  assert.equal(distrust(join(directory, "app", "file.sock")), "not a socket");
});
