"""An event loop whose clock is virtual: when every task waits, time jumps to the next timer.

One unit of `loop.time()` is one millisecond here, not one second: whole milliseconds are exact as floats, so
that timers never ring a fraction early. Nothing in a simulation may wait for the real world; a loop that has
nothing left to wait for says so instead of hanging.
"""

from __future__ import annotations

import asyncio
import selectors

_TURNS_MAX = 20_000


class Stuck(Exception):
    """Every task waits and no timer is set, or tasks run and time stands still: nothing will ever change."""


class _JumpingSelector(selectors.SelectSelector):
    """Never waits: the time that it was asked to wait for is over when it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 0.0
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck("every task waits and no timer is set")
        self._turns += 1
        if timeout > 0:
            self.now_ms += timeout
            self._turns = 0
        elif self._turns > _TURNS_MAX:
            raise Stuck(f"tasks run without end, but no time passes, at {self.now_ms:.0f} ms")
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs tasks in a fixed order, at virtual times, in milliseconds since its making."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the virtual time, in milliseconds."""
        return self._jumping.now_ms


async def sleep_ms(delay_ms: float) -> None:
    """Sleep in virtual time."""
    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()
    timer = loop.call_later(max(delay_ms, 0), _wake, woken)
    try:
        await woken
    finally:
        timer.cancel()


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)


class NodeClock:
    """The clock of one process: durations are the loop's, the time of day is off by a fixed amount."""

    def __init__(self, loop: asyncio.AbstractEventLoop, epoch_ms: int) -> None:
        self._loop = loop
        self._epoch_ms = epoch_ms

    def now_ms(self) -> int:
        """Return this process's time of day."""
        return self._epoch_ms + self.monotonic_ms()

    def monotonic_ms(self) -> int:
        """Return virtual milliseconds."""
        return int(self._loop.time())

    async def sleep(self, delay_ms: int) -> None:
        """Sleep in virtual time."""
        await sleep_ms(delay_ms)
