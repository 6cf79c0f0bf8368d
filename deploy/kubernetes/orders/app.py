"""A stand-in for your app: issues itself a token through the sidecar and validates it, every five seconds."""
# ruff: noqa: T201

import os
import sys
import time

import grpc
from tokensidecar.v1 import token_service_pb2 as pb, token_service_pb2_grpc


def main() -> None:
    """Runs until it is stopped, or for as many rounds as the first argument says."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else -1
    with grpc.insecure_channel(os.environ["TOKENSIDECAR_ADDRESS"]) as channel:
        tokens = token_service_pb2_grpc.TokenServiceStub(channel)
        while rounds != 0:
            try:
                issued = tokens.Issue(pb.IssueRequest(subject="user-42", audiences=["orders"]), timeout=1)
                good = tokens.Validate(pb.ValidateRequest(token=issued.token, audiences=["orders"]), timeout=1)
                print(
                    f"token {good.token_id} of {good.subject}: good until {good.expire_time.ToJsonString()}", flush=True
                )
            except grpc.RpcError as error:
                print(f"no token: {error.code().name}: {error.details()}", flush=True)
            rounds -= 1
            if rounds != 0:
                time.sleep(5)


if __name__ == "__main__":
    main()
