"""The catalogue of entity definitions, which partition 0 keeps (ADD-12).

Here belongs which queues exist and in which revision. Never here: what they hold. The law: definitions
change here first; partitions apply them afterwards, in the order of revisions, as often as need be.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from lockstep.core.changes import CatalogueRow, Drop
from lockstep.core.commands import (
    CreateQueue,
    DeleteQueue,
    ForgetDeletions,
    ListDefinitions,
    UpdateQueue,
)
from lockstep.core.entity import (
    QueueDefinition,
    changed_settings,
    check_manager,
    check_may_manage,
    new_settings,
    parse_namespace,
    parse_queue_name,
)
from lockstep.core.errors import (
    EntityAlreadyExists,
    EntityManaged,
    EntityNotFound,
    InvalidRequest,
    RevisionConflict,
    ServerBusy,
)
from lockstep.core.ids import EntityKey, EntityNumber
from lockstep.core.limits import check_at_most
from lockstep.core.replies import Applied, Catalogued, Definitions, Uncatalogued

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.queue import Queue, Step

_SEALED_RETRY_MS = 100


class Catalogue:
    """All definitions, and which numbers and revisions were given out.

    Attributes:
        queues: Every queue that exists.
        deleted: The revision at which each deleted queue went.
        revision: The last revision that was given out; also the last number of an entity.
    """

    __slots__ = ("deleted", "queues", "revision")

    def __init__(self) -> None:
        self.queues: dict[EntityKey, QueueDefinition] = {}
        self.deleted: dict[EntityNumber, int] = {}
        self.revision = 0

    def restore(self, rows: Iterable[CatalogueRow]) -> None:
        """Take over what storage remembers."""
        for row in rows:
            self.revision = max(self.revision, row.revision)
            if row.definition:
                definition = QueueDefinition.from_fields(json.loads(row.definition))
                self.queues[definition.key] = definition
            else:
                self.deleted[row.entity] = row.revision


def definition_text(definition: QueueDefinition) -> str:
    """Return a definition as it is stored."""
    return json.dumps(definition.to_fields(), sort_keys=True)


def _catalogue(partition: Partition) -> Catalogue:
    if partition.catalogue is None:
        raise InvalidRequest(
            f"Partition {partition.partition} does not keep the catalogue; partition 0 does."
        )
    return partition.catalogue


def on_create_queue(partition: Partition, command: CreateQueue, step: Step) -> Catalogued:
    """Enter a queue (ENT-7, ENT-8)."""
    catalogue = _catalogue(partition)
    before = _defined_before(partition, catalogue, command, "create")
    if before is not None:
        return before
    namespace = parse_namespace(command.namespace)
    name = parse_queue_name(command.name)
    existing = catalogue.queues.get(EntityKey(namespace, name.lower()))
    if existing is not None:
        raise EntityAlreadyExists(
            f"A queue {namespace}/{existing.name} exists already. Use it, update it, or choose another name.",
            details={"entity": f"{namespace}/{existing.name}", "uid": existing.uid},
        )
    settings = new_settings(command.settings, partition.limits)
    check_manager(command.manager)
    check_at_most(
        len(catalogue.queues) + 1,
        partition.limits.queues_max,
        "queues",
        "Delete queues that are not used.",
    )
    catalogue.revision += 1
    definition = QueueDefinition(
        namespace=namespace,
        name=name,
        number=EntityNumber(catalogue.revision),
        uid=command.uid,
        revision=catalogue.revision,
        settings=settings,
        created_ms=step.now_ms,
        updated_ms=step.now_ms,
        manager=command.manager,
    )
    partition.remember(command.request, command.fingerprint, ("create", definition.number), step)
    return _enter(catalogue, definition, step)


def on_update_queue(partition: Partition, command: UpdateQueue, step: Step) -> Catalogued:
    """Change a queue's settings (ENT-4, ENT-9)."""
    catalogue = _catalogue(partition)
    before = _defined_before(partition, catalogue, command, "update")
    if before is not None:
        return before
    current = _find(catalogue, command.entity)
    if command.if_revision and command.if_revision != current.revision:
        raise RevisionConflict(
            f"{current.namespace}/{current.name} is at revision {current.revision}, not {command.if_revision}. Read it"
            " again, then decide.",
            details={"revision": str(current.revision), "observed": str(command.if_revision)},
        )
    check_manager(command.manager)
    check_may_manage(current, command.manager, takes_over=command.takes_over)
    manager = command.manager or current.manager
    settings = changed_settings(
        current.settings, command.settings, partition.limits, replaces=command.replaces
    )
    partition.remember(command.request, command.fingerprint, ("update", current.number), step)
    if (settings, manager) == (current.settings, current.manager):
        return Catalogued(current)
    catalogue.revision += 1
    definition = QueueDefinition(
        namespace=current.namespace,
        name=current.name,
        number=current.number,
        uid=current.uid,
        revision=catalogue.revision,
        settings=settings,
        created_ms=current.created_ms,
        updated_ms=step.now_ms,
        manager=manager,
    )
    return _enter(catalogue, definition, step)


