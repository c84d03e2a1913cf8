"""Work on dead letters, batch by batch (section 10.4 of the contract, ADD-11)."""

from __future__ import annotations

import json
from array import array
from dataclasses import replace

from lockstep.core.amendments import UNCHANGED, Amendment, Trail
from lockstep.core.commands import StartJob
from lockstep.core.entity import SPREAD
from lockstep.core.jobs import Job, JobKind, JobStatus
from lockstep.v1 import message_pb2
from lockstep.wire.times import duration_ms
from tests.sim.book import Message
from tests.sim.case import Case
from tests.sim.rows import Where

_BY_ADMINISTRATOR = "DeadLetteredByAdministrator"


def judge_start(case: Case) -> None:
    """Check that a job begins as it was asked for, and does nothing yet (RSB-1)."""
    command = case.command
    assert isinstance(command, StartJob)
    entity = case.entity()
    (number,) = case.result
    job = case.step.jobs.get((entity, number))
    case.check(job is not None and len(case.step.jobs) == 1, "ADD-11: began", case.step.jobs)
    if job is None:
        return
    last = max((n for e, n in case.book.jobs if e == entity), default=0)
    case.check(number > last, "ADD-11: an old job number", number, last)
    ends = case.book.last_dead if command.kind is not JobKind.DEAD_LETTER else {}
    end = ends.get(entity, 0)
    if command.kind is JobKind.DEAD_LETTER:
        end = case.book.last_sequence.get(entity, job.end)
    asked = (command.uid, command.kind, command.selector, command.options, command.by)
    wanted = Job(number, *asked, started_ms=case.now_ms, end=end)
    case.check(job == wanted, "RSB-1: began", job, "not", wanted)


def judge_progress(case: Case) -> None:
    """Check that a batch takes exactly what is selected and free, and puts each message in one place (RSB-2)."""
    ((entity, number), job), *others = case.step.jobs.items()
    before = case.book.jobs.get((entity, number))
    case.check(not others, "ADD-11: two jobs in one step", case.step.jobs)
    case.check(before is not None and before.is_running, "ADD-11: went on after its end", before)
    if before is None:
        return
    _judge_report(case, before, job)
    _judge_locks(case)
    taken: list[tuple[int, Message]] = []
    if job.status in (JobStatus.RUNNING, JobStatus.DONE):
        taken = _judge_counts(case, entity, before, job)
    elif job.status is JobStatus.FAILED:
        target = job.options.target
        is_gone = target is not None and case.book.number_of(target) is None
        case.check(is_gone, "ADD-11: failed", job)
    if job.options.dry_run:
        taken = []
    _expect(case, entity, job, taken)


def _judge_report(case: Case, before: Job, job: Job) -> None:
    """What was asked for stays, and a job never goes back."""
    how = {
        "status": before.status,
        "cursor": before.cursor,
        "matched": before.matched,
        "skipped": before.skipped,
        "finished_ms": before.finished_ms,
        "error": before.error,
    }
    case.check(replace(job, **how) == before, "ADD-11: another job", job, before)  # type: ignore[arg-type]
    case.check(job.cursor >= before.cursor, "ADD-11: a job went back", job, before)
    ended_ms = 0 if job.is_running else case.now_ms
    case.check(job.finished_ms == ended_ms, "ADD-11: ended at", job.finished_ms, ended_ms)


def _judge_locks(case: Case) -> None:
    """What somebody has stays with them."""
    case.check(not case.step.locks and not case.step.states, "ADD-11: took a lock", case.step.locks)
    for place, row in case.step.sessions.items():
        known = case.book.sessions.get(place)
        lock = (row.grant, row.holder, row.granted_ms, bool(row.locked_until_ms))
        is_same = known is not None and lock == (
            known.grant,
            known.holder,
            known.granted_ms,
            bool(known.locked_until_ms),
        )
        case.check(is_same, "ADD-11: changed the lock of", place, known, row)
        case.hand(place)
    for place in case.step.forgotten:
        known = case.book.sessions.get(place)
        case.check(known is None or not known.locked_until_ms, "ADD-11: ended the lock of", place)


