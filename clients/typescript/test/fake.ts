// A sidecar in this process: the contract over real gRPC, without cryptography. Its tokens are random text that it remembers.
// It records what it was asked, and fails or waits where a test says so.

import { randomBytes, randomUUID } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { DescMessage, DescMethodUnary, DescService, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { AnySchema, DurationSchema, durationFromMs, timestampFromDate } from "@bufbuild/protobuf/wkt";
import * as grpc from "@grpc/grpc-js";
import * as v1 from "../src/tokensidecar/v1/index.js";

const REGISTERED = ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "scope", "cnf", "sid"];

/** A call's end that is not OK. */
export class Refusal extends Error {
  constructor(
    readonly code: grpc.status,
    readonly reason: keyof typeof v1.ErrorReason | undefined,
    message: string,
    readonly field = "",
    readonly retryMs?: number,
  ) {
    super(message);
  }
}

interface Grant {
  readonly answer: MessageInitShape<typeof v1.ValidateResponseSchema>;
  readonly exp: number;
  readonly keyId: string;
}

type FakeKey = MessageInitShape<typeof v1.KeySchema> & { keyId: string; state: v1.KeyState; keyUse: v1.KeyUse };

export class FakeSidecar {
  /** Every request so far, oldest first, by the name of its method. */
  readonly asked: { method: string; request: unknown; authority: string; logId: string }[] = [];
  /** Thrown, one after the other, by the next calls. */
  readonly refusals: Refusal[] = [];
  /** Milliseconds before each answer. */
  delayMs = 0;
  /** At most this many keys on a page. */
  pageSize = 1000;

  /** Holds `app/app.sock` and `admin/admin.sock`, below a directory of this name if one is given. */
  readonly directory = mkdtempSync(join(tmpdir(), "fake-"));
  readonly appSocket: string;
  readonly adminSocket: string;
  appTcp = "127.0.0.1:0";
  adminTcp = "127.0.0.1:0";

  readonly #grants = new Map<string, Grant>();
  readonly #rotations = new Map<string, MessageInitShape<typeof v1.RotateResponseSchema>>();
  #keys: FakeKey[] = [];
  #revision = 1n;
  #servers: grpc.Server[] = [];

  constructor({ below = "." } = {}) {
    const runtime = join(this.directory, below);
    for (const plane of ["app", "admin"]) mkdirSync(join(runtime, plane), { recursive: true });
    this.appSocket = `unix:${runtime}/app/app.sock`;
    this.adminSocket = `unix:${runtime}/admin/admin.sock`;
    this.#keys = [this.#newKey(v1.KeyUse.ENCRYPTION), this.#newKey(v1.KeyUse.SIGNATURE)];
  }

  /** Starts to listen; after `stop`, again at the same addresses, with the same tokens. */
  async start(): Promise<void> {
    const app = this.#app();
    const admin = new grpc.Server();
    admin.addService(definition(v1.TokenService), {
      rotate: this.#handle(v1.TokenService.method.rotate, (request) => this.#rotate(request)),
    });
    admin.addService(definition(v1.AdminService), {
      listKeys: this.#handle(v1.AdminService.method.listKeys, (request) => this.#listKeys(request)),
      revokeKeys: this.#handle(v1.AdminService.method.revokeKeys, (request) => this.#revokeKeys(request)),
      revokeSubject: this.#handle(v1.AdminService.method.revokeSubject, () => this.#revoked()),
      revokeTokenId: this.#handle(v1.AdminService.method.revokeTokenId, () => this.#revoked()),
    });
    await bind(app, this.appSocket);
    await bind(admin, this.adminSocket);
    this.appTcp = `127.0.0.1:${await bind(app, this.appTcp)}`;
    this.adminTcp = `127.0.0.1:${await bind(admin, this.adminTcp)}`;
    this.#servers = [app, admin];
  }

  /** The app plane once more, with other credentials; gives its address. */
  async serveTls(credentials: grpc.ServerCredentials): Promise<string> {
    const app = this.#app();
    this.#servers.push(app);
    return `127.0.0.1:${await bind(app, "127.0.0.1:0", credentials)}`;
  }

