"""The command line: what it prints, to whom, and with which exit code."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jsonschema
import pytest
import tokensidecar
from hypothesis import given, strategies as st
from tokensidecar import Key, KeyState, KeyUse

from sidecar.cli import demo, keys, screen
from sidecar.cli.exits import MEANINGS, CommandError
from sidecar.cli.inspect import look
from sidecar.cli.main import COMMANDS, main
from sidecar.config import load
from sidecar.gate import RULES
from sidecar.jose.suites import CONTENT, KEY_MANAGEMENT, SIGNATURES
from tests.forgeries import encode
from tests.running import ROOT, RunningSidecar, free_port
from tests.test_config import GOOD

TOOL = str(ROOT / ".venv/bin/tokensidecar")
USAGE, REJECTED, UNREACHABLE = 2, 3, 4


def run(running: RunningSidecar, *args: str, given: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """The command in a pipe, in the environment of a sidecar."""
    return subprocess.run(
        [TOOL, *args], input=given, env={**running.env, **env}, capture_output=True, text=True, timeout=60, check=False
    )


def on_terminal(running: RunningSidecar, *args: str, **env: str) -> str:
    """What a person sees on a terminal of 80 columns, escape sequences included."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 80, 0, 0))
    with subprocess.Popen(
        [TOOL, *args], stdin=theirs, stdout=theirs, stderr=theirs, env={**running.env, "TERM": "xterm-256color", **env}
    ) as process:
        os.close(theirs)
        seen = b""
        try:
            while data := os.read(ours, 4096):
                seen += data
        except OSError:  # the other end is closed
            pass
        process.wait(30)
    os.close(ours)
    return seen.decode().replace("\r\n", "\n")


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.fixture
def token(sidecar: RunningSidecar) -> str:
    done = run(sidecar, "issue", "-s", "user-42", "-a", "orders")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# -- exit codes and usage


def test_help_lists_every_command_and_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^ +{command}\s", shown, re.MULTILINE) for command in COMMANDS)
    assert all(f"  {code.value}  {meaning}" in shown for code, meaning in MEANINGS.items())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_the_exit_codes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "token was rejected" in capsys.readouterr().out


@pytest.mark.parametrize(
    "args", [[], ["nonsense"], ["issue"], ["validate"], ["issue", "-s", "u", "-a", "a", "--ttl", "soon"]]
)
def test_wrong_usage_is_2(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == USAGE
    assert "usage:" in capsys.readouterr().err


def test_serve_loads_neither_rich_nor_the_client_before_the_config_is_read() -> None:
    code = "import sys; from sidecar.cli.main import main; main(['serve', '--config', '/absent']); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=30, check=True
    )
    assert not {"rich", "grpc", "tokensidecar", "sidecar.app"} & set(done.stdout.split())
    assert "No such file" in done.stderr


