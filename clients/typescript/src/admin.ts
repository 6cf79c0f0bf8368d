// The admin plane: rotate, list and revoke keys; revoke tokens. Never key material.

import { randomUUID } from "node:crypto";
import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { CallOptions, Channel } from "./channel.js";
import { requiredDate } from "./time.js";
import { type Revocation, revoked } from "./tokens.js";
import * as v1 from "./tokensidecar/v1/index.js";

/** What a key does: encryption is the outer layer, signature the inner one, refresh seals refresh tokens. */
export type KeyUse = Exclude<Lowercase<keyof typeof v1.KeyUse>, "unspecified">;

const KEY_USE: Readonly<Record<KeyUse, v1.KeyUse>> = {
  encryption: v1.KeyUse.ENCRYPTION,
  signature: v1.KeyUse.SIGNATURE,
  refresh: v1.KeyUse.REFRESH,
};

/** NIST SP 800-57 Part 1. Pending opens but does not issue yet; retiring opens until its last token has expired. */
export type KeyState = Lowercase<keyof typeof v1.KeyState>;

/** What is public about a key. Times are store time; those of its end are absent while no successor exists. */
export interface Key {
  /** `kid`. */
  readonly keyId: string;
  readonly profile: string;
  readonly keyUse: KeyUse | "unspecified";
  /** JWA name, such as "ES256". */
  readonly algorithm: string;
  /** JWA name, such as "A256GCM"; empty for signature keys. */
  readonly contentEncryption: string;
  readonly state: KeyState;
  readonly createTime: Date;
  readonly activateTime: Date;
  readonly retireTime?: Date;
  readonly destroyTime?: Date;
  readonly compromiseTime?: Date;
  /** For `RotateRequest.expectedRingRevision`. */
  readonly ringRevision: bigint;
}

/** Which keys get a successor. */
export interface RotateRequest {
  /** Absent: "default". */
  readonly profile?: string;
  /** Absent: encryption and signature. */
  readonly keyUse?: KeyUse;
  /** Absent: any. Else RING_CHANGED unless the ring is at this revision. */
  readonly expectedRingRevision?: bigint;
  /** Absent: a fresh one. The same id gets the first answer: repeat it, and a retry rotates once. */
  readonly requestId?: string;
  /** For the audit log; at most 256 characters. */
  readonly reason?: string;
}

/** A profile's ring after a rotation. */
export interface Rotation {
  /** All keys of the profile. */
  readonly keys: readonly Key[];
  /** When the successors start to issue. */
  readonly activateTime: Date;
  readonly ringRevision: bigint;
}

/** Which keys are compromised. Both are named, never implied. */
export interface RevokeKeysRequest {
  readonly profile: string;
  readonly keyIds: readonly string[];
  /** For the audit log; at most 256 characters. */
  readonly reason?: string;
}

/** A profile's ring after a compromise. */
export interface KeyRevocation {
  /** All keys of the profile. */
  readonly keys: readonly Key[];
  readonly ringRevision: bigint;
  /** By then every sidecar obeys, or refuses to answer; this one does already. */
  readonly effectiveTime: Date;
}

/** Whose tokens to end. */
export interface RevokeSubjectRequest {
  readonly profile: string;
  /** `sub`. */
  readonly subject: string;
  /** Tokens with `iat` up to this time; absent: now. */
  readonly issuedBefore?: Date;
  /** For the audit log; at most 256 characters. */
  readonly reason?: string;
}

/** Which token to end. */
export interface RevokeTokenIdRequest {
  readonly profile: string;
  /** `jti`. */
  readonly tokenId: string;
  /** `exp`; absent: now and the profile's maximum lifetime. */
  readonly expireTime?: Date;
  /** For the audit log; at most 256 characters. */
  readonly reason?: string;
}

/** A sidecar's admin plane. Made by `connectAdmin`. All throw InvalidRequestError, DeniedError, UnavailableError. */
export class TokenSidecarAdmin {
  readonly #channel: Channel;
  readonly #timeoutMs: number;

  constructor(channel: Channel, timeoutMs: number) {
    this.#channel = channel;
    this.#timeoutMs = timeoutMs;
  }

