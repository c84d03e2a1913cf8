"""Brings what the jobs of one partition have on the way to the partitions it goes to.

Here belongs the way between partitions, again and again until it is known what became of a transfer. Never here: what a
partition does with one (`core.transfers`). The law: a transfer is asked for again, under the same number, until the
other partition has answered; nothing is given up while the queue is there.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol

from google.protobuf.message import DecodeError

from lockstep.cluster.port import Answer
from lockstep.cluster.shares import Shares
from lockstep.core.commands import Command, LookForTransfer, SettleTransfer, TakeTransfer
from lockstep.core.errors import EntityNotFound, LockstepError, QuotaExceeded, ShareUsed
from lockstep.core.ids import EntityKey, EntityNumber, PartitionId
from lockstep.core.jobs import Job, Transfer
from lockstep.core.partition import Partition
from lockstep.core.replies import JobIs, TransferIs, TransferTaken
from lockstep.core.resubmitting import new_message_id
from lockstep.runtime.clock import Clock
from lockstep.runtime.tasks import together
from lockstep.wire.amending import amended
from lockstep.wire.sends import copies_of

log = logging.getLogger(__name__)

_PAUSE_FIRST_MS = 50
_PAUSE_MOST_MS = 2000
_TOLD_AFTER = 5  # attempts

CallOther = Callable[[PartitionId, Command], Awaitable[Answer]]


class Caller(Protocol):
    """Carries out commands."""

    async def call(self, command: Command, *, wait_ms: int = 0) -> Answer:
        """Have a command carried out and return its committed answer."""


class Carrier:
    """Brings the transfers of one partition."""

    def __init__(
        self,
        partition: Partition,
        caller: Caller,
        clock: Clock,
        call_other: CallOther | None,
    ) -> None:
        self._partition = partition
        self._caller = caller
        self._clock = clock
        self._call_other = call_other
        everybody = [PartitionId(number) for number in range(partition.partitions)]
        self._shares = Shares(everybody, call_other, clock) if call_other is not None else None

    async def make_room(
        self, target: EntityKey, partition: PartitionId, error: ShareUsed, attempt: int
    ) -> str | None:
        """Have the quota of a queue shared out that needs more of it in a partition; return why there is none.

        Every second attempt only waits: who shares out at the same time takes back what was granted, and what that one
        grants may be enough.
        """
        assert self._shares is not None, "one partition has the whole quota"
        if attempt % 2:
            await self._clock.sleep(_PAUSE_FIRST_MS)
            return None
        try:
            await self._shares.make_room(target, partition, int(error.details["needed"]))
        except QuotaExceeded as full:
            return full.message
        return None

    async def carry(self, entity: EntityKey, job: Job) -> Job:
        """Bring all transfers of a job, side by side, and return how it stands then.

        Raises:
            LockstepError: This partition takes no more commands, or the queue or the job is gone.
        """
        stands = await together([self._carry(entity, job, one) for one in job.transfers])
        # The last one that was settled knows of all.
        return min(stands, key=lambda after: len(after.transfers))

    async def _carry(self, entity: EntityKey, job: Job, transfer: Transfer) -> Job:
        answer = await self._caller.call(LookForTransfer(entity, job.number, transfer.grant))
        look = answer.reply
        assert isinstance(look, TransferIs)
        if look.transfer is None:
            return look.job
        settled = SettleTransfer(entity, job.number, job.uid, transfer.grant)
        if look.delivered is not None:
            settled = await self._brought(entity, look, answer.messages, settled)
        reply = (await self._caller.call(settled)).reply
        assert isinstance(reply, JobIs)
        return reply.job

    async def _brought(
        self,
        entity: EntityKey,
        look: TransferIs,
        stored: Sequence[bytes],
        settled: SettleTransfer,
    ) -> SettleTransfer:
        assert look.transfer is not None
        assert look.delivered is not None
        sequences = look.delivered.sequences
        try:
            command = self._command(entity, look, stored)
        except (LockstepError, ValueError, DecodeError) as error:
            # These messages would fail again and again; they stay where they are.
            return replace(settled, error=str(error))
        taken = await self._until_taken(entity, PartitionId(look.transfer.partition), command)
        return replace(
            settled, refused=tuple(sequences[p] for p in taken.refused), error=taken.error
        )

    def _command(
        self, entity: EntityKey, look: TransferIs, stored: Sequence[bytes]
    ) -> TakeTransfer:
        assert look.transfer is not None
        assert look.delivered is not None
        options, sequences = look.job.options, look.delivered.sequences
        messages = amended(stored, look.delivered.amendments)
        copies = copies_of(look.target, messages, options.session_id)
        ids = copies.message_ids
        if options.new_message_id:
            ids = tuple(new_message_id(look.job, sequence) for sequence in sequences)
        return TakeTransfer(
            entity=look.target,
            queue=EntityNumber(look.transfer.queue),
            source=entity,
            source_queue=look.source,
            source_partition=self._partition.partition,
            number=look.transfer.grant,
            revision=look.revision,
            messages=tuple(stored),  # what was changed goes along by itself
            session_ids=copies.session_ids,
            ttls_ms=copies.ttls_ms,
            message_ids=ids,
            amendments=look.amendments,
        )

    async def _until_taken(
        self, entity: EntityKey, partition: PartitionId, command: TakeTransfer
    ) -> TransferTaken:
        pause_ms, attempts, refusals = _PAUSE_FIRST_MS, 0, 0
        assert self._call_other is not None, "one partition has nothing on the way to another"
        while True:
            try:
                reply = (await self._call_other(partition, command)).reply
            except ShareUsed as error:
                why = await self.make_room(command.entity, partition, error, refusals)
                command = replace(command, is_final=why is not None)
                refusals += 1
                continue
            except LockstepError as error:
                attempts += 1
                if attempts == _TOLD_AFTER:
                    log.warning(
                        "transfer.waits",
                        extra={
                            "queue": entity.name,
                            "to": partition,
                            "reason": error.reason,
                            "why": error.message,
                        },
                    )
            else:
                assert isinstance(reply, TransferTaken)
                return reply
            queue = self._partition.queues.get(entity)
            if queue is None or queue.number != command.source_queue:
                raise EntityNotFound(f"{entity.name} was deleted.")
            await self._clock.sleep(pause_ms)
            pause_ms = min(2 * pause_ms, _PAUSE_MOST_MS)
