"""A sidecar with an attacker on one address and an honest client on another; what came of it, and which promises did not hold."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from tokensidecar.v1 import token_service_pb2 as pb

from tests.attack.floods import FLOODS
from tests.e2e.attacks import ATTACKS
from tests.e2e.calls import SECONDS, Plane
from tests.running import ROOT, RunningSidecar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MIB = 1024 * 1024
EVERY = 0.02  # seconds between two calls of the honest client
LOG_LINES = 25  # a second: at most 20 failures, and what else is to be said
AUDIT_BYTES = 1024  # for each token or call: every rejection is on record
TURNED_AWAY = {"RESOURCE_EXHAUSTED", "UNAVAILABLE", "CANCELLED"}  # may be tried again: no answer is no wrong answer
SIDECAR = ROOT / "deploy/kubernetes/components/sidecar/sidecar.yaml"


@dataclass
class Found:
    """What was seen. Times in seconds, memory in bytes."""

    seconds: float = 0.0
    waits: list[float] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    ended: list[str] = field(default_factory=list)
    memory: int = 0
    limit: int = 0
    log_lines: int = 0
    audit_bytes: int = 0
    judged: int = 0

    def wait(self, share: float) -> float:
        """Within which time this share of the honest client's calls was answered."""
        return sorted(self.waits)[min(len(self.waits) - 1, int(share * len(self.waits)))]

    def told(self) -> dict[str, Any]:
        """For a person."""
        return {
            "seconds": round(self.seconds, 1),
            "honest_calls": dict(self.answers),
            "honest_ms": {f"p{100 * share:g}": round(1000 * self.wait(share), 1) for share in (0.5, 0.99, 0.999)},
            "sent": dict(self.sent),
            "accepted": sum(self.accepted.values()),
            "memory_mib": round(self.memory / MIB, 1),
            "memory_limit_mib": self.limit // MIB,
            "log_lines": self.log_lines,
            "audit_mib": round(self.audit_bytes / MIB, 1),
        }


def attacked(seconds: float, least: Mapping[str, int], longest: float) -> Found:
    """Everything at once for so long, and until so many of a flood were sent, but no longer than `longest`."""
    found = Found(limit=memory_limit())
    with RunningSidecar() as sidecar, Plane(sidecar.app_socket) as honest:
        token = honest.token()
        with _attackers(sidecar.app_tcp, token) as attackers:
            started = time.monotonic()
            while (took := time.monotonic() - started) < longest:
                _honest_call(honest, token, found)
                if took >= seconds and all(attackers.sent(name)[0] >= count for name, count in least.items()):
                    break
                time.sleep(EVERY)
            found.seconds = time.monotonic() - started
            found.memory = memory(sidecar)  # while they are there
            found.ended = attackers.ended()
            for name in FLOODS:
                found.sent[name], found.accepted[name] = attackers.sent(name)
        _honest_call(honest, token, found)
        with Plane(sidecar.app_tcp) as after:
            after.accepts(token)
        found.log_lines = sidecar.stderr().count("\n")
        found.audit_bytes = len(sidecar.stdout())
        status, metrics = sidecar.get("/metrics")
        assert status == 200
        counts = re.findall(r"^tokensidecar_(?:tokens|rpcs)_total\{.*\} ([0-9.e+]+)$", metrics, re.MULTILINE)
        found.judged = int(sum(map(float, counts)))
    return found


def broken(found: Found) -> list[str]:
    """Promises that did not hold, in words; times are not among them."""
    allowed = LOG_LINES * (found.seconds + 5)
    turned_away = sum(found.answers[code] for code in TURNED_AWAY)
    said = {
        f"accepted: {dict(found.accepted)}": any(found.accepted.values()),
        f"an honest call got a wrong answer: {found.wrong[:3]}": bool(found.wrong),
        f"{turned_away} of the honest calls were turned away": turned_away > found.answers["OK"] / 100,
        f"attacks ended by themselves: {found.ended}": bool(found.ended),
        f"{found.memory / MIB:.0f} MiB, and the pod has {found.limit // MIB}": found.memory > found.limit,
        f"{found.log_lines} lines of log in {found.seconds:.0f} s": found.log_lines > allowed,
        f"{found.audit_bytes} bytes of audit for {found.judged} tokens": found.audit_bytes > AUDIT_BYTES * found.judged,
    }
    return [words for words, violated in said.items() if violated]


def memory_limit() -> int:
    """Bytes that the sidecar may have in a pod, as it is deployed."""
    found = re.search(r"limits:\n\s+memory: (\d+)Mi\b", SIDECAR.read_text(encoding="utf-8"))
    assert found, SIDECAR
    return int(found[1]) * MIB


def memory(sidecar: RunningSidecar) -> int:
    """Bytes: the most that the process had, and the files in memory that it wrote, as a pod counts them."""
    status = Path(f"/proc/{sidecar.process.pid}/status").read_text(encoding="ascii")
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found, status
    files = (file for folder in (sidecar.state_dir, sidecar.runtime_dir) for file in folder.rglob("*"))
    return int(found[1]) * 1024 + sum(file.stat().st_size for file in files if file.is_file())


def _honest_call(plane: Plane, token: str, found: Found) -> None:
    started = time.perf_counter()
    try:
        answer = plane.validate(pb.ValidateRequest(token=token, audiences=["orders"]), timeout=SECONDS)
    except grpc.RpcError as error:
        code = error.code().name
        found.answers[code] += 1
        if code not in TURNED_AWAY:
            found.wrong.append(f"{code} {error.details()}")
    else:
        found.answers["OK"] += 1
        if answer.subject != "user-42":
            found.wrong.append(answer.subject)
    found.waits.append(time.perf_counter() - started)


class _Attackers:
    """Processes, one for each attack; what each says of itself goes to a file of its name."""

    def __init__(self, folder: Path, processes: dict[str, subprocess.Popen[bytes]]) -> None:
        self._folder = folder
        self._processes = processes

    def sent(self, flood: str) -> tuple[int, int]:
        """How many a flood sent so far, and how many of them were accepted."""
        lines = (self._folder / flood).read_bytes()[-100:].split(b"\n")  # what follows the last one is not whole
        if len(lines) < 2:
            return 0, 0
        sent, accepted = map(int, lines[-2].split())
        return sent, accepted

    def ended(self) -> list[str]:
        """Which of them do not attack any more, though nobody ended them."""
        return [name for name, process in self._processes.items() if process.poll() is not None]


@contextlib.contextmanager
def _attackers(target: str, token: str) -> Iterator[_Attackers]:
    commands = {name: ["tests.e2e.attacks", name, target] for name in ATTACKS}
    commands |= {name: ["tests.attack.floods", name, target, token, "0"] for name in FLOODS}
    with tempfile.TemporaryDirectory() as text, contextlib.ExitStack() as stack:
        folder, processes = Path(text), {}
        for name, command in commands.items():
            out = stack.enter_context((folder / name).open("wb"))
            processes[name] = subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, stdout=out)
            stack.callback(processes[name].wait)
            stack.callback(processes[name].kill)
        end = time.monotonic() + 60
        while any((folder / name).stat().st_size == 0 for name in commands):  # all of them, at once
            if time.monotonic() > end:
                silent = [name for name in commands if (folder / name).stat().st_size == 0]
                raise RuntimeError(f"not attacking after 60 s: {silent}")
            time.sleep(0.05)
        yield _Attackers(folder, processes)