  #app(): grpc.Server {
    const app = new grpc.Server();
    app.addService(definition(v1.TokenService), {
      issue: this.#handle(v1.TokenService.method.issue, (request) => this.#issue(request)),
      validate: this.#handle(v1.TokenService.method.validate, (request) => this.#validate(request)),
      batchIssue: this.#handle(v1.TokenService.method.batchIssue, ({ requests }) => ({
        results: requests.map((request) => ({ result: item(() => this.#issue(request)) })),
      })),
      batchValidate: this.#handle(v1.TokenService.method.batchValidate, ({ requests }) => ({
        results: requests.map((request) => ({ result: item(() => this.#validate(request)) })),
      })),
      refresh: this.#handle(v1.TokenService.method.refresh, ({ audiences }) => ({
        tokens: {
          ...this.#issue(create(v1.IssueRequestSchema, { subject: "user-7", audiences })),
          refreshToken: "next",
        },
      })),
      revoke: this.#handle(v1.TokenService.method.revoke, () => this.#revoked()),
    });
    return app;
  }

  /** Ends every connection and stops listening. */
  stop(): void {
    for (const server of this.#servers) server.forceShutdown();
    this.#servers = [];
  }

  /** Stops, and removes the sockets. */
  end(): void {
    this.stop();
    rmSync(this.directory, { recursive: true });
  }

  #handle<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    answer: (request: MessageShape<I>) => MessageInitShape<O>,
  ): grpc.handleUnaryCall<MessageShape<I>, MessageShape<O>> {
    return async (call, callback) => {
      this.asked.push({
        method: method.name,
        request: call.request,
        authority: call.getHost(),
        logId: String(call.metadata.get("x-request-id")),
      });
      const refusal = this.refusals.shift();
      if (this.delayMs > 0) await sleep(this.delayMs);
      try {
        if (refusal) throw refusal;
        callback(null, create(method.output, answer(call.request)));
      } catch (error) {
        if (!(error instanceof Refusal)) throw error;
        callback({ code: error.code, details: error.message, metadata: trailers(error) });
      }
    };
  }

  #issue(request: v1.IssueRequest): MessageInitShape<typeof v1.IssueResponseSchema> {
    if (!["", "default"].includes(request.profile)) {
      throw new Refusal(grpc.status.PERMISSION_DENIED, "CALLER_DENIED", "this caller may not do this here");
    }
    if (request.subject === "") throw invalid("subject", "subject is required");
    if (request.audiences.length === 0) throw invalid("audiences", "audiences is required");
    const json = request.claimsSource.case === "claimsJson" ? request.claimsSource.value : "{}";
    const taken = Object.keys(JSON.parse(json)).find((name) => REGISTERED.includes(name));
    if (taken !== undefined) throw invalid("claims_json", `claim "${taken}" is set by the sidecar`);
    const key = this.#keys.find((each) => each.keyUse === v1.KeyUse.ENCRYPTION && each.state === v1.KeyState.ACTIVE);
    if (!key) throw new Refusal(grpc.status.INTERNAL, "INTERNAL", "no key");
    const iat = Math.floor(Date.now() / 1000);
    const exp = iat + Number(request.ttl?.seconds ?? 300n);
    const times = {
      issueTime: timestampFromDate(new Date(iat * 1000)),
      expireTime: timestampFromDate(new Date(exp * 1000)),
    };
    const tokenId = randomUUID();
    const registered = {
      iss: "urn:fake",
      sub: request.subject,
      aud: request.audiences,
      exp,
      iat,
      jti: tokenId,
      client_id: request.clientId || "unix:app",
      ...(request.scopes.length > 0 && { scope: request.scopes.join(" ") }),
    };
    const body = json.trim().slice(1, -1).trim();
    const claimsJson = `${JSON.stringify(registered).slice(0, -1)}${body && `,${body}`}}`;
    const header = { alg: "A256KW", enc: "A256GCM", kid: key.keyId, cty: "JWT" };
    const parts = [Buffer.from(JSON.stringify(header)), ...[40, 12, claimsJson.length, 16].map((n) => randomBytes(n))];
    const token = parts.map((part) => part.toString("base64url")).join(".");
    const { audiences, scopes } = request;
    this.#grants.set(token, {
      exp,
      keyId: key.keyId,
      answer: {
        profile: request.profile || "default",
        issuer: registered.iss,
        subject: request.subject,
        clientId: registered.client_id,
        audiences,
        scopes,
        tokenId,
        ...times,
        claimsJson,
        keyId: key.keyId,
        ringRevision: this.#revision,
        ...(request.confirmation && { confirmation: request.confirmation }),
      },
    });
    return { token, tokenId, keyId: key.keyId, ...times, audiences, scopes };
  }

  #validate(request: v1.ValidateRequest): MessageInitShape<typeof v1.ValidateResponseSchema> {
    if (request.audiences.length === 0) throw invalid("audiences", "name the service that asks");
    const grant = this.#grants.get(request.token);
    const opens = this.#keys.find((key) => key.keyId === grant?.keyId)?.state !== v1.KeyState.COMPROMISED;
    if (!grant || !opens) throw rejected("TOKEN_INVALID");
    if (grant.exp <= Date.now() / 1000) throw rejected("TOKEN_EXPIRED");
    if (grant.answer.confirmation && !request.possession) throw rejected("TOKEN_POSSESSION_UNPROVEN");
    if (!request.audiences.some((name) => grant.answer.audiences?.includes(name))) {
      throw rejected("TOKEN_AUDIENCE_MISMATCH");
    }
    if (!request.requiredScopes.every((scope) => grant.answer.scopes?.includes(scope))) {
      throw rejected("TOKEN_SCOPE_MISSING");
    }
    return grant.answer;
  }

  #rotate(request: v1.RotateRequest): MessageInitShape<typeof v1.RotateResponseSchema> {
    const first = this.#rotations.get(request.requestId);
    if (first) return first;
    if (request.expectedRingRevision !== 0n && request.expectedRingRevision !== this.#revision) {
      throw new Refusal(grpc.status.ABORTED, "RING_CHANGED", `the ring is at revision ${this.#revision}`);
    }
    this.#succeed(
      request.keyUse === v1.KeyUse.UNSPECIFIED ? [v1.KeyUse.ENCRYPTION, v1.KeyUse.SIGNATURE] : [request.keyUse],
    );
    const answer = {
      keys: this.#facts(),
      activateTime: timestampFromDate(new Date()),
      ringRevision: this.#revision,
    };
    this.#rotations.set(request.requestId, answer);
    return answer;
  }

  #listKeys(request: v1.ListKeysRequest): MessageInitShape<typeof v1.ListKeysResponseSchema> {
    const start = Number(request.pageToken || "0");
    const end = start + Math.min(this.pageSize, request.pageSize || 100);
    const all = request.profile === "" || request.profile === "default" ? this.#facts() : [];
    return { keys: all.slice(start, end), nextPageToken: end < all.length ? String(end) : "" };
  }

  #revokeKeys(request: v1.RevokeKeysRequest): MessageInitShape<typeof v1.RevokeKeysResponseSchema> {
    if (request.profile === "") throw invalid("profile", "profile is required");
    const now = timestampFromDate(new Date());
    const named = this.#keys.filter((key) => request.keyIds.includes(key.keyId));
    this.#succeed(named.filter((key) => key.state === v1.KeyState.ACTIVE).map((key) => key.keyUse));
    for (const key of named) Object.assign(key, { state: v1.KeyState.COMPROMISED, compromiseTime: now });
    return { keys: this.#facts(), ringRevision: this.#revision, effectiveTime: now };
  }

  #revoked() {
    return { revocationRevision: 7n, effectiveTime: timestampFromDate(new Date(1_900_000_000_000)) };
  }

  #succeed(uses: readonly v1.KeyUse[]): void {
    const now = timestampFromDate(new Date());
    const destroyTime = timestampFromDate(new Date(Date.now() + 3_600_000));
    for (const key of this.#keys.filter(({ keyUse, state }) => uses.includes(keyUse) && state === v1.KeyState.ACTIVE)) {
      Object.assign(key, { state: v1.KeyState.RETIRING, retireTime: now, destroyTime });
    }
    this.#keys.push(...uses.map((use) => this.#newKey(use)));
    this.#revision += 1n;
  }

  #newKey(keyUse: v1.KeyUse): FakeKey {
    const now = timestampFromDate(new Date());
    const encryption = keyUse === v1.KeyUse.ENCRYPTION;
    return {
      keyId: randomBytes(16).toString("base64url"),
      profile: "default",
      keyUse,
      algorithm: encryption ? "A256KW" : "ES256",
      contentEncryption: encryption ? "A256GCM" : "",
      state: v1.KeyState.ACTIVE,
      createTime: now,
      activateTime: now,
    };
  }

  #facts(): FakeKey[] {
    return this.#keys.map((key) => ({ ...key, ringRevision: this.#revision }));
  }
}