def on_delete_queue(partition: Partition, command: DeleteQueue, step: Step) -> Uncatalogued:
    """Remove a queue; its number is never used again (ADD-12)."""
    catalogue = _catalogue(partition)
    found = partition.repeated(command.request, command.fingerprint, "delete")
    if found is not None:
        return Uncatalogued(found[1], found[2])
    current = _find(catalogue, command.entity)
    if command.uid and command.uid != current.uid:
        raise EntityNotFound(
            f"{current.namespace}/{current.name} has the uid {current.uid}, not {command.uid}: it was created again."
            " Nothing was deleted. Read it again, then decide.",
            details={"uid": current.uid, "observed": command.uid},
        )
    kept_by = current.manager
    if command.manager_uid and kept_by is not None and kept_by.uid != command.manager_uid:
        raise EntityManaged(
            f"{current.namespace}/{current.name} is kept by {kept_by.name} from {kept_by.source}. Nothing was deleted."
            " Delete that object.",
            details={"manager": kept_by.source, "uid": kept_by.uid},
        )
    queue = partition.queues_by_number.get(current.number)
    if command.is_sealed and queue is not None and not queue.is_sealed:
        raise ServerBusy(
            f"{current.namespace}/{current.name} could not be looked at in all partitions in time. Nothing was deleted."
            " Try again.",
            retry_after_ms=_SEALED_RETRY_MS,
        )
    catalogue.revision += 1
    del catalogue.queues[current.key]
    catalogue.deleted[current.number] = catalogue.revision
    step.changes.append(CatalogueRow(current.number, catalogue.revision, ""))
    result = ("delete", current.number, catalogue.revision)
    partition.remember(command.request, command.fingerprint, result, step)
    return Uncatalogued(current.number, catalogue.revision)


def forget_queue(partition: Partition, queue: Queue, step: Step) -> bool:
    """Remove a queue from the catalogue that was not used for long enough, unless it is gone already (section 16.3)."""
    catalogue = _catalogue(partition)
    definition = catalogue.queues.get(queue.definition.key)
    if definition is None or definition.number != queue.number:
        return False
    catalogue.revision += 1
    del catalogue.queues[definition.key]
    catalogue.deleted[definition.number] = catalogue.revision
    step.changes.append(CatalogueRow(definition.number, catalogue.revision, ""))
    step.count(queue, "queues_deleted", "idle")
    return True


def _defined_before(
    partition: Partition, catalogue: Catalogue, command: CreateQueue | UpdateQueue, kind: str
) -> Catalogued | None:
    """Answer a repeat with the queue as it is now (ADD-3)."""
    found = partition.repeated(command.request, command.fingerprint, kind)
    if found is None:
        return None
    for definition in catalogue.queues.values():
        if definition.number == found[1]:
            return Catalogued(definition)
    raise EntityNotFound("The queue that this call made, or changed, was deleted since.")


def on_list_definitions(partition: Partition, command: ListDefinitions, _step: Step) -> Definitions:
    """Return the whole catalogue, or the one queue of it that was asked for, if it is there."""
    catalogue = _catalogue(partition)
    if command.entity is not None:
        found = catalogue.queues.get(command.entity)
        return Definitions((found,) if found is not None else (), ())
    return Definitions(tuple(catalogue.queues.values()), tuple(catalogue.deleted.items()))


def on_forget_deletions(partition: Partition, command: ForgetDeletions, step: Step) -> Applied:
    """Forget deletions that nobody needs to hear of any more; the newest row keeps the count of revisions."""
    catalogue = _catalogue(partition)
    revision = min(command.revision, catalogue.revision - 1)
    for number in [n for n, at in catalogue.deleted.items() if at <= revision]:
        del catalogue.deleted[number]
        step.changes.append(Drop(CatalogueRow, (number,)))
    return Applied(catalogue.revision)


def _enter(catalogue: Catalogue, definition: QueueDefinition, step: Step) -> Catalogued:
    catalogue.queues[definition.key] = definition
    step.changes.append(
        CatalogueRow(definition.number, definition.revision, definition_text(definition))
    )
    return Catalogued(definition)


def _find(catalogue: Catalogue, entity: EntityKey) -> QueueDefinition:
    found = catalogue.queues.get(entity)
    if found is None:
        raise EntityNotFound(
            f"There is no queue {entity.namespace}/{entity.name}. Check the name, or create it.",
            details={"entity": f"{entity.namespace}/{entity.name}"},
        )
    return found
