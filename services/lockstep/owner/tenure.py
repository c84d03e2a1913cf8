"""The time that this process owns a partition.

Here belongs whether it goes on, and what breaks off an opening when it does not. Never here: what is done about it
(`supervisor`). The law: the first reason to end it stays its reason.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from lockstep.cluster.port import Lease
from lockstep.runtime.clock import Clock


@dataclass(slots=True, eq=False)
class Tenure:
    """The time that this process owns a partition.

    Attributes:
        lease: The right to it.
        is_ending: Whether it is to be closed and released.
        is_over: Whether the right is over.
        why_ending: Why it is given up: drain, rebalance, lease_lost; empty = it is not.
        ending_ms: Since when, by the monotonic clock.
        opening: While the partition is being opened, or waits for that, how to break that off.
        opened_ms: When it was opened last, by the monotonic clock.
    """

    lease: Lease
    is_ending: bool = False
    is_over: bool = False
    why_ending: str = ""
    ending_ms: int = 0
    opening: asyncio.Timeout | None = None
    opened_ms: int = 0

    def end(self, why: str, now_ms: int) -> None:
        """Note why and when it is given up; the first time counts."""
        if not self.why_ending:
            self.why_ending, self.ending_ms = why, now_ms
        if self.opening is not None:  # nobody waits for a store that does not answer
            opening, self.opening = self.opening, None
            opening.reschedule(0)  # a moment that has passed

    def goes_on(self) -> bool:
        """Whether the partition is to be open."""
        return not self.is_ending and not self.is_over and self.lease.is_valid()

    async def pause(self, clock: Clock, ms: int) -> None:
        """Wait before the next opening, or until the tenure ends."""
        try:
            async with asyncio.timeout(None) as self.opening:
                await clock.sleep(ms)
        except TimeoutError:
            if self.goes_on():
                raise
        finally:
            self.opening = None
