"""The processes of a cluster: owners and front ends, put together.

Here belongs the building of each from a configuration, and its orderly end. Never here: what their parts do. The laws:
an owner says where it listens before it takes part in the election; when it is asked to stop it is no candidate any
more first, so that others take its partitions while it drains.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import re
import socket
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

from lockstep.cli.composition import actor_limits_of, limits_of
from lockstep.cli.process import DISTRIBUTION, Process
from lockstep.cluster.directory import EtcdDirectory
from lockstep.cluster.endpoints import EtcdSettings, EtcdTls
from lockstep.cluster.etcd import EtcdClient, EtcdLeases
from lockstep.cluster.lease import NodeLease
from lockstep.cluster.measured import MeasuredLeases, MeasuredRegistry
from lockstep.cluster.node import NodeSettings
from lockstep.cluster.ownership import EtcdOwnership
from lockstep.core.errors import InvalidRequest, LockstepError
from lockstep.frontend.main import build_services
from lockstep.frontend.remote import PING_MS, RemoteOwner, connection_to
from lockstep.frontend.view import view_service
from lockstep.owner.service import OwnerService
from lockstep.owner.store_watch import StoreWatch
from lockstep.owner.supervisor import OwnerParts, Supervisor
from lockstep.runtime.cluster_config import ClusterConfig
from lockstep.runtime.cluster_metrics import PLACED
from lockstep.runtime.config import ServerConfig
from lockstep.runtime.entity_collector import on_event_loop
from lockstep.runtime.ids import SystemIds
from lockstep.runtime.shutdown import ShutdownStep
from lockstep.runtime.tasks import in_a_thread
from lockstep.storage.postgres import PostgresSettings, PostgresStore

log = logging.getLogger(__name__)

_EVERYWHERE = ("", "0.0.0.0", "::", "[::]")  # refused, not listened on
_GENERATION_EVERY_MS = 2_000
_GRACE_OVER_LEASE_MS = 5_000  # ADD-4
_GROWTH = 2  # a front end passes on the ids of messages beside the messages, which hold them too
_TAKEOVER_MS = 5_000  # after the end of a lease; what is left of it is for a large partition


def etcd_settings(config: ClusterConfig) -> EtcdSettings:
    """Return how etcd is reached.

    Raises:
        InvalidRequest: Something is missing or malformed.
    """
    tls = None
    if config.etcd_transport == "tls":
        tls = EtcdTls(
            _path(config.etcd_ca_file),
            _path(config.etcd_certificate_file),
            _path(config.etcd_key_file),
        )
    password = config.etcd_password.get_secret_value()
    return EtcdSettings(
        endpoints=config.endpoints,
        tls=tls,
        user=config.etcd_user or None,
        password=password or None,
    )


def _path(text: str) -> Path | None:
    return Path(text).expanduser() if text else None


def postgres_store(config: ServerConfig, process: Process) -> PostgresStore:
    """Return the store of a cluster.

    Raises:
        InvalidRequest: No database is named, or one by what is no connection string.
    """
    dsns = config.cluster.dsns
    if not dsns:
        raise InvalidRequest(
            "An owner needs PostgreSQL: name its databases in cluster.postgres_dsns"
            " (LOCKSTEP_CLUSTER__POSTGRES_DSNS=postgresql://user:password@host/database).",
            details={"setting": "cluster.postgres_dsns"},
        )
    return PostgresStore(dsns, process.clock, postgres_settings(config.cluster))


def postgres_settings(config: ClusterConfig) -> PostgresSettings:
    """Return what is set about PostgreSQL, besides where it is."""
    return PostgresSettings(
        schema=config.postgres_schema,
        skew_max_ms=config.postgres_skew_max_ms,
        call_timeout_ms=config.postgres_call_timeout_ms,
        open_timeout_ms=config.postgres_open_timeout_ms,
    )


def directory_of(config: ServerConfig, process: Process, etcd: EtcdClient) -> EtcdDirectory:
    """Return a directory whose connections refuse answers that were overtaken."""
    directory = EtcdDirectory(
        MeasuredRegistry(etcd, process.clock, process.metrics.cluster),
        process.clock,
        cluster=config.cluster.name,
        partitions=config.partitions,
        connect=lambda address: RemoteOwner(
            address,
            connection_to(address),
            partitions=config.partitions,
            overtaken=lambda partition, epoch: directory.is_overtaken(partition, epoch),
        ),
    )
    for state in PLACED:
        partitions = process.metrics.cluster.partitions.labels(state)
        partitions.set_function(partial(_count, directory, state))
    process.metrics.cluster.directory_age_seconds.set_function(partial(_age_s, directory))
    return directory


def _age_s(directory: EtcdDirectory) -> float:
    heard_ms = directory.standing().heard_ms
    return math.inf if heard_ms is None else heard_ms / 1000


def _count(directory: EtcdDirectory, state: str) -> int:
    """Return how many partitions stand in some way; the states exclude each other."""
    placements, nodes = directory.placements(), directory.nodes()
    if state == "unowned":
        return directory.partitions - len(placements)
    moving = sum(1 for p in placements.values() if p.node in nodes and nodes[p.node].is_leaving)
    return moving if state == "moving" else len(placements) - moving


def _advertised_host(cluster: ClusterConfig) -> str:
    """Return the host at which others reach the owner service.

    Raises:
        InvalidRequest: The service listens everywhere, which is an address to nobody else.
    """
    host = cluster.advertised_host or cluster.owner_host
    if host in _EVERYWHERE:
        raise InvalidRequest(
            f"An owner that listens on {host!r} must say where others reach it: set cluster.advertised_host to a name"
            " or an address of this machine.",
            details={"setting": "cluster.advertised_host"},
        )
    return host


def _host_name() -> str:
    """Return the host's name in the letters that names in the cluster may have."""
    name = re.sub(r"[^a-z0-9.-]+", "-", socket.gethostname().lower()).strip("-.")
    return name[:63].strip("-.") or "owner"


