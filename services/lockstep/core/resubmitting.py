"""What a partition does about dead letters in bulk (section 10.4 of the contract, ADD-11).

Here belongs what each batch of a job does to messages. Never here: what a job is (`jobs`), or how it goes on
(`job_steps`). The laws: a message is taken from one store and put into the other in one commit (RSB-2); a
resubmitted message counts from 0 again and has a new number, unless it goes back to its old place (RSB-3, RSB-7); it is
never held for a duplicate of itself (RSB-5); what somebody has locked is left to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lockstep.core.amendments import UNCHANGED, Amendment, Trail
from lockstep.core.commands import AdvanceJob, Send
from lockstep.core.decision import Wake
from lockstep.core.deferral import dead_letter_deferred, leave
from lockstep.core.duplicates import keys_of, note_ids
from lockstep.core.errors import LimitExceeded, QuotaExceeded
from lockstep.core.expiring import earliest, ends
from lockstep.core.ids import SessionId
from lockstep.core.jobs import Job, JobKind
from lockstep.core.replies import DeadLetterInfo
from lockstep.core.sending import part_of, store_copies

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.queue import Queue, Step
    from lockstep.core.session import Session

_ADMINISTRATOR = "an administrator dead-lettered the session"


def available(queue: Queue, job: Job, sequences: Sequence[int]) -> list[int]:
    """Return those messages that nobody has in hand and that were not resubmitted too often."""
    if job.kind is JobKind.DEAD_LETTER:
        return _left_of_session(queue, job, sequences)
    locked = {s for held in queue.dead.grants.values() for s in held}
    most = job.options.max_resubmits
    found = []
    for sequence in sequences:
        if sequence not in queue.dead_order or sequence in locked:
            continue
        if not _has_room_for(queue.amendments.get(sequence, UNCHANGED), job):
            continue
        if most:
            trail = queue.amendments.get(sequence, UNCHANGED).trail
            if trail is not None and trail.resubmits >= most:
                continue
        found.append(sequence)
    return found


def _has_room_for(amendment: Amendment, job: Job) -> bool:
    """Whether a message can have the properties that the job sets (section 1.3)."""
    try:
        amendment.with_properties(job.options.properties)
    except LimitExceeded:
        return False
    return True


def _check_growth(
    queue: Queue, job: Job, taken: Sequence[int], amendments: Sequence[Amendment]
) -> None:
    """Refuse edits that the queue has no room for; what is not edited may always come back.

    Raises:
        QuotaExceeded: There is no room.
    """
    before = sum(queue.amendments.get(s, UNCHANGED).size_bytes for s in taken)
    growth = sum(amendment.size_bytes for amendment in amendments) - before
    if job.options.properties and queue.size_bytes + growth > queue.size_bytes_max:
        raise QuotaExceeded(
            f"{queue.path} has no room for the properties that the job sets: it holds {queue.size_bytes} bytes of"
            f" {queue.size_bytes_max}, and they take {growth}. Raise max_size_in_megabytes.",
            details={"limit": "max_size_in_megabytes", "observed": str(queue.size_bytes + growth)},
        )


def do_to(
    partition: Partition,
    queue: Queue,
    job: Job,
    taken: list[int],
    command: AdvanceJob,
    step: Step,
) -> int:
    """Do to available messages what a job does, and return to how many of them.

    Raises:
        QuotaExceeded: There is no room for them; nothing was done.
    """
    match job.kind:
        case JobKind.RESUBMIT if job.options.at_head:
            _put_back(partition, queue, job, taken, command, step)
        case JobKind.RESUBMIT:
            _resubmit(partition, queue, job, taken, command, step)
        case JobKind.PURGE:
            take(queue, taken, step)
            queue.drop_dead_letters(taken, step)
            step.count(queue, "purged", "", len(taken))
        case JobKind.MOVE:
            return _move(partition, queue, job, taken, command, step)
        case JobKind.DEAD_LETTER:
            _dead_letter(queue, job, taken, step)
    return len(taken)


def _left_of_session(queue: Queue, job: Job, sequences: Sequence[int]) -> list[int]:
    session = queue.sessions.get(SessionId(job.selector.session_id or ""))
    if session is None:
        return []
    return [
        sequence
        for sequence in sequences
        if (session.has(sequence) and not session.is_in_hand(sequence))
        or (_is_deferred_in(queue, session, sequence) and not queue.deferred[sequence].grant)
    ]


def _is_deferred_in(queue: Queue, session: Session, sequence: int) -> bool:
    """Whether a message is one of the session's deferred ones; a dead letter that is deferred is none of them."""
    deferred = queue.deferred.get(sequence)
    return deferred is not None and deferred.session_id == session.session_id


