"""A stand-in for your app, every five seconds: it gets itself a token from the sidecar and shows it to the service billing.

Without BILLING_URL it has the sidecar validate the token instead. /livez and /readyz answer on port 8080.
"""
# ruff: noqa: T201

import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import grpc
from tokensidecar.v1 import token_service_pb2 as pb, token_service_pb2_grpc


class Probes(BaseHTTPRequestHandler):
    """Answers while the process lives: an app whose sidecar is away for a moment need not be restarted."""

    def do_GET(self) -> None:
        """Anything else than a probe is not found."""
        self.send_response(200 if self.path in ("/livez", "/readyz") else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Probes are not worth a line."""


def shown(token: str, billing: str) -> str:
    """What the service says to the token."""
    request = Request(f"{billing}/bill", headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - from the manifest
    with urlopen(request, timeout=2) as answer:  # noqa: S310
        return f"billing answers {answer.status}: {answer.read(200).decode().strip()}"


def validated(token: str, tokens: token_service_pb2_grpc.TokenServiceStub) -> str:
    """What the sidecar of this pod says to the token."""
    good = tokens.Validate(pb.ValidateRequest(token=token, audiences=["billing"]), timeout=1)
    return f"token {good.token_id} of {good.subject}: good until {good.expire_time.ToJsonString()}"


def main() -> None:
    """Runs until it is stopped, or for as many rounds as the first argument says."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else -1
    billing = os.environ.get("BILLING_URL")
    if rounds < 0:
        probes = ThreadingHTTPServer(("", 8080), Probes)
        threading.Thread(target=probes.serve_forever, daemon=True).start()
    with grpc.insecure_channel(os.environ["TOKENSIDECAR_ADDRESS"]) as channel:
        tokens = token_service_pb2_grpc.TokenServiceStub(channel)
        while rounds != 0:
            try:
                token = tokens.Issue(pb.IssueRequest(subject="user-42", audiences=["billing"]), timeout=1).token
                print(shown(token, billing) if billing else validated(token, tokens), flush=True)
            except grpc.RpcError as error:
                print(f"no token: {error.code().name}: {error.details()}", flush=True)
            except HTTPError as error:
                print(f"billing refuses: {error.code} {error.reason}", flush=True)
            except OSError as error:
                print(f"billing is away: {error}", flush=True)
            rounds -= 1
            if rounds != 0:
                time.sleep(5)


if __name__ == "__main__":
    main()
