"""kill -9 at every named step, and at any moment: the rules of the ring hold, and every acknowledged token is still good.

Each named step once; a hundred times with TOKENSIDECAR_TEST_ALL=true.
"""

from __future__ import annotations

import random
import shutil
import signal
import threading
import time
from typing import TYPE_CHECKING

import grpc
import pytest
from tokensidecar.v1 import keys_pb2

from sidecar import failpoints
from tests.faults import states
from tests.faults.conftest import REPEATS
from tests.faults.waiting import wait_for
from tests.faults.witness import Witness, reason_of
from tests.running import RunningSidecar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.conftest import NewSidecar, NewWitness

DEATH_SECONDS = 20.0
QUICK = """
[profiles.default]
issuer = "urn:test"
audiences = ["orders"]
ttl = "1s"
max_ttl = "1s"
leeway = "0s"

[keys]
refresh_interval = "1s"
propagation = "2s"
max_staleness = "2s"
max_skew = "1s"
rotate_every = "30s"
"""
"""Retired keys are destroyed after 5 s, 2 + 1 + 0 + 2·1, and a tenth of `rotate_every` at most."""
LASTING = QUICK.replace('ttl = "1s"', 'ttl = "60s"')

pytestmark = pytest.mark.timeout(600)


def steps(operation: str) -> list[str]:
    found = [name for name in failpoints.NAMES if name.partition(".")[0] == operation]
    assert found
    return found


def wait_for_death(running: RunningSidecar) -> None:
    """It was killed, and by nothing else than its failpoint."""
    assert running.process.wait(DEATH_SECONDS) == -signal.SIGKILL, running.log()


def revive(running: RunningSidecar) -> None:
    """Start again on the same directories, to live this time."""
    running.env.pop("TOKENSIDECAR_FAILPOINT", None)
    running.start()
    running.wait_until_ready()


def test_every_operation_has_its_steps_tested() -> None:
    here = {"start", "rotate", "revoke_keys", "revoke", "consume", "refresh", "destroy"}
    in_test_offline = {"duty", "rekey", "accept_rollback", "pins"}
    in_test_sqlite = {"migrate"}
    assert {name.partition(".")[0] for name in failpoints.NAMES} == here | in_test_offline | in_test_sqlite


@pytest.mark.parametrize("step", [*steps("start"), *steps("pins")])
def test_first_start_that_was_killed_is_made_good(step: str, new_sidecar: NewSidecar, new_witness: NewWitness) -> None:
    for _ in range(REPEATS):
        running = new_sidecar(env={"TOKENSIDECAR_FAILPOINT": step})
        running.start()
        wait_for_death(running)
        revive(running)
        states.check_files(running.state_dir)
        witness = new_witness(running)
        witness.check()
        assert witness.revision == 1
        witness.rotate()
        witness.check()
        running.stop()


def test_a_later_start_that_was_killed_leaves_the_ring_as_it_was(
    new_sidecar: NewSidecar, new_witness: NewWitness
) -> None:
    running = new_sidecar()
    revive(running)
    witness = new_witness(running)
    witness.rotate()
    witness.check()
    before = states.ring(running.state_dir)
    died = 0
    for step in steps("start"):  # most of them are not even reached where everything is there: then it runs
        running.kill()
        running.env["TOKENSIDECAR_FAILPOINT"] = step
        running.start()
        try:
            running.wait_until_ready()
        except RuntimeError:
            wait_for_death(running)
            died += 1
    assert died
    running.kill()
    revive(running)
    witness.connect()
    witness.check()
    assert states.ring(running.state_dir) == before


@pytest.mark.parametrize("step", steps("rotate"))
def test_killed_rotation_happens_once(step: str, new_sidecar: NewSidecar, new_witness: NewWitness) -> None:
    for _ in range(REPEATS):
        running = new_sidecar(env={"TOKENSIDECAR_FAILPOINT": step})
        running.start()
        running.wait_until_ready()
        witness = new_witness(running)
        witness.check()
        assert reason_of(lambda witness=witness: witness.rotate("once")) == "UNAVAILABLE"
        wait_for_death(running)

        revive(running)
        witness.connect()
        witness.check()
        happened = witness.revision == 2
        assert happened == (step not in {"rotate.intended", "rotate.before_save"})
        first = witness.rotate("once")
        again = witness.rotate("once")
        assert first.ring_revision == again.ring_revision == 2
        assert first.activate_time == again.activate_time
        assert len(witness.list_keys()) == 4  # a predecessor and its one successor, of each use
        witness.check()
        states.check_files(running.state_dir)
        running.stop()


@pytest.mark.parametrize("step", ["rotate.before_save", "rotate.saved", "rotate.swapped"])
def test_rotation_killed_beside_another_sidecar_is_taken_in_by_it(
    step: str, new_sidecar: NewSidecar, new_witness: NewWitness
) -> None:
    """Two processes on one store: the successor waits, and the one that lives never refuses a token of the one that died."""
    running = new_sidecar(LASTING, env={"TOKENSIDECAR_FAILPOINT": step})
    other = new_sidecar(LASTING, env={"TOKENSIDECAR_STATE_DIR": str(running.state_dir)})
    for each in (running, other):
        each.start()
        each.wait_until_ready()
    witness, survivor = new_witness(running), new_witness(other)
    token = witness.issue()
    assert survivor.validate(token) == "OK"
    assert reason_of(lambda: witness.rotate("once")) == "UNAVAILABLE"
    wait_for_death(running)
    assert survivor.rotate("once").ring_revision == 2
    survivor.check()
    states_now = [key.state for key in survivor.list_keys()]
    assert states_now.count(keys_pb2.KEY_STATE_PENDING) in (0, 2)  # 0: the other was dead already, and this one alone

    revive(running)
    witness.connect()
    witness.check()
    assert witness.revision == survivor.revision == 2
    assert survivor.validate(witness.issue()) == "OK"
    assert witness.validate(survivor.issue()) == "OK"


