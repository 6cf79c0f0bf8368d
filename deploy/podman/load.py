"""What an app does, over and over, from the app's own place; prints one JSON document at its end. For `prove`.

Commands:
    serve SECONDS BILLING       issue a token and show it to billing, 4 at a time; and the first token again and again
    issue                       one token, and the id of its key
    flood SECONDS KEY           forged and broken tokens, as many and as large as the sidecar takes
    look                        what this container can read of the file system, and what of it should be a secret
"""

from __future__ import annotations

import base64
import collections
import hashlib
import http.client
import json
import os
import random
import stat
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import grpc
from tokensidecar.v1 import token_service_pb2 as pb, token_service_pb2_grpc

ADDRESS = os.environ.get("TOKENSIDECAR_ADDRESS", "unix:/run/tokensidecar/app/app.sock")
WORKERS = 4
SHORT = 200  # bytes; a key-encryption key has fewer
FOLDERS = (
    *("/", "/tmp", "/run", "/etc", "/app", "/etc/tokensidecar", "/run/tokensidecar/app", "/run/tokensidecar/admin"),  # noqa: S108
    *("/var/lib/tokensidecar", "/run/secrets/tokensidecar/rings", "/run/secrets/tokensidecar/kek", "/demo"),
)


def stub() -> token_service_pb2_grpc.TokenServiceStub:
    """A client that comes back within a second of the sidecar's return, as the client libraries do."""
    options = [("grpc.max_reconnect_backoff_ms", 500), ("grpc.initial_reconnect_backoff_ms", 100)]
    return token_service_pb2_grpc.TokenServiceStub(
        grpc.insecure_channel(ADDRESS, [*options, ("grpc.use_local_subchannel_pool", 1)])
    )


def issue(tokens: token_service_pb2_grpc.TokenServiceStub) -> str:
    """A token for billing. The deadline is long: a busy machine alone is no failure."""
    return tokens.Issue(pb.IssueRequest(subject="user-42", audiences=["billing"]), timeout=3).token


def key_of(token: str) -> str:
    """The key id in the token's outer header."""
    head = token.split(".", maxsplit=1)[0]
    return str(json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"])


def shown(billing: str, token: str) -> str:
    """The status that billing answers with; a word where it does not."""
    connection = http.client.HTTPConnection(billing, timeout=3)
    try:
        connection.request("GET", "/bill", headers={"Authorization": f"Bearer {token}"})
        return str(connection.getresponse().status)
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()


def serve(seconds: float, billing: str) -> dict[str, object]:
    """Counts outcomes, and finds the longest time without a good one."""
    tokens = stub()
    first = issue(tokens)
    end = time.monotonic() + seconds
    outcomes: collections.Counter[str] = collections.Counter()
    again: collections.Counter[str] = collections.Counter()
    keys: set[str] = set()
    good: list[float] = [time.monotonic()]
    lock = threading.Lock()

    def work() -> None:
        while time.monotonic() < end:
            try:
                token = issue(tokens)
            except grpc.RpcError as error:
                outcome, key = f"issue: {error.code().name}", None
            else:
                outcome, key = shown(billing, token), key_of(token)
            old = shown(billing, first)
            with lock:
                outcomes[outcome] += 1
                again[old] += 1
                if outcome == "200" and key:
                    keys.add(key)
                    good.append(time.monotonic())
            time.sleep(0.01)

    threads = [threading.Thread(target=work) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    good.sort()
    gap = max((later - sooner for sooner, later in pairwise(good)), default=seconds)
    recovered = good[-1] > end - 1
    return {
        "outcomes": outcomes,
        "first_token": again,
        "keys": len(keys),
        "gap": round(gap, 1),
        "recovered": recovered,
    }


def forgeries(key: str) -> list[bytes]:
    """Requests that a sidecar must refuse, up to the largest: tokens that name the active key, or none that there is, and no tokens."""
    heads = []
    for kid in (key, "0" * 22):
        head = {"alg": "A256KW", "enc": "A256GCM", "cty": "JWT", "typ": "JWT", "kid": kid}
        heads.append(base64.urlsafe_b64encode(json.dumps(head, separators=(",", ":")).encode()).decode().rstrip("="))
    sizes = (400, 4000, 16000, 60000)
    shapes = [".".join([head, "A" * 54, "A" * 16, "A" * size, "A" * 22]) for head in heads for size in sizes]
    shapes += ["." * 4, "A" * 60000, "eyJhbGciOiJub25lIn0.e30.", ""]
    requests = [pb.ValidateRequest(token=shape, audiences=["billing"]).SerializeToString() for shape in shapes]
    return [*requests, b"\xff" * 60000, os.urandom(30000)]


def flood(seconds: float, key: str) -> dict[str, object]:
    """As much as it can, from 8 connections with 64 calls each; new connections all the time."""
    requests, end = forgeries(key), time.monotonic() + seconds
    outcomes: collections.Counter[str] = collections.Counter()
    lock = threading.Lock()

    def work() -> None:
        while time.monotonic() < end:
            with grpc.insecure_channel(ADDRESS, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/tokensidecar.v1.TokenService/Validate", None, None)
                for _ in range(20):
                    under_way = [call.future(random.choice(requests), timeout=5) for _ in range(64)]  # noqa: S311
                    codes = [future.code().name for future in under_way]
                    with lock:
                        outcomes.update(codes)
                    if time.monotonic() > end:
                        break

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"outcomes": outcomes}


def look() -> dict[str, object]:
    """Walks all that can be read, but for the kernel's files, and tries to write."""
    files, rings, accounts, digests = 0, [], [], []
    for folder, names, found in os.walk("/"):
        if folder == "/":
            names[:] = [name for name in names if name not in ("proc", "sys", "dev")]
        for path in (Path(folder, name) for name in found):
            try:
                if not stat.S_ISREG(path.stat().st_mode):
                    continue
                content = path.read_bytes()
            except OSError:
                continue
            files += 1
            if content.startswith(b"tokensidecar-ring "):
                rings.append(str(path))
            if "serviceaccount" in str(path):
                accounts.append(str(path))
            if len(content) < SHORT:
                digests.append(hashlib.sha256(content.strip()).hexdigest())
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return {
        "files": files,
        "rings": rings,
        "accounts": accounts,
        "digests": digests,
        "processes": [words(each) for each in Path("/proc").iterdir() if each.name.isdigit() and words(each)],
        "mounts": [line.split()[4] for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()],
        "writable": [folder for folder in FOLDERS if writable(Path(folder))],
        "uid": os.getuid(),
        "groups": os.getgroups(),
        "capabilities": status.partition("CapEff:")[2].split()[0],
    }


def words(process: Path) -> str:
    """Its command line; empty: it cannot be seen, or is this one."""
    try:
        line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
    return "" if process.name == str(os.getpid()) else line


def writable(folder: Path) -> bool:
    """Whether a file can be made there."""
    try:
        (folder / ".probe").write_bytes(b"")
        (folder / ".probe").unlink()
    except OSError:
        return False
    return True


def main() -> None:
    """See above."""
    command, *arguments = sys.argv[1:]
    if command == "serve":
        result = serve(float(arguments[0]), arguments[1])
    elif command == "flood":
        result = flood(float(arguments[0]), arguments[1])
    elif command == "look":
        result = look()
    else:
        token = issue(stub())
        result = {"token": token, "key": key_of(token)}
    print(json.dumps(result))  # noqa: T201


if __name__ == "__main__":
    main()
