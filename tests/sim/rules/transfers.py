"""What jobs take to other partitions: in one place at any moment, and there exactly once (RSB-2, ADR 0009)."""

from __future__ import annotations

import json
from array import array
from dataclasses import replace

from lockstep.core.changes import LockRow
from lockstep.core.entity import SPREAD
from lockstep.core.jobs import Job, JobKind, JobStatus, Transfer
from lockstep.core.placement import home_of
from lockstep.core.plain import FOR_EVER_MS
from tests.sim.book import Message
from tests.sim.case import Case, Sent
from tests.sim.rows import Where
from tests.sim.rules.copies import expect_stored, fits, parcel_of

Taken = list[tuple[int, Message]]


# --- what is held ------------------------------------------------------------------------------------


def judge_holds(case: Case) -> None:
    """Check that a job alone holds what is on its way, and that nobody touches it meanwhile (RSB-2)."""
    book, step = case.book, case.step
    mine = changed_grants(case)
    for where, row in step.locks.items():
        is_hold = _is_hold(row) or _is_hold(book.locks.get(where))
        is_right = not is_hold or where in mine
        case.check(is_right, "RSB-2: a hold of a transfer changed", where, row, case.kind)
    held = {
        (entity, sequence)
        for (entity, grant), row in book.locks.items()
        if _is_hold(row) and (entity, grant) not in mine
        for sequence in book.locked(entity, grant)
    }
    if not held:
        return
    touched = {*step.gone, *step.aside, *step.counts, *step.amended, *step.undead, *step.delays}
    touched |= {(row.entity, row.sequence) for row in step.dead}
    touched |= {old for old, _, _ in step.renumbered}
    touched &= held
    case.check(not touched, "RSB-2: touched on its way", sorted(touched), case.kind)


def changed_grants(case: Case) -> set[Where]:
    """Return, by queue and grant, the transfers that a job begins or ends in this step."""
    changed: set[Where] = set()
    for (entity, number), job in case.step.jobs.items():
        before = case.book.jobs.get((entity, number))
        known = before.transfers if before is not None else ()
        changed |= {(entity, t.grant) for t in {*known}.symmetric_difference(job.transfers)}
    return changed


def _is_hold(row: LockRow | None) -> bool:
    return row is not None and FOR_EVER_MS in array("q", row.locked_until_ms)


# --- sending off -------------------------------------------------------------------------------------


def divide(case: Case, entity: int, job: Job, free: Taken) -> tuple[Taken, dict[int, Taken]]:
    """Return which of the messages that a job takes stay in this partition, and which go to which other one."""
    options = job.options
    key = options.target or case.book.entities[entity].key
    number = case.book.number_of(key)
    is_away = job.kind is JobKind.RESUBMIT and options.session_id is not None
    is_away = is_away and case.settings(entity).placement == SPREAD
    if number is None or options.dry_run or not (job.kind is JobKind.MOVE or is_away):
        return free, {}
    settings = case.settings(number)
    staying: Taken = []
    going: dict[int, Taken] = {}
    for sequence, message in free:
        session_id = parcel_of(case, job, (entity, sequence), message).session_id
        home = home_of(key, session_id, settings.placement, case.memory.partitions)
        is_lost = settings.requires_session and session_id is None  # it has no place there
        there = staying if is_lost or home == case.book.number else going.setdefault(home, [])
        there.append((sequence, message))
    return staying, going


def expect_sent_off(case: Case, entity: int, job: Job, going: dict[int, Taken]) -> None:
    """Expect one grant for each partition that messages go to, which no time ends, and nothing else of them."""
    homes = sorted(going)
    case.check([t.partition for t in job.transfers] == homes, "ADD-11: on the way to", job, homes)
    grants = [t.grant for t in job.transfers]
    is_new = grants == sorted(set(grants)) and all(
        g > case.book.partition.last_grant for g in grants
    )
    case.check(is_new, "SES-26: an old number of a transfer", grants, case.book.partition)
    case.check(job.is_running or not job.transfers, "ADD-11: ended with messages on the way", job)
    number = case.book.number_of(job.options.target or case.book.entities[entity].key)
    for transfer in job.transfers:
        taken = going.get(transfer.partition, [])
        case.check(transfer.queue == number, "RSB-2: on the way to queue", transfer, number)
        _judge_hold(case, entity, transfer, [sequence for sequence, _ in taken])
        for sequence, message in taken:
            if message.grant is not None:
                case.aside[entity, sequence] = None
            if message.later_ms:
                case.delays[entity, sequence] = None
        parcels = [parcel_of(case, job, (entity, s), m) for s, m in taken]
        key = (case.book.number, entity, transfer.grant)
        case.memory.transfers[key] = Sent(transfer.queue, transfer.partition, parcels)