def _judge_counts(case: Case, entity: int, before: Job, job: Job) -> list[tuple[int, Message]]:
    """Check what was counted, and return what must have been taken, rising."""
    there = _selected(case, entity, before, job)
    most = before.selector.max_count
    if most:
        there = there[: max(0, most - before.matched)]
    free = [(s, m) for s, m in there if not _is_held(case, entity, s, m, before)]
    taken = [(s, m) for s, m in free if _fits(case, job, (entity, s), m)]
    wanted = (before.matched + len(taken), before.skipped + len(there) - len(taken))
    told = (job.matched, job.skipped)
    case.check(told == wanted, "RSB-9: counted", told, "not", wanted, job, there)
    return taken


def _selected(case: Case, entity: int, before: Job, job: Job) -> list[tuple[int, Message]]:
    """Return what the batch may have looked at and is selected, rising."""
    messages = {where: m for where, m in case.book.messages.items() if where[0] == entity}
    messages |= {old: message for old, _, message in case.step.renumbered}
    return [
        (sequence, message)
        for (_, sequence), message in sorted(messages.items())
        if sequence > before.cursor
        and (not job.is_running or sequence <= job.cursor)
        and _takes(before, sequence, message)
    ]


def _takes(job: Job, sequence: int, message: Message) -> bool:
    wanted = job.selector
    if wanted.session_id is not None and message.session_id != wanted.session_id:
        return False
    if job.kind is JobKind.DEAD_LETTER:
        return sequence <= job.end and not message.dead and not message.due_ms
    return (
        0 < message.dead <= job.end
        and (wanted.reason is None or wanted.reason == message.reason)
        and message.dead_ms >= wanted.since_ms
        and (not wanted.until_ms or message.dead_ms < wanted.until_ms)
        and (not wanted.ranges or any(low <= sequence <= high for low, high in wanted.ranges))
    )


def _is_held(case: Case, entity: int, sequence: int, message: Message, job: Job) -> bool:
    """Whether somebody has the message, or it was resubmitted too often (RSB-9)."""
    if message.grant:
        return True
    if job.kind is JobKind.DEAD_LETTER:
        row = case.book.sessions.get((entity, message.session_id or ""))
        return sequence in case.book.hand(row)
    locked = [
        array("q", row.sequences)
        for (number, _), row in case.book.locks.items()
        if number == entity and row.dead_letter
    ]
    if any(sequence in sequences for sequences in locked):
        return True
    trail = case.book.amendments.get((entity, sequence), UNCHANGED).trail
    most = job.options.max_resubmits
    return bool(most) and trail is not None and trail.resubmits >= most


def _fits(case: Case, job: Job, where: Where, message: Message) -> bool:
    """Whether a message has the session that its new queue needs."""
    if job.kind is not JobKind.MOVE or job.options.dry_run:
        return True
    assert job.options.target is not None
    target = case.book.number_of(job.options.target)
    if target is None:
        return False
    is_needed = case.settings(target).requires_session
    return not is_needed or _session_of(case, job, where, message) is not None


# --- what it does ------------------------------------------------------------------------------------


def _expect(case: Case, entity: int, job: Job, taken: list[tuple[int, Message]]) -> None:
    """Expect what a job does to the messages that it takes, and nothing else."""
    wheres: list[Where] = [(entity, sequence) for sequence, _ in taken]
    for where, (_, message) in zip(wheres, taken, strict=True):
        if message.grant is not None:
            case.aside[where] = None
        if message.later_ms:
            case.delays[where] = None
    stays = job.kind is JobKind.RESUBMIT and not job.options.at_head
    renumbered = [old for old, _, _ in case.step.renumbered]
    wanted = wheres if stays else []
    case.check(renumbered == wanted, "RSB-2, RSB-7: resubmitted", renumbered, "not", wanted)
    if renumbered != wanted:
        return
    if job.kind in (JobKind.PURGE, JobKind.MOVE):
        case.gone.update(wheres)
    match job.kind:
        case JobKind.RESUBMIT if job.options.at_head:
            _expect_at_head(case, job, taken, wheres)
        case JobKind.RESUBMIT:
            _expect_at_tail(case, job, taken, wheres)
        case JobKind.DEAD_LETTER:
            case.dead.update(dict.fromkeys(wheres, job.options.reason or _BY_ADMINISTRATOR))
        case _:
            pass
    _expect_copies(case, job, taken, wheres)


def _expect_at_head(
    case: Case, job: Job, taken: list[tuple[int, Message]], wheres: list[Where]
) -> None:
    for where, (_, message) in zip(wheres, taken, strict=True):
        case.amended[where] = _amended(case, job, where, message)._replace(enqueued_ms=case.now_ms)
        case.revived.add(where)
        _register(case, job, where[0], where[1], where, message, message.session_id)
    case.memory.put_back.update(wheres)


