"""The transport of the blocking client to a broker in another thread of the same process.

Here belongs the client's side of a call, and what tells the broker which threads work. Never here: retries
(`client.calls`), methods (`server`). The law: as `client.channel_blocking`, no await of this transport ever suspends.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, Final, TypeVar

from lockstep.client.transport import Method, RequestT, ResponseT
from lockstep.core.errors import ClientClosed
from lockstep.runtime.clock import SystemClock
from lockstep.testing.server import CallFailed, InProcessServer
from lockstep.testing.virtual_time import VirtualTime
from lockstep.wire.status import from_rpc_error

ResultT = TypeVar("ResultT")

_BACK_WITHIN_MS: Final = 100


class ClientThreads:
    """Which threads of the program work between two calls, so that time stands still meanwhile."""

    def __init__(self) -> None:
        self._real = SystemClock()
        # Who was answered, when, and has not called again.
        self._working: dict[threading.Thread, int] = {}
        self._watched: set[Callable[[], bool]] = set()

    def note_waits(self, thread: threading.Thread) -> None:
        """Note that a thread begins a call."""
        self._working.pop(thread, None)

    def note_works(self, thread: threading.Thread) -> None:
        """Note that a thread was answered."""
        self._working[thread] = self._real.monotonic_ms()

    def watch(self, is_idle: Callable[[], bool]) -> None:
        """Ask this too, from now on."""
        self._watched.add(is_idle)

    def are_quiet(self) -> bool:
        """Whether nobody works: each has called again, has ended, or does something else for 100 ms of real time."""
        now_ms = self._real.monotonic_ms()
        for thread, since_ms in list(self._working.items()):
            if thread.is_alive() and now_ms - since_ms < _BACK_WITHIN_MS:
                return False
            self._working.pop(thread, None)
        return all(is_idle() for is_idle in list(self._watched))


class BrokerLoop:
    """The event loop of a broker, for other threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop, threads: ClientThreads) -> None:
        self._loop = loop
        self.threads = threads

    def begin(self, work: Coroutine[Any, Any, ResultT]) -> Future[ResultT]:
        """Begin `work` there; the calling thread counts as waiting until it is done."""
        thread = threading.current_thread()
        self.threads.note_waits(thread)

        async def run() -> ResultT:
            try:
                return await work
            finally:
                self.threads.note_works(thread)

        return asyncio.run_coroutine_threadsafe(run(), self._loop)

    def run(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Run `work` there and return its result; an interrupt of this thread cancels it."""
        future = self.begin(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call this there, and do not wait for it."""
        self._loop.call_soon_threadsafe(callback)


class BlockingInProcessTransport:
    """Calls to a server in another thread, in its time. Threads may share it."""

    def __init__(self, server: InProcessServer, time: VirtualTime, loop: BrokerLoop) -> None:
        self._server = server
        self._time = time
        self._loop = loop
        self._changing = threading.Lock()
        self._closed = threading.Event()
        # All and only the calls and sleeps under way.
        self._open: set[Future[Any]] = set()

    async def call(
        self, method: Method[RequestT, ResponseT], request: RequestT, *, timeout_ms: int
    ) -> ResponseT:
        """Make one call; see `Transport.call`. `timeout_ms` is of virtual time."""
        payload = request.SerializeToString()
        try:
            response = self._run(
                lambda: self._server.call(method.path, payload, timeout_ms=timeout_ms)
            )
        except CallFailed as error:
            raise from_rpc_error(error) from error
        return method.response.FromString(response)

    async def sleep(self, delay_ms: int) -> None:
        """Block until time was moved by `delay_ms` milliseconds, or until the transport is closed."""
        try:
            self._run(lambda: self._time.sleep(delay_ms))
        except ClientClosed:
            return

    async def settle(self) -> None:
        """Let the broker go on for a moment with what needs no time; see `StandingTime`."""
        self._run(self._time.let_others_run)

    async def is_serving(self, *, within_ms: int) -> bool:  # noqa: ARG002  # known at once
        """Whether the transport is open; its server serves for as long."""
        return not self._closed.is_set()

    def wake_at(self, due_ms: int, wake: Callable[[], None], is_idle: Callable[[], bool]) -> None:
        """Call `wake` at a virtual time; see `JumpingTime`, by which a renewer knows this transport.

        When it returns the alarm is set: whoever asks still counts as working until then, so no time passes before.
        """

        async def set_alarm() -> None:
            self._time.note_activity()
            self._server.ring_after(due_ms - self.monotonic_ms(), wake)

        self._loop.threads.watch(is_idle)
        with suppress(ClientClosed):
            self._run(set_alarm)

    def rest(self) -> None:
        """Note that the calling thread has nothing to do; see `JumpingTime`."""
        self._loop.threads.note_waits(threading.current_thread())

    def let_pass(self, delay_ms: int) -> None:
        """Move virtual time for a processor that is being stopped; see `JumpingTime`."""

        async def move() -> None:
            if not self._time.is_moving:
                await self._time.advance(delay_ms)

        if not self._closed.is_set():
            self._loop.run(move())

    def now_ms(self) -> int:
        """Return the virtual time of day in milliseconds since the epoch."""
        return self._time.clock.now_ms()

    def monotonic_ms(self) -> int:
        """Return by how many milliseconds time was moved."""
        return self._time.clock.monotonic_ms()

    def random(self) -> float:
        """Return a number from 0 to 1."""
        return random.random()

    async def close(self) -> None:
        """Refuse further calls; calls of other threads end with ClientClosed."""
        with self._changing:
            self._closed.set()
            open_now = list(self._open)
        for future in open_now:
            future.cancel()

    def _run(self, begin: Callable[[], Coroutine[Any, Any, ResultT]]) -> ResultT:
        with self._changing:
            if self._closed.is_set():
                raise ClientClosed("This client was closed; make another one.")
            future = self._loop.begin(begin())
            self._open.add(future)
        try:
            return future.result()
        except CancelledError as error:
            raise ClientClosed("The client was closed during this call.") from error
        except BaseException:  # an interrupt of the program: nobody wants the answer any more
            future.cancel()
            raise
        finally:
            with self._changing:
                self._open.discard(future)
