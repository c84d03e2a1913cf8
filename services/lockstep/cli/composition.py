"""One process that is a whole broker: owner and front end, put together.

Here belongs the building of the tree of objects from a configuration, and its orderly end. Never here:
what any of them does. The laws: one process at a time uses a data directory; when the process is asked to
stop, what was begun is answered before the store is closed.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import IO

from prometheus_client import CollectorRegistry

from lockstep.cli.exits import CommandFailed
from lockstep.cluster.static import StaticDirectory, StaticLease, StaticOwnership
from lockstep.core.errors import InvalidRequest, LockstepError, StoreRefused
from lockstep.core.ids import PartitionEpoch
from lockstep.core.limits import KIB, Limits
from lockstep.frontend.main import build_services
from lockstep.owner.actor import ActorLimits
from lockstep.owner.supervisor import OwnerParts, Supervisor
from lockstep.runtime.clock import Clock, SystemClock
from lockstep.runtime.config import ServerConfig
from lockstep.runtime.entity_collector import on_event_loop
from lockstep.runtime.ids import SystemIds
from lockstep.runtime.logs import configure_logging
from lockstep.runtime.metrics import Metrics
from lockstep.runtime.metrics_server import Health, MetricsServer, serve_metrics
from lockstep.runtime.shutdown import ShutdownStep, install_signal_handlers, run_shutdown
from lockstep.storage.memory import MemoryStore
from lockstep.storage.port import PartitionStore
from lockstep.storage.sqlite import SqliteStore
from lockstep.wire.server import Server, Service

log = logging.getLogger(__name__)

_DISTRIBUTION = "lockstep-broker"
_RECORD_FORMAT = 1
_LAG_PROBE_MS = 500
_SWITCH_INTERVAL_S = 1e-3  # the store's thread gets the GIL back soon beside a busy event loop
# New objects before a collection of the youngest, such before one of the young, those before one of all. What is stored
# makes the last long, and the core makes few cycles. So the first two are kept short, and the last is made rare.
_COLLECT_AFTER = (10_000, 3, 1_250)


def run_server(config: ServerConfig, greet: Callable[[ServerConfig], None]) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code.

    Args:
        config: All settings.
        greet: Called once, when the server serves, with the settings and the ports that were chosen where they said 0.

    Raises:
        LockstepError: The server could not start; nothing was written but a new store's files.
        CommandFailed, BrokenPipeError: `greet` could not print.
    """
    configure_logging(config.log_format, config.log_level, sys.stderr)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.set_threshold(*_COLLECT_AFTER)
    with ExitStack() as held:
        if config.store == "memory":
            store: PartitionStore = MemoryStore()
            epoch = PartitionEpoch(0, 1, 0)
        else:
            store = SqliteStore(config.data_dir)
            epoch = PartitionEpoch(0, held.enter_context(claim_directory(config)), 0)
        asyncio.run(_serve(config, store, StaticLease(epoch), greet))
    return 0


async def _serve(
    config: ServerConfig,
    store: PartitionStore,
    lease: StaticLease,
    greet: Callable[[ServerConfig], None],
) -> None:
    try:
        await _Process(config, store, lease).serve(greet)
    except* (LockstepError, CommandFailed, BrokenPipeError) as group:
        raise _first(group) from group


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


@contextmanager
def claim_directory(config: ServerConfig) -> Iterator[int]:
    """Keep other processes off the data directory, and count this start.

    Yields:
        How often a process has started on this directory; it is durable before it is used.

    Raises:
        InvalidRequest: Another process uses the directory, or it was made for other partitions.
        StoreRefused: The directory's record is damaged.
    """
    directory = config.data_dir
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "lock").open("a")
    except OSError as error:
        raise _unusable(directory, error) from error
    with lock:
        _lock(lock, directory)
        record = directory / "node.json"
        starts = _starts(record, config.partitions) + 1
        text = json.dumps(
            {"format": _RECORD_FORMAT, "partitions": config.partitions, "starts": starts}
        )
        try:
            _write_durably(record, text)
        except OSError as error:
            raise _unusable(directory, error) from error
        yield starts


