// Claims are exact: an integer that a double cannot hold is a bigint, and never silently rounded.
// Node 20 has neither JSON.rawJSON nor a reviver that sees the source text, so a bigint passes through JSON as marked text.
// The mark is random for each call: no claim can contain it.

import { randomUUID } from "node:crypto";
import { InvalidRequestError } from "./errors.js";

/** A JSON value (RFC 8259). Integers beyond ±(2^53 - 1) are bigint, all other numbers are number. */
export type ClaimValue =
  | string
  | number
  | bigint
  | boolean
  | null
  | readonly ClaimValue[]
  | { readonly [name: string]: ClaimValue };

/** Claims of a token, by name (RFC 7519, section 4). */
export type Claims = { readonly [name: string]: ClaimValue };

const LONG_DIGITS = /\d{16}/;
const STRING_OR_NUMBER = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
const INTEGER = /^-?(?:0|[1-9]\d*)$/;

/** Reads a JSON object. Throws SyntaxError if `json` is not JSON. */
export function parseClaims(json: string): Claims {
  if (!LONG_DIGITS.test(json)) return JSON.parse(json);
  const mark = randomUUID();
  const marked = json.replace(STRING_OR_NUMBER, (part) =>
    INTEGER.test(part) && !Number.isSafeInteger(Number(part)) ? `"${mark}${part}"` : part,
  );
  return JSON.parse(marked, (_, value: unknown) =>
    typeof value === "string" && value.startsWith(mark) ? BigInt(value.slice(mark.length)) : value,
  );
}

/**
 * Writes claims as JSON. Throws InvalidRequestError for a number that would not arrive as it is: NaN, an infinity, or an integer
 * beyond ±(2^53 - 1), which belongs in a bigint.
 */
export function stringifyClaims(claims: Claims): string {
  const mark = randomUUID();
  const text = JSON.stringify(claims, function (this: Record<string, unknown>, name, value: unknown) {
    // The member itself, not `value`: an application may have given BigInt a toJSON that makes it text.
    const member = this[name];
    if (typeof member === "bigint") return `${mark}${member}`;
    if (typeof value === "number" && !isExact(value)) {
      throw new InvalidRequestError(`claim "${name}": this number is not exact; use a bigint`, [
        { field: "claims", description: `"${name}" is not exact` },
      ]);
    }
    return value;
  });
  return text.replaceAll(new RegExp(`"${mark}(-?\\d+)"`, "g"), "$1");
}

// From 1e21 on JavaScript writes an exponent, and with it a double, which says no more than it knows.
function isExact(value: number): boolean {
  return Number.isFinite(value) && (!Number.isInteger(value) || Number.isSafeInteger(value) || Math.abs(value) >= 1e21);
}
