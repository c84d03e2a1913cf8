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
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import IO

from lockstep.cli.process import DISTRIBUTION, Process, run_process
from lockstep.cluster.static import StaticDirectory, StaticLease, StaticOwnership
from lockstep.core.errors import InvalidRequest, StoreRefused
from lockstep.core.ids import PartitionEpoch
from lockstep.core.limits import KIB, Limits
from lockstep.frontend.main import build_services
from lockstep.owner.actor import ActorLimits
from lockstep.owner.supervisor import OwnerParts, Supervisor
from lockstep.runtime.config import ServerConfig
from lockstep.runtime.entity_collector import on_event_loop
from lockstep.runtime.ids import SystemIds
from lockstep.runtime.shutdown import ShutdownStep
from lockstep.runtime.tasks import in_a_thread
from lockstep.storage.memory import MemoryStore
from lockstep.storage.port import PartitionStore
from lockstep.storage.sqlite import SqliteStore

_RECORD_FORMAT = 1


def run_server(config: ServerConfig, greet: Callable[[ServerConfig], None]) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code.

    Args:
        config: All settings.
        greet: Called once, when the server serves, with the settings and the ports that were chosen where they said 0.

    Raises:
        LockstepError: The server could not start; nothing was written but a new store's files.
        CommandFailed, BrokenPipeError: `greet` could not print.
    """
    with ExitStack() as held:
        if config.store == "memory":
            store: PartitionStore = MemoryStore()
            epoch = PartitionEpoch(0, 1, 0)
        else:
            store = SqliteStore(config.data_dir)
            epoch = PartitionEpoch(0, held.enter_context(claim_directory(config)), 0)
        return run_process(config, lambda: SingleNode(config, store, StaticLease(epoch)), greet)


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


class SingleNode(Process):
    """The tree of objects of one process that is everything."""

    def __init__(self, config: ServerConfig, store: PartitionStore, lease: StaticLease) -> None:
        """Own all partitions of a store; no other process may."""
        super().__init__(config)
        parts = OwnerParts(
            store=store,
            ownership=StaticOwnership(config.partitions, lease),
            clock=self.clock,
            limits=limits_of(config),
            actor_limits=actor_limits_of(config),
            metrics=self.metrics,
            beside=in_a_thread,
        )
        self._supervisor = Supervisor(parts, config.partitions)
        self._show_partitions(config.partitions)
        directory = StaticDirectory(config.partitions, self._supervisor)
        self._services = build_services(
            directory,
            clock=self.clock,
            limits=parts.limits,
            ids=SystemIds(),
            release=version(DISTRIBUTION),
        )
        self._data = self.server(self._services.all)
        self._admin = self.server([self._services.admin]) if config.admin_port is not None else None
        self._drained = asyncio.Event()

    def _show_partitions(self, partitions: int) -> None:
        """Show how the partitions stand as a directory would: here nobody else can own one."""
        shown = self.metrics.cluster.partitions
        open_here = self._supervisor
        shown.labels("owned").set_function(lambda: open_here.open_partitions)
        shown.labels("unowned").set_function(lambda: partitions - open_here.open_partitions)
        shown.labels("moving").set(0)

    async def prepare(self) -> None:
        """Open the partitions."""
        loop = asyncio.get_running_loop()
        self.metrics.watch_entities(on_event_loop(loop, self._supervisor.gauges))
        gc.disable()  # what is loaded stays, so no collection need look at it, now or later
        try:
            await self._supervisor.open_all()
        finally:
            gc.freeze()
            gc.enable()

    async def start(self) -> None:
        """Own the partitions and listen."""
        self.run(self._own())
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

    async def _own(self) -> None:
        try:
            await self._supervisor.run(self._start_serving)
        finally:
            self._drained.set()

    def _start_serving(self) -> None:
        self.set_ready()
        gc.freeze()  # what a start loads stays; collections need not look at it

    def not_ready(self) -> Sequence[str]:
        """Return which partitions are not open."""
        return self._supervisor.not_ready()

    def stop_steps(self) -> Sequence[ShutdownStep]:
        """Refuse what is new and send away who waits, answer what was begun, then hang up."""
        servers = [self._data] if self._admin is None else [self._data, self._admin]

        async def refuse() -> None:
            for server in servers:
                await server.set_serving(is_serving=False)
            self._services.waits.send_away()

        async def drain() -> None:
            await self._supervisor.close()
            await self._drained.wait()

        async def hang_up() -> None:
            for server in servers:
                await server.stop(grace_ms=1000)

        return [
            ShutdownStep("refuse_calls", refuse),
            ShutdownStep("drain_partitions", drain, share=3),
            ShutdownStep("close_connections", hang_up),
        ]