def _judge_hold(case: Case, entity: int, transfer: Transfer, sequences: list[int]) -> None:
    row = case.step.locks.get((entity, transfer.grant))
    held = [] if row is None else list(array("q", row.sequences))
    ends = set() if row is None else {*array("q", row.locked_until_ms)}
    is_held = row is not None and row.dead_letter and sorted(held) == sequences
    case.check(is_held, "RSB-2: on the way", held, "not", sequences, transfer)
    case.check(ends == {FOR_EVER_MS}, "RSB-2: a hold that ends", ends, transfer)


# --- arriving ----------------------------------------------------------------------------------------


def judge_arrival(case: Case) -> None:
    """Check that a transfer is taken once, as it was sent off, and that only what does not fit is refused."""
    ((source, partition), row), *others = case.step.arrivals.items()
    case.check(not others and not case.step.jobs, "RSB-2: two arrivals in one step", others)
    sent = case.memory.transfers.get((partition, source, row.number))
    case.check(sent is not None, "RSB-2: took what was not sent off", row)
    if sent is None:
        return
    case.check(sent.partition == case.book.number, "RSB-2: took what goes elsewhere", row, sent)
    case.check(sent.said is None and not sent.is_over, "RSB-2: taken twice", row, sent)
    known = case.book.arrivals.get((source, partition))
    is_later = known is None or row.number > known.number
    case.check(is_later, "RSB-2: an old transfer was taken", row, known)
    refused, error = json.loads(row.result)
    sent.said = (tuple(refused), error)
    is_there = sent.queue in case.book.entities
    case.check(is_there != bool(error), "RSB-2: refused, and the target is there:", is_there, row)
    parcels = sent.parcels if is_there else []
    fitting = [fits(case.settings(sent.queue), parcel) for parcel in parcels]
    wanted = [place for place, is_fitting in enumerate(fitting) if not is_fitting]
    case.check(refused == wanted, "RSB-2: refused", refused, "not", wanted)
    expect_stored(case, sent.queue, [p for p, fit in zip(parcels, fitting, strict=True) if fit])


# --- settling ----------------------------------------------------------------------------------------


def judge_end(case: Case, entity: int, before: Job, job: Job) -> None:
    """Check that what was taken goes, that what was refused is back, and what the job says of it."""
    ended = [t for t in before.transfers if t not in job.transfers]
    case.check(len(ended) == 1, "ADD-11: ended transfers", ended)
    left = tuple(t for t in before.transfers if t not in ended)
    for transfer in ended[:1]:
        sent = case.memory.transfers[case.book.number, entity, transfer.grant]
        case.check(sent.said is not None, "RSB-2: settled, but not taken", transfer, sent)
        refused, error = sent.said or ((), "")
        sent.is_over = True
        gone = [] if error else [p.where for at, p in enumerate(sent.parcels) if at not in refused]
        case.gone.update(gone)
        case.check(
            case.step.locks == {(entity, transfer.grant): None},
            "RSB-2: still on the way",
            case.step.locks,
            transfer,
        )
        wanted = replace(
            before,
            transfers=left,
            matched=before.matched + len(gone),
            skipped=before.skipped + len(refused),
            error=before.error or error,
        )
        wanted = _ended(wanted, case.now_ms)
        case.check(job == wanted, "ADD-11: stands", job, "not", wanted)


def _ended(job: Job, now_ms: int) -> Job:
    most = job.selector.max_count
    if job.transfers:
        return job
    if job.error:
        return job.ended(JobStatus.FAILED, now_ms, job.error)
    if job.is_cancelled:
        return job.ended(JobStatus.CANCELLED, now_ms)
    return job.ended(JobStatus.DONE, now_ms) if most and job.matched >= most else job
