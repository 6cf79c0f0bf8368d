// Validations a second through the TypeScript client, alone and coalesced, by how many run at once. Lines: "unary/64 1234".
// Arguments: the package's directory, the sidecar's address, seconds for each.

const [directory, address, seconds] = process.argv.slice(2);
const { connect } = await import(`${directory}/dist/index.js`);

async function rate(callers, coalesce) {
  const sidecar = await connect({ address, coalesce, validateTimeoutMs: 60_000 });
  const { token } = await sidecar.issue({ subject: "user-17", audiences: ["orders"] });
  const end = performance.now() + Number(seconds) * 1000;
  const started = performance.now();
  let done = 0;
  await Promise.all(
    Array.from({ length: callers }, async () => {
      while (performance.now() < end) {
        await sidecar.validate({ token, audiences: ["orders"] });
        done += 1;
      }
    }),
  );
  sidecar.close();
  return (done * 1000) / (performance.now() - started);
}

for (const callers of [1, 4, 16, 64, 256]) {
  for (const [name, coalesce] of [["unary", false], ["coalesced", true]]) {
    console.log(`${name}/${callers} ${Math.round(await rate(callers, coalesce))}`);
  }
}