def test_without_a_sidecar_it_is_4_and_one_line_tells_all_that_was_tried(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "TOKENSIDECAR_RUNTIME_DIR": str(tmp_path)}
    named = f"127.0.0.1:{free_port()}"
    for args in (["keys", "--address", named], ["issue", "-s", "u", "-a", "a", "--address", named]):
        done = subprocess.run([TOOL, *args], env=env, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == UNREACHABLE
        assert done.stdout == ""
        assert re.fullmatch(
            rf"tokensidecar {args[0]}: no sidecar answers; tried {named} \(Connection refused\)\n", done.stderr
        )


def test_an_address_that_is_none_is_2(sidecar: RunningSidecar) -> None:
    assert run(sidecar, "keys", "--address", "nowhere").returncode == USAGE


# -- issue and validate


def test_issue_in_a_pipe_prints_the_token_alone_and_validate_takes_it(sidecar: RunningSidecar, token: str) -> None:
    assert token.count(".") == 4
    assert "\n" not in token
    done = run(sidecar, "validate", "-a", "orders", given=token + "\n")
    assert done.returncode == 0
    assert "good" in done.stdout
    assert "user-42" in done.stdout
    assert "\x1b" not in done.stdout


def test_claims_go_through_exactly(sidecar: RunningSidecar, tmp_path: Path) -> None:
    file = tmp_path / "claims.json"
    file.write_text('{"big": 9223372036854775807, "decimal": 1.10, "name": "Zoë 漢字"}\n', encoding="utf-8")
    issued = run(
        sidecar,
        "issue",
        "-s",
        "u",
        "-a",
        "a",
        "--claims",
        str(file),
        "--claim",
        "n=18446744073709551615",
        "--claim",
        "text=two words",
        "--json",
    )
    token = json.loads(issued.stdout)["token"]
    done = run(sidecar, "validate", "-a", "a", "--json", given=token)
    assert '"big": 9223372036854775807, "decimal": 1.10, "name": "Zoë 漢字"' in done.stdout
    claims = json.loads(done.stdout)["claims"]
    assert (claims["n"], claims["text"]) == (18446744073709551615, "two words")


def test_claims_may_come_from_standard_input(sidecar: RunningSidecar) -> None:
    issued = run(sidecar, "issue", "-s", "u", "-a", "a", "--claims", "-", given='{"tenant":"acme"}')
    done = run(sidecar, "validate", "-a", "a", "--json", given=issued.stdout)
    assert json.loads(done.stdout)["claims"]["tenant"] == "acme"


def test_a_lifetime_and_scopes_are_granted(sidecar: RunningSidecar) -> None:
    done = run(
        sidecar,
        "issue",
        "-s",
        "u",
        "-a",
        "a",
        "-a",
        "b",
        "--ttl",
        "2m",
        "--scope",
        "r",
        "--scope",
        "w",
        "--client-id",
        "c",
        "--json",
    )
    issued = json.loads(done.stdout)
    assert issued["audiences"] == ["a", "b"]
    assert issued["scopes"] == ["r", "w"]
    lived = datetime.fromisoformat(issued["expire_time"]) - datetime.fromisoformat(issued["issue_time"])
    assert lived == timedelta(minutes=2)
    assert run(sidecar, "validate", "-a", "b", "--scope", "w", given=issued["token"]).returncode == 0
    lacking = run(sidecar, "validate", "-a", "b", "--scope", "admin", given=issued["token"])
    assert (lacking.returncode, "TOKEN_SCOPE_MISSING" in lacking.stderr) == (REJECTED, True)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("[1]", "an array"),
        ("{", "not JSON"),
        ("", "not JSON"),
        ("\udcff", "not JSON"),
        ("1", "a number"),
        (None, "cannot be read"),
    ],
)
@pytest.mark.parametrize("command", ["issue", "demo"])
def test_claims_that_are_no_object_are_2_and_one_line(
    sidecar: RunningSidecar, tmp_path: Path, command: str, content: str | None, word: str
) -> None:
    file = tmp_path / "claims.json"
    if content is not None:
        file.write_bytes(content.encode("utf-8", errors="surrogateescape"))
    grant = ["-s", "u", "-a", "a"] if command == "issue" else []
    done = run(sidecar, command, *grant, "--claims", str(file))
    assert done.returncode == USAGE
    assert done.stderr.count("\n") == 1
    assert word in done.stderr


def test_a_refused_request_is_2_and_names_the_field(sidecar: RunningSidecar) -> None:
    done = run(sidecar, "issue", "-s", "u", "-a", "a", "--ttl", "2h")
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert re.match(r"tokensidecar issue: REQUEST_INVALID: ttl: .*\n$", done.stderr)


@pytest.mark.parametrize(
    "args", [["--claim", "x"], ["--claim", "a=1", "--claim", "a=2"], ["--claim", "a=1", "--claims", "-"]]
)
def test_claims_given_twice_or_by_half_are_2(sidecar: RunningSidecar, args: list[str]) -> None:
    assert run(sidecar, "issue", "-s", "u", "-a", "a", *args, given='{"a": 1}').returncode == USAGE


