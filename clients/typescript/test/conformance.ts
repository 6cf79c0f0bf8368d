/** The driver of this client: commands in, answers out, as clients/conformance/README.md says. */

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import {
  type ConnectOptions,
  connect,
  connectAdmin,
  DeniedError,
  InvalidRequestError,
  type IssuedToken,
  type IssueRequest,
  type Key,
  RejectedError,
  type TokenSidecar,
  type TokenSidecarAdmin,
  TokenSidecarError,
  UnavailableError,
  type ValidatedToken,
} from "../src/index.js";

type Facts = Record<string, unknown>;

/** The arguments of all commands; each takes its own. */
interface Command {
  do: string;
  address: string;
  start_timeout?: number;
  timeout?: number;
  validate_timeout?: number;
  tls?: { ca: string; certificate: string; key: string };
  token: string;
  tokens: string[];
  audiences: string[];
  profile?: string;
  profiles?: string[];
  subject: string;
  ttl?: number;
  scopes?: string[];
  claims_json?: string;
  jwk_thumbprint?: string;
  with_refresh_token?: boolean;
  refresh_token: string;
  required_scopes?: string[];
  request_id?: string;
  dpop?: { proof: string; method: string; url: string };
  requests: Command[];
  key_ids: string[];
  expected_ring_revision?: number;
  callers: number;
  seconds: number;
  rotate_after?: number;
}

let client: TokenSidecar;
let admin: TokenSidecarAdmin;

function failed(error: unknown): Facts & { error: string; reason: string } {
  if (!(error instanceof TokenSidecarError)) throw error;
  const reason = error.reason === "ERROR_REASON_UNSPECIFIED" ? "" : error.reason;
  const fields = error instanceof InvalidRequestError ? error.fields.map(({ field }) => field) : [];
  return { error: kind(error), reason, fields };
}

function kind(error: TokenSidecarError): string {
  if (error instanceof RejectedError) return "rejected";
  if (error instanceof InvalidRequestError) return "invalid";
  if (error instanceof DeniedError) return "denied";
  if (error instanceof UnavailableError) return "unavailable";
  return error.reason === "RING_CHANGED" ? "changed" : "failed";
}

function issued({ token, tokenId, keyId, scopes, refreshToken = "" }: IssuedToken): Facts {
  return { token, token_id: tokenId, key_id: keyId, scopes, refresh_token: refreshToken };
}

function validated(token: ValidatedToken): Facts {
  const { subject, profile, audiences, scopes, clientId, keyId, claimsJson } = token;
  return { subject, profile, audiences, scopes, client_id: clientId, key_id: keyId, claims_json: claimsJson };
}

function keys(found: readonly Key[]): Facts {
  return { keys: found.map(({ keyUse, state }) => `${keyUse} ${state}`).sort() };
}

function issue(command: Command): IssueRequest {
  const { subject, audiences, profile, ttl, scopes, claims_json, jwk_thumbprint, with_refresh_token } = command;
  return {
    subject,
    audiences,
    ...(profile !== undefined && { profile }),
    ...(ttl !== undefined && { ttl }),
    ...(scopes && { scopes }),
    ...(claims_json !== undefined && { claimsJson: claims_json }),
    ...(jwk_thumbprint && { confirmation: { jwkThumbprint: jwk_thumbprint } }),
    ...(with_refresh_token && { withRefreshToken: true }),
  };
}

function options({ address, start_timeout, timeout, validate_timeout, tls }: Command): ConnectOptions {
  return {
    address,
    ...(start_timeout !== undefined && { waitMs: start_timeout * 1000 }),
    ...(timeout !== undefined && { timeoutMs: timeout * 1000 }),
    ...(validate_timeout !== undefined && { validateTimeoutMs: validate_timeout * 1000 }),
    ...(tls && {
      tls: { ca: readFileSync(tls.ca), certificate: readFileSync(tls.certificate), key: readFileSync(tls.key) },
    }),
  };
}

/** Each caller goes on until the time is over, and at least once; the admin client may rotate meanwhile. */
async function traffic(command: Command): Promise<Facts> {
  const { audiences, profile, callers, seconds, rotate_after } = command;
  const until = performance.now() + seconds * 1000;
  const ends: Record<string, number> = {};
  const turn = async () => {
    const token = command.token ?? (await client.issue(issue(command))).token;
    await client.validate({ token, audiences, ...(profile !== undefined && { profiles: [profile] }) });
  };
  const caller = async () => {
    do {
      const end = await turn().then(
        () => "ok",
        (error) => `${failed(error).error} ${failed(error).reason}`.trim(),
      );
      ends[end] = (ends[end] ?? 0) + 1;
    } while (performance.now() < until);
  };
  const rotation = async () => {
    if (rotate_after === undefined) return;
    await sleep(rotate_after * 1000);
    await admin.rotate(profile === undefined ? {} : { profile });
  };
  await Promise.all([rotation(), ...Array.from({ length: callers }, caller)]);
  return { ends };
}

const commands: Record<string, (command: Command) => Promise<Facts>> = {
  connect: async (command) => {
    client = await connect(options(command));
    return {};
  },
  connect_admin: async (command) => {
    admin = await connectAdmin(options(command));
    return {};
  },
  issue: async (command) => issued(await client.issue(issue(command))),
  validate: async ({ token, audiences, profiles = [], required_scopes = [], request_id, dpop }) =>
    validated(
      await client.validate({
        token,
        audiences,
        profiles,
        requiredScopes: required_scopes,
        ...(request_id && { requestId: request_id }),
        ...(dpop && { possession: { dpop } }),
      }),
    ),
  batch_issue: async ({ requests }) => {
    const results = await client.batchIssue(requests.map(issue));
    return { results: results.map((one) => (one.ok ? { ok: issued(one.value) } : failed(one.error))) };
  },
  batch_validate: async ({ tokens, audiences }) => {
    const results = await client.batchValidate(tokens.map((token) => ({ token, audiences })));
    return { results: results.map((one) => (one.ok ? { ok: validated(one.value) } : failed(one.error))) };
  },
  refresh: async ({ refresh_token, scopes = [] }) =>
    issued(await client.refresh({ refreshToken: refresh_token, scopes })),
  revoke: async ({ token }) => {
    await client.revoke({ token });
    return {};
  },
  rotate: async ({ profile = "default", expected_ring_revision = 0 }) =>
    keys((await admin.rotate({ profile, expectedRingRevision: BigInt(expected_ring_revision) })).keys),
  keys: async ({ profile }) => keys(await admin.listKeys(profile)),
  revoke_keys: async ({ profile = "", key_ids }) => keys((await admin.revokeKeys({ profile, keyIds: key_ids })).keys),
  traffic,
};

for await (const line of createInterface(process.stdin)) {
  const command: Command = JSON.parse(line);
  const play = commands[command.do];
  const answer = play
    ? await play(command).then((ok) => ({ ok }), failed)
    : { error: "lacks", reason: command.do, fields: [] };
  console.log(JSON.stringify(answer));
}
process.exit();
