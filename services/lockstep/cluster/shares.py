"""Sharing out the quota of a queue that is spread over partitions (ADD-1, SND-11).

Here belongs who gets how much. Never here: what a partition does with its share (`core.shares`). The laws: all are
frozen before any is granted, and what is granted is what was left then; nothing is kept that matters, so any front end
may do it at any time.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from lockstep.cluster.port import Answer
from lockstep.core.commands import Command, FreezeShare, GrantShare
from lockstep.core.errors import LockstepError, QuotaExceeded
from lockstep.core.ids import EntityKey, PartitionId
from lockstep.core.replies import ShareIs
from lockstep.runtime.clock import Clock
from lockstep.runtime.tasks import together

_FULL_FOR_MS = 50
_QUEUES_MAX = 10_000

Ask = Callable[[PartitionId, Command], Awaitable[Answer]]


@dataclass(slots=True, eq=False)
class _Sharing:
    """What is known of one queue.

    Attributes:
        turn: One shares out at a time here.
        times: How often it was shared out.
        most: What each partition may hold by the last grant.
        full_until_ms: Until when nobody asks again whether there is room, by the monotonic clock.
        room: What was left when it was shared out last.
        quota: What the queue may hold, as it was told last.
    """

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    times: int = 0
    most: dict[PartitionId, int] = field(default_factory=dict)
    full_until_ms: int = 0
    room: int = 0
    quota: int = 0


class Shares:
    """Shares out quotas, when a partition has used up what it had."""

    def __init__(self, partitions: Sequence[PartitionId], ask: Ask, clock: Clock) -> None:
        """Share out among all partitions of a cluster.

        Args:
            partitions: All of them.
            ask: Has a command carried out by a partition's owner of this moment.
            clock: The time.
        """
        self._partitions = partitions
        self._ask = ask
        self._clock = clock
        # The one used last stands last.
        self._queues: OrderedDict[EntityKey, _Sharing] = OrderedDict()

    async def make_room(self, entity: EntityKey, partition: PartitionId, needed: int) -> None:
        """Let a partition take so many more bytes of a queue.

        Raises:
            QuotaExceeded: The whole queue has no room for them.
        """
        sharing = self._queues.setdefault(entity, _Sharing())
        self._queues.move_to_end(entity)
        if len(self._queues) > _QUEUES_MAX:
            self._queues.popitem(last=False)
        seen = sharing.times
        async with sharing.turn:
            if sharing.times != seen:
                return  # somebody did it meanwhile; that may be enough
            is_new = self._clock.monotonic_ms() >= sharing.full_until_ms
            if is_new or needed <= sharing.room:
                await self._share_out(entity, sharing, partition, needed)
            if sharing.room < needed:
                raise _full(entity, sharing, needed)

    async def _share_out(
        self, entity: EntityKey, sharing: _Sharing, partition: PartitionId, needed: int
    ) -> None:
        answers = await together([self._freeze(entity, p) for p in self._partitions])
        frozen = {p: answer for p, answer in zip(self._partitions, answers, strict=True) if answer}
        sharing.times += 1
        if partition not in frozen:
            return  # it has moved; the call that asked for this finds out
        number, quota = frozen[partition].queue, frozen[partition].size_bytes_max
        here = {p: answer for p, answer in frozen.items() if answer.queue == number}
        # A partition that cannot be asked holds what it may; one that never could, an equal part.
        unknown = quota // len(self._partitions)
        away = sum(sharing.most.get(p, unknown) for p in self._partitions if p not in here)
        held = sum(answer.size_bytes for answer in here.values())
        sharing.quota, sharing.room = quota, max(0, quota - held - away)
        if sharing.room < needed:
            sharing.full_until_ms = self._clock.monotonic_ms() + _FULL_FOR_MS
        parts = parts_of(sharing.room, needed, partition, list(here))
        sharing.most |= {p: answer.size_bytes + parts[p] for p, answer in here.items()}
        await together([self._grant(entity, p, here[p], sharing.most[p]) for p in here])

    async def _freeze(self, entity: EntityKey, partition: PartitionId) -> ShareIs | None:
        try:
            reply = (await self._ask(partition, FreezeShare(entity))).reply
        except LockstepError:
            return None
        assert isinstance(reply, ShareIs)
        return reply

    async def _grant(
        self, entity: EntityKey, partition: PartitionId, frozen: ShareIs, bytes_max: int
    ) -> None:
        grant = GrantShare(entity, frozen.queue, frozen.frozen, bytes_max)
        try:
            await self._ask(partition, grant)
        except LockstepError:
            return  # it asks for its share when it needs one


def parts_of(
    room: int, needed: int, partition: PartitionId, all_of: Sequence[PartitionId]
) -> Mapping[PartitionId, int]:
    """Return who gets how much of what is left: who needs it a fourth at least, the others the rest in equal parts."""
    others = [other for other in all_of if other != partition]
    own = room
    if others and room > needed:
        own = max(needed, room // 4, room // len(all_of))
    part = (room - own) // len(others) if others else 0
    return {partition: own, **dict.fromkeys(others, part)}


def _full(entity: EntityKey, sharing: _Sharing, needed: int) -> QuotaExceeded:
    held = sharing.quota - sharing.room
    return QuotaExceeded(
        f"{entity.namespace}/{entity.name} is full: it holds {held} bytes of {sharing.quota} in all partitions, dead"
        f" letters and session states included, and this batch has {needed}. Nothing was stored. Receive or purge"
        " messages, or raise max_size_in_megabytes.",
        details={
            "limit": "max_size_in_megabytes",
            "configured": str(sharing.quota),
            "observed": str(held + needed),
        },
    )