def test_a_rejected_token_is_3_with_its_reason(sidecar: RunningSidecar, token: str) -> None:
    wrong = run(sidecar, "validate", "-a", "billing", given=token)
    assert (wrong.returncode, wrong.stdout) == (REJECTED, "")
    assert (
        wrong.stderr
        == "tokensidecar validate: token rejected: TOKEN_AUDIENCE_MISMATCH: the token is for another audience\n"
    )
    tampered = run(sidecar, "validate", "-a", "orders", "--json", given=token[:-9] + "AAAAAAAAA")
    assert tampered.returncode == REJECTED
    assert json.loads(tampered.stdout) == {
        "valid": False,
        "reason": "TOKEN_INVALID",
        "message": "the token is not valid",
    }


@pytest.mark.parametrize("command", [["validate", "-a", "orders"], ["inspect"]])
def test_a_token_as_an_argument_is_refused_and_not_repeated(
    sidecar: RunningSidecar, token: str, command: list[str]
) -> None:
    done = run(sidecar, *command, token)
    assert done.returncode == USAGE
    assert "standard input" in done.stderr
    assert token[:20] not in done.stderr + done.stdout


def test_a_token_may_be_in_a_file(sidecar: RunningSidecar, token: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"  {token}\n", encoding="utf-8")
    assert run(sidecar, "validate", "-a", "orders", str(file)).returncode == 0
    assert run(sidecar, "validate", "-a", "orders", str(tmp_path / "absent")).returncode == USAGE
    file.write_text(" \n", encoding="utf-8")
    assert run(sidecar, "validate", "-a", "orders", str(file)).returncode == USAGE
    file.write_text("x" * 70_000, encoding="utf-8")
    assert run(sidecar, "validate", "-a", "orders", str(file)).returncode == USAGE


# -- keys and rotate


def test_rotate_gives_fresh_keys_and_keys_shows_them(start_sidecar: Callable[..., RunningSidecar]) -> None:
    running = start_sidecar()
    before = json.loads(run(running, "keys", "--json").stdout)["keys"]
    assert {(key["use"], key["state"]) for key in before} == {("encryption", "active"), ("signature", "active")}
    revision = str(before[0]["ring_revision"])
    done = run(running, "rotate", "--use", "signature", "--expect", revision, "--reason", "test", "--json")
    rotated = json.loads(done.stdout)
    assert rotated["ring_revision"] == int(revision) + 1
    states = sorted((key["use"], key["state"]) for key in rotated["keys"])
    assert states == [("encryption", "active"), ("signature", "active"), ("signature", "retiring")]
    stale = run(running, "rotate", "--expect", revision)
    assert (stale.returncode, "RING_CHANGED" in stale.stderr) == (1, True)
    shown = run(running, "keys").stdout
    assert "retiring 1h 15m" in shown
    assert all(key["key_id"][:9] in shown for key in rotated["keys"])
    assert run(running, "keys", "--profile", "absent").returncode != 0


def test_revoke_ends_keys_subjects_and_tokens_by_id(start_sidecar: Callable[..., RunningSidecar]) -> None:
    running = start_sidecar()

    def token(subject: str) -> dict[str, str]:
        found: dict[str, str] = json.loads(run(running, "issue", "-s", subject, "-a", "orders", "--json").stdout)
        return found

    def good(given: dict[str, str]) -> str:
        done = run(running, "validate", "-a", "orders", given=given["token"])
        return "" if done.returncode == 0 else done.stderr

    alice, bob, carol = (token(name) for name in ("alice", "bob", "carol"))
    done = run(running, "revoke", "subject", "alice", "--reason", "a drill")
    assert (done.returncode, "revoked here; everywhere by" in done.stdout) == (0, True), done.stderr
    assert "TOKEN_REVOKED" in good(alice)
    done = run(running, "revoke", "token-id", bob["token_id"], "--expire-time", "2100-01-01T00:00:00Z", "--json")
    assert json.loads(done.stdout)["revocation_revision"] == 2
    assert "TOKEN_REVOKED" in good(bob)
    assert good(carol) == ""
    active = [key["key_id"] for key in json.loads(run(running, "keys", "--json").stdout)["keys"]]
    done = run(running, "revoke", "keys", *active, "--json")
    assert json.loads(done.stdout)["ring_revision"] == 2
    assert "TOKEN_INVALID" in good(carol)
    assert good(token("carol")) == ""
    assert run(running, "revoke", "keys", "none-of-ours").returncode != 0
    assert run(running, "revoke", "subject", "x", "--issued-before", "2026-01-01").returncode == USAGE