function rejected(reason: keyof typeof v1.ErrorReason): Refusal {
  return new Refusal(grpc.status.UNAUTHENTICATED, reason, "the token was rejected");
}

function invalid(field: string, message: string): Refusal {
  return new Refusal(grpc.status.INVALID_ARGUMENT, "REQUEST_INVALID", message, field);
}

function item<T>(answer: () => T) {
  try {
    return { case: "response" as const, value: answer() };
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    const reason = v1.ErrorReason[error.reason ?? "ERROR_REASON_UNSPECIFIED"];
    return { case: "error" as const, value: { code: error.code, reason, message: error.message, field: error.field } };
  }
}

/** What grpc-js needs to know about a generated service. */
function definition(service: DescService): grpc.ServiceDefinition {
  const methods = service.methods.map((method): [string, grpc.MethodDefinition<object, object>] => [
    method.localName,
    {
      path: `/${service.typeName}/${method.name}`,
      requestStream: false,
      responseStream: false,
      requestSerialize: (message) => Buffer.from(toBinary(method.input, message as MessageShape<typeof method.input>)),
      requestDeserialize: (bytes) => fromBinary(method.input, bytes),
      responseSerialize: (message) =>
        Buffer.from(toBinary(method.output, message as MessageShape<typeof method.output>)),
      responseDeserialize: (bytes) => fromBinary(method.output, bytes),
    },
  ]);
  return Object.fromEntries(methods);
}

