// What a test may do to `tokensidecar fake`: its clock and its failures.

import { durationFromMs, timestampDate } from "@bufbuild/protobuf/wkt";
import { parseAddress } from "./address.js";
import { Channel } from "./channel.js";
import type { Reason } from "./errors.js";
import { FakeService } from "./tokensidecar/fake/v1/fake_service_pb.js";
import { ErrorReason } from "./tokensidecar/v1/index.js";

/** One thing that goes wrong. */
export interface Failure {
  /** Name of an RPC of the contract, such as "Validate". Absent: any. */
  readonly method?: string;
  /** What is answered. Absent: nothing but the delay. */
  readonly reason?: Reason;
  /** How long the call waits before anything else. */
  readonly delayMs?: number;
  /** So many calls; absent: until further notice. */
  readonly count?: number;
  /** The call is served, and its answer lost. */
  readonly afterEffect?: boolean;
}

/** The control plane of a fake. */
export class FakeControl {
  readonly #channel: Channel;

  /** `address`: what the fake calls `control`. */
  constructor(address: string) {
    this.#channel = new Channel(parseAddress(address, "address").target, 10_000);
  }

  /** Lets time go by; on return what was due by then has been done. Gives the time of the tokens. */
  async advance(seconds: number): Promise<Date> {
    const { moveClock } = FakeService.method;
    const { time } = await this.#channel.call(moveClock, { advance: durationFromMs(seconds * 1000) }, 10_000);
    return time ? timestampDate(time) : new Date();
  }

  /** Replaces the failures that are planned; without any, all is well. */
  async fail(...failures: Failure[]): Promise<void> {
    const planned = failures.map(({ method = "", reason, delayMs = 0, count = 0, afterEffect = false }) => ({
      method,
      reason: ErrorReason[reason ?? "ERROR_REASON_UNSPECIFIED"],
      delay: durationFromMs(delayMs),
      count,
      afterEffect,
    }));
    await this.#channel.call(FakeService.method.setFailures, { failures: planned }, 10_000);
  }

  close(): void {
    this.#channel.close();
  }
}
