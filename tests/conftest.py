"""What every test may use: the `needs` marker and running sidecars."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.running import ROOT, RunningSidecar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.postgres import Postgres

_not_run = pytest.StashKey[list[tuple[str, str]]]()
_missing = pytest.StashKey[bool]()


def _present(tool: str) -> bool:
    return (ROOT / tool).exists() if "/" in tool else shutil.which(tool) is not None


# Where real processes meet real clocks, on machines that others use too. What fails there is tried once more, and every second try is named at
# the end of the run; what fails twice has failed.
REAL_PROCESSES = (
    "conformance/",
    "deploy/",
    "e2e/",
    "faults/",
    "fleet/",
    "gateway/",
    "interop/",
    "stores/",
    "test_attack",
    "test_cli",
    "test_doctor",
    "test_deploy",
    "test_offline",
    "test_proto",
    "test_readme",
)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Gives a second try to tests of real processes."""
    if item.nodeid.removeprefix("tests/").startswith(REAL_PROCESSES):
        item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """A long text is named by its argument: it may have been made at random, and processes that share the tests must name them alike."""
    return argname if isinstance(val, str | bytes) and len(val) > 50 else None


@pytest.hookimpl(trylast=True)  # after -k and -m: only what would have run is reported
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Takes out the tests whose tool is missing (`@pytest.mark.needs("go")`: executables on PATH, or paths).

    `ci=False` says that `.ci/setup` does not install it, because that takes too long: it may be missing there too.
    """
    lines = config.stash.setdefault(_not_run, [])
    without: list[pytest.Item] = []
    for item in items:
        marks = [mark for mark in item.iter_markers("needs") if not all(map(_present, mark.args))]
        tools = [tool for mark in marks for tool in mark.args if not _present(tool)]
        if tools:
            if any(mark.kwargs.get("ci", True) for mark in marks):
                config.stash[_missing] = True
            without.append(item)
            lines.append((item.nodeid, ", ".join(sorted(set(tools)))))
    if without:
        items[:] = [item for item in items if item not in without]
        config.hook.pytest_deselected(items=without)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """With several processes (pytest-xdist) each collects everything, and tells the one that reports what it left out."""
    output = getattr(node, "workeroutput", {})  # none of a worker that crashed
    if "not_run" in output:  # the same from each
        node.config.stash[_not_run] = [(name, tools) for name, tools in output["not_run"]]
        node.config.stash[_missing] = output["missing"]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails the run for a missing tool where all of them must be there: in continuous integration (CI=true)."""
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput |= {
            "not_run": config.stash.get(_not_run, []),
            "missing": config.stash.get(_missing, False),
        }
    elif os.environ.get("CI") == "true" and config.stash.get(_missing, False):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Names each test that was not run, or the file where there are several, and the tool that it needs."""
    without: dict[tuple[str, str], list[str]] = {}
    for name, tools in sorted(config.stash.get(_not_run, [])):
        without.setdefault((name.partition("::")[0], tools), []).append(name)
    for (file, tools), names in without.items():
        what = names[0] if len(names) == 1 else f"{file} ({len(names)} tests)"
        terminalreporter.write_line(f"NOT RUN: {what} needs {tools}", yellow=True)


@pytest.fixture(scope="session")
def sidecar() -> Iterator[RunningSidecar]:
    """One sidecar on the embedded defaults, shared by all tests that change nothing another one relies on."""
    with RunningSidecar() as running:
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for all tests that do not stop it; each makes a database of its own. `needs(postgres.NEEDS)` goes with it."""
    from tests.postgres import Postgres

    with Postgres() as running:
        yield running


class StartSidecar(Protocol):
    """Starts a sidecar of the test's own; see RunningSidecar for the arguments."""

    def __call__(
        self, config: str | None = None, env: Mapping[str, str | None] | None = None, *, wait: bool = True
    ) -> RunningSidecar:
        """With `wait` it is ready on return."""


@pytest.fixture
def start_sidecar() -> Iterator[StartSidecar]:
    """Sidecars of the test's own, to configure, kill and start again; what runs at the end must exit with 0."""
    started: list[RunningSidecar] = []

    def start(
        config: str | None = None, env: Mapping[str, str | None] | None = None, *, wait: bool = True
    ) -> RunningSidecar:
        running = RunningSidecar(config, env)
        started.append(running)
        running.start()
        if wait:
            running.wait_until_ready()
        return running

    yield start
    problems = []
    for running in started:
        try:
            running.stop()
        except AssertionError as problem:
            problems.append(str(problem))
        finally:
            running.kill()
            running.remove()
    if problems:
        pytest.fail("\n".join(problems))
