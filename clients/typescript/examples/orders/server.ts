// Two services: orders lets good tokens through (Express), and calls billing (Fastify) with a token of its own. Neither holds a key.

import type { AddressInfo } from "node:net";
import express from "express";
import Fastify from "fastify";
import { type Claims, connect, protect, TokenSource } from "tokensidecar";

interface OrderClaims {
  readonly tenant: string;
}

/** What is not of this form was meant for another service: the token is turned down. */
function orderClaims({ tenant }: Claims): OrderClaims {
  if (typeof tenant !== "string") throw new TypeError("no tenant");
  return { tenant };
}

const sidecar = await connect();

const fromOrders = protect(sidecar, { audiences: ["billing"], requiredScopes: ["bills.read"] });
const billing = Fastify();
billing.get("/bill", { onRequest: fromOrders.fastify }, async (request) => {
  return `a bill, for ${fromOrders.caller(request).token.subject}`;
});
const billingOrigin = await billing.listen({ port: 0, host: "127.0.0.1" });

const grant = { subject: "orders", audiences: ["billing"], scopes: ["bills.read"] };
const billingFetch = new TokenSource(sidecar).fetch(grant, billingOrigin);

const fromUsers = protect(sidecar, { audiences: ["orders"], requiredScopes: ["orders.read"], claims: orderClaims });
const orders = express();
orders.get("/orders", fromUsers.express, async (request, response) => {
  const { token, claims } = fromUsers.caller(request);
  const bill = await (await billingFetch(`${billingOrigin}/bill`)).text();
  response.send(`orders of ${token.subject} at ${claims.tenant}: ${bill}`);
});
const server = orders.listen(Number(process.env.PORT ?? 8080), "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
});
process.once("SIGTERM", async () => {
  server.close();
  server.closeAllConnections();
  await billing.close();
  sidecar.close();
});
