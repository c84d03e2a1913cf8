"""A server without sockets: the services of the front end over one owner, storage in memory.

Here belongs putting it together, and the way of one call to its method. Never here: rules, clients. The laws: a
request and its response are bytes, and an error is a status, as over gRPC; no call outlives its deadline, which is
virtual, nor waits for ever for a clock that nobody moves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Final

import grpc
from prometheus_client import CollectorRegistry

from lockstep.cluster.static import StaticDirectory, StaticLease, StaticOwnership
from lockstep.core.errors import LockstepError
from lockstep.core.ids import PartitionEpoch
from lockstep.core.limits import Limits, check_between
from lockstep.frontend.main import build_services
from lockstep.owner.actor import ActorLimits
from lockstep.owner.supervisor import OwnerParts, Supervisor
from lockstep.runtime.clock import SystemClock
from lockstep.runtime.ids import CountingIds
from lockstep.runtime.metrics import Metrics
from lockstep.storage.memory import MemoryStore
from lockstep.testing.virtual_time import VirtualTime
from lockstep.wire.server import answer
from lockstep.wire.status import to_status

_LOOK_EVERY_MS: Final = 500
_PARTITIONS_MAX: Final = 64


def checked_partitions(partitions: int) -> int:
    """Return a number of partitions.

    Raises:
        InvalidRequest: There are too few of them, or too many.
    """
    check_between(partitions, 1, _PARTITIONS_MAX, "partitions")
    return partitions


class CallFailed(grpc.RpcError):
    """What a call ends with that failed, as gRPC tells it to a client."""

    def __init__(self, code: grpc.StatusCode, details: str, trailers: Any = ()) -> None:
        super().__init__(details)
        self._code = code
        self._details = details
        self._trailers = trailers

    def code(self) -> grpc.StatusCode:
        """Return the status code."""
        return self._code

    def details(self) -> str:
        """Return the text."""
        return self._details

    def trailing_metadata(self) -> Any:
        """Return the trailers, with the details of our errors."""
        return self._trailers


class InProcessServer:
    """A whole broker in the event loop that starts it."""

    def __init__(
        self,
        time: VirtualTime,
        patience_ms: int | None,
        partitions: int = 1,
        limits: Limits | None = None,
    ) -> None:
        """Prepare a broker with nothing in it.

        Args:
            time: Its time.
            patience_ms: For how long of real time calls may wait while nothing happens; None = for ever.
            partitions: How many partitions it has.
            limits: Its limits; None = those of the product.
        """
        self._time = time
        self._patience_ms = patience_ms
        parts = OwnerParts(
            store=MemoryStore(),
            ownership=StaticOwnership(partitions, StaticLease(PartitionEpoch(0, 1, 0))),
            clock=time.clock,
            limits=limits or Limits(),
            actor_limits=ActorLimits(),
            metrics=Metrics(CollectorRegistry()),
        )
        self._supervisor = Supervisor(parts, partitions)
        directory = StaticDirectory(partitions, self._supervisor)
        services = build_services(
            directory,
            clock=time.clock,
            limits=parts.limits,
            ids=CountingIds(),
            release=version("lockstep-broker"),
        )
        self._methods = {
            f"/{s.name}/{method.name}": method for s in services.all for method in s.methods
        }
        self._run_services = services.run
        self._tasks: asyncio.TaskGroup | None = None
        # All and only the tasks that wait for a time, or watch, or serve by themselves.
        self._timers: set[asyncio.Task[None]] = set()
        # All and only the calls that are not answered yet.
        self._open: set[asyncio.Timeout] = set()

    @property
    def open_calls(self) -> int:
        """How many calls are not answered yet."""
        return len(self._open)

    async def start(self) -> None:
        """Be ready for calls when this returns."""
        await self._supervisor.open_all()
        ready = asyncio.Event()
        self._tasks = await asyncio.TaskGroup().__aenter__()
        self._tasks.create_task(self._supervisor.run(ready.set))
        if self._patience_ms is not None:
            self._add_timer(self._watch(self._patience_ms))
        await ready.wait()
        self._add_timer(self._run_services())

    async def stop(self) -> None:
        """Send waiting calls away and end every task. Clients are to be closed before."""
        tasks, self._tasks = self._tasks, None
        if tasks is None:
            return
        for timer in self._timers:
            timer.cancel()
        await self._supervisor.close()
        await tasks.__aexit__(None, None, None)

    async def call(self, path: str, payload: bytes, *, timeout_ms: int) -> bytes:
        """Answer one call.

        Args:
            path: The method, as gRPC names it.
            payload: The request, serialized.
            timeout_ms: The deadline, in virtual milliseconds from now.

        Raises:
            CallFailed: The method raised an error, or the deadline passed.
            RuntimeError: The call waits for a time, and nobody moves the clock.
        """
        method = self._methods.get(path)
        if method is None:
            raise CallFailed(grpc.StatusCode.UNIMPLEMENTED, f"There is no method {path}.")
        ends_ms = self._time.clock.monotonic_ms() + timeout_ms
        self._time.note_activity()
        try:
            async with asyncio.timeout(None) as end:
                self._open.add(end)
                timer = self._add_timer(self._end_after(end, timeout_ms))
                try:
                    return await answer(method, payload)
                finally:
                    self._open.discard(end)
                    timer.cancel()
        except LockstepError as error:
            status = to_status(error)
            raise CallFailed(status.code, status.details, status.trailing_metadata) from error
        except TimeoutError as error:
            if self._time.clock.monotonic_ms() < ends_ms:
                raise _nobody_moves(path) from error
            raise CallFailed(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded") from error
        finally:
            self._time.note_activity()

    def ring_after(self, delay_ms: int, ring: Callable[[], None]) -> None:
        """Call `ring` when time was moved by `delay_ms` milliseconds."""

        async def wait() -> None:
            await self._time.clock.sleep(delay_ms)
            ring()

        if self._tasks is not None:
            self._add_timer(wait())

    def _add_timer(self, work: Any) -> asyncio.Task[None]:
        assert self._tasks is not None, "a server that does not run takes no calls"
        timer: asyncio.Task[None] = self._tasks.create_task(work)
        self._timers.add(timer)
        timer.add_done_callback(self._timers.discard)
        return timer

    async def _end_after(self, end: asyncio.Timeout, timeout_ms: int) -> None:
        await self._time.clock.sleep(timeout_ms)
        end.reschedule(asyncio.get_running_loop().time())

    async def _watch(self, patience_ms: int) -> None:
        """End the open calls when nothing has happened for too long of real time."""
        real = SystemClock()
        seen, since_ms = -1, real.monotonic_ms()
        while True:
            await real.sleep(min(_LOOK_EVERY_MS, patience_ms))
            if self._time.activity != seen or not self._open:
                seen, since_ms = self._time.activity, real.monotonic_ms()
            elif real.monotonic_ms() - since_ms >= patience_ms:
                for end in self._open:
                    end.reschedule(asyncio.get_running_loop().time())


def _nobody_moves(path: str) -> RuntimeError:
    return RuntimeError(
        f"{path.rpartition('/')[2]} waits, and the virtual clock stands still: let the call run in a task or thread of"
        " its own and advance the broker's clock meanwhile, or give it a max_wait_time of 0."
    )
