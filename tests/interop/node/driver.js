// Driver of panva's jose: answers the requests of tests/interop/library.py, one line of JSON each.
import { createInterface } from "node:readline";
import * as jose from "jose";

const text = (bytes) => new TextDecoder().decode(bytes);

async function sign({ sign: alg, typ, keys }, payload) {
  const key = await jose.importJWK(keys.signature, alg);
  return new jose.CompactSign(payload).setProtectedHeader({ alg, kid: keys.signature.kid, typ }).sign(key);
}

async function verify({ sign: alg, keys }, token) {
  const key = await jose.importJWK(keys.signature, alg);
  return (await jose.compactVerify(token, key, { algorithms: [alg] })).payload;
}

async function encrypt({ alg, enc, keys }, plaintext, more) {
  const key = await jose.importJWK(keys.encryption, alg);
  const header = { alg, enc, kid: keys.encryption.kid, ...more };
  return new jose.CompactEncrypt(plaintext).setProtectedHeader(header).encrypt(key);
}

async function decrypt({ alg, enc, keys, token }) {
  const key = await jose.importJWK(keys.encryption, alg);
  const options = { keyManagementAlgorithms: [alg], contentEncryptionAlgorithms: [enc] };
  return (await jose.compactDecrypt(token, key, options)).plaintext;
}

async function make(asked) {
  const payload = jose.base64url.decode(asked.payload);
  if (asked.format === "signed") return sign(asked, payload);
  if (asked.format === "encrypted") return encrypt(asked, payload, { typ: asked.typ });
  return encrypt(asked, new TextEncoder().encode(await sign(asked, payload)), { cty: "JWT" });
}

async function open(asked) {
  if (asked.format === "signed") return verify(asked, asked.token);
  if (asked.format === "encrypted") return decrypt(asked);
  return verify(asked, text(await decrypt(asked)));
}

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  let answer;
  try {
    answer = { ok: asked.op === "make" ? await make(asked) : jose.base64url.encode(await open(asked)) };
  } catch (error) {
    answer = { error: String(error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
