"""Calls that are made again until somebody owns their partition."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import NoReturn

from lockstep.core.commands import ListOpenJobs
from lockstep.core.errors import ClusterUnavailable
from lockstep.core.ids import PartitionId
from lockstep.frontend.router import Router
from lockstep.runtime.clock import ManualClock

OUTAGE_MS = 10_000


class Nobody:
    """A directory without owners."""

    partitions = 1

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.asked_ms: list[int] = []

    def owner_of(self, _partition: PartitionId) -> NoReturn:
        self.asked_ms.append(self._clock.monotonic_ms())
        raise ClusterUnavailable("Nobody owns partition 0 now. Try again.")


async def test_the_longer_an_owner_is_away_the_longer_the_pauses() -> None:
    """A short move is over soon; in a long outage thousands of calls must not take the processor from the others."""
    clock = ManualClock()
    nobody = Nobody(clock)
    router = Router(nobody, clock, retry_for_ms=OUTAGE_MS)

    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        calling = tasks.create_task(_is_refused(router))
        while not calling.done():
            await clock.advance_stepwise(50)

    assert calling.result()
    soon = [ms for ms in nobody.asked_ms if ms < 400]
    pauses = [later - earlier for earlier, later in pairwise(nobody.asked_ms)]
    assert len(soon) == 400 / 50
    assert max(pauses) <= 400
    assert len(nobody.asked_ms) < OUTAGE_MS / 50 / 3


async def _is_refused(router: Router) -> bool:
    try:
        await router.call(PartitionId(0), ListOpenJobs())
    except ClusterUnavailable:
        return True
    return False