def _unusable(directory: Path, error: OSError) -> InvalidRequest:
    return InvalidRequest(
        f"The data directory {directory} cannot be used: {error.strerror or error}. Make it writable, or choose another"
        " with --data-dir.",
        details={"data_dir": str(directory)},
    )


def _lock(lock: IO[str], directory: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise InvalidRequest(
            f"Another process uses the data directory {directory}. Stop it, or choose another with --data-dir.",
            details={"data_dir": str(directory)},
        ) from error


def _starts(record: Path, partitions: int) -> int:
    if not record.exists():
        if any(record.parent.glob("partition-*.sqlite")):
            raise StoreRefused(
                f"{record.name} is missing from a data directory that holds partitions, so nothing tells how many there"
                " are, or how often a server started. Nothing was written. Restore it from a backup."
            )
        return 0
    try:
        values = json.loads(record.read_text(encoding="utf-8"))
        form = int(values["format"])
        if form > _RECORD_FORMAT:
            raise StoreRefused(
                f"{record.name} has format {form}; this release knows formats up to {_RECORD_FORMAT}. Nothing was"
                " written. Use the release that wrote it, or a newer one.",
                details={"observed": str(form), "limit": str(_RECORD_FORMAT)},
            )
        made_for, starts = int(values["partitions"]), int(values["starts"])
    except (ValueError, KeyError, TypeError) as error:
        raise StoreRefused(
            f"{record.name} in the data directory is damaged. Nothing was written. Restore it from a backup."
        ) from error
    if made_for != partitions:
        raise InvalidRequest(
            f"The data directory was made for {made_for} partitions, and {partitions} are configured. The number is"
            f" fixed; set partitions to {made_for}.",
            details={"configured": str(partitions), "stored": str(made_for)},
        )
    return starts


def _write_durably(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def limits_of(config: ServerConfig) -> Limits:
    """Return the core's limits from the configuration."""
    given = config.limits
    return Limits(
        message_bytes_max=given.message_size_max_kib * KIB,
        send_messages_max=given.send_batch_messages_max,
        send_bytes_max=given.message_size_max_kib * KIB,
        receive_messages_max=given.receive_messages_max,
        response_bytes_max=given.response_bytes_max,
        requests_per_client_max=given.requests_per_client_max,
        request_retention_ms=given.request_retention_ms,
        outage_grace_ms=config.outage_grace_ms,
        queues_max=given.queues_max,
    )


def actor_limits_of(config: ServerConfig) -> ActorLimits:
    """Return the owner's limits from the configuration."""
    given = config.limits
    return ActorLimits(
        inbox_commands_max=given.inbox_commands_max,
        inbox_bytes_max=given.inbox_bytes_max,
        waiters_max=given.waiters_max,
        body_cache_bytes_max=given.body_cache_bytes_max,
    )


@dataclass(slots=True)
class _State:
    """What probes ask for; written by the event loop, read by any thread."""

    is_ready: bool = False
    is_stopping: bool = False


class _Process:
    """The tree of objects of one process; made inside its event loop, because gRPC's server is bound to one."""

    def __init__(self, config: ServerConfig, store: PartitionStore, lease: StaticLease) -> None:
        self._config = config
        self._clock: Clock = SystemClock()
        self._state = _State()
        # The ports that are listened on, by setting.
        self._ports: dict[str, int] = {}
        self._metrics = Metrics(
            CollectorRegistry(),
            version=version(_DISTRIBUTION),
            entities_max=config.metrics_entities_max,
        )
        parts = OwnerParts(
            store=store,
            ownership=StaticOwnership(config.partitions, lease),
            clock=self._clock,
            limits=limits_of(config),
            actor_limits=actor_limits_of(config),
            metrics=self._metrics,
        )
        self._supervisor = Supervisor(parts, config.partitions)
        directory = StaticDirectory(config.partitions, self._supervisor)
        self._services = build_services(
            directory, clock=self._clock, ids=SystemIds(), release=version(_DISTRIBUTION)
        )
        self._data = self._server(self._services.all)
        self._admin = (
            self._server([self._services.admin]) if config.admin_port is not None else None
        )

    def _server(self, services: Sequence[Service]) -> Server:
        return Server(
            services,
            clock=self._clock,
            metrics=self._metrics,
            request_bytes_max=self._config.limits.message_size_max_kib * KIB,
            calls_max=self._config.limits.concurrent_requests_max,
        )

    async def serve(self, greet: Callable[[ServerConfig], None]) -> None:
        """Start, greet, serve until a signal, stop."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        signals = install_signal_handlers(loop, lambda _name: stop.set())
        self._metrics.watch_entities(on_event_loop(loop, self._supervisor.gauges))
        gc.disable()  # what is loaded stays, so no collection need look at it, now or later
        try:
            await self._supervisor.open_all()
        finally:
            gc.freeze()
            gc.enable()
        side_servers = self._side_servers()
        drained = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._own(drained))
                beside = [
                    tasks.create_task(self._measure_lag()),
                    tasks.create_task(self._services.run()),
                ]
                try:
                    await self._listen()
                    greet(self._config.model_copy(update=self._ports))
                    await stop.wait()
                finally:
                    await self._stop(drained)
                    for task in beside:
                        task.cancel()
        finally:
            for server in side_servers:
                server.close()
            signals.uninstall()
            log.info("server.stopped")

    def _side_servers(self) -> list[MetricsServer]:
        config, servers = self._config, []
        if config.metrics_port is not None:
            servers.append(
                serve_metrics(config.host, config.metrics_port, self._metrics, self._health)
            )
            self._ports["metrics_port"] = servers[-1].port
            log.info("metrics.listening", extra={"host": config.host, "port": servers[-1].port})
        if config.health_port is not None:
            servers.append(serve_metrics(config.host, config.health_port, None, self._health))
            self._ports["health_port"] = servers[-1].port
            log.info("health.listening", extra={"host": config.host, "port": servers[-1].port})
        return servers

    def _health(self) -> Health:
        if self._state.is_stopping:
            return Health(is_live=True, is_ready=False, reasons=("the server is stopping",))
        reasons = tuple(self._supervisor.not_ready())
        if not self._state.is_ready:
            reasons = reasons or ("the server is starting",)
        return Health(is_live=True, is_ready=not reasons, reasons=reasons)

    async def _own(self, drained: asyncio.Event) -> None:
        try:
            await self._supervisor.run(self._start_serving)
        finally:
            drained.set()

    def _start_serving(self) -> None:
        self._state.is_ready = True
        gc.freeze()  # what a start loads stays; collections need not look at it

    async def _listen(self) -> None:
        config = self._config
        port = await self._data.start(config.host, config.port)
        await self._data.set_serving(is_serving=True)
        self._ports["port"] = port
        log.info("server.listening", extra={"host": config.host, "port": port})
        if self._admin is not None and config.admin_port is not None:
            admin_port = await self._admin.start(config.host, config.admin_port)
            await self._admin.set_serving(is_serving=True)
            self._ports["admin_port"] = admin_port
            log.info("admin.listening", extra={"host": config.host, "port": admin_port})

    async def _stop(self, drained: asyncio.Event) -> None:
        self._state.is_stopping = True
        log.info("server.stopping")

        async def refuse() -> None:
            for server in self._servers():
                await server.set_serving(is_serving=False)

        async def drain() -> None:
            await self._supervisor.close()
            await drained.wait()

        async def hang_up() -> None:
            for server in self._servers():
                await server.stop(grace_ms=1000)

        steps = [
            ShutdownStep("refuse_calls", refuse),
            ShutdownStep("drain_partitions", drain, share=3),
            ShutdownStep("close_connections", hang_up),
        ]
        await run_shutdown(steps, grace_ms=self._config.shutdown_grace_ms, clock=self._clock)

    def _servers(self) -> list[Server]:
        return [self._data] if self._admin is None else [self._data, self._admin]

    async def _measure_lag(self) -> None:
        lag = self._metrics.event_loop_lag_seconds.labels("server")
        while True:
            started_ms = self._clock.monotonic_ms()
            await self._clock.sleep(_LAG_PROBE_MS)
            late_ms = self._clock.monotonic_ms() - started_ms - _LAG_PROBE_MS
            lag.observe(max(0, late_ms) / 1000)