@pytest.mark.parametrize("step", steps("revoke_keys"))
def test_killed_revocation_of_keys_holds_or_never_was(
    step: str, new_sidecar: NewSidecar, new_witness: NewWitness
) -> None:
    for _ in range(REPEATS):
        running = new_sidecar(env={"TOKENSIDECAR_FAILPOINT": step})
        running.start()
        running.wait_until_ready()
        witness = new_witness(running)
        old = witness.issue()
        named = sorted(witness.active().values())
        assert reason_of(lambda witness=witness, named=named: witness.revoke_keys(named)) == "UNAVAILABLE"
        wait_for_death(running)

        revive(running)
        witness.connect()
        witness.tokens.clear()  # whether they are good is asked below
        witness.check()
        happened = step not in {"revoke_keys.intended", "revoke_keys.before_save"}
        assert witness.validate(old) == ("TOKEN_INVALID" if happened else "OK")
        assert not happened or not set(named) & set(witness.active().values())
        witness.revoke_keys(named)  # again: the caller never had its answer
        assert witness.revision == 2
        assert witness.validate(old) == "TOKEN_INVALID"
        witness.tokens.clear()
        witness.check()
        states.check_files(running.state_dir)
        running.stop()


@pytest.fixture(scope="module")
def old_state() -> Iterator[RunningSidecar]:
    """A sidecar that has ended, with a retired key of each use whose time has come."""
    running = RunningSidecar(QUICK)
    try:
        running.start()
        running.wait_until_ready()
        witness = Witness(running)
        witness.rotate()
        witness.close()
        running.stop()
        retired = min(key["destroy_time"] for key in states.ring(running.state_dir)["keys"] if key["destroy_time"])
        time.sleep(max(0.0, retired - time.time()) + 0.05)
        yield running
    finally:
        running.kill()
        running.remove()


@pytest.mark.parametrize("step", [*steps("duty"), *steps("destroy")])
def test_killed_destruction_is_completed(
    step: str, old_state: RunningSidecar, new_sidecar: NewSidecar, new_witness: NewWitness
) -> None:
    ring = states.ring(old_state.state_dir)
    due = [key["key_id"] for key in ring["keys"] if key["destroy_time"]]
    assert len(due) == 2
    for _ in range(REPEATS):
        running = new_sidecar(QUICK, env={"TOKENSIDECAR_FAILPOINT": step})
        shutil.copytree(old_state.state_dir, running.state_dir, dirs_exist_ok=True)
        running.start()
        wait_for_death(running)
        intended = '"verb":"destroy"' in running.stdout()
        assert intended == (step not in steps("duty"))  # on record before anything is gone
        states.end_claims(running.state_dir)

        revive(running)
        witness = new_witness(running)
        witness.check()
        happened = step not in {*steps("duty"), "destroy.intended", "destroy.before_save"}
        assert not happened or not set(due) & states.ring(running.state_dir)["parts"].keys()
        wait_for(lambda running=running: not set(due) & states.ring(running.state_dir)["parts"].keys())
        witness.check()
        for key_id in due:
            assert key_id not in {key.key_id for key in witness.list_keys()}
            for part in ring["parts"][key_id].values():
                wait_for(lambda part=part, running=running: not states.holds(running.state_dir, part))
        states.check_files(running.state_dir)
        running.stop()


ROUNDS = 100 if REPEATS > 1 else 10


def test_kill_at_any_moment_under_load(new_sidecar: NewSidecar, new_witness: NewWitness) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for first in range(0, ROUNDS, 10):  # a ring holds 100 keys of a use: not all rounds on one
        running = new_sidecar(LASTING)
        revive(running)
        witness = new_witness(running)
        for _ in range(first, min(first + 10, ROUNDS)):
            _load_until_killed(running, witness, chance)
            revive(running)
            witness.connect()
            witness.check()
            states.check_files(running.state_dir)
        assert witness.revision > 10, "hardly anything was rotated: the load was none"
        running.stop()


def _load_until_killed(running: RunningSidecar, witness: Witness, chance: random.Random) -> None:
    problems: list[str] = []
    enough = threading.Event()

    def work(task: str) -> None:
        rotations = 0
        while not enough.is_set():
            try:
                if task == "rotate" and rotations < 4:
                    rotations += 1
                    witness.rotate(f"{chance_id}-{rotations}")
                elif task == "issue":
                    token = witness.issue()
                    if (answer := witness.validate(token)) not in {"OK", "UNAVAILABLE"}:
                        problems.append(answer)
                    time.sleep(0.005)
                elif witness.tokens and (answer := witness.validate(witness.tokens[-1])) not in {"OK", "UNAVAILABLE"}:
                    problems.append(answer)
                time.sleep(0.001)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    problems.append(str(error))
                elif not running.running:
                    return

    chance_id = chance.randrange(1 << 32)
    threads = [threading.Thread(target=work, args=(task,)) for task in ("issue", "issue", "validate", "rotate")]
    for thread in threads:
        thread.start()
    time.sleep(chance.uniform(0.02, 0.4))
    running.kill()
    enough.set()
    for thread in threads:
        thread.join()
    assert not problems, problems[:3]
