"""Counts changes, and lets tasks wait for the next one or for a time.

Here belong that counter and that wait. Never here: what changed; who waits looks at the state itself, so that many
changes in a row may be one. The law: whoever waits for a version other than the one it has seen misses none.
"""

from __future__ import annotations

import asyncio

from lockstep.runtime.clock import Clock


class Changes:
    """A version that rises with every change; for one event loop."""

    def __init__(self) -> None:
        self._version = 0
        self._next = asyncio.Event()

    @property
    def version(self) -> int:
        """How many changes there were."""
        return self._version

    def note(self) -> None:
        """Count a change and wake all who wait."""
        self._version += 1
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self, seen: int) -> int:
        """Return the version once it is not `seen` any more."""
        while self._version == seen:
            await self._next.wait()
        return self._version


async def wait_at_most(event: asyncio.Event, clock: Clock, delay_ms: int) -> None:
    """Wait for an event, but no longer than `delay_ms` milliseconds."""

    async def wait() -> None:
        await event.wait()
        alarm.cancel()

    async def sleep() -> None:
        await clock.sleep(delay_ms)
        waiting.cancel()

    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(wait())
        alarm = tasks.create_task(sleep())
