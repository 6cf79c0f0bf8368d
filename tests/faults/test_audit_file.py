"""The audit file of a real sidecar: required records and full disks, renames, and the commands that read it."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.faults.test_faults import MOUNTS, fill, mounted
from tests.faults.waiting import run, wait_for
from tests.faults.witness import reason_of
from tests.running import ROOT, RunningSidecar

if TYPE_CHECKING:
    from tests.faults.conftest import NewWitness

TOOL = str(ROOT / ".venv/bin/tokensidecar")
pytestmark = pytest.mark.timeout(300)


def file_of(running: RunningSidecar) -> Path:
    return running.directory / "audit" / "audit.jsonl"


def tool(running: RunningSidecar, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TOOL, "audit", *words], env=running.env, capture_output=True, text=True, check=False, timeout=120
    )


def records(running: RunningSidecar) -> list[dict[str, object]]:
    return [json.loads(line) for line in file_of(running).read_text().splitlines()]


@MOUNTS
def test_a_full_disk_ends_answers_and_recovers(sidecar_with_file: RunningSidecar, new_witness: NewWitness) -> None:
    running = sidecar_with_file
    with mounted(running.directory / "audit", "-t", "tmpfs", "-o", "size=64k", "tmpfs"):
        run(running)
        witness = new_witness(running)
        token = witness.issue()
        filler = fill(running.directory / "audit")
        assert {reason_of(witness.issue) for _ in range(60)} >= {"AUDIT_UNAVAILABLE"}
        assert reason_of(witness.issue) == "AUDIT_UNAVAILABLE"
        assert witness.validate(token) == "AUDIT_UNAVAILABLE"
        revision = witness.revision
        assert reason_of(witness.rotate) == "AUDIT_UNAVAILABLE"
        filler.unlink()
        wait_for(lambda: reason_of(witness.issue) == "OK")
        assert witness.list_keys()[0].ring_revision == max(1, revision)  # what could not be intended was not done
        witness.rotate()
        lost = running.get("/metrics")[1]
        assert "tokensidecar_audit_lost_records 0.0" not in lost
        running.stop()
        done = tool(running, "verify", str(file_of(running)))
        assert done.returncode == 0, done.stderr
        assert "could not be written" in done.stdout


@MOUNTS
def test_where_records_are_not_required_a_full_disk_is_counted(
    sidecar_with_file: RunningSidecar, new_witness: NewWitness
) -> None:
    running = sidecar_with_file
    config = running.directory / "config.toml"
    config.write_text(config.read_text().replace("required = true", "required = false"))
    with mounted(running.directory / "audit", "-t", "tmpfs", "-o", "size=64k", "tmpfs"):
        fill(running.directory / "audit")
        run(running)
        witness = new_witness(running)
        for _ in range(5):
            witness.issue()
        wait_for(lambda: "tokensidecar_audit_lost_records 5.0" in running.get("/metrics")[1])
        assert reason_of(witness.rotate) == "AUDIT_UNAVAILABLE"  # an intent is always required
        running.stop()


def test_the_head_is_in_the_log_and_in_the_metrics(sidecar_with_file: RunningSidecar, new_witness: NewWitness) -> None:
    running = sidecar_with_file
    run(running)
    witness = new_witness(running)
    witness.issue()
    metrics = dict(
        line.split(" ") for line in running.get("/metrics")[1].splitlines() if line.startswith("tokensidecar_audit_ch")
    )
    running.stop()
    heads = [json.loads(line) for line in running.stderr().splitlines() if "audit.checkpoint" in line]
    assert [head["seq"] for head in heads] == [1, 3]
    seq = int(float(metrics["tokensidecar_audit_checkpoint"]))
    short = f"{int(float(metrics['tokensidecar_audit_checkpoint_head'])):013x}"
    assert (seq, short) == (1, heads[0]["chain"][:13])
    file = file_of(running)
    anchors = [word for head in heads for word in ("--anchor", f"{head['seq']}:{head['chain']}")]
    done = tool(running, "verify", str(file), *anchors, "--anchor", f"{seq}:{short}")
    assert (done.returncode, "not shown" in done.stdout) == (0, False), done.stdout + done.stderr
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:2]))
    done = tool(running, "verify", str(file))
    assert done.returncode == 0
    assert "no signature yet" in done.stdout
    assert "cut off" in done.stdout
    done = tool(running, "verify", str(file), *anchors)
    assert (done.returncode, "record 2: the anchor knows record 3" in done.stderr) == (1, True)


def test_commands_read_the_files_through_renames(sidecar_with_file: RunningSidecar, new_witness: NewWitness) -> None:
    running, file = sidecar_with_file, file_of(sidecar_with_file)
    run(running)
    witness = new_witness(running)
    with subprocess.Popen(
        [TOOL, "audit", "show", "-f", "--json", "--verb", "issue", str(file)], env=running.env, stdout=subprocess.PIPE
    ) as following:
        try:
            assert following.stdout is not None
            for number in range(3):
                witness.issue()
                assert json.loads(following.stdout.readline())["verb"] == "issue"
                time.sleep(0.3)
                file.rename(file.with_suffix(f".{number}"))
            witness.issue()
            assert json.loads(following.stdout.readline())["verb"] == "issue"
        finally:
            following.terminate()
    witness.rotate()
    running.stop()
    rotated = [str(file.with_suffix(f".{number}")) for number in range(3)]
    subprocess.run(["gzip", rotated[0]], check=True)
    rotated[0] += ".gz"
    key = tool(running, "key").stdout
    pem = running.directory / "key.pem"
    pem.write_text(key)
    done = tool(running, "verify", "--json", "--key", str(pem), str(file), *reversed(rotated))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["first"] == 1
    done = tool(running, "verify", str(file), *rotated[1:])
    assert "what stood before record" in done.stdout
    shown = tool(running, "show", str(file), "--since", "1h", "--outcome", "OK").stdout.splitlines()
    assert [line.split()[2] for line in shown[1:]] == ["issue", "rotate"]
    assert tool(running, "show", str(file), "--since", "2100-01-01T00:00:00Z").stdout.count("\n") == 1
    file.write_bytes(file.read_bytes().replace(b'"verb":"rotate"', b'"verb":"rotten"', 1))
    done = tool(running, "verify", "--json", str(file))
    found = json.loads(done.stdout)
    assert (done.returncode, found["good"], found["first_bad"]["line"]) == (1, False, 3)


def test_commands_put_their_records_into_the_file_of_a_sidecar_that_runs(
    sidecar_with_file: RunningSidecar, new_witness: NewWitness
) -> None:
    running = sidecar_with_file
    run(running)
    witness = new_witness(running)
    witness.issue()
    config = running.command[-1]
    for words in (("rekey", "--all"), ("keeper", "--once", "--json")):
        done = subprocess.run(
            [TOOL, *words, "--config", config], env=running.env, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert '"verb"' not in done.stdout + done.stderr  # none of it elsewhere
        witness.issue()
    found = [(r["caller"], r["phase"], r.get("outcome")) for r in records(running) if r["verb"] == "rekey"]
    assert found == [("operator", "intent", None), ("operator", "outcome", "OK")]
    assert tool(running, "verify", str(file_of(running))).returncode == 0
    running.stop()
    assert tool(running, "verify", str(file_of(running))).returncode == 0


def test_a_command_that_cannot_put_its_records_into_the_file_changes_nothing(sidecar_with_file: RunningSidecar) -> None:
    running = sidecar_with_file
    run(running)
    other = running.directory / "other"
    shutil.copytree(running.state_dir, other)
    for name in ("audit-head", "audit-key.pem", "audit-key-public.pem"):
        (other / name).unlink()
    done = subprocess.run(
        [TOOL, "rekey", "--all", "--config", running.command[-1]],
        env={**running.env, "TOKENSIDECAR_STATE_DIR": str(other)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "another state directory" in done.stderr
    assert [r for r in records(running) if r["verb"] == "rekey"] == []
