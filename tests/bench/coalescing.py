"""Validations a second through the Go and TypeScript clients, each call alone and coalesced, by how many run at once.

`python -m tests.bench.coalescing [SECONDS]` prints a table. Client and sidecar share the machine: where it has two cores, each has one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.running import ROOT, RunningSidecar

CALLERS = (1, 4, 16, 64, 256)


def go(address: str, seconds: float) -> dict[str, float]:
    """By "unary/64" or "coalesced/64"."""
    command = ["go", "test", "-run", "^$", "-bench", "BenchmarkValidate", "-benchtime", f"{seconds}s", "."]
    env = {**os.environ, "TOKENSIDECAR_TEST_SOCKET": address}
    told = _told(command, cwd=str(ROOT / "clients/go"), env=env)
    lines = re.findall(r"BenchmarkValidate/(\w+/\d+)\S*\s.*?([\d.]+) tokens/s", told)
    return {name: float(rate) for name, rate in lines}


def typescript(address: str, seconds: float) -> dict[str, float]:
    """The same."""
    package = ROOT / "clients/typescript"
    _told(["npm", "run", "--silent", "build"], cwd=str(package), env=dict(os.environ))
    command = ["node", str(ROOT / "tests/bench/validate.mjs"), str(package), address, str(seconds)]
    told = _told(command, cwd=str(package), env=dict(os.environ))
    return {name: float(rate) for name, rate in (line.split() for line in told.splitlines())}


def _told(command: list[str], cwd: str, env: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout


def main() -> int:
    """Print the table, as the READMEs have it."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    with RunningSidecar() as sidecar:
        rates = {"Go": go(sidecar.app_socket, seconds), "TypeScript": typescript(sidecar.app_socket, seconds)}
    print("| client | calls at once | unary, tokens/s | coalesced, tokens/s | ratio |\n| --- | --- | --- | --- | --- |")
    for client, found in rates.items():
        for callers in CALLERS:
            unary, coalesced = found[f"unary/{callers}"], found[f"coalesced/{callers}"]
            print(f"| {client} | {callers} | {unary:,.0f} | {coalesced:,.0f} | {coalesced / unary:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
