"""What a partition does with messages that were abandoned with a delay (ADD-6).

Here belongs the time between such an abandon and the next delivery. Never here: the abandon itself (`settling`). The
laws: in a session nothing younger is delivered before the delayed message, so the session waits with it; in a plain
queue the others go ahead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockstep.core.aside import Delay
from lockstep.core.changes import DelayRow
from lockstep.core.deadlines import Subject
from lockstep.core.decision import Wake
from lockstep.core.expiring import expire_in_session, return_or_expire

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.queue import Queue, Step
    from lockstep.core.session import Session


def delay(
    partition: Partition,
    queue: Queue,
    session: Session | None,
    sequence: int,
    delay_ms: int,
    step: Step,
) -> None:
    """Keep a message back for a time: of a session in its place, of a plain store out of it."""
    until_ms = step.now_ms + delay_ms
    queue.delays[sequence] = Delay(until_ms, session.session_id if session is not None else None)
    if session is not None:
        session.delay(sequence)
    step.changes.append(DelayRow(queue.number, sequence, until_ms))
    watch(partition, queue, sequence, until_ms)


def watch(partition: Partition, queue: Queue, sequence: int, until_ms: int) -> None:
    """Look at a delayed message when its delay ends."""
    partition.deadlines.add(until_ms, Subject("delay", queue.number, "", sequence))


def look_at_delay(partition: Partition, subject: Subject, step: Step) -> None:
    """Let a delayed message be delivered again, if its time has come."""
    queue = partition.queues_by_number.get(subject.entity)
    sequence = subject.grant
    delayed = queue.delays.get(sequence) if queue is not None else None
    if queue is None or delayed is None or delayed.until_ms > step.now_ms:
        return
    queue.end_delays((sequence,), step)
    if delayed.session_id is None:
        dead_letter = sequence in queue.dead_order
        return_or_expire(queue, queue.plain(dead_letter=dead_letter), sequence, step)
        step.wake[Wake(queue.number, dead_letter=dead_letter)] = None
        return
    session = queue.sessions[delayed.session_id]
    session.delayed.remove(sequence)
    expire_in_session(queue, session, step)
    queue.reindex(session, step)
    if session.is_held:
        step.wake[Wake(queue.number, session.session_id)] = None
