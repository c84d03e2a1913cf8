"""What partitions have to take, as far as this front end was told, and who waits for it here.

Here belong the hints that owners told and the receivers that wait for one. Never here: what a receiver then asks
(`frontend.taking`). The laws: one hint wakes as many as can be served by what it tells, those that wait longest first
(SES-14); a hint that somebody was woken for and did not use wakes the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from lockstep.cluster.port import EVERYBODY, Hint
from lockstep.core.ids import EntityKey, PartitionId
from lockstep.runtime.clock import Clock


class Store(NamedTuple):
    """What receivers without a session take from."""

    entity: EntityKey
    dead_letter: bool


class HintBook:
    """The hints of all partitions."""

    def __init__(self, clock: Clock) -> None:
        """Know nothing yet; `clock` measures how long somebody waits."""
        self._clock = clock
        # For each store its partitions that have something, the one that was asked longest ago first.
        self._counts: dict[Store, dict[PartitionId, int]] = {}
        # The result of each says whether a hint came; it did not when the time was over.
        self._waiting: dict[Store, deque[asyncio.Future[bool]]] = {}

    def forget(self, partition: PartitionId) -> None:
        """Drop what a partition told: it will tell all of it again."""
        for store in [store for store, counts in self._counts.items() if partition in counts]:
            self._drop(store, partition)

    def note(self, partition: PartitionId, hints: Iterable[Hint]) -> None:
        """Take what a partition tells, and wake those that it can serve."""
        for hint in hints:
            store = Store(hint.entity, hint.dead_letter)
            if hint.count == EVERYBODY:
                self._wake(store, len(self._waiting.get(store, ())))
            elif hint.count == 0:
                self._drop(store, partition)
            else:
                self._counts.setdefault(store, {})[partition] = hint.count
                self._wake(store, hint.count)

    def take(self, store: Store) -> PartitionId | None:
        """Return a partition that should have something, and count it as taken; None = none is known."""
        counts = self._counts.get(store)
        if not counts:
            return None
        partition, count = next(iter(counts.items()))
        self._drop(store, partition)
        if count > 1:  # behind the others
            self._counts.setdefault(store, {})[partition] = count - 1
        return partition

    def give_back(self, store: Store, partition: PartitionId) -> None:
        """Have what `take` returned, and nobody used, be there for the next."""
        counts = self._counts.setdefault(store, {})
        counts[partition] = counts.get(partition, 0) + 1
        self._wake(store, 1)

    async def wait(self, store: Store, within_ms: int, *, is_again: bool) -> bool:
        """Wait for a hint; return False when the time is over.

        Args:
            store: Where.
            within_ms: How long at most.
            is_again: Whether the caller waited before and found nothing, and so keeps its place before the others.
        """
        hint: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(store, deque())
        if is_again:
            waiting.appendleft(hint)
        else:
            waiting.append(hint)
        try:
            async with asyncio.TaskGroup() as tasks:
                timer = tasks.create_task(self._end(hint, within_ms))
                is_told = await hint
                timer.cancel()
        except asyncio.CancelledError:
            if hint.done() and not hint.cancelled() and hint.result():
                self._wake(store, 1)
            raise
        finally:
            self._leave(store, hint)
        return is_told

    async def _end(self, hint: asyncio.Future[bool], within_ms: int) -> None:
        await self._clock.sleep(within_ms)
        if not hint.done():
            hint.set_result(False)

    def waiting(self, entity: EntityKey) -> int:
        """Return how many receivers wait here for what a queue has."""
        return len(self._waiting.get(Store(entity, dead_letter=False), ()))

    def _wake(self, store: Store, count: int) -> None:
        waiting = self._waiting.get(store)
        while waiting and count > 0:
            hint = waiting.popleft()
            if not hint.done():
                hint.set_result(True)
                count -= 1
        if waiting is not None and not waiting:
            del self._waiting[store]

    def _leave(self, store: Store, hint: asyncio.Future[bool]) -> None:
        waiting = self._waiting.get(store)
        if waiting is not None and hint in waiting:
            waiting.remove(hint)
            if not waiting:
                del self._waiting[store]

    def _drop(self, store: Store, partition: PartitionId) -> None:
        counts = self._counts.get(store)
        if counts is not None:
            counts.pop(partition, None)
            if not counts:
                del self._counts[store]
