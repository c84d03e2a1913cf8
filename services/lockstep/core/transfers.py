"""What a job takes to other partitions (design section 3, ADD-11).

Here belongs the way of dead letters from one partition to another one, in three commits: here they come under a grant
of the job, there they are stored, here they go. Never here: who carries them (`owner.job_runner`), or what a job is
(`jobs`). The laws: until the other partition has answered nobody has them in hand here, so at any moment a message can
be received in exactly one place (RSB-2); a transfer that comes again is answered with what was said the first time,
refusals included, so that a late copy of it does nothing.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lockstep.core.changes import ArrivalRow
from lockstep.core.commands import AdvanceJob, LookForTransfer, Send, SettleTransfer, TakeTransfer
from lockstep.core.decision import Wake
from lockstep.core.entity import SPREAD
from lockstep.core.errors import (
    EntityNotFound,
    InvalidOperation,
    QuotaExceeded,
    ServerBusy,
    ShareUsed,
)
from lockstep.core.ids import PartitionId
from lockstep.core.job_book import job_of, keep_job
from lockstep.core.jobs import Job, JobKind, JobStatus, Transfer
from lockstep.core.placement import home_of
from lockstep.core.plain import FOR_EVER_MS
from lockstep.core.replies import JobIs, Short, TransferIs, TransferTaken
from lockstep.core.resubmitting import amended, store_fitting, take

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.queue import Queue, Step

_BEHIND_RETRY_MS = 100


# --- where the messages are --------------------------------------------------------------------------


def crosses(partition: Partition, queue: Queue, job: Job) -> bool:
    """Whether a job may have to take messages to other partitions."""
    if partition.partitions == 1 or job.options.dry_run:
        return False
    if job.kind is JobKind.MOVE:
        return True
    is_spread = queue.definition.settings.placement == SPREAD
    return job.kind is JobKind.RESUBMIT and is_spread and job.options.session_id is not None


def divided(
    partition: Partition, queue: Queue, job: Job, taken: Sequence[int], command: AdvanceJob
) -> tuple[list[int], dict[PartitionId, list[int]]]:
    """Return which messages stay in this partition, and which go to which other one."""
    target = partition.queues.get(job.options.target or queue.definition.key)
    if command.copies is None or target is None or not crosses(partition, queue, job):
        return list(taken), {}
    staying: list[int] = []
    going: dict[PartitionId, list[int]] = {}
    settings, session_ids = target.definition.settings, command.copies.session_ids
    place_of = {sequence: place for place, sequence in enumerate(command.sequences)}
    for sequence in taken:
        session_id = session_ids[place_of[sequence] if len(session_ids) > 1 else 0]
        if settings.requires_session and session_id is None:
            staying.append(sequence)  # it has no place there, and is left
            continue
        home = home_of(target.definition.key, session_id, settings.placement, partition.partitions)
        if home == partition.partition:
            staying.append(sequence)
        else:
            going.setdefault(home, []).append(sequence)
    return staying, going


def send_off(
    partition: Partition,
    queue: Queue,
    job: Job,
    going: Mapping[PartitionId, list[int]],
    step: Step,
) -> tuple[Transfer, ...]:
    """Hold messages under a grant for each partition that they go to, and return the transfers."""
    if not going:
        return ()
    number = partition.queues[job.options.target or queue.definition.key].number
    transfers = []
    for home, sequences in sorted(going.items()):
        grant = partition.next_grant()
        take(queue, sequences, step)
        queue.dead.hold(grant, dict.fromkeys(sequences, FOR_EVER_MS))
        queue.store_lock(grant, step, dead_letter=True)
        transfers.append(Transfer(grant, home, number))
    return tuple(transfers)


def on_look_for_transfer(partition: Partition, command: LookForTransfer, _step: Step) -> TransferIs:
    """Show what a transfer takes along."""
    queue = partition.queue(command.entity)
    running = queue.running.get(command.number)
    job = running.job if running is not None else job_of(queue, command.number)
    found = [t for t in job.transfers if t.grant == command.grant]
    target = job.options.target or queue.definition.key
    number, revision = queue.number, partition.last_revision
    sequences = array("q", sorted(queue.dead.grants.get(command.grant, ())))
    if not found or not sequences:
        return TransferIs(job, number, revision, target, found[0] if found else None)
    delivered = queue.delivered(
        sequences, grant=0, locked_until_ms=0, short=Short.NO, dead_letter=False
    )
    amendments = tuple(amended(queue, job, sequence) for sequence in sequences)
    return TransferIs(job, number, revision, target, found[0], delivered, amendments)


def on_settle_transfer(partition: Partition, command: SettleTransfer, step: Step) -> JobIs:
    """Remove what was taken, give back what was not, and let the job go on, or end (RSB-2)."""
    queue = partition.queue(command.entity)
    running = queue.running.get(command.number)
    if running is None:
        return JobIs(job_of(queue, command.number))
    job = running.job
    left = tuple(t for t in job.transfers if t.grant != command.grant)
    if job.uid != command.uid or len(left) == len(job.transfers):
        return JobIs(job)
    held = sorted(queue.dead.grants.get(command.grant, ()))
    refused = set(held) if command.error else set(command.refused)
    for sequence in held:
        queue.dead.unlock(command.grant, sequence)
        if sequence in refused:
            queue.dead.give_back(sequence)
    queue.store_lock(command.grant, step, dead_letter=True)
    gone = [sequence for sequence in held if sequence not in refused]
    queue.drop_dead_letters(gone, step)
    if refused:
        step.wake[Wake(queue.number, dead_letter=True)] = None
    step.count(queue, "moved" if job.kind is JobKind.MOVE else "resubmitted", "", len(gone))
    job = replace(
        job,
        transfers=left,
        matched=job.matched + len(gone),
        skipped=job.skipped + (0 if command.error else len(held) - len(gone)),
        error=job.error or command.error,
    )
    job = _after(job, step.now_ms)
    keep_job(queue, job, step)
    return JobIs(job)


def _after(job: Job, now_ms: int) -> Job:
    """Return the job as it stands when a transfer is over."""
    if job.transfers:
        return job
    if job.error:
        return job.ended(JobStatus.FAILED, now_ms, job.error)
    if job.is_cancelled:
        return job.ended(JobStatus.CANCELLED, now_ms)
    return job.ended(JobStatus.DONE, now_ms) if job.left == 0 else job


# --- where they go -----------------------------------------------------------------------------------


def on_take_transfer(partition: Partition, command: TakeTransfer, step: Step) -> TransferTaken:
    """Store the messages that fit, and answer the same transfer in the same way ever after (ADD-3).

    Raises:
        EntityNotFound: The source is not known here, or not any more. Ask again, as long as it is known there.
        ServerBusy: The target is not known here yet. Ask again.
        ShareUsed: The quota of the target has to be shared out first. Ask again.
        InvalidOperation: A later transfer came already; nobody waits for this one.
    """
    source = partition.queues.get(command.source)
    if source is None or source.number != command.source_queue:
        raise EntityNotFound(
            f"Partition {partition.partition} does not know {command.source.name} as its partition"
            f" {command.source_partition} does. Try again."
        )
    last, said = source.arrivals.get(command.source_partition, (0, "[]"))
    if command.number == last:
        refused, error = json.loads(said)
        return TransferTaken(tuple(refused), error)
    if command.number < last:
        raise InvalidOperation(f"Transfer {command.number} came after {last}. Nothing was done.")
    taken = _taken(partition, command, step)
    said = json.dumps([taken.refused, taken.error])
    source.arrivals[command.source_partition] = (command.number, said)
    row = ArrivalRow(source.number, command.source_partition, command.number, said)
    step.changes.append(row)
    return taken


def _taken(partition: Partition, command: TakeTransfer, step: Step) -> TransferTaken:
    target = partition.queues_by_number.get(command.queue)
    if target is None and partition.last_revision < command.revision:
        raise ServerBusy(
            f"Partition {partition.partition} has not heard of {command.entity.name} yet. Try again after"
            f" {_BEHIND_RETRY_MS} ms.",
            retry_after_ms=_BEHIND_RETRY_MS,
        )
    if target is None or target.is_going:
        return TransferTaken(error=f"The target {command.entity.name} is gone.")
    partition.queue(command.entity)  # it may be sealed for a moment
    send = Send(
        entity=command.entity,
        messages=command.messages,
        session_ids=command.session_ids,
        ttls_ms=command.ttls_ms,
        message_ids=command.message_ids,
    )
    try:
        stored = store_fitting(
            partition, target, send, command.amendments, command.message_ids, step
        )
    except ShareUsed as error:
        if not command.is_final:
            raise
        return TransferTaken(error=f"{command.entity.name} is full. {error.message}")
    except QuotaExceeded as error:
        return TransferTaken(error=error.message)
    fitting = set(stored)
    return TransferTaken(tuple(p for p in range(len(command.messages)) if p not in fitting))