  /** Gives a profile's keys a successor. Throws TokenSidecarError with RING_CHANGED if another change won. */
  async rotate(request: RotateRequest = {}, options?: CallOptions): Promise<Rotation> {
    const { rotate } = v1.TokenService.method;
    const init = {
      profile: request.profile ?? "",
      keyUse: request.keyUse === undefined ? v1.KeyUse.UNSPECIFIED : KEY_USE[request.keyUse],
      expectedRingRevision: request.expectedRingRevision ?? 0n,
      requestId: request.requestId ?? randomUUID(),
      reason: request.reason ?? "",
    };
    const answer = await this.#channel.call(rotate, init, this.#timeoutMs, options);
    return {
      keys: answer.keys.map(key),
      activateTime: requiredDate(answer.activateTime),
      ringRevision: answer.ringRevision,
    };
  }

  /** The keys of one profile or of all, destroyed ones left out; every page is fetched. `options` hold for each page. */
  async listKeys(profile = "", options?: CallOptions): Promise<Key[]> {
    const { listKeys } = v1.AdminService.method;
    const keys: Key[] = [];
    let pageToken = "";
    do {
      const page = await this.#channel.call(listKeys, { profile, pageToken, pageSize: 1000 }, this.#timeoutMs, options);
      keys.push(...page.keys.map(key));
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    return keys;
  }

  /** Declares keys compromised: they neither issue nor open from now on, and their successors are active at once. */
  async revokeKeys(request: RevokeKeysRequest, options?: CallOptions): Promise<KeyRevocation> {
    const { revokeKeys } = v1.AdminService.method;
    const init = { profile: request.profile, keyIds: [...request.keyIds], reason: request.reason ?? "" };
    const answer = await this.#channel.call(revokeKeys, init, this.#timeoutMs, options);
    return {
      keys: answer.keys.map(key),
      ringRevision: answer.ringRevision,
      effectiveTime: requiredDate(answer.effectiveTime),
    };
  }

  /** Ends all tokens of a subject issued up to a time, refresh families included. */
  async revokeSubject(request: RevokeSubjectRequest, options?: CallOptions): Promise<Revocation> {
    const { revokeSubject } = v1.AdminService.method;
    const { profile, subject, issuedBefore, reason = "" } = request;
    const init = { profile, subject, reason, ...(issuedBefore && { issuedBefore: timestampFromDate(issuedBefore) }) };
    return revoked(await this.#channel.call(revokeSubject, init, this.#timeoutMs, options));
  }

  /** Ends one token, named by its id. */
  async revokeTokenId(request: RevokeTokenIdRequest, options?: CallOptions): Promise<Revocation> {
    const { revokeTokenId } = v1.AdminService.method;
    const { profile, tokenId, expireTime, reason = "" } = request;
    const init = { profile, tokenId, reason, ...(expireTime && { expireTime: timestampFromDate(expireTime) }) };
    return revoked(await this.#channel.call(revokeTokenId, init, this.#timeoutMs, options));
  }

  /** Ends the connection; later calls fail. */
  close(): void {
    this.#channel.close();
  }
}

function key(facts: v1.Key): Key {
  const { retireTime, destroyTime, compromiseTime } = facts;
  return {
    keyId: facts.keyId,
    profile: facts.profile,
    keyUse: lower(v1.KeyUse, facts.keyUse),
    algorithm: facts.algorithm,
    contentEncryption: facts.contentEncryption,
    state: lower(v1.KeyState, facts.state),
    createTime: requiredDate(facts.createTime),
    activateTime: requiredDate(facts.activateTime),
    ...(retireTime && { retireTime: timestampDate(retireTime) }),
    ...(destroyTime && { destroyTime: timestampDate(destroyTime) }),
    ...(compromiseTime && { compromiseTime: timestampDate(compromiseTime) }),
    ringRevision: facts.ringRevision,
  };
}

/** The name of an enum's value; one that this client does not know is "unspecified". */
function lower<N extends string>(
  names: Readonly<Record<number, string>> & Readonly<Record<N, number>>,
  value: number,
): Lowercase<N> {
  return (names[value] ?? "UNSPECIFIED").toLowerCase() as Lowercase<N>;
}
