"""One suite, many brokers: the drivers, and which tests each of them is left out of.

A driver that lacks an ability does not get the tests that need it; the report at the end of a run names
them with their reason, so that nothing goes missing in silence.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from lockstep.core.limits import Limits
from lockstep.runtime.ids import SystemIds
from lockstep.storage.memory import MemoryStore
from lockstep.storage.sqlite import SqliteStore
from tests.cluster.local import LocalCluster, local_cluster
from tests.postgres.database import SharedDatabase
from tests.server.server_process import ServerProcess
from tests.spec.client_driver import ClientBroker
from tests.spec.core_driver import CoreBroker
from tests.spec.driver import Ability, Broker
from tests.spec.left_out import LEFT_OUT, LEFT_OUT_OF_SPREAD

Opener = Callable[[pytest.FixtureRequest, Limits], Awaitable[Broker]]
_left_out = pytest.StashKey[Counter[str]]()


async def _on_memory(_request: pytest.FixtureRequest, limits: Limits) -> Broker:
    store = MemoryStore()
    broker = CoreBroker(lambda: store, limits, compare_always=True)
    await broker.start()
    return broker


async def _on_sqlite(request: pytest.FixtureRequest, limits: Limits) -> Broker:
    directory: Path = request.getfixturevalue("tmp_path")
    broker = CoreBroker(lambda: SqliteStore(directory), limits, compare_always=False)
    await broker.start()
    return broker


async def _on_postgres(request: pytest.FixtureRequest, limits: Limits) -> Broker:
    database: SharedDatabase = request.getfixturevalue("postgres_database")
    broker = CoreBroker(database.store, limits, compare_always=False)
    await broker.start()
    return broker


async def _through_the_client(request: pytest.FixtureRequest, _limits: Limits) -> Broker:
    server: ServerProcess = request.getfixturevalue("running_server")
    return ClientBroker(f"127.0.0.1:{server.port}", f"spec-{SystemIds().client_id()[:12]}")


async def _over_partitions(request: pytest.FixtureRequest, _limits: Limits) -> Broker:
    server: ServerProcess = request.getfixturevalue("spread_server")
    return ClientBroker(f"127.0.0.1:{server.port}", f"spec-{SystemIds().client_id()[:12]}")


async def _over_a_cluster(request: pytest.FixtureRequest, _limits: Limits) -> Broker:
    cluster: LocalCluster = request.getfixturevalue("spec_cluster")
    _turns.rotate(1)  # one front end after the other
    frontend = cluster.frontends[_turns[0]]
    return ClientBroker(f"127.0.0.1:{frontend.port}", f"spec-{SystemIds().client_id()[:12]}")


_turns = deque(range(2))
DRIVERS: dict[str, tuple[Opener, frozenset[Ability]]] = {
    "client": (_through_the_client, ClientBroker.lacks),
    "cluster": (_over_a_cluster, ClientBroker.lacks),
    "spread": (_over_partitions, ClientBroker.lacks),
    "memory": (_on_memory, CoreBroker.lacks),
    "postgres": (_on_postgres, CoreBroker.lacks),
    "sqlite": (_on_sqlite, CoreBroker.lacks),
}


@pytest.fixture(scope="session")
def running_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all tests of a run, or of a worker of it."""
    server = ServerProcess(tmp_path_factory.mktemp("spec") / "server")
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture(scope="session")
def spec_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three owners and two front ends over etcd and PostgreSQL."""
    directory = tmp_path_factory.mktemp("cluster")
    with local_cluster(directory, owners=3, frontends=2, partitions=6) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def spread_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The same with several partitions."""
    settings = {"partitions": 4}
    server = ServerProcess(tmp_path_factory.mktemp("spread") / "server", settings=settings)
    try:
        yield server.start()
    finally:
        server.close()


@pytest.fixture(params=sorted(DRIVERS))
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    opener, _ = DRIVERS[request.param]
    chosen = request.node.get_closest_marker("limits")
    driver = await opener(request, Limits(**chosen.kwargs) if chosen else Limits())
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
            config.stash[_left_out][f"driver {driver} lacks {lacking}"] += 1
    items[:] = kept
    if left_out:
        config.hook.pytest_deselected(items=left_out)


def _lacking(item: pytest.Item) -> tuple[str, str | None]:
    callspec = getattr(item, "callspec", None)
    name = callspec.params.get("broker") if callspec else None
    if name not in DRIVERS:
        return "", None
    lacks = DRIVERS[name][1]
    lacking = next((ability.value for ability in _needed(item) if ability in lacks), None)
    test = item.name.partition("[")[0]
    if lacking is None and name in ("client", "cluster", "spread"):
        lacking = LEFT_OUT.get(test)
    if lacking is None and name in ("cluster", "spread"):
        lacking = LEFT_OUT_OF_SPREAD.get(test)
    return name, lacking


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
