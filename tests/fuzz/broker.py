"""The broker that is fuzzed: a whole one in this process, on SQLite and a clock that is turned, behind real gRPC."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import grpc.aio
from google.protobuf.message import Message
from prometheus_client import CollectorRegistry

from lockstep.cluster.static import StaticDirectory, StaticLease, StaticOwnership
from lockstep.core.commands import ListDefinitions
from lockstep.core.ids import PartitionEpoch, PartitionId
from lockstep.core.invariants import check_partition
from lockstep.core.limits import MIB, Limits
from lockstep.core.partition import Partition
from lockstep.core.snapshot import restore_partition
from lockstep.frontend.main import build_services
from lockstep.owner.actor import ActorLimits
from lockstep.owner.supervisor import OwnerParts, Supervisor
from lockstep.runtime.clock import ManualClock, SystemClock
from lockstep.runtime.ids import CountingIds
from lockstep.runtime.metrics import Metrics
from lockstep.storage.sqlite import SqliteStore
from lockstep.wire.server import Server, Service
from tests.properties.dump import durable

CALL_S = 30.0
"""For how long a call that does not wait may take, and how long it may take until a call waits."""
OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
)
_ONE = PartitionId(0)
_LIMITS = Limits(requests_per_client_max=200, clients_max=50)
_ACTOR_LIMITS = ActorLimits(body_cache_bytes_max=8 * MIB)
_LOOK_EVERY_MS = 1
_ROUNDS_OF_A_BATCH = 6  # more rounds of the partition than a job needs for its next batch
_Answer = Callable[[Any], Awaitable[Message | bytes]]


class Problem(Exception):
    """Something happened that must never happen. The text is what, in a line."""


class Fuzzed(Protocol):
    """A broker as a fuzz uses it."""

    waits_are_ended: bool
    """Whether calls that wait end by a short deadline of their caller, because time cannot be turned."""

    @property
    def channel(self) -> grpc.aio.Channel:
        """Where it is called."""
        ...

    def now_ms(self) -> int:
        """Return its time."""
        ...

    async def open(self) -> None:
        """Start it; its store outlives it."""
        ...

    async def close(self) -> None:
        """Stop it in order."""
        ...

    async def restart(self) -> None:
        """Stop it and start it on what it stored."""
        ...

    async def together(self, sends: Sequence[Callable[[], Any]]) -> list[Any]:
        """Send calls without waiting for answers between them, and return them."""
        ...

    async def advance(self, span_ms: int) -> None:
        """Let time go on, if it can be turned."""
        ...

    async def until_waiting(self, calls: list[Any]) -> None:
        """Return when each of these calls waits for something or is answered."""
        ...

    def check(self) -> None:
        """Raise a Problem if the broker is not well."""
        ...

    def resident_bytes(self) -> int:
        """Return the memory it takes, with everything else in its process."""
        ...


def resident_bytes(process: str) -> int:
    """Return the memory of a process, "self" for this one."""
    for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("a process has a size")


class _Complaints(logging.Handler):
    """Collects what the broker logs as a warning or worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen: list[str] = []
        self._formatter = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        told = f"{record.levelname} {record.getMessage()}"
        extra = {k: v for k, v in vars(record).items() if k in ("reason", "partition", "method")}
        if record.exc_info is not None:
            told += f" {extra}\n{self._formatter.formatException(record.exc_info)}"
        self.seen.append(told)


