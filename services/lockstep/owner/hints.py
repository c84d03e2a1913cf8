"""What a partition has to take, told to the front ends that receivers wait at.

Here belong the hints of one partition (design section 5). Never here: who waits for them (`frontend.taking`). The law:
who follows learns what there is when it begins, and then of every change that lets a receiver find something that it
did not find before; changes that come faster than they are read are told once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

from lockstep.cluster.port import EVERYBODY, Hint
from lockstep.core.decision import Wake
from lockstep.core.errors import LockstepError
from lockstep.core.ids import EntityKey
from lockstep.core.partition import Partition
from lockstep.core.queue import Queue


class _Follower:
    """What one front end has not been told yet."""

    __slots__ = ("news", "pending")

    def __init__(self) -> None:
        self.pending: dict[tuple[EntityKey, bool], int] = {}
        self.news = asyncio.Event()

    def note(self, key: tuple[EntityKey, bool], count: int) -> None:
        # That everybody should ask is not overwritten by a number.
        if self.pending.get(key) != EVERYBODY:
            self.pending[key] = count
        self.news.set()


class HintBoard:
    """Tells the hints of one partition."""

    def __init__(self, partition: Partition) -> None:
        self._partition = partition
        self._followers: dict[_Follower, None] = {}  # told in the order in which they came
        # Also of queues that have gone, so that who waits on one is told.
        self._keys: dict[int, EntityKey] = {}
        self._queues_seen = 0
        self._end: LockstepError | None = None

    def note(self, wakes: Iterable[Wake]) -> None:
        """Tell of what a committed round has woken."""
        if not self._followers:
            return
        self._look_at_queues()
        for wake in wakes:
            entity = self._keys.get(wake.entity)
            if wake.session_id is not None or entity is None:
                continue
            queue = self._partition.queues_by_number.get(wake.entity)
            for dead_letter in (False, True) if wake.lost else (wake.dead_letter,):
                is_changed = wake.lost or queue is None
                count = EVERYBODY if is_changed else _available(queue, dead_letter=dead_letter)
                for follower in self._followers:
                    follower.note((entity, dead_letter), count)

    async def follow(self) -> AsyncIterator[Sequence[Hint]]:
        """Yield all hints, and then what changes; see `OwnerChannel.follow_hints`."""
        follower = _Follower()
        self._followers[follower] = None
        self._look_at_queues()
        try:
            for queue in self._partition.queues.values():
                for dead_letter in (False, True):
                    count = _available(queue, dead_letter=dead_letter)
                    if count:
                        follower.note((queue.definition.key, dead_letter), count)
            yield ()
            while self._end is None:
                told, follower.pending = follower.pending, {}
                follower.news.clear()
                if told:
                    yield [Hint(entity, dead, count) for (entity, dead), count in told.items()]
                if not follower.pending and self._end is None:
                    await follower.news.wait()
            raise self._end
        finally:
            del self._followers[follower]

    def close(self, error: LockstepError) -> None:
        """End what follows: the partition is not here any more."""
        self._end = error
        for follower in self._followers:
            follower.news.set()

    def _look_at_queues(self) -> None:
        revision = self._partition.last_revision  # a queue that comes or goes raises it
        if revision != self._queues_seen:
            self._queues_seen = revision
            queues = self._partition.queues_by_number
            self._keys |= {number: queue.definition.key for number, queue in queues.items()}


def _available(queue: Queue | None, *, dead_letter: bool) -> int:
    if queue is None:
        return 0
    if queue.definition.settings.requires_session and not dead_letter:
        return len(queue.runnable)
    return queue.plain(dead_letter=dead_letter).ready_count
