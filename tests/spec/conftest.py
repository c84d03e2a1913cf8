"""One suite, many brokers: the drivers, and which tests each of them is left out of.

A driver that lacks an ability does not get the tests that need it; the report at the end of a run names
them with their reason, so that nothing goes missing in silence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from lockstep.core.limits import Limits
from lockstep.storage.memory import MemoryStore
from lockstep.storage.sqlite import SqliteStore
from tests.spec.core_driver import CoreBroker
from tests.spec.driver import Ability, Broker

Opener = Callable[[Path, Limits], Awaitable[Broker]]
_left_out = pytest.StashKey[Counter[str]]()


async def _on_memory(_directory: Path, limits: Limits) -> Broker:
    store = MemoryStore()
    broker = CoreBroker(lambda: store, limits, compare_always=True)
    await broker.start()
    return broker


async def _on_sqlite(directory: Path, limits: Limits) -> Broker:
    broker = CoreBroker(lambda: SqliteStore(directory), limits, compare_always=False)
    await broker.start()
    return broker


# A further driver, for example the running server through its client, is one more line here.
DRIVERS: dict[str, tuple[Opener, frozenset[Ability]]] = {
    "memory": (_on_memory, CoreBroker.lacks),
    "sqlite": (_on_sqlite, CoreBroker.lacks),
}


@pytest.fixture(params=sorted(DRIVERS))
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Broker]:
    opener, _ = DRIVERS[request.param]
    chosen = request.node.get_closest_marker("limits")
    driver = await opener(tmp_path, Limits(**chosen.kwargs) if chosen else Limits())
    yield driver
    await driver.aclose()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "needs(*abilities): leave the test out of drivers that lack one"
    )
    config.addinivalue_line("markers", "limits(**limits): the limits of the broker under test")
    config.stash[_left_out] = Counter()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept, left_out = [], []
    for item in items:
        driver, lacking = _lacking(item)
        if lacking is None:
            kept.append(item)
        else:
            left_out.append(item)
            config.stash[_left_out][f"driver {driver} lacks {lacking.value}"] += 1
    items[:] = kept
    if left_out:
        config.hook.pytest_deselected(items=left_out)


def _lacking(item: pytest.Item) -> tuple[str, Ability | None]:
    callspec = getattr(item, "callspec", None)
    name = callspec.params.get("broker") if callspec else None
    if name not in DRIVERS:
        return "", None
    lacks = DRIVERS[name][1]
    return name, next((ability for ability in _needed(item) if ability in lacks), None)


def _needed(item: pytest.Item) -> Iterator[Ability]:
    for marker in item.iter_markers("needs"):
        yield from marker.args
    if item.get_closest_marker("limits"):
        yield Ability.LIMITS


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for reason, count in sorted(config.stash[_left_out].items()):
        terminalreporter.write_line(f"spec: {count} tests were left out because {reason}")