REFRESHABLE = """
[profiles.default]
issuer = "urn:test"
audiences = ["orders"]
refresh_ttl = "1h"
"""


def test_refresh_token_is_traded_and_revoked(start_sidecar: Callable[..., RunningSidecar]) -> None:
    running = start_sidecar(REFRESHABLE)
    first = run(running, "issue", "-s", "alice", "-a", "orders", "--scope", "read", "--refresh").stdout.splitlines()
    assert len(first) == 2
    second = json.loads(run(running, "refresh", "--json", given=first[1]).stdout)
    assert run(running, "validate", "-a", "orders", "--scope", "read", given=second["token"]).returncode == 0
    done = run(running, "revoke", "token", "--reason", "logout", given=second["refresh_token"])
    assert (done.returncode, "revoked here; everywhere by" in done.stdout) == (0, True), done.stderr
    assert "TOKEN_REVOKED" in run(running, "validate", "-a", "orders", given=second["token"]).stderr
    done = run(running, "refresh", given=second["refresh_token"])
    assert (done.returncode, "TOKEN_REVOKED" in done.stderr) == (3, True)
    assert json.loads(run(running, "rotate", "--use", "refresh", "--json").stdout)["ring_revision"] == 2


def a_key(**changes: object) -> Key:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    key = Key(
        "k" * 22, "default", KeyUse.ENCRYPTION, "A256KW", "A256GCM", KeyState.ACTIVE, start, start, None, None, None, 1
    )
    return replace(key, **changes)  # type: ignore[arg-type]


def test_a_time_line_shows_each_phase_even_if_it_is_short() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    now = start + timedelta(days=30, minutes=1)
    old = a_key(
        state=KeyState.RETIRING,
        retire_time=start + timedelta(days=30),
        destroy_time=start + timedelta(days=30, hours=1),
    )
    new = a_key(create_time=now - timedelta(minutes=2), activate_time=start + timedelta(days=30))
    lost = a_key(state=KeyState.COMPROMISED, compromise_time=start + timedelta(days=30))
    line = keys.TimeLine([old, new, lost], now)
    assert re.fullmatch("━+╌+┤ *", line.of(old))
    assert re.fullmatch(" +·+━+", line.of(new))
    assert re.fullmatch("━+x+", line.of(lost))
    assert 0 < line.column(now) < keys.LINE


def test_every_use_and_state_is_readable_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    now = datetime.now(UTC)
    keys_of_one_use = [
        a_key(
            state=KeyState.RETIRING,
            create_time=now - timedelta(days=200),
            activate_time=now - timedelta(days=200),
            retire_time=now - timedelta(days=99),
            destroy_time=now + timedelta(days=30, hours=23, minutes=1),
        ),
        a_key(
            create_time=now - timedelta(days=100),
            activate_time=now - timedelta(days=99),
            retire_time=now + timedelta(minutes=1),
            destroy_time=now + timedelta(days=99),
        ),
        a_key(
            state=KeyState.PENDING,
            create_time=now - timedelta(minutes=1),
            activate_time=now + timedelta(minutes=1),
        ),
        a_key(
            state=KeyState.COMPROMISED,
            create_time=now - timedelta(days=300),
            activate_time=now - timedelta(days=300),
            compromise_time=now - timedelta(days=2),
        ),
    ]
    longest = {"algorithm": "ECDH-ES+A256KW", "content_encryption": "A256CBC-HS512"}
    keys.show([replace(key, use=use, **longest) for use in KeyUse for key in keys_of_one_use])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if not line.startswith(" ")][1:-1] == [
        f"{use} ECDH-ES+A256KW A256CBC-HS512" for use in KeyUse
    ]
    now_at = lines[1].index("▼")
    shown = [line for line in lines[2:] if line.startswith("  ")]
    for state, at_now in (("retiring 30d 23h", "╌"), ("active ", "━"), ("pending ", "·"), ("compromised ", "x")):
        rows = [line for line in shown if f"  {state}" in line]
        assert [row[now_at] for row in rows] == [at_now] * len(KeyUse), state
    assert sum(line.count("┤") for line in shown) == 2 * len(KeyUse)
    assert not any("…" in line.replace("kkkkkkkkk…", "") for line in lines)


