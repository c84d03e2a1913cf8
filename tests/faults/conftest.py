"""One rig for all scenarios of a run, a new one after a scenario that failed; and the table at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.rig import FaultRig, fault_rig
from tests.faults.scenario import Verdict

Tell = Callable[[str], None]
_verdicts = pytest.StashKey[list[Verdict]]()


class Rigs:
    """Starts a rig when one is needed, and replaces one that a scenario left behind broken."""

    def __init__(self, make_directory: Callable[[], Path], tell: Tell, stack: ExitStack) -> None:
        self._make_directory = make_directory
        self._tell = tell
        self._stack = stack
        self._rig: FaultRig | None = None

    def whole(self) -> FaultRig:
        if self._rig is None:
            self._rig = self._stack.enter_context(fault_rig(self._make_directory(), self._tell))
        return self._rig

    def give_up(self) -> None:
        """End the rig; its logs stay."""
        self._stack.pop_all().close()
        self._rig = None


@pytest.fixture(scope="session")
def tell(request: pytest.FixtureRequest) -> Tell:
    """Says what is going on, whatever is captured."""
    plugins = request.config.pluginmanager
    reporter, capture = plugins.get_plugin("terminalreporter"), plugins.get_plugin("capturemanager")

    def say(what: str) -> None:
        if reporter is not None and capture is not None:  # a worker of several has no terminal
            with capture.global_and_fixture_disabled():
                reporter.ensure_newline()
                reporter.write_line(f"  {what}")

    return say


@pytest.fixture(scope="session")
def rigs(tmp_path_factory: pytest.TempPathFactory, tell: Tell) -> Iterator[Rigs]:
    with ExitStack() as stack:
        yield Rigs(lambda: tmp_path_factory.mktemp("faults"), tell, stack)


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[Verdict], None]:
    """Adds a line to the table."""
    return request.config.stash[_verdicts].append


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_verdicts] = []


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    verdicts = config.stash[_verdicts]
    if not verdicts:
        return
    rows = [Verdict.HEAD, *(verdict.cells for verdict in verdicts)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    terminalreporter.section("faults")
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        terminalreporter.write_line("  ".join(cells).rstrip())