def count_there(queue: Queue, job: Job, sequences: Sequence[int]) -> int:
    """Return how many of the selected messages are still where the job takes from, in hand or not."""
    if job.kind is not JobKind.DEAD_LETTER:
        return sum(1 for sequence in sequences if sequence in queue.dead_order)
    session = queue.sessions.get(SessionId(job.selector.session_id or ""))
    if session is None:
        return 0
    return sum(1 for s in sequences if session.has(s) or _is_deferred_in(queue, session, s))


def take(queue: Queue, sequences: Sequence[int], step: Step) -> None:
    """Take dead letters that nobody has in hand out of their places."""
    ready = []
    for sequence in sequences:
        if sequence in queue.deferred:
            leave(queue, (sequence,), step)
        elif sequence in queue.delays:
            queue.end_delays((sequence,), step)
        else:
            ready.append(sequence)
    queue.dead.take_out(ready)


def amended(queue: Queue, job: Job, sequence: int) -> Amendment:
    """Return what is changed about a message from now on: edits, and the trail (RSB-4, RSB-5)."""
    before, options = queue.amendments.get(sequence, UNCHANGED), job.options
    trail = before.trail
    return Amendment(
        properties={**before.properties, **options.properties},
        session_id=before.session_id if options.session_id is None else options.session_id,
        message_id=new_message_id(job, sequence) if options.new_message_id else before.message_id,
        trail=Trail(
            resubmits=trail.resubmits + 1 if trail is not None else 1,
            sequence=trail.sequence if trail is not None else sequence,
            entity=queue.path,
            reason=queue.dead_info[sequence].reason,
        ),
    )


def _sessions_of(queue: Queue, job: Job, sequences: Sequence[int]) -> list[str | None]:
    if job.options.session_id is not None:
        return [job.options.session_id] * len(sequences)
    return [queue.dead_sessions.get(sequence) for sequence in sequences]


def _resubmit(
    partition: Partition,
    queue: Queue,
    job: Job,
    taken: Sequence[int],
    command: AdvanceJob,
    step: Step,
) -> None:
    """Put dead letters at the tail of their sessions, or of the queue, in their old order (RSB-3, RSB-7)."""
    amendments = [amended(queue, job, sequence) for sequence in taken]
    _check_growth(queue, job, taken, amendments)
    session_ids = _sessions_of(queue, job, taken)
    ids = _message_ids(job, taken, command)
    _forget_as_dead(queue, taken, step)
    for sequence in taken:
        queue.amend(sequence, UNCHANGED, step)
    expiries = ends(queue.log.ttls(taken), step.now_ms) if queue.log.has_expiries else None
    has_sessions = queue.definition.settings.requires_session
    session_id = job.options.session_id if has_sessions else None
    first, changes = queue.log.move(taken, step.now_ms, expiries, session_id)
    step.changes.extend(changes)
    step.changes.append(queue.counter_row)
    numbers = range(first, first + len(taken))
    for number, amendment in zip(numbers, amendments, strict=True):
        queue.amend(number, amendment, step)
    queue.enqueue(numbers, session_ids, step)
    _register(partition, queue, numbers, ids, session_ids, step)
    _count_resubmitted(queue, len(taken), step)


def _put_back(
    partition: Partition,
    queue: Queue,
    job: Job,
    taken: Sequence[int],
    command: AdvanceJob,
    step: Step,
) -> None:
    """Put dead letters back to their old places; they keep their numbers (RSB-7)."""
    amendments = [amended(queue, job, sequence) for sequence in taken]
    _check_growth(queue, job, taken, amendments)
    session_ids = _sessions_of(queue, job, taken)
    ids = _message_ids(job, taken, command)
    _forget_as_dead(queue, taken, step)
    by_session: dict[str | None, list[int]] = {}
    for sequence, amendment, session_id in zip(taken, amendments, session_ids, strict=True):
        queue.amend(sequence, amendment._replace(enqueued_ms=step.now_ms), step)
        queue.log.enqueue_again(sequence, step.now_ms)
        by_session.setdefault(session_id, []).append(sequence)
    for name, sequences in by_session.items():
        if name is None or not queue.definition.settings.requires_session:
            for sequence in sequences:
                queue.main.give_back(sequence)
            step.wake[Wake(queue.number)] = None
            continue
        session = queue.session(SessionId(name))
        session.put_back(sequences)
        end = earliest(queue.log.expiries(sequences)) if queue.log.has_expiries else 0
        if end and (not session.expires_ms or end < session.expires_ms):
            session.expires_ms = end
        if session.is_held:
            queue.store_session(session, step)
            step.wake[Wake(queue.number, session.session_id)] = None
        queue.reindex(session, step)
    _register(partition, queue, taken, ids, session_ids, step)
    _count_resubmitted(queue, len(taken), step)


