"""The worked example runs, and the lines that it prints do what they say."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from tests.gateway.envoys import BINARY
from tests.running import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.needs(BINARY, "nginx", "curl", "grpcurl")


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """The commands that it prints, in order."""
    command = [sys.executable, ROOT / "deploy/gateway/run.py", "--free-ports"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert process.stdout
    late = threading.Timer(60, process.terminate)
    late.start()
    try:
        printed = []
        for line in process.stdout:
            printed.append(line)
            if "Serving on" in line:
                break
        late.cancel()
        assert "Serving on" in printed[-1], "".join(printed)
        yield [line.strip() for line in printed if re.match(r"  (curl|echo) ", line)]
    finally:
        late.cancel()
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
    assert process.returncode == 0, rest


def run(line: str) -> str:
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True, timeout=30).stdout


def test_the_lines_do_what_they_say(lines: list[str]) -> None:
    assert len(lines) == 9
    for models, nothing, chat, unscoped in (lines[:4], lines[4:8]):
        assert '"parrot-1"' in run(models)
        assert run(nothing).startswith("HTTP/1.1 401")
        assert "www-authenticate: bearer" in run(nothing).lower()
        said = run(chat)
        words = re.findall(r'"content": "([^"]*)"', said)
        assert "".join(words) == "user-42 of acme said: hello there"
        assert said.endswith("data: [DONE]\n\n")
        assert run(unscoped).startswith("HTTP/1.1 403")
    assert "revocation_revision" in run(lines[8])
    for chat in (lines[2], lines[6]):
        assert "data:" not in run(chat)
