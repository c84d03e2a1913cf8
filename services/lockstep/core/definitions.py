"""What a partition does when the catalogue changed.

Here belongs the application of definitions (ADD-12). Never here: the catalogue itself. The laws:
revisions come in their order, without gaps but for what a later revision of the same queue replaced; what
is not newer than the last one applied does nothing, so a deleted queue never comes back; a re-created
queue shares nothing with the one before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockstep.core.catalogue import definition_text
from lockstep.core.changes import DropEntity, EntityRow
from lockstep.core.commands import ApplyDefinition, ApplyDefinitions, ApplyDeletion, GetRevision
from lockstep.core.deadlines import Subject
from lockstep.core.decision import Wake
from lockstep.core.entity import RECEIVING_FORBIDDEN
from lockstep.core.idling import watch_queue, watch_state
from lockstep.core.locks import DELETED
from lockstep.core.queue import Queue
from lockstep.core.replies import Applied

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.queue import Step


def on_apply_definition(partition: Partition, command: ApplyDefinition, step: Step) -> Applied:
    """Hold a queue as the catalogue has it."""
    definition = command.definition
    if definition.revision <= partition.last_revision:
        return Applied(partition.last_revision)
    queue = partition.queues_by_number.get(definition.number)
    predecessor = partition.queues.get(definition.key)
    if predecessor is not None and predecessor.number != definition.number:
        step.changes.append(DropEntity(predecessor.number))
        _drop(partition, predecessor, step)
    if queue is None:
        queue = Queue(definition, partition.sequence_base(), partition.totals)
        partition.add_queue(queue)
        queue.activity.use(step.now_ms)
        watch_queue(partition, queue)
    else:
        if definition.settings.status in RECEIVING_FORBIDDEN:  # who waits must not wait on
            step.wake[Wake(queue.number, lost=True)] = None
        if definition.settings != queue.definition.settings and queue.history.oldest_ms is not None:
            # The window may end earlier now.
            partition.deadlines.add(step.now_ms + 1, Subject("duplicates", queue.number))
        before, queue.definition = queue.definition, definition
        queue.activity.use(step.now_ms)
        if definition.settings.auto_delete_on_idle_ms != before.settings.auto_delete_on_idle_ms:
            watch_queue(partition, queue)
        if (
            definition.settings.session_state_idle_ttl_ms
            != before.settings.session_state_idle_ttl_ms
        ):
            for session in queue.sessions.values():
                watch_state(partition, queue, session, step.now_ms, setting_changed=True)
    step.changes.append(
        EntityRow(definition.number, definition.revision, definition_text(definition))
    )
    partition.last_revision = definition.revision
    return Applied(definition.revision)


def on_apply_definitions(partition: Partition, command: ApplyDefinitions, step: Step) -> Applied:
    """Take several changes of the catalogue at once."""
    changes: list[tuple[int, ApplyDefinition | ApplyDeletion]] = [
        (definition.revision, ApplyDefinition(definition)) for definition in command.definitions
    ]
    changes += [
        (revision, ApplyDeletion(number, revision)) for number, revision in command.deletions
    ]
    for _, change in sorted(changes, key=lambda one: one[0]):
        if isinstance(change, ApplyDefinition):
            on_apply_definition(partition, change, step)
        else:
            on_apply_deletion(partition, change, step)
    return Applied(partition.last_revision)


def on_get_revision(partition: Partition, _command: GetRevision, _step: Step) -> Applied:
    """Say up to which revision of the catalogue definitions were applied."""
    return Applied(partition.last_revision)


def on_apply_deletion(partition: Partition, command: ApplyDeletion, step: Step) -> Applied:
    """Hold a queue, and everything in it, no more (RACE-16)."""
    if command.revision <= partition.last_revision:
        return Applied(partition.last_revision)
    queue = partition.queues_by_number.get(command.entity)
    step.changes.append(DropEntity(command.entity))
    if queue is not None:
        _drop(partition, queue, step)
    partition.last_revision = command.revision
    return Applied(command.revision)


def _drop(partition: Partition, queue: Queue, step: Step) -> None:
    partition.remove_queue(queue.number)
    for session in queue.sessions.values():
        if session.is_held:
            partition.note_loss(session, step.now_ms, DELETED)
    step.wake[Wake(queue.number, lost=True)] = None
