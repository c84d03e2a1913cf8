"""Work on dead letters, batch by batch (section 10.4 of the contract, ADD-11)."""

from __future__ import annotations

from array import array
from dataclasses import replace

from lockstep.core.amendments import UNCHANGED
from lockstep.core.commands import StartJob
from lockstep.core.jobs import Job, JobKind, JobStatus
from tests.sim.book import Message
from tests.sim.case import Case, Parcel
from tests.sim.rows import Where
from tests.sim.rules import transfers
from tests.sim.rules.copies import amended, expect_stored, fits, name_of, parcel_of, register

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
    if before.transfers:
        _judge_on_the_way(case, entity, before, job)
        return
    taken: list[tuple[int, Message]] = []
    if job.status in (JobStatus.RUNNING, JobStatus.DONE):
        taken = _judge_counts(case, entity, before, job)
    else:
        case.check(not job.transfers, "ADD-11: ended with messages on the way", job)
    if job.status is JobStatus.FAILED:
        target = job.options.target
        is_gone = target is not None and case.book.number_of(target) is None
        case.check(is_gone, "ADD-11: failed", job)
    if job.options.dry_run:
        taken = []
    _expect(case, entity, job, taken)


def _judge_on_the_way(case: Case, entity: int, before: Job, job: Job) -> None:
    """With messages on the way a job takes no others: they arrive, or it is to end when they have."""
    if job.transfers == before.transfers:
        wanted = replace(before, is_cancelled=True)
        case.check(job == wanted, "ADD-11: went on with messages on the way", job, before)
    else:
        transfers.judge_end(case, entity, before, job)
    is_still = not case.step.chunks and not case.step.moved
    case.check(is_still, "RSB-2: stored by a job with messages on the way", case.step.chunks)


def _judge_report(case: Case, before: Job, job: Job) -> None:
    """What was asked for stays, and a job never goes back."""
    how = {
        "status": before.status,
        "cursor": before.cursor,
        "matched": before.matched,
        "skipped": before.skipped,
        "finished_ms": before.finished_ms,
        "error": before.error,
        "is_cancelled": before.is_cancelled,
        "transfers": before.transfers,
    }
    case.check(replace(job, **how) == before, "ADD-11: another job", job, before)  # type: ignore[arg-type]
    case.check(job.cursor >= before.cursor, "ADD-11: a job went back", job, before)
    ended_ms = 0 if job.is_running else case.now_ms
    case.check(job.finished_ms == ended_ms, "ADD-11: ended at", job.finished_ms, ended_ms)


def _judge_locks(case: Case) -> None:
    """What somebody has stays with them."""
    others = case.step.locks.keys() - transfers.changed_grants(case)
    case.check(not others and not case.step.states, "ADD-11: took a lock", case.step.locks)
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
    staying, going = transfers.divide(case, entity, before, free)
    taken = [(s, m) for s, m in staying if _fits(case, job, (entity, s), m)]
    left = len(there) - len(taken) - sum(map(len, going.values()))
    wanted = (before.matched + len(taken), before.skipped + left)
    told = (job.matched, job.skipped)
    case.check(told == wanted, "RSB-9: counted", told, "not", wanted, job, there)
    transfers.expect_sent_off(case, entity, job, going)
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
    """Whether a message can be in its new queue."""
    if job.kind is not JobKind.MOVE or job.options.dry_run:
        return True
    assert job.options.target is not None
    target = case.book.number_of(job.options.target)
    if target is None:
        return False
    return fits(case.settings(target), parcel_of(case, job, where, message))


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
        case.amended[where] = amended(case, job, where, message)._replace(enqueued_ms=case.now_ms)
        case.revived.add(where)
        register(case, *where, name_of(case, job, where, message), message.session_id)
    case.memory.put_back.update(wheres)


def _expect_at_tail(
    case: Case, job: Job, taken: list[tuple[int, Message]], wheres: list[Where]
) -> None:
    given = job.options.session_id
    for (_, new, _), where, (_, message) in zip(case.step.renumbered, wheres, taken, strict=True):
        case.amended[new] = amended(case, job, where, message)
        session_id = message.session_id if given is None else given
        if case.settings(where[0]).requires_session:
            found = case.book.messages[new].session_id
            case.check(found == session_id, "RSB-7: resubmitted to", found, "not", session_id)
        register(case, *new, name_of(case, job, where, message), session_id)


def _expect_copies(
    case: Case, job: Job, taken: list[tuple[int, Message]], wheres: list[Where]
) -> None:
    """Expect that a move stores what it takes in the other queue, and that nothing else stores anything."""
    target = case.book.number_of(job.options.target) if job.options.target is not None else None
    parcels: list[Parcel] = []
    if job.kind is JobKind.MOVE:
        parcels = [parcel_of(case, job, w, m) for w, (_, m) in zip(wheres, taken, strict=True)]
    expect_stored(case, -1 if target is None else target, parcels)