function bind(
  server: grpc.Server,
  address: string,
  credentials = grpc.ServerCredentials.createInsecure(),
): Promise<number> {
  return new Promise((resolve, reject) =>
    server.bindAsync(address, credentials, (error, port) => (error ? reject(error) : resolve(port))),
  );
}

/** `tokensidecar-reason`, and google.rpc.Status with ErrorInfo, BadRequest and RetryInfo. */
function trailers(refusal: Refusal): grpc.Metadata {
  const metadata = new grpc.Metadata();
  if (refusal.reason === undefined) return metadata;
  metadata.set("tokensidecar-reason", refusal.reason);
  const details: [string, Uint8Array][] = [["ErrorInfo", message([1, refusal.reason], [2, "tokensidecar"])]];
  if (refusal.field) details.push(["BadRequest", message([1, message([1, refusal.field], [2, refusal.message])])]);
  if (refusal.retryMs !== undefined) {
    details.push(["RetryInfo", message([1, toBinary(DurationSchema, durationFromMs(refusal.retryMs))])]);
  }
  const packed = details.map(([name, value]): [number, Uint8Array] => [
    3,
    toBinary(AnySchema, create(AnySchema, { typeUrl: `type.googleapis.com/google.rpc.${name}`, value })),
  ]);
  metadata.set("grpc-status-details-bin", Buffer.from(message([2, refusal.message], ...packed)));
  return metadata;
}

function message(...fields: [number, string | Uint8Array][]): Uint8Array {
  const writer = new BinaryWriter();
  for (const [number, value] of fields) {
    writer.tag(number, WireType.LengthDelimited).bytes(typeof value === "string" ? Buffer.from(value) : value);
  }
  return writer.finish();
}
