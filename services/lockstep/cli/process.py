"""What every process of Lockstep has in common: its start, its probes, and its orderly end.

Here belongs the frame that owners, front ends and single nodes run in. Never here: what they are made of
(`composition`, `cluster_processes`). The laws: what a process needs is ready before it says so; whatever happens, its
steps of stopping are run, and it ends when the time for them is over.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry

from lockstep.cli.exits import CommandFailed
from lockstep.core.errors import LockstepError
from lockstep.runtime.clock import Clock, SystemClock
from lockstep.runtime.config import ServerConfig
from lockstep.runtime.logs import configure_logging
from lockstep.runtime.metrics import Metrics
from lockstep.runtime.metrics_server import Health, MetricsServer, serve_metrics
from lockstep.runtime.shutdown import ShutdownStep, install_signal_handlers, run_shutdown
from lockstep.wire.server import PING_INTERVAL_MIN_MS, Server, Service

log = logging.getLogger(__name__)

DISTRIBUTION: Final = "lockstep-broker"
_LAG_PROBE_MS = 500
_STANDSTILL_MS = 30_000  # an event loop that stood still for so long is not live
_SWITCH_INTERVAL_S = 1e-3  # other threads get the GIL back soon beside a busy event loop
# New objects before a collection of the youngest, such before one of the young, those before one of all. What is stored
# makes the last long, and the core makes few cycles. So the first two are kept short, and the last is made rare.
_COLLECT_AFTER = (10_000, 3, 1_250)

Greet = Callable[[ServerConfig], None]


@dataclass(slots=True)
class _State:
    """What probes ask for; written by the event loop, read by any thread."""

    is_ready: bool = False
    is_stopping: bool = False
    turned_ms: int | None = None  # when the event loop turned last; None = it does not count yet


class Process(ABC):
    """One process from its configuration to its end; made inside its event loop, to which gRPC's server is bound."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.clock: Clock = SystemClock()
        self.metrics = Metrics(
            CollectorRegistry(),
            version=version(DISTRIBUTION),
            entities_max=config.metrics_entities_max,
        )
        self._state = _State()
        # The ports that are listened on, by setting.
        self._ports: dict[str, int] = {}
        self._servers: list[Server] = []
        self._beside: list[asyncio.Task[None]] = []
        self._running: set[asyncio.Task[None]] = set()
        self._tasks: asyncio.TaskGroup | None = None

    # --- what a kind of process says -----------------------------------------------------------------

    @abstractmethod
    async def prepare(self) -> None:
        """Do what must be done before anything is served."""

    @abstractmethod
    async def start(self) -> None:
        """Begin to serve."""

    @abstractmethod
    def stop_steps(self) -> Sequence[ShutdownStep]:
        """Return the steps of an orderly end."""

    @abstractmethod
    def not_ready(self) -> Sequence[str]:
        """Return why the process cannot serve everything; empty = it can."""

    # --- for them ---------------------------------------------------------------------------------------

    def run_beside(self, coroutine: Coroutine[None, None, None]) -> None:
        """Run something until the process has stopped; it is cancelled then."""
        self._beside.append(self.run(coroutine))

    def run(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run something that ends by itself when the process stops."""
        assert self._tasks is not None, "the process has started"
        task = self._tasks.create_task(coroutine)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def set_ready(self) -> None:
        """Say to probes that the process serves."""
        self._state.is_ready = True

    def server(
        self,
        services: Sequence[Service],
        *,
        ping_interval_min_ms: int = PING_INTERVAL_MIN_MS,
        growth: int = 1,
    ) -> Server:
        """Return a gRPC server with the limits of the configuration.

        Args:
            services: What it serves.
            ping_interval_min_ms: As `Server` says.
            growth: How many times as large as a request of a client one may be here.
        """
        return Server(
            services,
            clock=self.clock,
            metrics=self.metrics,
            request_bytes_max=growth * self.config.limits.message_size_max_kib * 1024,
            calls_max=self.config.limits.concurrent_requests_max,
            ping_interval_min_ms=ping_interval_min_ms,
        )

    async def listen(
        self,
        server: Server,
        host: str,
        port: int,
        setting: str,
        event: str,
        options: tuple[str, str] = ("--host", "--port"),
    ) -> int:
        """Let a server listen, note its port, and return it; `options` name the host and the port to users."""
        chosen = await server.start(host, port, options)
        await server.set_serving(is_serving=True)
        self._ports[setting] = chosen
        self._servers.append(server)
        log.info(event, extra={"host": host, "port": chosen})
        return chosen

    # --- life -------------------------------------------------------------------------------------------

    async def serve(self, greet: Greet) -> None:
        """Start, greet, serve until a signal, stop.

        Probes are answered from the beginning: what prepares for long, by a migration or a large store, is alive.
        """
        stop = asyncio.Event()
        signals = install_signal_handlers(asyncio.get_running_loop(), lambda _name: stop.set())
        side_servers = self._side_servers()
        try:
            await self.prepare()
            async with asyncio.TaskGroup() as self._tasks:
                self.run_beside(self._measure_lag())
                try:
                    await self.start()
                    greet(self.config.model_copy(update=self._ports))
                    await stop.wait()
                    await self._stay()
                finally:
                    await self._stop()
        finally:
            for server in side_servers:
                server.close()
            signals.uninstall()
            log.info("server.stopped")

    async def _stay(self) -> None:
        """Serve on for a moment, no longer ready, until load balancers send nobody here any more."""
        self._state.is_stopping = True
        if self.config.lame_duck_ms:
            log.info("server.leaving", extra={"lame_duck_ms": self.config.lame_duck_ms})
            for server in self._servers:
                await server.set_serving(is_serving=False)
            await self.clock.sleep(self.config.lame_duck_ms)

    async def _stop(self) -> None:
        """Run the steps of stopping, and end what still runs when the time for them is over."""
        self._state.is_stopping = True
        log.info("server.stopping")
        grace_ms = self.config.shutdown_grace_ms
        ends_ms = self.clock.monotonic_ms() + grace_ms
        await run_shutdown(self.stop_steps(), grace_ms=grace_ms, clock=self.clock)
        for task in self._beside:
            task.cancel()
        if self._running:
            left_ms = max(ends_ms - self.clock.monotonic_ms(), 0)
            _, late = await asyncio.wait(self._running, timeout=left_ms / 1000)
            if late:  # it waits for something outside that does not answer
                log.warning("server.cut", extra={"tasks": len(late)})
            for task in late:
                task.cancel()

    def _side_servers(self) -> list[MetricsServer]:
        config, servers = self.config, []
        if config.metrics_port is not None:
            servers.append(
                serve_metrics(config.host, config.metrics_port, self.metrics, self._health)
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
        turned_ms = self._state.turned_ms
        if turned_ms is not None and self.clock.monotonic_ms() - turned_ms > _STANDSTILL_MS:
            return Health(is_live=False, is_ready=False, reasons=("the event loop stands still",))
        reasons = tuple(self.not_ready())
        if not self._state.is_ready:
            reasons = reasons or ("the server is starting",)
        return Health(is_live=True, is_ready=not reasons, reasons=reasons)

    async def _measure_lag(self) -> None:
        lag = self.metrics.event_loop_lag_seconds.labels("server")
        while True:
            started_ms = self.clock.monotonic_ms()
            await self.clock.sleep(_LAG_PROBE_MS)
            self._state.turned_ms = self.clock.monotonic_ms()
            late_ms = self._state.turned_ms - started_ms - _LAG_PROBE_MS
            lag.observe(max(0, late_ms) / 1000)


def run_process(config: ServerConfig, make: Callable[[], Process], greet: Greet) -> int:
    """Run a process until SIGTERM or SIGINT and return the exit code.

    Args:
        config: All settings.
        make: Makes the process; called inside its event loop.
        greet: Called once, when the process serves, with the settings and the ports that were chosen where they said 0.

    Raises:
        LockstepError: The process could not start, or cannot go on.
        CommandFailed, BrokenPipeError: `greet` could not print.
    """

    async def serve() -> None:
        try:
            await make().serve(greet)
        except* (LockstepError, CommandFailed, BrokenPipeError) as group:
            raise _first(group) from group

    configure_logging(config.log_format, config.log_level, sys.stderr)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.set_threshold(*_COLLECT_AFTER)
    asyncio.run(serve())
    return 0


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
