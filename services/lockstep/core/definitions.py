"""What a partition does when the catalogue changed.

Here belongs the application of definitions (ADD-12). Never here: the catalogue itself. The law: applying
is idempotent and never goes back to an older revision; a re-created queue shares nothing with the one
before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockstep.core.catalogue import definition_text
from lockstep.core.changes import DropEntity, EntityRow
from lockstep.core.commands import Applied, ApplyDefinition, ApplyDeletion
from lockstep.core.decision import Wake
from lockstep.core.queue import Queue

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.queue import Step


def on_apply_definition(partition: Partition, command: ApplyDefinition, step: Step) -> Applied:
    """Hold a queue as the catalogue has it."""
    definition = command.definition
    queue = partition.queues_by_number.get(definition.number)
    if queue is not None and queue.definition.revision >= definition.revision:
        return Applied(queue.definition.revision)
    predecessor = partition.queues.get(definition.key)
    if predecessor is not None and predecessor.number > definition.number:
        return Applied(predecessor.definition.revision)
    if predecessor is not None and predecessor.number != definition.number:
        _drop(partition, predecessor, step)
    if queue is None:
        partition.add_queue(Queue(definition, partition.sequence_base(), partition.totals))
    else:
        queue.definition = definition
    step.changes.append(
        EntityRow(definition.number, definition.revision, definition_text(definition))
    )
    return Applied(definition.revision)


def on_apply_deletion(partition: Partition, command: ApplyDeletion, step: Step) -> Applied:
    """Hold a queue, and everything in it, no more (RACE-16)."""
    queue = partition.queues_by_number.get(command.entity)
    if queue is not None:
        _drop(partition, queue, step)
    return Applied(command.revision)


def _drop(partition: Partition, queue: Queue, step: Step) -> None:
    partition.remove_queue(queue.number)
    step.changes.append(DropEntity(queue.number))
    step.wake[Wake(queue.number, lost=True)] = None
