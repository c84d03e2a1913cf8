"""Deleting queues that nobody uses on any partition (section 16.3 of the contract).

Here belongs asking all partitions. Never here: what a use is (`core.idling`), or one partition alone, which decides by
itself. The law: a queue goes only after every partition has said that it was idle and refuses uses until the queue is
gone, so no use is taken and then lost.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from lockstep.core.commands import Command, ForgetIdle, ListIdle, SealIdle, Unseal
from lockstep.core.errors import LockstepError
from lockstep.core.ids import EntityNumber, PartitionId
from lockstep.core.replies import IdleAre, IdleIs
from lockstep.frontend.router import Router
from lockstep.runtime.tasks import together

log = logging.getLogger(__name__)

_CATALOGUE = PartitionId(0)
_LOOK_MS = 10_000
_SEALED_MS = 5_000


async def delete_idle_queues(router: Router) -> None:
    """Look for idle queues again and again, until cancelled. Not needed where there is one partition."""
    if len(router.partitions) == 1:
        return
    while True:
        await router.pause(_LOOK_MS)
        try:
            looks = await together([router.call(p, ListIdle()) for p in router.partitions])
            idle = [set(one.reply.entities) for one in looks if isinstance(one.reply, IdleAre)]
            for entity in sorted(set.intersection(*idle)):
                await _delete(router, entity)
        except (
            LockstepError
        ) as error:  # a partition is away: nothing is deleted, and looked at again
            log.info("queues.not_looked_at", extra={"reason": error.reason})


async def _delete(router: Router, entity: EntityNumber) -> None:
    """Delete a queue that is idle on all partitions.

    The catalogue's partition is sealed first, and its seal ends first: while it lasts, all do. A seal that nobody takes
    away ends by itself.
    """
    seal = SealIdle(entity, _SEALED_MS)
    is_sealed = await _ask(router, [_CATALOGUE], seal) and await _ask(
        router, router.partitions[1:], seal
    )
    if not is_sealed or not await _ask(router, [_CATALOGUE], ForgetIdle(entity)):
        await _ask(router, router.partitions, Unseal(entity))


async def _ask(router: Router, partitions: Iterable[PartitionId], command: Command) -> bool:
    """Ask partitions and return whether all say that a queue is idle."""
    answers = await together([router.call(partition, command) for partition in partitions])
    return all(isinstance(one.reply, IdleIs) and one.reply.is_idle for one in answers)
