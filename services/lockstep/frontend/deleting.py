"""Deleting a queue only if nothing is in it, on any partition (ADD-13).

Here belongs asking all partitions. Never here: what is empty (`core.idling`). The law: a queue goes only after every
partition has said that it is empty and refuses uses until the queue is gone, so nothing is taken and then lost.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from lockstep.core.commands import DeleteQueue, ListDefinitions, SealIdle, Unseal
from lockstep.core.entity import QueueDefinition
from lockstep.core.errors import EntityNotEmpty, LockstepError
from lockstep.core.ids import PartitionId
from lockstep.core.replies import Definitions, IdleIs
from lockstep.frontend import looking
from lockstep.frontend.router import Router
from lockstep.runtime.tasks import together

_CATALOGUE = PartitionId(0)
_SEALED_MS = 5_000


async def delete_if_empty(router: Router, command: DeleteQueue) -> None:
    """Delete a queue with nothing in it.

    The catalogue's partition is sealed first, and its seal ends first: while it lasts, all do. A seal that nobody takes
    away ends by itself.

    Raises:
        EntityNotEmpty: It holds something. Nothing was deleted.
        LockstepError: There is no such queue, or a partition cannot be asked.
    """
    found = await _find(router, command)
    if found is None:  # deleted by this very call before, or not there
        await router.call(_CATALOGUE, command)
        return
    try:
        if not await _seal(router, found):
            raise await _not_empty(router, found)
        await router.call(_CATALOGUE, replace(command, is_sealed=True, uid=found.uid))
    except LockstepError:
        await together([_unseal(router, p, found) for p in router.partitions])
        raise


async def _find(router: Router, command: DeleteQueue) -> QueueDefinition | None:
    reply = (await router.call(_CATALOGUE, ListDefinitions(command.entity))).reply
    assert isinstance(reply, Definitions)
    return next((d for d in reply.queues if command.uid in ("", d.uid)), None)


async def _seal(router: Router, queue: QueueDefinition) -> bool:
    seal = SealIdle(queue.number, _SEALED_MS, if_empty=True)
    for partitions in ([_CATALOGUE], router.partitions[1:]):
        answers = await together([router.call(partition, seal) for partition in partitions])
        if not all(isinstance(one.reply, IdleIs) and one.reply.is_idle for one in answers):
            return False
    return True


async def _unseal(router: Router, partition: PartitionId, queue: QueueDefinition) -> None:
    with suppress(LockstepError):  # then the seal ends by itself
        await router.ask(partition, Unseal(queue.number))


async def _not_empty(router: Router, queue: QueueDefinition) -> EntityNotEmpty:
    await together([_unseal(router, p, queue) for p in router.partitions])
    runtime = await looking.runtime_of(router, queue.key)
    figures = {
        "active_messages": runtime.active,
        "scheduled_messages": runtime.scheduled,
        "dead_letter_messages": runtime.dead_letters,
        "sessions": runtime.sessions,
    }
    held = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in figures.items())
    return EntityNotEmpty(
        f"{queue.namespace}/{queue.name} is not empty: {held} (those with a state count). Nothing was deleted. Receive,"
        " purge or clear what is in it, or delete it with everything.",
        details={name: str(count) for name, count in figures.items()},
    )
