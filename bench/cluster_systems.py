"""The brokers that the benchmark of the cluster compares, each for the time of one run.

Here belongs how each is started and which of its processes count as what. Never here: the load, or what its figures
mean (`cluster_hop`). The laws: all stores are synced, as shipped, and lie in the system's directory for
temporary files; every run begins with an empty one.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import measure
from bench.lifecycle import lockstep_command
from tests.cluster.local import LocalCluster, local_cluster
from tests.postgres.server import running_server

SQLITE = "sqlite"
POSTGRES = "postgres"
CLUSTER = "cluster"
SPREAD = "spread"
PROXY = "proxy"

SYNCED = ("shared_buffers=128MB",)
"""PostgreSQL's defaults, syncs included."""
PARTITIONS = 16
"""Those of SPREAD, as a cluster has by default."""


@dataclass(frozen=True, slots=True)
class System:
    """A running broker.

    Attributes:
        address: Where clients connect.
        server_pid: The process that decides: the server, or the owner.
        beside: The other processes, by what they are.
    """

    address: str
    server_pid: int
    beside: Mapping[str, int] = field(default_factory=dict)


@contextmanager
def sqlite() -> Iterator[System]:
    """`lockstep serve` on SQLite."""
    with measure.running_server(lockstep_command, scratch_dir=None) as server:
        yield System(server.address, server.pid)


@contextmanager
def proxy() -> Iterator[System]:
    """A byte proxy before `lockstep serve` on SQLite."""
    with sqlite() as behind:

        def command(port: int, _directory: Path) -> list[str]:
            return [sys.executable, "-m", "bench.byte_proxy", str(port), behind.address]

        with measure.running_server(command, scratch_dir=None) as server:
            yield System(server.address, behind.server_pid, {"proxy": server.pid})


@contextmanager
def postgres() -> Iterator[System]:
    """One process that is a whole broker, on PostgreSQL."""
    with running_server(SYNCED) as store:
        dsn = store.make_database("lockstep")

        def command(port: int, _directory: Path) -> list[str]:
            return [sys.executable, "-m", "bench.postgres_node", str(port), dsn]

        with measure.running_server(command, scratch_dir=None) as server:
            yield System(server.address, server.pid, {"postgres": store.pid})


@contextmanager
def _cluster(partitions: int) -> Iterator[System]:
    with (
        tempfile.TemporaryDirectory(prefix="lockstep-bench-") as directory,
        local_cluster(
            Path(directory), owners=1, frontends=1, partitions=partitions, postgres=SYNCED
        ) as running,
    ):
        yield _system_of(running)


def _system_of(running: LocalCluster) -> System:
    (owner,), (frontend,) = running.owners, running.frontends
    beside = {
        "frontend": frontend.pid,
        "postgres": running.postgres.pid,
        "etcd": running.etcd.pid,
    }
    return System(f"127.0.0.1:{frontend.port}", owner.pid, beside)


def cluster() -> AbstractContextManager[System]:
    """One front end before one owner with one partition, on PostgreSQL."""
    return _cluster(1)


def spread() -> AbstractContextManager[System]:
    """The same with the partitions that a cluster has by default."""
    return _cluster(PARTITIONS)


SYSTEMS: Mapping[str, Callable[[], AbstractContextManager[System]]] = {
    SQLITE: sqlite,
    POSTGRES: postgres,
    CLUSTER: cluster,
    SPREAD: spread,
    PROXY: proxy,
}
