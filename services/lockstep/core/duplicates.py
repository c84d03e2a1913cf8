"""Which messages a queue has seen already (section 11 of the contract).

Here belongs how ids become known and are forgotten. Never here: what a send does with a duplicate (`sending`). The law:
what is known is stored in the commit that accepted the first copy (DUP-8).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lockstep.core.changes import Drop, DuplicatesRow
from lockstep.core.deadlines import Subject
from lockstep.core.entity import SPREAD
from lockstep.core.history import Key

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.queue import Queue, Step


def keys_of(
    queue: Queue, message_ids: Sequence[str], session_ids: Sequence[str | None]
) -> list[Key | None]:
    """Return by what each message of a send is known; None = it has no id and is never a duplicate (DUP-10)."""
    by_session = queue.definition.settings.placement == SPREAD
    if not by_session:
        return [(None, name) if name else None for name in message_ids]
    each = (
        session_ids
        if len(session_ids) == len(message_ids)
        else tuple(session_ids) * len(message_ids)
    )
    return [
        (session, name) if name else None for session, name in zip(each, message_ids, strict=True)
    ]


def note_ids(
    partition: Partition, queue: Queue, chunk: int, known: dict[Key, int], step: Step
) -> None:
    """Know the ids of the messages that a send stores."""
    if not known:
        return
    if queue.history.oldest_ms is None:
        window_ms = queue.definition.settings.duplicate_detection_history_time_window_ms
        partition.deadlines.add(step.now_ms + window_ms, Subject("duplicates", queue.number))
    queue.history.note(step.now_ms, chunk, known)
    text = json.dumps([[*key, sequence] for key, sequence in known.items()], separators=(",", ":"))
    step.changes.append(DuplicatesRow(queue.number, chunk, step.now_ms, text))


def forget_ids(partition: Partition, subject: Subject, step: Step) -> None:
    """Forget the ids whose window is over, and look again when the next one's is."""
    queue = partition.queues_by_number.get(subject.entity)
    if queue is None:
        return
    window_ms = queue.definition.settings.duplicate_detection_history_time_window_ms
    for chunk in queue.history.forget(step.now_ms - window_ms):
        step.changes.append(Drop(DuplicatesRow, (queue.number, chunk)))
    oldest_ms = queue.history.oldest_ms
    if oldest_ms is not None:
        partition.deadlines.add(oldest_ms + window_ms, subject)


def restore_ids(partition: Partition, rows: Sequence[DuplicatesRow]) -> None:
    """Take over what storage remembers."""
    for row in sorted(rows, key=lambda row: (row.entity, row.at_ms, row.chunk)):
        queue = partition.queues_by_number[row.entity]
        if queue.history.oldest_ms is None:
            window_ms = queue.definition.settings.duplicate_detection_history_time_window_ms
            subject = Subject("duplicates", queue.number)
            partition.deadlines.add(row.at_ms + window_ms, subject)
        known = {(session, name): sequence for session, name, sequence in json.loads(row.keys)}
        queue.history.note(row.at_ms, row.chunk, known)
