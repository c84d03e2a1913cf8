"""The broker with one guard taken out at a time: dead letters that go to the other partition.

`mutations` says why our own code may be patched here.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lockstep.cluster.port import Answer
from lockstep.core import job_steps, resubmitting, transfers
from lockstep.core.changes import ArrivalRow, LockRow
from lockstep.core.commands import (
    AdvanceJob,
    Command,
    LookForJob,
    LookForTransfer,
    SettleTransfer,
    TakeTransfer,
)
from lockstep.core.errors import LockstepError
from lockstep.core.ids import PartitionId
from lockstep.core.jobs import Job, JobStatus
from lockstep.core.partition import _HANDLERS, Partition
from lockstep.core.plain import FOR_EVER_MS
from lockstep.core.queue import Queue, Step
from lockstep.core.replies import TransferIs, TransferTaken
from lockstep.core.snapshot import Snapshot
from lockstep.owner.carrying import Carrier
from lockstep.storage import memory
from tests.sim.mutations import Mutation, Patch

_A_LOCK_MS = 5000

# --- at the source -----------------------------------------------------------------------------------


def messages_go_when_they_are_sent_off(patch: Patch) -> None:
    """What is sent off is stored nowhere until it has arrived (RSB-2)."""

    def dropped(partition: Partition, queue: Queue, job: Job, going: Any, step: Step) -> Any:
        sent = transfers.send_off(partition, queue, job, going, step)
        queue.drop_dead_letters(sorted(s for part in going.values() for s in part), step)
        return sent

    patch.setattr(job_steps, "send_off", dropped)


def messages_stay_free_when_they_are_sent_off(patch: Patch) -> None:
    """Whoever receives dead letters gets what is on its way, too (RSB-2)."""

    def left(queue: Queue, sequences: Sequence[int], step: Step) -> None:
        resubmitting.take(queue, sequences, step)
        for sequence in sequences:
            queue.dead.give_back(sequence)

    patch.setattr(transfers, "take", left)


def holds_run_out(patch: Patch) -> None:
    """What is on its way is held as long as a receiver holds it (RSB-2)."""
    send_off = transfers.send_off

    def for_a_while(partition: Partition, queue: Queue, job: Job, going: Any, step: Step) -> Any:
        with patch.context() as inner:
            inner.setattr(transfers, "FOR_EVER_MS", step.now_ms + _A_LOCK_MS)
            return send_off(partition, queue, job, going, step)

    patch.setattr(job_steps, "send_off", for_a_while)


def holds_end_at_a_restart(patch: Patch) -> None:
    """A new owner lets go of what is on its way (RSB-2)."""
    rows = memory._snapshot

    def loose(tables: Any) -> Snapshot:
        snapshot = rows(tables)
        return replace(snapshot, locks=[row for row in snapshot.locks if not _is_hold(row)])

    patch.setattr(memory, "_snapshot", loose)


def _is_hold(row: LockRow) -> bool:
    return FOR_EVER_MS in array("q", row.locked_until_ms)


def numbers_come_again(patch: Patch) -> None:
    """Every transfer has the same number (ADR 0009)."""
    send_off = transfers.send_off

    def again(partition: Partition, queue: Queue, job: Job, going: Any, step: Step) -> Any:
        with patch.context() as inner:
            inner.setattr(Partition, "next_grant", lambda _self: 1)
            return send_off(partition, queue, job, going, step)

    patch.setattr(job_steps, "send_off", again)


def jobs_end_before_what_they_sent_off(patch: Patch) -> None:
    """A job that is cancelled ends at once, and nobody knows what it had on the way (ADD-11)."""
    patch.setattr(
        job_steps, "cancelled", lambda job, now_ms: job.ended(JobStatus.CANCELLED, now_ms)
    )


def jobs_go_on_with_messages_on_the_way(patch: Patch) -> None:
    """A job does not wait for what it sent off, and takes further messages (ADR 0009)."""
    advance, look = _HANDLERS[AdvanceJob], _HANDLERS[LookForJob]

    def ahead(real: Any) -> Any:
        def handle(partition: Partition, command: Any, step: Step) -> Any:
            queue = partition.queue(command.entity)
            running = queue.running.get(command.number)
            if running is not None:
                running.job = replace(running.job, transfers=())
            return real(partition, command, step)

        return handle

    patch.setitem(_HANDLERS, AdvanceJob, ahead(advance))
    patch.setitem(_HANDLERS, LookForJob, ahead(look))


# --- at the target -----------------------------------------------------------------------------------


def no_high_water_mark(patch: Patch) -> None:
    """A copy of a transfer that comes again is taken again (ADD-3)."""
    take = _HANDLERS[TakeTransfer]

    def forgetful(partition: Partition, command: TakeTransfer, step: Step) -> Any:
        source = partition.queues.get(command.source)
        if source is not None:
            source.arrivals.pop(command.source_partition, None)
        return take(partition, command, step)

    patch.setitem(_HANDLERS, TakeTransfer, forgetful)


def arrivals_are_forgotten_at_a_restart(patch: Patch) -> None:
    """A new owner does not know which transfers were taken (ADD-3)."""
    rows = memory._snapshot
    patch.setattr(memory, "_snapshot", lambda tables: replace(rows(tables), arrivals=[]))


def refusals_are_not_remembered(patch: Patch) -> None:
    """What was refused once may arrive with a late copy (ADR 0009)."""
    take = _HANDLERS[TakeTransfer]

    def forgetful(partition: Partition, command: TakeTransfer, step: Step) -> Any:
        taken: TransferTaken = take(partition, command, step)
        if taken.refused or taken.error:
            partition.queues[command.source].arrivals.pop(command.source_partition)
            step.changes[:] = [row for row in step.changes if not isinstance(row, ArrivalRow)]
        return taken

    patch.setitem(_HANDLERS, TakeTransfer, forgetful)


def messages_arrive_without_a_trail(patch: Patch) -> None:
    """Nobody can tell where a message comes from (RSB-4)."""
    look = _HANDLERS[LookForTransfer]

    def untold(partition: Partition, command: LookForTransfer, step: Step) -> TransferIs:
        found: TransferIs = look(partition, command, step)
        return replace(found, amendments=tuple(a._replace(trail=None) for a in found.amendments))

    patch.setitem(_HANDLERS, LookForTransfer, untold)


# --- when it is over ---------------------------------------------------------------------------------


def messages_stay_when_they_were_taken(patch: Patch) -> None:
    """What was taken elsewhere is a dead letter here again (RSB-2)."""

    def kept(partition: Partition, command: SettleTransfer, step: Step) -> Any:
        held = tuple(partition.queue(command.entity).dead.grants.get(command.grant, ()))
        return settle(partition, replace(command, refused=held), step)

    settle = _HANDLERS[SettleTransfer]
    patch.setitem(_HANDLERS, SettleTransfer, kept)


def what_was_refused_goes_too(patch: Patch) -> None:
    """What does not fit its new queue is lost (RSB-2)."""

    def lost(partition: Partition, command: SettleTransfer, step: Step) -> Any:
        return settle(partition, replace(command, refused=(), error=""), step)

    settle = _HANDLERS[SettleTransfer]
    patch.setitem(_HANDLERS, SettleTransfer, lost)


def silence_is_a_refusal(patch: Patch) -> None:
    """Who hears nothing of a transfer lets go of the messages, though they may have arrived (ADR 0009)."""
    until_taken = Carrier._until_taken

    async def hasty(self: Carrier, *what: Any) -> TransferTaken:
        call_other = self._call_other
        assert call_other is not None

        async def once(partition: PartitionId, command: Command) -> Answer:
            try:
                return await call_other(partition, command)
            except LockstepError as error:
                return Answer(TransferTaken(error=error.message))

        with patch.context() as inner:
            inner.setattr(self, "_call_other", once)
            return await until_taken(self, *what)

    patch.setattr(Carrier, "_until_taken", hasty)


MUTATIONS: tuple[Mutation, ...] = (
    messages_go_when_they_are_sent_off,
    messages_stay_free_when_they_are_sent_off,
    holds_run_out,
    holds_end_at_a_restart,
    numbers_come_again,
    jobs_end_before_what_they_sent_off,
    jobs_go_on_with_messages_on_the_way,
    no_high_water_mark,
    arrivals_are_forgotten_at_a_restart,
    refusals_are_not_remembered,
    messages_arrive_without_a_trail,
    messages_stay_when_they_were_taken,
    what_was_refused_goes_too,
    silence_is_a_refusal,
)
