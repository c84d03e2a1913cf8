"""Drives the jobs of one partition, batch after batch.

Here belongs what takes more than the core can see: the messages themselves, and the pace. Never here: what a job does
to messages (`core.resubmitting`). The laws: a job is driven by ordinary commands, so others are served between two
batches; who drives it keeps nothing that matters, so another driver can go on at any moment.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import count

from google.protobuf.message import DecodeError

from lockstep.core.commands import AdvanceJob, LookForJob
from lockstep.core.errors import (
    EntityNotFound,
    InternalError,
    JobNotFound,
    LockstepError,
    ShareUsed,
    ShuttingDown,
)
from lockstep.core.ids import EntityKey
from lockstep.core.jobs import Job, JobKind
from lockstep.core.partition import Partition
from lockstep.core.queue import Queue
from lockstep.core.replies import JobIs, JobLook
from lockstep.owner.carrying import Caller, CallOther, Carrier
from lockstep.runtime.clock import Clock
from lockstep.runtime.logs import AUDIT
from lockstep.wire.amending import amended
from lockstep.wire.jobs import message_ids, with_properties
from lockstep.wire.sends import copies_of

audit = logging.getLogger(AUDIT)

BATCH = 512
_SECOND_MS = 1000


class JobRunner:
    """Drives the jobs of all queues side by side, the oldest of each queue first, as long as there are any."""

    def __init__(
        self,
        partition: Partition,
        caller: Caller,
        clock: Clock,
        call_other: CallOther | None = None,
    ) -> None:
        self._partition = partition
        self._caller = caller
        self._carrier = Carrier(partition, caller, clock, call_other)
        self._clock = clock
        self._bell = asyncio.Event()
        self._bell.set()  # jobs that an earlier owner left
        # All and only the queues whose jobs are being driven.
        self._driven: set[EntityKey] = set()
        # The jobs whose end is still to be told, as last seen; of queues that may have gone meanwhile.
        self._open = {
            (queue.definition.key, job.number): job
            for queue in partition.queues.values()
            for job in queue.jobs.values()
            if job.is_running and not job.is_part
        }

    def note(self, entity: EntityKey, job: Job) -> None:
        """Take notice of a committed answer about a job: drive one that runs, tell of one that ended (ADD-11).

        Each end is told once, whoever brought it about and however often it is answered; that of a part is not, but of
        the whole job.
        """
        if job.is_part:
            self._bell.set()
        elif job.is_running:
            self._open[entity, job.number] = job
            self._bell.set()
        elif self._open.pop((entity, job.number), None) is not None:
            audit.info("dead_letter_job.ended", extra=_audit_fields(entity, job))

    def note_deletions(self) -> None:
        """Take notice that queues are gone, in a commit: that was the end of their jobs."""
        for (entity, number), job in list(self._open.items()):
            queue = self._partition.queues.get(entity)
            kept = queue.jobs.get(number) if queue is not None else None
            if kept is None or kept.uid != job.uid:
                del self._open[entity, number]
                audit.info("dead_letter_job.ended", extra=self._of_deleted(entity, job))

    def _of_deleted(self, entity: EntityKey, job: Job) -> dict[str, object]:
        fields = _audit_fields(entity, job)
        fields |= {"status": "queue_deleted", "ended_ms": self._partition.last_time_ms}
        if job.parts:  # which had the figures, and are gone too
            fields |= {"matched": None, "skipped": None}
        return fields

    async def run(self) -> None:
        """Drive jobs until cancelled.

        Raises:
            LockstepError: The partition takes no more commands.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    self._bell.clear()
                    for queue in self._partition.queues.values():
                        entity = queue.definition.key
                        if queue.running and entity not in self._driven:
                            self._driven.add(entity)
                            tasks.create_task(self._drive_all(entity))
                    await self._bell.wait()
        except* ShuttingDown:
            await asyncio.Event().wait()  # until the partition has answered what it was asked

    async def _drive_all(self, entity: EntityKey) -> None:
        """Drive the jobs of one queue, one after the other, until there is none."""
        try:
            while (queue := self._partition.queues.get(entity)) is not None and queue.running:
                await self._drive(entity, _next_job(queue))
        finally:
            self._driven.discard(entity)

    async def _drive(self, entity: EntityKey, number: int) -> None:
        """Drive one job to its end."""
        try:
            while (await self._advance(entity, number)).is_running:
                pass
        except (EntityNotFound, JobNotFound):
            return
        except LockstepError:
            raise
        except Exception as error:  # a bug: it stops this partition, not its neighbours
            raise InternalError(
                f"Job {number} of {entity.name} has stopped: {type(error).__name__}: {error}. Report this."
            ) from error

    async def _advance(self, entity: EntityKey, number: int) -> Job:
        """Do one batch and return how the job stands then."""
        began_ms = self._clock.monotonic_ms()
        rate = self._rate(entity, number)
        batch = min(BATCH, rate) if rate else BATCH
        answer = await self._caller.call(LookForJob(entity, number, batch))
        look = answer.reply
        assert isinstance(look, JobLook)
        if not look.job.is_running:
            return look.job
        if look.job.transfers:
            return await self._carrier.carry(entity, look.job)
        try:
            command = next_batch(entity, look, answer.messages)
        except (
            LockstepError,
            ValueError,
            DecodeError,
        ) as error:  # these messages would stop the job again and again
            job = look.job
            command = AdvanceJob(
                entity, number, job.cursor, job.cursor, (), uid=job.uid, error=str(error)
            )
        reply = await self._advanced(command, look.job)
        if rate and reply.job.is_running and command.sequences:
            due_ms = began_ms + len(command.sequences) * _SECOND_MS // rate
            await self._clock.sleep(max(0, due_ms - self._clock.monotonic_ms()))
        return reply.job

    async def _advanced(self, command: AdvanceJob, job: Job) -> JobIs:
        """Have a batch taken; where its target has a quota that is shared out, with a share for it."""
        for attempt in count():
            try:
                reply = (await self._caller.call(command)).reply
            except ShareUsed as error:
                target, here = job.options.target or command.entity, self._partition.partition
                why = await self._carrier.make_room(target, here, error, attempt)
                if why is not None:
                    command = AdvanceJob(
                        command.entity,
                        job.number,
                        job.cursor,
                        job.cursor,
                        (),
                        uid=job.uid,
                        error=why,
                    )
            else:
                assert isinstance(reply, JobIs)
                return reply
        raise AssertionError("unreachable")

    def _rate(self, entity: EntityKey, number: int) -> int:
        queue = self._partition.queues.get(entity)
        job = queue.jobs.get(number) if queue is not None else None
        return job.options.rate if job is not None else 0


