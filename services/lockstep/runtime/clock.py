"""Time: the one place that reads a clock or sleeps.

Here belong the clock port, the system's clock, the clock of a partition and the clock that tests
move by hand. Never here: what happens at a time (that is `core`), or timeouts of calls (their
callers own those). The law: a duration is measured on the monotonic clock only, and the time of a
partition never goes back.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

_NS_PER_MS = 1_000_000
_TURNS = 20


class Clock(Protocol):
    """Time of day, durations and sleep. Everything outside this module takes them from here."""

    def now_ms(self) -> int:
        """Return the time of day in milliseconds since the epoch, UTC. It may jump, also backwards."""
        ...

    def monotonic_ms(self) -> int:
        """Return milliseconds since some fixed point. Only differences mean anything; it never goes back."""
        ...

    async def sleep(self, delay_ms: int) -> None:
        """Wait for `delay_ms` milliseconds; zero or less only lets other tasks run once."""
        ...


class SystemClock:
    """The clock of the machine.

    Durations go on while the machine is suspended, where the system can tell: a lock must not
    outlive a closed lid. A sleep, though, is the event loop's and stops in a suspend, so who slept
    asks for the time again.
    """

    def __init__(self) -> None:
        self._monotonic_ns = _monotonic_source()

    def now_ms(self) -> int:
        """Return the time of day in milliseconds since the epoch, UTC."""
        return time.time_ns() // _NS_PER_MS

    def monotonic_ms(self) -> int:
        """Return milliseconds on a clock that never goes back and, on Linux, counts a suspend."""
        return self._monotonic_ns() // _NS_PER_MS

    async def sleep(self, delay_ms: int) -> None:
        """Wait for `delay_ms` milliseconds; zero or less only lets other tasks run once."""
        await asyncio.sleep(max(delay_ms, 0) / 1000)


def _monotonic_source() -> Callable[[], int]:
    """Choose the nanosecond clock for durations: CLOCK_BOOTTIME if this machine has it.

    `time.monotonic` is CLOCK_MONOTONIC on Linux, which stands still in a suspend
    (clock_gettime(2)).
    """
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return time.monotonic_ns
    try:
        time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    except OSError:  # a sandbox or an old kernel knows the name but not the clock
        return time.monotonic_ns
    return lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class SteadyClock:
    """The time of one open partition: it starts at max(wall clock, last stored) and never goes back.

    After construction only the monotonic clock moves it, so a wall clock that is set back, or
    forth, while the partition is open changes nothing; the next open takes the new wall clock into
    account.
    """

    def __init__(self, clock: Clock, last_stored_ms: int) -> None:
        """Fix the start.

        Args:
            clock: Where wall time, durations and sleep come from.
            last_stored_ms: The last time that the partition's store has seen, in ms since the
                epoch; 0 = none.
        """
        self._clock = clock
        self._opened_ms = max(clock.now_ms(), last_stored_ms)
        self._opened_monotonic_ms = clock.monotonic_ms()

    def now_ms(self) -> int:
        """Return the partition's time in milliseconds since the epoch; never less than a value before."""
        return self._opened_ms + self._clock.monotonic_ms() - self._opened_monotonic_ms

    def monotonic_ms(self) -> int:
        """Return the monotonic time of the clock below."""
        return self._clock.monotonic_ms()

    async def sleep(self, delay_ms: int) -> None:
        """Sleep on the clock below."""
        await self._clock.sleep(delay_ms)


class ManualClock:
    """A clock that stands still until it is advanced; for tests and for brokers inside a test.

    Sleepers wake by deadline, then by arrival. It may be advanced from any thread: a sleeper is
    always woken through its own event loop.
    """

    def __init__(self, start_ms: int = 1_700_000_000_000) -> None:
        """Start at `start_ms`, in milliseconds since the epoch; the monotonic clock starts at 0."""
        self._lock = threading.Lock()
        self._now_ms = start_ms
        self._monotonic_ms = 0
        self._arrivals = itertools.count()
        # All and only the sleepers that were not woken: (deadline on the monotonic clock, arrival,
        # sleeper).
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def now_ms(self) -> int:
        """Return the time of day in milliseconds since the epoch."""
        return self._now_ms

    def monotonic_ms(self) -> int:
        """Return the milliseconds by which this clock was advanced since it was made."""
        return self._monotonic_ms

    async def sleep(self, delay_ms: int) -> None:
        """Wait until the clock was advanced by `delay_ms`; zero or less only lets other tasks run once."""
        if delay_ms <= 0:
            await asyncio.sleep(0)
            return
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            entry = (self._monotonic_ms + delay_ms, next(self._arrivals), sleeper)
            heapq.heappush(self._sleepers, entry)
        try:
            await sleeper
        finally:
            self._forget(entry)

    def advance(self, delta_ms: int) -> None:
        """Move time of day and monotonic time forward at once and wake every sleeper that is due.

        Woken tasks run when their event loop next does. A task that wakes and sleeps again counts
        from the new time; `advance_stepwise` lets it see each of its deadlines.

        Raises:
            ValueError: `delta_ms` is negative; use `set_wall_clock` to set one back.
        """
        if delta_ms < 0:
            raise ValueError(f"time does not go back: {delta_ms} ms")
        with self._lock:
            self._now_ms += delta_ms
            self._monotonic_ms += delta_ms
            due = []
            while self._sleepers and self._sleepers[0][0] <= self._monotonic_ms:
                due.append(heapq.heappop(self._sleepers)[2])
        for sleeper in due:
            _wake(sleeper)

    async def advance_stepwise(
        self, delta_ms: int, *, settle: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Move time forward from deadline to deadline, letting woken tasks run in between.

        Args:
            delta_ms: By how much, in milliseconds.
            settle: Awaited before the first step and after each one; time goes on when it returns. None = the other
                tasks run 20 times.
        """
        settle = settle or _let_others_run
        until_ms = self._monotonic_ms + delta_ms
        await settle()
        while (deadline_ms := self.next_deadline_ms()) is not None and deadline_ms <= until_ms:
            self.advance(deadline_ms - self._monotonic_ms)
            await settle()
        self.advance(until_ms - self._monotonic_ms)
        await settle()

    def set_wall_clock(self, now_ms: int) -> None:
        """Set the time of day, also backwards, without any time passing: nobody wakes."""
        with self._lock:
            self._now_ms = now_ms

    def next_deadline_ms(self) -> int | None:
        """Return the monotonic time at which the next sleeper wakes; None = nobody sleeps."""
        with self._lock:
            return self._sleepers[0][0] if self._sleepers else None

    def sleepers(self) -> int:
        """Return how many tasks sleep on this clock."""
        with self._lock:
            return len(self._sleepers)

    def _forget(self, entry: tuple[int, int, asyncio.Future[None]]) -> None:
        """Remove a sleeper that was cancelled; one that was woken is gone already."""
        with self._lock:
            if entry in self._sleepers:
                self._sleepers.remove(entry)
                heapq.heapify(self._sleepers)


async def _let_others_run() -> None:
    """Give way to the other tasks of this event loop, often enough for those that were just woken."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


def _wake(sleeper: asyncio.Future[None]) -> None:
    """Wake a sleeper through its own event loop; one whose loop has ended needs no waking."""
    loop = sleeper.get_loop()
    if not loop.is_closed():
        loop.call_soon_threadsafe(_finish, sleeper)


def _finish(sleeper: asyncio.Future[None]) -> None:
    """End the wait, unless it was cancelled between the wake-up and now."""
    if not sleeper.done():
        sleeper.set_result(None)