def _left_s(lease: NodeLease) -> float:
    life = lease.current
    return 0.0 if life is None else life.left_ms / 1000


class OwnerProcess(Process):
    """Owns partitions of a cluster."""

    def __init__(self, config: ServerConfig) -> None:
        """Build the tree of objects.

        Raises:
            InvalidRequest: The configuration lacks something.
        """
        cluster = config.cluster
        grace_ms = max(config.outage_grace_ms, cluster.lease_ttl_ms + _GRACE_OVER_LEASE_MS)
        super().__init__(config.model_copy(update={"outage_grace_ms": grace_ms}))
        self._host = _advertised_host(cluster)
        settings = etcd_settings(cluster)
        self._store = postgres_store(config, self)
        self._etcd = EtcdClient(settings)
        self._leases = EtcdLeases(settings)
        self._directory = directory_of(config, self, self._etcd)
        self._generation, self._cluster_id = 0, ""
        self._ownership: EtcdOwnership | None = None
        self._supervisor: Supervisor | None = None
        self._watch: StoreWatch | None = None
        self._service = OwnerService(config.partitions)
        self._server = self.server(
            [self._service.methods()], ping_interval_min_ms=PING_MS // 2, growth=_GROWTH
        )
        self._drained = asyncio.Event()

    async def prepare(self) -> None:
        """Create or check the record of the cluster."""
        record = await self._store.prepare(self.config.partitions)
        self._generation, self._cluster_id = record.generation, record.cluster_id

    async def start(self) -> None:
        """Listen, then take part in the election and own what is granted."""
        config, cluster = self.config, self.config.cluster
        port = await self.listen(
            self._server,
            cluster.owner_host,
            cluster.owner_port,
            "port",
            "owner.listening",
            ("--owner-host", "--owner-port"),
        )
        metrics = self.metrics.cluster
        leases = MeasuredLeases(self._leases, self.clock, metrics)
        lease = NodeLease(leases, self.clock, ttl_ms=cluster.lease_ttl_ms)
        metrics.watch_lease(lambda: _left_s(lease))
        host = self._host
        node = NodeSettings(
            cluster=cluster.name,
            node=cluster.node or _host_name(),
            address=f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            release=version(DISTRIBUTION),
            partitions=config.partitions,
            databases=self._store.databases,
            cluster_id=self._cluster_id,
        )
        self._ownership = EtcdOwnership(
            MeasuredRegistry(self._etcd, self.clock, metrics),
            lease,
            self.clock,
            node,
            generation=lambda: self._generation,
        )
        parts = OwnerParts(
            store=self._store,
            ownership=self._ownership,
            clock=self.clock,
            limits=limits_of(config),
            actor_limits=actor_limits_of(config),
            metrics=self.metrics,
            peers=self._directory,
            beside=in_a_thread,
            why_nothing=lease.why_none,
        )
        self._supervisor = Supervisor(parts, config.partitions)
        self._service.serve(self._supervisor)
        loop = asyncio.get_running_loop()
        self.metrics.watch_entities(on_event_loop(loop, self._supervisor.gauges))
        self.run(self._directory.run())
        self.run(self._ownership.run())
        self.run(self._own(self._supervisor))
        self.run_beside(self._follow_generation())
        self._watch = StoreWatch(
            self._store,
            self._store.databases,
            self.clock,
            silence_ms=cluster.postgres_silence_ms,
            tell=self._ownership.note_reach,
            is_kept_away=self._ownership.is_kept_away,
        )
        self.run_beside(self._watch.run())

    async def _own(self, supervisor: Supervisor) -> None:
        try:
            await supervisor.run(self._start_serving)
        finally:
            self._drained.set()

    def _start_serving(self) -> None:
        self.set_ready()
        gc.freeze()

    async def _follow_generation(self) -> None:
        """Learn when an operator says that etcd is another one (design section 4)."""
        while True:
            await self.clock.sleep(_GENERATION_EVERY_MS)
            try:
                generation = await self._store.generation()
            except LockstepError as error:
                log.debug("generation.not_read", extra={"reason": error.reason})
                continue
            if generation != self._generation:
                log.info("generation.changed", extra={"generation": generation})
                self._generation = generation

    def not_ready(self) -> Sequence[str]:
        """Return what the election and the partitions lack."""
        if self._ownership is None or self._supervisor is None or self._watch is None:
            return ["the server is starting"]
        parts = (self._ownership, self._watch, self._supervisor)
        return [reason for part in parts for reason in part.not_ready()]

    def stop_steps(self) -> Sequence[ShutdownStep]:
        """Leave, hand the partitions over, give the lease back, hang up."""

        async def leave() -> None:
            await self._server.set_serving(is_serving=False)
            if self._ownership is not None:
                self._ownership.leave()

        async def drain() -> None:
            if self._supervisor is not None:
                await self._supervisor.close()
                await self._drained.wait()

        async def resign() -> None:
            if self._ownership is not None:
                self._ownership.stop()
            self._directory.stop()

        async def hang_up() -> None:
            await self._server.stop(grace_ms=1000)
            await self._store.end_probes()
            await self._etcd.close()

        return [
            ShutdownStep("leave", leave),
            ShutdownStep("drain_partitions", drain, share=3),
            ShutdownStep("resign", resign),
            ShutdownStep("close_connections", hang_up),
        ]