def _forget_as_dead(queue: Queue, taken: Sequence[int], step: Step) -> None:
    take(queue, taken, step)
    queue.forget_dead(taken, step)
    queue.forget_counts(taken, step)


def _count_resubmitted(queue: Queue, count: int, step: Step) -> None:
    step.count(queue, "enqueued", "resubmitted", count)
    step.count(queue, "resubmitted", "", count)


def new_message_id(job: Job, sequence: int) -> str:
    """Return the message id that a job makes for a message (RSB-5)."""
    return f"{job.uid}-{sequence}"


def _message_ids(job: Job, taken: Sequence[int], command: AdvanceJob) -> list[str]:
    """Return the message ids that the taken messages have from now on, as far as they are known."""
    if job.options.new_message_id:
        return [new_message_id(job, sequence) for sequence in taken]
    known = dict(zip(command.sequences, command.message_ids, strict=False))
    return [known.get(sequence, "") for sequence in taken]


def _register(
    partition: Partition,
    queue: Queue,
    numbers: Sequence[int],
    message_ids: Sequence[str],
    session_ids: Sequence[str | None],
    step: Step,
) -> None:
    """Know the ids of messages that were let past duplicate detection (RSB-5)."""
    if queue.definition.settings.requires_duplicate_detection:
        keys = keys_of(queue, message_ids, session_ids)
        known = {key: n for key, n in zip(keys, numbers, strict=True) if key is not None}
        note_ids(partition, queue, partition.next_chunk(), known, step)


def _move(
    partition: Partition,
    queue: Queue,
    job: Job,
    taken: list[int],
    command: AdvanceJob,
    step: Step,
) -> int:
    """Move dead letters to another queue, and return how many fitted it."""
    assert job.options.target is not None
    assert command.copies is not None
    target = partition.queues.get(job.options.target)
    if target is None:
        raise QuotaExceeded(f"The target {job.options.target.name} is gone.")
    place_of = {sequence: place for place, sequence in enumerate(command.sequences)}
    copies = part_of(command.copies, [place_of[sequence] for sequence in taken])
    amendments = [amended(queue, job, sequence) for sequence in taken]
    ids = _message_ids(job, taken, command)
    moving = [taken[at] for at in store_fitting(partition, target, copies, amendments, ids, step)]
    if moving:
        take(queue, moving, step)
        queue.drop_dead_letters(moving, step)
        step.count(queue, "moved", "", len(moving))
    return len(moving)


def store_fitting(
    partition: Partition,
    target: Queue,
    copies: Send,
    amendments: Sequence[Amendment],
    message_ids: Sequence[str],
    step: Step,
) -> list[int]:
    """Store messages that come from elsewhere, but for those that do not fit the queue; return their places.

    Args:
        partition: Where it is.
        target: The queue.
        copies: The messages as a send.
        amendments: What is changed about each.
        message_ids: Their ids from now on.
        step: The step that does it.

    Raises:
        QuotaExceeded: There is no room for those that fit; nothing was stored.
        ShareUsed: This partition has no share of the room that there may be; nothing was stored.
    """
    needs_session = target.definition.settings.requires_session
    session_ids = copies.session_ids

    def fits(place: int) -> bool:
        session_id = session_ids[place if len(session_ids) > 1 else 0]
        size = len(copies.messages[place]) + amendments[place].size_bytes
        return size <= target.message_bytes_max and not (needs_session and session_id is None)

    places = [place for place in range(len(copies.messages)) if fits(place)]
    if places:
        part = part_of(copies, places)
        kept = [amendments[place] for place in places]
        amended_bytes = sum(amendment.size_bytes for amendment in kept)
        numbers = store_copies(partition, target, part, step, amended_bytes=amended_bytes)
        for number, amendment in zip(numbers, kept, strict=True):
            target.amend(number, amendment, step)
        ids = [message_ids[place] for place in places]
        _register(partition, target, numbers, ids, part.session_ids, step)
    return places


def _dead_letter(queue: Queue, job: Job, taken: Sequence[int], step: Step) -> None:
    """Make messages of a session dead letters."""
    session = queue.sessions[SessionId(job.selector.session_id or "")]
    why = job.options.reason or "DeadLetteredByAdministrator"
    info = DeadLetterInfo(why, f"{_ADMINISTRATOR} ({job.by or 'no name given'})", step.now_ms)
    aside = [sequence for sequence in taken if sequence in queue.deferred]
    active = [sequence for sequence in taken if sequence not in queue.deferred]
    dead_letter_deferred(queue, aside, info, step, cause="administrator")
    if active:
        session.take_out(active)
        if queue.delays:
            queue.end_delays(active, step)
            step.wake[Wake(queue.number, session.session_id)] = None  # what waited behind them
        queue.move_to_dead_letters(active, info, session.session_id, step, cause="administrator")
    queue.reindex(session, step)