@given(
    st.lists(
        st.tuples(st.integers(0, 10**7), st.integers(0, 10**5), st.integers(0, 10**5), st.integers(0, 10**5)),
        min_size=1,
        max_size=40,
    )
)
def test_a_time_line_has_always_the_same_width(steps: list[tuple[int, int, int, int]]) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    ring = []
    for created, waits, serves, tails in steps:
        create = start + timedelta(seconds=created)
        activate = create + timedelta(seconds=waits)
        retire = activate + timedelta(seconds=serves)
        ring.append(
            a_key(
                create_time=create,
                activate_time=activate,
                retire_time=retire,
                destroy_time=retire + timedelta(seconds=tails),
            )
        )
    line = keys.TimeLine(ring, start + timedelta(days=50))
    assert {len(line.of(key)) for key in ring} == {keys.LINE}


# -- on a terminal


def test_on_a_terminal_there_is_colour_within_80_columns(sidecar: RunningSidecar, token: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(token, encoding="utf-8")
    for args in (
        ["keys"],
        ["validate", "-a", "orders", str(file)],
        ["inspect", str(file)],
        ["check"],
        ["issue", "-s", "u", "-a", "a"],
    ):
        seen = on_terminal(sidecar, *args)
        assert "\x1b[1m" in seen or "\x1b[1;" in seen, args
        assert max(map(len, (line for line in plain(seen).splitlines() if line.count(".") < 4))) <= 80, args
        assert plain(on_terminal(sidecar, *args, NO_COLOR="1")).count("\n") == seen.count("\n")


def test_no_color_is_honoured(sidecar: RunningSidecar) -> None:
    assert re.search(r"\x1b\[[0-9;]*3[0-9]m", on_terminal(sidecar, "keys"))
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", on_terminal(sidecar, "keys", NO_COLOR="1"))


def test_a_claim_cannot_play_with_the_terminal(sidecar: RunningSidecar, tmp_path: Path) -> None:
    evil = json.dumps(
        {"a\u001b[2J": "\u001b]0;owned\u0007\u202edlrow\u009b1m", "markup": "[bold red]x[/]"}, ensure_ascii=True
    )
    file = tmp_path / "token"
    file.write_text(
        run(sidecar, "issue", "-s", "\u202euser", "-a", "a", "--claims", "-", given=evil).stdout, encoding="utf-8"
    )
    seen = on_terminal(sidecar, "validate", "-a", "a", str(file))
    assert "[bold red]x[/]" in plain(seen)
    left = plain(seen)
    assert not [c for c in left if not c.isprintable() and c != "\n"]


# -- inspect


def jws(header: str, payload: str = "{}") -> str:
    """A plain compact JWS whose signature is as long as one."""
    return ".".join([*(urlsafe_b64encode(part.encode()).rstrip(b"=").decode() for part in (header, payload)), "A" * 86])


def test_inspect_needs_neither_key_nor_server(token: str, tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "TOKENSIDECAR_ADDRESS": "unix:/absent.sock"}
    done = subprocess.run(
        [TOOL, "inspect", "--json"], input=token, env=env, capture_output=True, text=True, timeout=30, check=False
    )
    seen = json.loads(done.stdout)
    assert done.returncode == 0
    assert seen["header"]["alg"] == "A256KW"
    assert [part["bytes"] for part in seen["parts"]][1:3] == [40, 12]
    assert sum(part["characters"] for part in seen["parts"]) + 4 == len(token)
    assert seen["passes_gate"]


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        ("x" * 20_000, "gate.size"),
        ("a b.c.d", "gate.alphabet"),
        ('{"protected":"x"}', "gate.alphabet"),
        ("a.b", "gate.segments"),
        ("..", "gate.empty"),
        (jws("[]"), "gate.header_json"),
        (jws('{"alg":"none","alg":"x"}'), "gate.header_duplicate"),
        (jws('{"alg":"none","jwk":"x"}'), "gate.header_name"),
        (jws('{"alg":"none"}'), "gate.kid"),
        (jws('{"alg":5}'), "gate.header_value"),
    ],
)
def test_inspect_names_the_rule_that_is_broken(
    text: str, stage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "token"
    file.write_text(text, encoding="utf-8")
    assert main(["inspect", str(file)]) == REJECTED
    shown = " ".join(capsys.readouterr().out.split())
    assert RULES[stage] in shown
    assert stage in shown


def test_inspect_shows_that_a_plain_jws_hides_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "token"
    file.write_text(jws('{"alg":"ES256","kid":"k"}', '{"email":"zoe@example.com"}'), encoding="utf-8")
    assert main(["inspect", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "not encrypted" in shown
    assert "zoe@example.com" in shown


@given(st.one_of(st.text(max_size=200), st.text(alphabet="eyJhbGciOi.-_", max_size=200)))
def test_inspect_says_something_about_any_text(text: str) -> None:
    seen = look(text)
    assert seen.broken is None or seen.broken[0] in RULES


def test_inspect_says_what_each_algorithm_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    signed = [(alg, f"{alg}: {'a' if alg != 'none' else 'not'}") for alg in (*SIGNATURES, "none")]
    jwe = [(alg, f"{alg}: the content key is") for alg in KEY_MANAGEMENT] + [("RSA1_5", "RSA1_5: not a key management")]
    file = tmp_path / "token"
    for alg, sentence in signed:
        assert any(said.startswith(sentence) for said in look(jws(json.dumps({"alg": alg}))).suites)
    for alg, sentence in jwe:
        for enc, size in ((name, content.tag) for name, content in CONTENT.items()):
            token = f"{encode(json.dumps({'alg': alg, 'enc': enc}))}.AAAA.AAAA.AAAA.AAAA"
            said = look(token).suites
            assert any(one.startswith(sentence) for one in said)
            assert f"{enc}: its tag has {size} bytes, and this one 3" in said
            file.write_text(token, encoding="utf-8")
            main(["inspect", str(file)])
            assert sentence in " ".join(capsys.readouterr().out.split())
    assert (
        look(f"{encode(json.dumps({'alg': 'dir', 'enc': 'A256CBC'}))}....")
        .suites[-1]
        .startswith("A256CBC: not a content")
    )


# -- check


def test_check_accepts_a_good_file_and_says_what_is_loose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.toml"
    file.write_text(GOOD, encoding="utf-8")
    assert main(["check", str(file)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("good")
    assert "also issue" in " ".join(shown.split())


def test_check_says_what_an_open_directory_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.setenv("TOKENSIDECAR_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("TOKENSIDECAR_STATE_DIR", str(tmp_path / "state"))
    assert main(["check", "--json"]) == 0
    assert any("0777" in note for note in json.loads(capsys.readouterr().out)["notes"])


def test_check_tells_every_problem_with_its_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.toml"
    file.write_text('lisen = 1\n[keys]\nmax_skew = 3\n[log]\nlevel = "loud"\n', encoding="utf-8")
    assert main(["check", str(file)]) == USAGE
    shown = capsys.readouterr().out
    assert "3 problems" in shown
    assert all(f"  {key}: " in shown for key in ("lisen", "keys.max_skew", "log.level"))
    assert main(["check", "--json", str(file)]) == USAGE
    assert [each["key"] for each in json.loads(capsys.readouterr().out)["problems"]] == [
        "lisen",
        "keys.max_skew",
        "log.level",
    ]


FLEET = """
[keys]
store = "kubernetes://tokens/rings"
service_account = "/run/account"
kek = { issue = "file:/k/issue", open = "file:/k/open" }
"""
VALIDATOR = '[keys]\nstore = "file:/rings"\nkek = { open = "file:/k/open" }\nrole = "validator"\n'


SUITES = """
[profiles.a]
issuer = "i"
audiences = ["x"]
encrypt = "ECDH-ES"
curve = "X25519"
sign = "Ed25519"
accept_signed_until = 2027-01-31
claims = { forbid = ["a"], types = { b = "text", c = "list" }, max_claims = 20 }
[profiles.b]
issuer = "i"
audiences = ["x"]
format = "signed"
published = true
preset = "transaction-token"
[keys]
engine = "jwcrypto"
"""


GATEWAYS = """
[listen]
envoy = ["unix:/run/ts/envoy/envoy.sock"]
forward_auth = [{ address = "127.0.0.1:8793", caller = "tcp:nginx" }]
[envoy]
certificate = "xfcc"
[forward_auth]
request = "x-forwarded"
certificate = "x-client-cert"
[profiles.default]
issuer = "i"
audiences = ["orders"]
proof_age = "30s"
proof_replay = "fleet"
[profiles.inside]
issuer = "i"
audiences = ["orders"]
format = "signed"
published = true
[[routes]]
name = "open"
hosts = ["*.example.com"]
extensions = { app = "a" }
open = true
[[routes]]
name = "phantom"
paths = ["/a/*"]
methods = ["POST", "GET"]
audiences = ["orders"]
scopes = ["s"]
token = ["dpop", "cookie:session"]
upstream = "phantom"
phantom = "inside"
claims = { x-user = "sub", x-all = "*" }
origin = "https://orders.example.com"
dpop_nonce = true
"""


@pytest.mark.parametrize(
    "text",
    [
        GATEWAYS,
        GOOD,
        "",
        '[listen]\nhttp = "off"\nadmin = []\n[keys]\nrotate_every = "36h"\n',
        FLEET,
        VALIDATOR,
        SUITES,
    ],
)
def test_the_effective_tree_reads_back_to_itself(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    file, again = tmp_path / "config.toml", tmp_path / "again.toml"
    file.write_text(text, encoding="utf-8")
    assert main(["check", "--print", str(file)]) == 0
    again.write_text(capsys.readouterr().out, encoding="utf-8")
    first, second = load(str(file), os.environ), load(str(again), os.environ)
    assert replace(first, source=None, notes=()) == replace(second, source=None, notes=())


def test_check_prints_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--schema"]) == 0
    jsonschema.Draft202012Validator.check_schema(json.loads(capsys.readouterr().out))


# -- demo


def test_the_demo_shows_the_whole_way(start_sidecar: Callable[..., RunningSidecar]) -> None:
    seen = plain(on_terminal(start_sidecar(), "demo"))
    for fact in (
        "came back exactly",
        "and nothing else",
        "zoe.muller@example.com",
        "the old token is still good",
        "under the new key",
        "rejected: TOKEN_INVALID",
        "-allow-unknown-fields -d @",
    ):
        assert fact in " ".join(seen.split())
    assert max(map(len, seen.splitlines())) <= 80 + len("/tmp/ts-12345678/run")  # the lines to copy are not folded


def test_the_demo_takes_claims_of_ones_own(start_sidecar: Callable[..., RunningSidecar], tmp_path: Path) -> None:
    file = tmp_path / "claims.json"
    file.write_text(
        '{"iss":"x","sub":"bob","aud":["shop","bank"],"scope":"a b","exp":1,"n":9007199254740993,"who":"Łukasz"}',
        encoding="utf-8",
    )
    done = run(start_sidecar(), "demo", "--claims", str(file))
    assert done.returncode == 0, done.stderr
    for fact in ("bob", "shop, bank", "sets iss, exp by itself", "9007199254740993", "Łukasz"):
        assert fact in done.stdout


@pytest.mark.parametrize("claims", [{"sub": 5}, {"aud": [1]}, {"aud": None}, {"scope": ["a"]}])
def test_a_registered_claim_of_the_wrong_kind_is_told(claims: dict[str, object]) -> None:
    with pytest.raises(CommandError, match="must be text"):
        demo.granted(json.dumps(claims), "file")


def test_without_a_sidecar_the_demo_is_4(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "TOKENSIDECAR_ADDRESS": f"unix:{tmp_path}/absent.sock"}
    done = subprocess.run([TOOL, "demo"], env=env, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == UNREACHABLE
    assert "demo --serve" in done.stderr


@pytest.fixture
def demo_serving() -> Iterator[RunningSidecar]:
    """`demo --serve`, after the demo."""
    running = RunningSidecar(command=(TOOL, "demo", "--serve"))
    running.start()
    try:
        end = time.monotonic() + 30
        while "The log follows" not in running.stdout():
            assert running.running, running.log()
            assert time.monotonic() < end, running.log()
            time.sleep(0.05)
        yield running
    finally:
        running.kill()
        running.remove()


@pytest.mark.parametrize("how", ["ctrl-c", "interrupt", "terminate"])
def test_the_demo_serves_on_and_ends_cleanly(demo_serving: RunningSidecar, how: str) -> None:
    assert "under the new key" in demo_serving.stdout()
    assert demo_serving.get("/readyz")[0] == 200
    with tokensidecar.connect(demo_serving.app_socket) as client:
        client.issue("u", ["a"])
    if how == "ctrl-c":
        os.killpg(demo_serving.process.pid, signal.SIGINT)  # as a terminal does it: parent and child
    else:
        demo_serving.process.send_signal(signal.SIGINT if how == "interrupt" else signal.SIGTERM)
    assert demo_serving.process.wait(20) == 0
    assert "Traceback" not in demo_serving.log()
    assert "sidecar.stopped" in demo_serving.stderr()
    assert not Path(demo_serving.app_socket.removeprefix("unix:")).exists()


def test_the_sidecar_of_a_killed_demo_ends_too(demo_serving: RunningSidecar) -> None:
    demo_serving.process.kill()
    demo_serving.process.wait(10)
    end = time.monotonic() + 20
    while Path(demo_serving.app_socket.removeprefix("unix:")).exists():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_where_a_sidecar_runs_the_demo_starts_none(start_sidecar: Callable[..., RunningSidecar]) -> None:
    done = run(start_sidecar(), "demo", "--serve")
    assert done.returncode == 0, done.stderr
    assert "Found a sidecar" in done.stdout


def test_a_sidecar_that_does_not_start_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    env = {
        "PATH": os.environ["PATH"],
        "TOKENSIDECAR_RUNTIME_DIR": str(tmp_path / "run"),
        "TOKENSIDECAR_STATE_DIR": str(tmp_path / "state" / "sub"),
    }
    done = subprocess.run([TOOL, "demo", "--serve"], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "did not start" in done.stderr
    assert str(tmp_path / "state") in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.needs("grpcurl", "bash")
@pytest.mark.parametrize("way", ["socket", "tcp"])
def test_the_lines_to_copy_work(sidecar: RunningSidecar, tmp_path: Path, way: str) -> None:
    lines = demo.grpcurl(
        sidecar.app_socket if way == "socket" else sidecar.app_tcp, sidecar.admin_socket, 'o\'rders "x"'
    )
    commands = "\n".join(lines).split("\n\n")
    assert len(commands) == 3
    answers = []
    for command in commands:
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        done = subprocess.run(
            ["bash", "-c", command], env=env, capture_output=True, text=True, cwd=tmp_path, timeout=30, check=False
        )
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout))
    issued, validated, rotated = answers
    assert issued["token"].count(".") == 4
    assert validated["audiences"] == ['o\'rders "x"']
    assert {key["state"] for key in rotated["keys"]} >= {"KEY_STATE_ACTIVE"}


def test_a_closed_pipe_is_no_traceback(sidecar: RunningSidecar) -> None:
    done = subprocess.run(
        f"{TOOL} check --schema | head -1",
        shell=True,
        env=sidecar.env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr == ""


def test_python_m_sidecar_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.startswith("usage: tokensidecar")


def test_a_terminal_without_utf_8_gets_something() -> None:
    env = {"PATH": os.environ["PATH"], "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    token = jws('{"alg":"ES256","kid":"k"}', '{"name":"Zoë"}')
    done = subprocess.run(
        [TOOL, "inspect"], input=token, env=env, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Zo" in done.stdout


def test_progress_in_lines_says_how_long_the_rest_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr(screen.time, "monotonic", lambda: now)
    with screen.Steps(3) as steps:
        for name in ("first", "sec\x1bond", "third"):
            steps.begin(name)
            now += 90
            steps.end("done")
    assert capsys.readouterr().err.splitlines() == [
        "[1/3] first: done; 3m left",
        "[2/3] sec\\x1bond: done; 1m 30s left",
        "[3/3] third: done",
    ]