def _expect_at_tail(
    case: Case, job: Job, taken: list[tuple[int, Message]], wheres: list[Where]
) -> None:
    given = job.options.session_id
    for (_, new, _), where, (_, message) in zip(case.step.renumbered, wheres, taken, strict=True):
        case.amended[new] = _amended(case, job, where, message)
        session_id = message.session_id if given is None else given
        if case.settings(where[0]).requires_session:
            found = case.book.messages[new].session_id
            case.check(found == session_id, "RSB-7: resubmitted to", found, "not", session_id)
        _register(case, job, where[0], new[1], where, message, session_id)


def _expect_copies(
    case: Case, job: Job, taken: list[tuple[int, Message]], wheres: list[Where]
) -> None:
    """Expect that a move stores what it takes in the other queue, and that nothing else stores anything."""
    bodies = [message.body for _, message in taken] if job.kind is JobKind.MOVE else []
    stored = [body for row in case.step.chunks for body in row.messages]
    case.check(stored == bodies, "RSB-2: moved", stored, "not", bodies)
    if not bodies or stored != bodies:
        return
    case.check(len(case.step.chunks) == 1, "RSB-2: not one batch", case.step.chunks)
    row = case.step.chunks[0]
    settings, options = case.settings(row.entity), job.options
    is_there = case.book.number_of(options.target) == row.entity if options.target else False
    case.check(is_there, "RSB-2: moved to", row.entity, options.target)
    ids = [_session_of(case, job, w, m) for w, (_, m) in zip(wheres, taken, strict=True)]
    if settings.requires_session:
        told = json.loads(row.sessions)
        told = told * len(ids) if len(told) == 1 else told
        case.check(told == ids, "RSB-2: moved to the sessions", told, "not", ids)
    most = settings.default_message_time_to_live_ms
    own = [_decoded(m).time_to_live for _, m in taken]
    lives = [duration_ms(ttl) for ttl in own]
    lives = [ttl if most is None else min(ttl or most, most) for ttl in lives]
    ttls = list(array("q", row.ttls)) if row.ttls else [0] * len(lives)
    case.check(ttls == lives, "RSB-3: lives for", ttls, "not", lives)
    case.check(not row.due_ms and row.enqueued_ms == case.now_ms, "RSB-3: enqueued", row)
    for at, (where, (_, message)) in enumerate(zip(wheres, taken, strict=True)):
        new = row.first_sequence + at
        case.amended[row.entity, new] = _amended(case, job, where, message)
        _register(case, job, row.entity, new, where, message, ids[at])


def _amended(case: Case, job: Job, where: Where, message: Message) -> Amendment:
    """Return what is changed about a taken message from now on (RSB-4, RSB-5)."""
    before, options = case.book.amendments.get(where, UNCHANGED), job.options
    definition = case.book.entities[where[0]]
    first = before.trail
    return Amendment(
        {**before.properties, **options.properties},
        before.session_id if options.session_id is None else options.session_id,
        f"{job.uid}-{where[1]}" if options.new_message_id else before.message_id,
        Trail(
            first.resubmits + 1 if first is not None else 1,
            first.sequence if first is not None else where[1],
            f"{definition.namespace}/{definition.name}",
            message.reason,
        ),
    )


def _session_of(case: Case, job: Job, where: Where, message: Message) -> str | None:
    """Return the session that a message says it belongs to, once it is moved."""
    if job.options.session_id is not None:
        return job.options.session_id
    changed = case.book.amendments.get(where, UNCHANGED).session_id
    if changed is not None:
        return changed
    sent = _decoded(message)
    return sent.session_id if sent.HasField("session_id") else None


def _register(
    case: Case,
    job: Job,
    entity: int,
    number: int,
    where: Where,
    message: Message,
    session_id: str | None,
) -> None:
    """Expect that the message's id is known from now on, for another whole window (RSB-5)."""
    name = f"{job.uid}-{where[1]}"
    if not job.options.new_message_id:
        changed = case.book.amendments.get(where, UNCHANGED).message_id
        name = _decoded(message).message_id if changed is None else changed
    if name:
        owner = session_id if case.settings(entity).placement == SPREAD else None
        case.memory.ids[case.book.number, entity, owner, name] = (case.now_ms, number)


def _decoded(message: Message) -> message_pb2.Message:
    return message_pb2.Message.FromString(message.body)
