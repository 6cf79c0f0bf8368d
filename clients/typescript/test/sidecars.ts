// The sidecars that a suite runs against: the real one that the environment names, else the fake, each over socket and TCP.

import { FakeSidecar } from "./fake.js";

export interface Planes {
  readonly name: string;
  readonly app: string;
  readonly admin: string;
}

const { TOKENSIDECAR_TEST_SOCKET, TOKENSIDECAR_TEST_TCP, TOKENSIDECAR_TEST_ADMIN } = process.env;

/** Starts what is needed; `end` ends it. */
export async function sidecars(): Promise<{ planes: readonly Planes[]; end: () => void }> {
  if (TOKENSIDECAR_TEST_SOCKET && TOKENSIDECAR_TEST_TCP && TOKENSIDECAR_TEST_ADMIN) {
    const admin = TOKENSIDECAR_TEST_ADMIN;
    const planes = [
      { name: "a sidecar over its socket", app: TOKENSIDECAR_TEST_SOCKET, admin },
      { name: "a sidecar over TCP", app: TOKENSIDECAR_TEST_TCP, admin },
    ];
    return { planes, end: () => {} };
  }
  const fake = new FakeSidecar();
  await fake.start();
  const planes = [
    { name: "the fake over a socket", app: fake.appSocket, admin: fake.adminSocket },
    { name: "the fake over TCP", app: fake.appTcp, admin: fake.adminTcp },
  ];
  return { planes, end: () => fake.end() };
}
