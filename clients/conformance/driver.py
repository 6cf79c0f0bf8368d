"""The Python client's driver: commands in, answers out, as README.md says."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import tokensidecar
from tokensidecar import CallError

KINDS = {
    tokensidecar.RejectedError: "rejected",
    tokensidecar.InvalidRequestError: "invalid",
    tokensidecar.DeniedError: "denied",
    tokensidecar.ChangedRingError: "changed",
    tokensidecar.UnavailableError: "unavailable",
}
WAITS = ("start_timeout", "timeout", "validate_timeout")
Facts = dict[str, Any]


def failed(error: CallError) -> Facts:
    """In the words of all drivers."""
    kind = next((word for kind, word in KINDS.items() if isinstance(error, kind)), "failed")
    return {"error": kind, "reason": error.reason or "", "fields": [each.field for each in error.violations]}


def issued(token: tokensidecar.IssuedToken) -> Facts:
    """What an issue or a refresh gave."""
    return {
        "token": token.token,
        "token_id": token.token_id,
        "key_id": token.key_id,
        "scopes": token.scopes,
        "refresh_token": token.refresh_token or "",
    }


def validated(token: tokensidecar.ValidatedToken) -> Facts:
    """What a validate gave."""
    return {
        "subject": token.subject,
        "profile": token.profile,
        "audiences": token.audiences,
        "scopes": token.scopes,
        "client_id": token.client_id,
        "key_id": token.key_id,
        "claims_json": token.claims_json,
    }


def keys(found: tuple[tokensidecar.Key, ...]) -> Facts:
    """Use and state of each."""
    return {"keys": sorted(f"{key.use} {key.state}" for key in found)}


def each(results: list[Any], facts: Any) -> Facts:
    """One answer for each item of a batch."""
    return {"results": [failed(one) if isinstance(one, CallError) else {"ok": facts(one)} for one in results]}


def request(command: Facts) -> tokensidecar.IssueRequest:
    """What to issue."""
    return tokensidecar.IssueRequest(
        command["subject"],
        command["audiences"],
        profile=command.get("profile", ""),
        ttl=timedelta(seconds=command["ttl"]) if "ttl" in command else None,
        scopes=command.get("scopes", ()),
        claims=command.get("claims_json"),
        confirmation=tokensidecar.JwkThumbprint(command["jwk_thumbprint"]) if "jwk_thumbprint" in command else None,
        with_refresh_token=command.get("with_refresh_token", False),
    )


class Driver:
    """One client of each plane, the last that was connected."""

    client: tokensidecar.Client
    admin: tokensidecar.AdminClient

    def connect(self, command: Facts) -> Facts:
        tls = tokensidecar.Tls(**command["tls"]) if "tls" in command else None
        waits = {name: command[name] for name in WAITS if name in command}
        self.client = tokensidecar.connect(command["address"], tls=tls, **waits)
        return {}

    def connect_admin(self, command: Facts) -> Facts:
        self.admin = tokensidecar.connect_admin(command["address"])
        return {}

    def issue(self, command: Facts) -> Facts:
        wanted = request(command)
        return issued(
            self.client.issue(
                wanted.subject,
                wanted.audiences,
                profile=wanted.profile,
                ttl=wanted.ttl,
                scopes=wanted.scopes,
                claims=wanted.claims,
                confirmation=wanted.confirmation,
                with_refresh_token=wanted.with_refresh_token,
            )
        )

    def validate(self, command: Facts) -> Facts:
        return validated(
            self.client.validate(
                command["token"],
                command["audiences"],
                profiles=command.get("profiles", ()),
                required_scopes=command.get("required_scopes", ()),
                request_id=command.get("request_id"),
                possession=tokensidecar.DpopProof(**command["dpop"]) if "dpop" in command else None,
            )
        )

    def batch_issue(self, command: Facts) -> Facts:
        return each(self.client.batch_issue(map(request, command["requests"])), issued)

    def batch_validate(self, command: Facts) -> Facts:
        return each(self.client.batch_validate(command["tokens"], command["audiences"]), validated)

    def refresh(self, command: Facts) -> Facts:
        return issued(self.client.refresh(command["refresh_token"], scopes=command.get("scopes", ())))

    def revoke(self, command: Facts) -> Facts:
        self.client.revoke(command["token"])
        return {}

    def rotate(self, command: Facts) -> Facts:
        revision = command.get("expected_ring_revision", 0)
        return keys(self.admin.rotate(command["profile"], expected_ring_revision=revision).keys)

    def keys(self, command: Facts) -> Facts:
        return keys(self.admin.keys(command["profile"]))

    def revoke_keys(self, command: Facts) -> Facts:
        return keys(self.admin.revoke_keys(command["profile"], command["key_ids"]).keys)

    def traffic(self, command: Facts) -> Facts:
        """Each caller goes on until the time is over, and at least once; the admin client may rotate meanwhile."""
        ends: Counter[str] = Counter()
        until = time.monotonic() + command["seconds"]

        def turn() -> str:
            try:
                profile = command.get("profile", "")
                token = command.get("token") or self.issue(command)["token"]
                profiles = [profile] if profile else ()
                self.client.validate(token, command["audiences"], profiles=profiles)
            except CallError as error:
                return f"{failed(error)['error']} {error.reason or ''}".strip()
            return "ok"

        def caller(_: int) -> list[str]:
            ended = [turn()]
            while time.monotonic() < until:
                ended.append(turn())
            return ended

        with ThreadPoolExecutor(command["callers"]) as callers:
            under_way = callers.map(caller, range(command["callers"]))
            if "rotate_after" in command:
                time.sleep(command["rotate_after"])
                self.admin.rotate(command["profile"])
            for ended in under_way:
                ends.update(ended)
        return {"ends": ends}


def main() -> None:
    """Until the end of standard input."""
    driver = Driver()
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = {"ok": getattr(driver, command["do"])(command)}
        except CallError as error:
            answer = failed(error)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
