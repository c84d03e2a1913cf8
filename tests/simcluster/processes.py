"""Processes that share one virtual event loop, and can stand still or die one by one.

Here belongs what an operating system does to a process: it runs, it is stopped and goes on (SIGSTOP, a paused machine),
or it is killed and never runs again. Never here: what a process does. The law: what a process began runs in a context
that names it, so nothing of a stopped process runs, not even a timer, until it goes on; what goes on outside it (a
network, a disk) is started with `Outside` and is not stopped.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from tests.sim.virtual_time import NodeClock, Stuck, VirtualLoop, sleep_ms

AGAIN_MS = 100
"""How soon something is sent again that did not get through."""
_TURNS_MAX = 20_000
_Item = TypeVar("_Item")
_RUNS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class Process:
    """One process.

    Attributes:
        name: For people.
        is_dead: It was killed, or has ended.
        stops: How often it stood still.
    """

    def __init__(self, name: str, loop: ProcessLoop) -> None:
        self.name = name
        self.is_dead = False
        self.stops = 0
        self._loop = loop
        self._is_stopped = False
        self._parked: deque[asyncio.Handle] = deque()
        self._context = contextvars.Context()
        self._context.run(_RUNS.set, self)

    @property
    def is_stopped(self) -> bool:
        """Whether it stands still."""
        return self._is_stopped

    @property
    def runs(self) -> bool:
        """Whether it does anything now."""
        return not self._is_stopped and not self.is_dead

    def begin(self, what: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Have the process do something."""
        return self._loop.create_task(what, context=self._context.copy())

    def stand_still(self) -> None:
        """Stop it, wherever it is."""
        self._is_stopped = True
        self.stops += 1

    def go_on(self) -> None:
        """Let a stopped process go on."""
        self._is_stopped = False
        self._loop.take_back(self._parked)

    def kill(self) -> None:
        """End it; nothing of it ever runs again, before the run is over."""
        self.is_dead = True

    def bury(self) -> None:
        """Let what is left of it come to its end; the run is over."""
        self.is_dead = self._is_stopped = False
        self._loop.take_back(self._parked)

    def keeps(self, handle: asyncio.Handle) -> bool:
        """Whether something must not run now; it is kept for later."""
        if self.runs:
            return False
        self._parked.append(handle)
        return True


class ProcessLoop(VirtualLoop):
    """A virtual loop that runs nothing of a process that stands still."""

    def __init__(self) -> None:
        super().__init__()
        self._inside: Any = self  # the parts of asyncio's loop that have no types
        self._idle_turns = 0
        # asyncio keeps tasks weakly; one of a dead process must not be collected in the middle of a run.
        self._tasks: set[asyncio.Task[Any]] = set()
        self.set_task_factory(self._new_task)

    def _new_task(self, loop: Any, what: Any, **more: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(what, loop=loop, **more)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def take_back(self, parked: deque[asyncio.Handle]) -> None:
        """Run what was kept: first what came meanwhile, then the timers that rang, as asyncio does after a stop."""
        self._inside._ready.extend(sorted(parked, key=lambda h: isinstance(h, asyncio.TimerHandle)))
        parked.clear()

    def _run_once(self) -> None:
        """Do one turn; as asyncio does, but for files, real time and processes that stand still."""
        ready = self._inside._ready
        self._let_time_pass(ready, self._inside._scheduled)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process: Process | None = handle._context.get(_RUNS)
            if process is None or not process.keeps(handle):
                handle._run()

    def _let_time_pass(self, ready: deque[Any], timers: list[Any]) -> None:
        """Take out the timers that ring; when nothing else is to be done, time jumps to the next one."""
        while timers and timers[0]._cancelled:
            heapq.heappop(timers)._scheduled = False
        if not ready and not timers:
            raise Stuck("every task waits and no timer is set")
        if not ready and timers[0]._when > self.time():
            self._jumping.now_ms = timers[0]._when
            self._idle_turns = 0
        self._idle_turns += 1
        if self._idle_turns > _TURNS_MAX:
            raise Stuck(f"tasks run without end, but no time passes, at {self.time():.0f} ms")
        while timers and timers[0]._when <= self.time():
            timer = heapq.heappop(timers)
            timer._scheduled = False
            if not timer._cancelled:
                ready.append(timer)


class Outside:
    """What goes on while processes stand still: bytes on their way, a disk, a clock on the wall."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._context = contextvars.Context()

    def later(self, delay_ms: float, do: Callable[[], object]) -> asyncio.TimerHandle:
        """Do something after a while."""
        return self.loop.call_later(max(delay_ms, 0), do, context=self._context)


class Line(Generic[_Item]):
    """A way on which nothing overtakes anything."""

    def __init__(
        self,
        outside: Outside,
        arrive: Callable[[_Item], None],
        is_cut: Callable[[], bool] = lambda: False,
    ) -> None:
        """Begin empty.

        Args:
            outside: Where things are on their way.
            arrive: Told of each thing, in the order of `send`.
            is_cut: Whether nothing gets through now; it waits until something does.
        """
        self._outside = outside
        self._arrive = arrive
        self._is_cut = is_cut
        self._way: deque[tuple[float, _Item]] = deque()
        self._last_ms = 0.0

    def send(self, item: _Item, delay_ms: float) -> None:
        """Send something that is so long on its way, or longer."""
        now_ms = self._outside.loop.time()
        self._last_ms = max(self._last_ms, now_ms + delay_ms)
        self._way.append((self._last_ms, item))
        self._outside.later(self._last_ms - now_ms, self._pump)

    def _pump(self) -> None:
        if self._way and self._is_cut():
            self._outside.later(AGAIN_MS, self._pump)
            return
        while self._way and self._way[0][0] <= self._outside.loop.time():
            self._arrive(self._way.popleft()[1])


class SteppingClock(NodeClock):
    """The clock of one process, whose time of day can be set."""

    def step(self, by_ms: int) -> None:
        """Set the time of day forth or back."""
        self._epoch_ms += by_ms


__all__ = ["AGAIN_MS", "Line", "Outside", "Process", "ProcessLoop", "SteppingClock", "sleep_ms"]
