"""Issues a token and validates it: `python examples/issue.py`, beside a sidecar (`tokensidecar serve`)."""

from __future__ import annotations

import sys

import tokensidecar


def main() -> int:
    try:
        client = tokensidecar.connect(start_timeout=2)
    except tokensidecar.ConnectError as error:
        print(error, file=sys.stderr)
        return 1
    with client:
        token = client.issue("user-42", ["orders"], scopes=["read"], claims={"tenant": "acme"}).token
        found = client.validate(token, ["orders"], required_scopes=["read"])
        print(f"{found.subject} of {found.claims['tenant']} until {found.expire_time:%H:%M:%S}")
        try:
            client.validate(token, ["billing"])
        except tokensidecar.RejectedError as error:
            print(f"at billing: {error.reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