class FrontendProcess(Process):
    """Answers clients over the owners of a cluster; keeps nothing."""

    def __init__(self, config: ServerConfig) -> None:
        """Build the tree of objects.

        Raises:
            InvalidRequest: The configuration lacks something.
        """
        super().__init__(config)
        self._etcd = EtcdClient(etcd_settings(config.cluster))
        self._directory = directory_of(config, self, self._etcd)
        self._services = build_services(
            self._directory,
            clock=self.clock,
            ids=SystemIds(),
            release=version(DISTRIBUTION),
            limits=limits_of(config),
            retry_for_ms=config.cluster.lease_ttl_ms + _TAKEOVER_MS,
            note_retry=lambda reason: self.metrics.cluster.routing_retries.labels(reason).inc(),
            members=self._directory.members,
        )
        view = view_service(self._directory.standing)
        self._data = self.server([*self._services.all, view])
        self._admin = self.server([self._services.admin]) if config.admin_port is not None else None

    async def prepare(self) -> None:
        """Do nothing: a front end keeps nothing."""

    async def start(self) -> None:
        """Follow the directory and listen."""
        self.run(self._directory.run())
        self.run_beside(self._services.run())
        config = self.config
        await self.listen(self._data, config.host, config.port, "port", "server.listening")
        if self._admin is not None and config.admin_port is not None:
            await self.listen(
                self._admin,
                config.host,
                config.admin_port,
                "admin_port",
                "admin.listening",
                ("--host", "--admin-port"),
            )
        self.set_ready()

    def not_ready(self) -> Sequence[str]:
        """Return what the directory lacks."""
        return self._directory.not_ready()

    def stop_steps(self) -> Sequence[ShutdownStep]:
        """Refuse what is new and send away who waits, let what was begun end, hang up."""
        servers = [self._data] if self._admin is None else [self._data, self._admin]

        async def refuse() -> None:
            for server in servers:
                await server.set_serving(is_serving=False)
            self._services.waits.send_away()

        async def hang_up() -> None:
            for server in servers:
                await server.stop(grace_ms=self.config.shutdown_grace_ms // 2)

        async def disconnect() -> None:
            self._directory.stop()
            await self._etcd.close()

        return [
            ShutdownStep("refuse_calls", refuse),
            ShutdownStep("close_connections", hang_up, share=3),
            ShutdownStep("disconnect", disconnect),
        ]
