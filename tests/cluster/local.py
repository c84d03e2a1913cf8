"""A whole cluster of real processes on this machine: etcd, PostgreSQL, owners, front ends."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.cluster.command import run_lockstep
from tests.etcd.etcd_process import EtcdProcess
from tests.postgres.server import FAST, PostgresServer
from tests.server.server_process import ServerProcess, wait_until

LEASE_MS = 10_000
PARTITIONS = 16
_READY_MS = 60_000


class OwnerOfCluster(ServerProcess):
    """`lockstep owner`."""

    command = "owner"
    listening = "owner.listening"

    def _place(self) -> dict[str, object]:
        return {"cluster.owner_port": self.port}

    def is_ready(self) -> bool:
        """Whether it has everything that it is to own."""
        return self.http("health", "/readyz")[0] == 200


class FrontendOfCluster(ServerProcess):
    """`lockstep frontend`."""

    command = "frontend"

    def _place(self) -> dict[str, object]:
        return {"port": self.port}


class LocalCluster:
    """One cluster, from its start to its end. Its parts may be ended and started by themselves meanwhile."""

    def __init__(
        self,
        directory: Path,
        *,
        owners: int = 3,
        frontends: int = 2,
        partitions: int = PARTITIONS,
        lease_ms: int = LEASE_MS,
        settings: Mapping[str, object] | None = None,
        postgres: tuple[str, ...] = FAST,
        settings_of: Callable[[str], Mapping[str, object]] = lambda _name: {},
        dsn_of: Callable[[str, str], str] = lambda _name, dsn: dsn,
    ) -> None:
        """Prepare.

        Args:
            directory: Where logs and data go.
            owners: How many owner processes.
            frontends: How many front ends.
            partitions: How many partitions.
            lease_ms: How long a silent owner keeps its partitions.
            settings: Of all processes.
            postgres: Settings of PostgreSQL.
            settings_of: Settings of a process by its name, laid over those of all.
            dsn_of: How an owner, by its name, connects to the database that a DSN leads to.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.partitions = partitions
        self.dsn = ""
        self.etcd = EtcdProcess(directory / "etcd")
        self.postgres = PostgresServer(postgres)
        self._settings_of = settings_of
        self._dsn_of = dsn_of
        self._lease_ms = lease_ms
        self._settings = dict(settings or {})
        self.owners = [self._owner(f"owner-{n}") for n in range(1, owners + 1)]
        self.frontends = [self._frontend(f"frontend-{n}") for n in range(1, frontends + 1)]

    def _common(self, name: str) -> dict[str, object]:
        return {
            "partitions": self.partitions,
            "cluster.etcd_endpoints": self.etcd.endpoint,
            "cluster.lease_ttl_ms": self._lease_ms,
            **self._settings,
            **self._settings_of(name),
        }

    def _owner(self, name: str) -> OwnerOfCluster:
        settings = {"cluster.node": name, **self._common(name)}
        return OwnerOfCluster(self.directory / name, settings=settings)

    def _frontend(self, name: str) -> FrontendOfCluster:
        return FrontendOfCluster(self.directory / name, settings=self._common(name))

    def start(self, tell: Callable[[str], None] = lambda _what: None) -> Self:
        """Start everything and return when every partition has an owner and the front ends serve.

        Args:
            tell: Called with what is being done, again and again while something is waited for; what it raises ends
                the start.
        """
        tell("etcd")
        self.etcd.start()
        tell("PostgreSQL")
        self.postgres.start()
        self.dsn = self.postgres.make_database("lockstep")
        for owner in self.owners:
            dsn = self._dsn_of(owner.directory.name, self.dsn)
            owner.set_environment({"LOCKSTEP_CLUSTER__POSTGRES_DSNS": dsn})
        tell("owners and front ends")
        for process in (*self.owners, *self.frontends):
            process.launch()
        for process in (*self.owners, *self.frontends):
            tell(process.directory.name)
            process.wait_until_serving()

        def is_shared() -> bool:
            tell("the owners share the partitions")
            return not self.without_owner()

        def is_open() -> bool:
            tell("the owners open the partitions")
            return self.is_ready()

        wait_until(is_shared, "every partition has an owner", within_ms=_READY_MS)
        wait_until(is_open, "the owners have opened them", within_ms=_READY_MS)
        return self

    def is_ready(self) -> bool:
        """Whether every owner that runs has opened what it is to own."""
        return all(owner.is_ready() for owner in self.owners if owner.is_running)

    def status(self, *more: str) -> dict[str, Any]:
        """Return what `lockstep cluster status` prints, asked with more arguments."""
        done = run_lockstep(
            "cluster", "status", "--json", "--etcd", self.etcd.endpoint, "--partitions", str(self.partitions),
            *more,
        )  # fmt: skip
        status: dict[str, Any] = json.loads(done.stdout)
        return status

    def without_owner(self) -> list[int]:
        """Return the partitions that nobody owns."""
        return list(self.status()["without_owner"])

    def owner_of(self, partition: int) -> OwnerOfCluster:
        """Return the process that owns a partition."""
        claims = {claim["partition"]: claim["node"] for claim in self.status()["partitions"]}
        return next(o for o in self.owners if o.directory.name == claims[partition])

    def close(self) -> None:
        """Leave nothing behind but logs."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.postgres.close)
            stack.callback(self.etcd.stop)
            for process in (*self.owners, *self.frontends):
                stack.callback(process.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@contextlib.contextmanager
def local_cluster(directory: Path, **options: Any) -> Iterator[LocalCluster]:
    """A cluster that ends with the block."""
    with LocalCluster(directory, **options) as cluster:
        yield cluster.start()