class LocalBroker:
    """A broker in this process."""

    waits_are_ended = False

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._clock = ManualClock()
        self._real = SystemClock()
        self._ids = CountingIds()
        self._starts = 0
        self._complaints = _Complaints()
        self._died: Exception | None = None
        self._ready = asyncio.Event()
        # The calls that arrived while calls are gathered, in their order; None = none are gathered.
        self._gathered: list[asyncio.Future[None]] | None = None

    # --- life ------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Start it; its store outlives it."""
        logging.getLogger("lockstep").addHandler(self._complaints)
        self._starts += 1
        self._store = SqliteStore(self._directory)
        metrics = Metrics(CollectorRegistry())
        parts = OwnerParts(
            store=self._store,
            ownership=StaticOwnership(1, StaticLease(PartitionEpoch(0, self._starts, 0))),
            clock=self._clock,
            limits=_LIMITS,
            actor_limits=_ACTOR_LIMITS,
            metrics=metrics,
        )
        self._supervisor = Supervisor(parts, 1)
        await self._supervisor.open_all()
        self._ready.clear()
        self._tasks = await asyncio.TaskGroup().__aenter__()
        self._tasks.create_task(self._live())
        await self._ready.wait()
        self._server = Server(
            self.services(),
            clock=self._clock,
            metrics=metrics,
            request_bytes_max=_LIMITS.message_bytes_max,
            calls_max=1000,
        )
        port = await self._server.start("127.0.0.1", 0)
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS)

    def services(self) -> list[Service]:
        """Return what is served."""
        directory = StaticDirectory(1, self._supervisor)
        return [
            replace(service, methods=[replace(m, call=self._gate(m.call)) for m in service.methods])
            for service in build_services(
                directory,
                clock=self._clock,
                limits=_LIMITS,
                ids=self._ids,
                release="fuzzed",
            ).all
        ]

    async def _live(self) -> None:
        try:
            await self._supervisor.run(self._ready.set)
        except* Exception as group:  # noqa: BLE001  # the top of the owner: told by the next check
            self._died = group
        finally:
            self._ready.set()

    async def close(self) -> None:
        """Stop it in order."""
        await self.channel.close()
        await self._server.stop(0)
        await self._supervisor.close()
        await self._tasks.__aexit__(None, None, None)
        logging.getLogger("lockstep").removeHandler(self._complaints)

    async def restart(self) -> None:
        """Stop it, compare what it stored with what it had in memory, and start it again."""
        self.check()
        partition, now_ms = self._partition(), self._clock.now_ms()
        held = durable(partition, reopened_ms=max(now_ms, partition.last_time_ms))
        await self.close()
        self._starts += 1
        store = SqliteStore(self._directory)
        snapshot = await store.open(_ONE, PartitionEpoch(0, self._starts, 0))
        opened_ms = max(now_ms, snapshot.partition.last_time_ms)
        restored = restore_partition(_ONE, _LIMITS, snapshot, opened_ms)
        check_partition(restored)
        await store.close(_ONE)
        kept = durable(restored, reopened_ms=None)
        await self.open()
        if kept != held:
            raise Problem(f"what was stored differs from memory: {_first_difference(kept, held)}")

    # --- calls -------------------------------------------------------------------------------------

    def _gate(self, call: _Answer) -> _Answer:
        """Return a method that waits in front of the broker while calls are gathered."""

        async def gated(request: Any) -> Message | bytes:
            if self._gathered is not None:
                turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._gathered.append(turn)
                await turn
            return await call(request)

        return gated

    async def together(self, sends: Sequence[Callable[[], Any]]) -> list[Any]:
        """Send calls and return them; they reach the broker in this order, and at once.

        gRPC delivers calls in any order. A fuzz that is to be repeated needs one, and a round of several calls.
        """
        if len(sends) == 1:
            return [sends[0]()]
        made: list[Any] = []
        gathered: list[asyncio.Future[None]] = []
        self._gathered = gathered
        try:
            for send in sends:
                before, call = len(gathered), send()
                made.append(call)
                while len(gathered) == before and not call.done():
                    await self._real.sleep(_LOOK_EVERY_MS)
        finally:
            self._gathered = None
            for turn in gathered:
                if not turn.done():
                    turn.set_result(None)
        return made

    # --- time --------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """Return its time."""
        return self._clock.now_ms()

    async def advance(self, span_ms: int) -> None:
        """Let time go on, and return when everything that became due was done."""
        self._clock.advance(span_ms)
        await self._supervisor.call(_ONE, ListDefinitions())

    async def until_waiting(self, calls: list[Any]) -> None:
        """Return when each of these calls is answered, or waits in the broker and nobody else does."""
        ends_ms = self._real.monotonic_ms() + CALL_S * 1000
        while True:
            await self._until_jobs_rest()
            left = [call for call in calls if not call.done()]
            actor = self._supervisor._actors.get(_ONE)
            parked = 0 if actor is None else len(actor.waiters)
            if parked == len(left):
                return
            if self._real.monotonic_ms() > ends_ms:
                raise Problem(f"{len(left)} calls are not answered, and {parked} wait")
            await self._real.sleep(_LOOK_EVERY_MS)

    async def _until_jobs_rest(self) -> None:
        """Return when jobs have done what they can before time goes on, so that each fuzz sees the same."""
        same, seen = 0, None
        while same < _ROUNDS_OF_A_BATCH and (running := self._running_jobs()):
            same = same + 1 if running == seen else 0
            seen = running
            await self._supervisor.call(_ONE, ListDefinitions())

    def _running_jobs(self) -> list[Any]:
        return [
            (queue.number, queue.jobs[number])
            for queue in self._partition().queues.values()
            for number in sorted(queue.running)
        ]

    # --- health ------------------------------------------------------------------------------------

    def _partition(self) -> Partition:
        actor = self._supervisor._actors.get(_ONE)
        if actor is None:
            raise Problem("the partition is not open")
        return actor.partition

    def check(self) -> None:
        """Raise a Problem if the broker is not well."""
        if self._died is not None:
            raise Problem("the owner died") from self._died
        if self._complaints.seen:
            raise Problem(f"the log complains: {self._complaints.seen[0]}")
        reasons = self._supervisor.not_ready()
        if reasons:
            raise Problem(f"not ready: {reasons[0]}")
        try:
            check_partition(self._partition())
            list(self._supervisor.gauges())
        except AssertionError as error:
            raise Problem(f"an invariant is broken: {error}") from error

    def messages(self) -> int:
        """Return how many messages are stored."""
        return self._partition().totals.messages

    def resident_bytes(self) -> int:
        """Return the memory of this process."""
        return resident_bytes("self")


def _first_difference(kept: Any, held: Any, path: str = "") -> str:
    if isinstance(kept, dict) and isinstance(held, dict):
        for key in [*kept, *(k for k in held if k not in kept)]:
            if kept.get(key) != held.get(key):
                return _first_difference(kept.get(key), held.get(key), f"{path}/{key}")
    return f"{path}: stored {kept}, in memory {held}"
