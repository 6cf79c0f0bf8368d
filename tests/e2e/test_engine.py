"""`keys.engine`: the reference engine alone, in a real sidecar; tokens of either engine are good under the other."""

from __future__ import annotations

import pytest
from tokensidecar.v1 import token_service_pb2 as pb

from tests.e2e.calls import SECONDS, Plane, refused
from tests.running import RunningSidecar

PROFILES = """
[profiles.nested]
issuer = "https://tokens.example.com"
audiences = ["orders"]
[profiles.agreed]
issuer = "https://tokens.example.com"
audiences = ["orders"]
sign = "Ed25519"
encrypt = "ECDH-ES+A256KW"
curve = "X25519"
[profiles.alone]
issuer = "https://tokens.example.com"
audiences = ["orders"]
format = "encrypted"
"""
NAMES = ("nested", "agreed", "alone")
CLAIMS = '{"n":18446744073709551615,"name":"Zoë"}'


@pytest.mark.parametrize("first", ["prepared", "jwcrypto"])
def test_tokens_outlive_a_change_of_the_engine(first: str) -> None:
    second = {"prepared": "jwcrypto", "jwcrypto": "prepared"}[first]
    sidecar = RunningSidecar(f'{PROFILES}\n[keys]\nengine = "{first}"\n')
    try:
        made = _served(sidecar, {})
        (sidecar.directory / "config.toml").write_text(f'{PROFILES}\n[keys]\nengine = "{second}"\n')
        _served(sidecar, made)
    finally:
        sidecar.kill()
        sidecar.remove()


def _served(sidecar: RunningSidecar, earlier: dict[str, str]) -> dict[str, str]:
    """Start, validate tokens of the engine before, issue and validate one's own, refuse changed ones; the tokens, by profile."""
    sidecar.start()
    sidecar.wait_until_ready()
    with Plane(sidecar.app_socket) as plane:
        made = {name: plane.token(profile=name, claims_json=CLAIMS) for name in NAMES}
        for tokens in (earlier, made):
            for name, token in tokens.items():
                accepted = plane.accepts(token, profiles=[name])
                assert accepted.profile == name
                assert accepted.claims_json.endswith(CLAIMS.removeprefix("{"))
                for changed in _changed(token):
                    request = pb.ValidateRequest(token=changed, audiences=["orders"], profiles=[name])
                    assert refused(plane.validate, request).reason == "TOKEN_INVALID"
        asked = [pb.ValidateRequest(token=token, audiences=["orders"], profiles=[name]) for name, token in made.items()]
        answer = plane.batch_validate(pb.BatchValidateRequest(requests=asked), timeout=SECONDS)
        assert [result.response.profile for result in answer.results] == list(NAMES)
    sidecar.stop()
    return made


def _changed(token: str) -> list[str]:
    """The token with one character of each part changed: still canonical, since it is the first one."""
    parts = token.split(".")
    return [
        ".".join([*parts[:at], ("A" if part[0] != "A" else "B") + part[1:], *parts[at + 1 :]])
        for at, part in enumerate(parts)
    ]
