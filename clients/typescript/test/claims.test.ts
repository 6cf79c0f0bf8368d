import assert from "node:assert/strict";
import { test } from "node:test";
import { parseClaims, stringifyClaims } from "../src/claims.js";
import { InvalidRequestError } from "../src/errors.js";

test("an integer beyond 2^53 is a bigint, and every other number a number", () => {
  const json =
    '{"a":9007199254740991,"b":9007199254740992,"c":-9223372036854775808,"d":18446744073709551615,"e":1.5,"f":1e300,"g":0}';
  assert.deepEqual(parseClaims(json), {
    a: 9007199254740991,
    b: 9007199254740992n,
    c: -9223372036854775808n,
    d: 18446744073709551615n,
    e: 1.5,
    f: 1e300,
    g: 0,
  });
});

test("digits within text stay text", () => {
  const json = '{"9223372036854775807":"9223372036854775807","q":"\\"9223372036854775807","n":[9223372036854775807]}';
  assert.deepEqual(parseClaims(json), {
    "9223372036854775807": "9223372036854775807",
    q: '"9223372036854775807',
    n: [9223372036854775807n],
  });
});

test("a member called __proto__ is a claim like any other", () => {
  const claims = parseClaims('{"__proto__":{"admin":true},"n":9223372036854775807}');
  assert.deepEqual(Object.keys(claims), ["__proto__", "n"]);
  assert.equal(claims.admin, undefined);
});

test("what is not JSON is a SyntaxError", () => {
  for (const json of ["", "{", '{"n":9223372036854775807', '{"n":09223372036854775807}']) {
    assert.throws(() => parseClaims(json), SyntaxError, json);
  }
});

test("a bigint is written as an integer, wherever it stands", () => {
  const claims = { max: 2n ** 63n - 1n, list: [-(2n ** 63n), { deep: 1n }], text: "1n", ok: true, none: null };
  assert.equal(
    stringifyClaims(claims),
    '{"max":9223372036854775807,"list":[-9223372036854775808,{"deep":1}],"text":"1n","ok":true,"none":null}',
  );
  assert.deepEqual(parseClaims(stringifyClaims(claims)), { ...claims, list: [-(2n ** 63n), { deep: 1 }] });
});

test("an application's own BigInt.prototype.toJSON changes nothing", () => {
  const prototype = BigInt.prototype as { toJSON?: () => string };
  prototype.toJSON = () => "text";
  try {
    assert.equal(stringifyClaims({ n: 9223372036854775807n }), '{"n":9223372036854775807}');
  } finally {
    delete prototype.toJSON;
  }
});

test("a number that would not arrive as it is, is refused", () => {
  for (const n of [2 ** 53, -(2 ** 53), 1e20, Number.NaN, Number.POSITIVE_INFINITY]) {
    assert.throws(
      () => stringifyClaims({ deep: [{ n }] }),
      (error) => error instanceof InvalidRequestError && error.fields[0]?.field === "claims",
      String(n),
    );
  }
  assert.equal(
    stringifyClaims({ n: Number.MAX_SAFE_INTEGER, x: 1e21, y: 0.1 }),
    '{"n":9007199254740991,"x":1e+21,"y":0.1}',
  );
});