def _next_job(queue: Queue) -> int:
    """Return the job to go on with: the oldest, but first the one that has something on the way.

    Numbers of transfers only rise, so what was sent off must arrive before another job sends anything off. A part of
    an older job may come late (ADR 0009).
    """
    running = queue.running
    return min(running, key=lambda number: (not running[number].job.transfers, abs(number)))


def next_batch(entity: EntityKey, look: JobLook, stored: Sequence[bytes]) -> AdvanceJob:
    """Return the command that takes what was found.

    Args:
        entity: The queue.
        look: What was found.
        stored: The bytes of the messages, where `look.delivered` names them.
    """
    job = look.job
    command = AdvanceJob(entity, job.number, job.cursor, look.cursor, look.sequences, uid=job.uid)
    if look.delivered is None:
        return command
    messages = amended(stored, look.delivered.amendments)
    sequences: Sequence[int] = look.sequences
    if job.selector.properties:
        places = with_properties(messages, job.selector.properties)
        sequences = [sequences[place] for place in places]
        messages = [messages[place] for place in places]
        stored = [stored[place] for place in places]
    ids = message_ids(messages)
    copies = None
    is_away = job.kind is JobKind.RESUBMIT and job.options.session_id is not None
    if messages and (job.kind is JobKind.MOVE or is_away):
        copies = copies_of(job.options.target or entity, messages, job.options.session_id)
        copies = replace(copies, messages=tuple(stored))  # what was changed goes along by itself
    return replace(command, sequences=sequences, copies=copies, message_ids=ids)


def _audit_fields(entity: EntityKey, job: Job) -> dict[str, object]:
    """Return who did what, when, to which messages, and to how many (ADD-11)."""
    selector = job.selector
    return {
        "entity": f"{entity.namespace}/{entity.name}",
        "job": job.number,
        "kind": job.kind.value,
        "by": job.by or "nobody named",
        "started_ms": job.started_ms,
        "ended_ms": job.finished_ms,
        "status": job.status.value,
        "matched": job.matched,
        "skipped": job.skipped,
        "dry_run": job.options.dry_run,
        "selector": {
            "ranges": list(selector.ranges[:20]),
            "session_id": selector.session_id,
            "reason": selector.reason,
            "since_ms": selector.since_ms,
            "until_ms": selector.until_ms,
            "properties": sorted(selector.properties),
            "max_count": selector.max_count,
        },
        "target": job.options.target.name if job.options.target is not None else "",
        "error": job.error,
    }
