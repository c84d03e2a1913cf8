"""Virtual time: it stands still while anybody works, and moves from one due thing to the next.

Here belongs when time may go on. Never here: what happens at a time. The law: time goes on only when everything that
became due has had its effect, as far as the broker can see it: no call is being answered, and whoever was answered
waits again or has stopped using the broker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lockstep.runtime.clock import ManualClock, SystemClock

_QUIET_TURNS: Final = 25  # a call needs about ten turns of the event loop from its start to its end
_LOOK_EVERY_MS: Final = 1


def _always() -> bool:
    return True


class VirtualTime:
    """A clock that a test moves, and the rule when it may go on. Belongs to one event loop."""

    def __init__(
        self,
        start_ms: int | None,
        patience_ms: int | None,
        is_quiet: Callable[[], bool] = _always,
    ) -> None:
        """Stand still at `start_ms`.

        Args:
            start_ms: Time of day in milliseconds since the epoch; None = the present of this machine.
            patience_ms: For how long of real time others may work before time goes on; None = for ever.
            is_quiet: Whether nobody works outside of the event loop.
        """
        self._real = SystemClock()
        self._patience_ms = patience_ms
        self._is_quiet = is_quiet
        self.is_moving = False
        """Whether `advance` is under way."""
        self.clock = ManualClock(self._real.now_ms() if start_ms is None else start_ms)
        self.sleeping = 0
        """How many sleeps of the program are under way."""
        self.activity = 0
        """How often a call or a sleep began or ended, or time moved."""

    def note_activity(self) -> None:
        """Note that a call or a sleep begins or ends."""
        self.activity += 1

    async def sleep(self, delay_ms: int) -> None:
        """Wait until time was moved by `delay_ms` milliseconds."""
        self.note_activity()
        self.sleeping += 1
        try:
            await self.clock.sleep(delay_ms)
        finally:
            self.sleeping -= 1
            self.note_activity()

    async def advance(self, delta_ms: int) -> None:
        """Move time by `delta_ms` milliseconds; everything that becomes due on the way happens at its time.

        Raises:
            RuntimeError: Time is being moved already; or the broker is used without end while time stands still.
        """
        if self.is_moving:
            raise RuntimeError(
                "The clock of this broker is being advanced already; await that first."
            )
        self.is_moving = True
        try:
            await self.clock.advance_stepwise(delta_ms, settle=self.settle)
        finally:
            self.is_moving = False

    async def let_others_run(self) -> None:
        """Give way to the other tasks of this event loop for a while; no time passes."""
        for _ in range(_QUIET_TURNS):
            await self.clock.sleep(0)

    async def settle(self) -> None:
        """Wait until everybody waits.

        Raises:
            RuntimeError: The broker is used without end while time stands still.
        """
        self.note_activity()
        began_ms = self._real.monotonic_ms()
        quiet_turns = 0
        while quiet_turns < _QUIET_TURNS:
            seen = self.activity
            await self.clock.sleep(0)
            quiet_turns = quiet_turns + 1 if seen == self.activity else 0
            if quiet_turns == _QUIET_TURNS and not self._is_quiet():
                quiet_turns = 0
                await self._real.sleep(_LOOK_EVERY_MS)
            if self._patience_ms is None or quiet_turns:
                continue
            if self._real.monotonic_ms() - began_ms > self._patience_ms:
                raise RuntimeError(
                    "The broker is used without end while its clock stands still: some task or thread calls it in a"
                    " loop without ever waiting. Give its receive or accept a max_wait_time."
                )
