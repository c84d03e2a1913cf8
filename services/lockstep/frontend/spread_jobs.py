"""Work on the dead letters of a queue that is spread over partitions: one job, carried out by each on what it holds.

Here belong the way of a job from the queue's home to its parts, and of their figures back (ADD-11). Never here: what
a part does (`core`). The laws: everything is kept by the home and the parts, so that any front end goes on where
another one stopped; what a front end asks of a part, it may ask again; a job ends once, when all its parts have.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from lockstep.core.commands import ApplyJobPart, CancelJob, EndJob, ListJobs, ListOpenJobs, StartJob
from lockstep.core.entity import SPREAD
from lockstep.core.errors import InternalError, LockstepError, Moved, Unavailable
from lockstep.core.ids import EntityKey, PartitionId, partition_of
from lockstep.core.jobs import Job, JobStatus
from lockstep.core.replies import JobIs, JobsAre, OpenJobs
from lockstep.frontend.router import Router
from lockstep.runtime.tasks import together

log = logging.getLogger(__name__)

_TEND_MS = 500
_LOOK_MS = 10_000
# What says that a part cannot be asked now; it is asked again.
_AWAY = (Moved, Unavailable, InternalError)


class SpreadJobs:
    """Starts, shows and ends jobs, and tends those that have parts."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._bell = asyncio.Event()  # somebody began a job here, or ends one

    # --- calls -------------------------------------------------------------------------------------

    async def start(self, command: StartJob) -> Job:
        """Begin a job, in parts where its queue is spread.

        Raises:
            LockstepError: As the core says.
        """
        entity, router = command.entity, self._router

        async def at(placement: str | None) -> Job:
            sources = self._sources(command, placement)
            parts = tuple(sorted(sources)) if placement == SPREAD else ()
            home = router.home(entity, None, placement)
            asked = replace(command, parts=parts)
            return _job_of((await router.call(home, asked, placement=placement)).reply)

        job = await router.placed(entity, at)
        self._bell.set()
        return await self._tend(entity, job, is_exact=False)

    async def get(self, entity: EntityKey, number: int) -> Job:
        """Show how a job stands.

        Raises:
            LockstepError: There is no such job, or a part of it cannot be asked now.
        """
        # Number 0, which means "all" to the core, is no job.
        reply = (await self._router.call_home(ListJobs(entity, number or -1), entity)).reply
        assert isinstance(reply, JobsAre)
        return await self._tend(entity, reply.jobs[0], is_exact=True)

    async def last(self, entity: EntityKey) -> list[Job]:
        """Show the last jobs of a queue, the newest first.

        Raises:
            LockstepError: A part of one that runs cannot be asked now.
        """
        reply = (await self._router.call_home(ListJobs(entity), entity)).reply
        assert isinstance(reply, JobsAre)
        return [await self._tend(entity, job, is_exact=True) for job in reply.jobs]

    async def cancel(self, entity: EntityKey, number: int) -> Job:
        """Let a job end where it is; it runs on where a part cannot be told yet."""
        reply = (await self._router.call_home(CancelJob(entity, number), entity)).reply
        self._bell.set()
        return await self._tend(entity, _job_of(reply), is_exact=False)

    # --- where messages are, and where they may go ---------------------------------------------------

    def _sources(self, command: StartJob, placement: str | None) -> set[PartitionId]:
        """Return the partitions that may hold what a job selects; there is one at least."""
        router, selector = self._router, command.selector
        home = router.home(command.entity, None, placement)
        if placement != SPREAD:
            return {home}
        if selector.session_id is not None:
            return {router.home(command.entity, selector.session_id, placement)}
        if not selector.ranges:
            return set(router.partitions)
        named = {partition_of(number) for pair in selector.ranges for number in pair}
        return named.intersection(router.partitions) or {home}

    # --- parts -------------------------------------------------------------------------------------

    async def _tend(self, entity: EntityKey, job: Job, *, is_exact: bool) -> Job:
        """Bring the parts of a job to how the job stands, and the job to how they stand; return it with their figures.

        Raises:
            LockstepError: A part cannot be asked now, and the figures are to be exact.
        """
        if not job.parts or not job.is_running:
            return job
        found = await self._parts(entity, job)
        away = [part for part in found if isinstance(part, LockstepError)]
        if away and is_exact:
            raise away[0]
        parts = [part for part in found if isinstance(part, Job)]
        job = replace(
            job,
            matched=sum(part.matched for part in parts),
            skipped=sum(part.skipped for part in parts),
        )
        if away or any(part.is_running for part in parts):
            return job
        failures = [part.error for part in parts if part.status is JobStatus.FAILED]
        status = JobStatus.CANCELLED if job.is_cancelled else JobStatus.DONE
        status = JobStatus.FAILED if failures else status
        error = failures[0] if failures else ""
        end = EndJob(entity, job.number, job.uid, status, job.matched, job.skipped, error)
        return _job_of((await self._router.call_home(end, entity)).reply)

    async def _parts(self, entity: EntityKey, job: Job) -> list[Job | LockstepError]:
        """Return the parts as far as they were begun, or why one cannot be asked now."""
        if not _goes_one_by_one(job):
            calls = [self._apply(entity, partition, part) for partition, part in _shared_out(job)]
            return await together(calls)
        begun: list[Job | LockstepError] = []
        for partition in job.parts:
            matched = sum(part.matched for part in begun if isinstance(part, Job))
            left = replace(job, matched=matched).left
            if left == 0:
                break
            selector = replace(job.selector, max_count=left or 0)
            begun.append(await self._apply(entity, partition, replace(job, selector=selector)))
            if not _is_done(begun[-1]):
                break
        return begun

    async def _apply(self, entity: EntityKey, partition: int, job: Job) -> Job | LockstepError:
        """Bring one part to how the job stands and return it, or why it cannot be asked now."""
        try:
            answer = await self._router.call(PartitionId(partition), ApplyJobPart(entity, job))
        except _AWAY as error:
            return error
        return _job_of(answer.reply)

    # --- by itself -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Tend the jobs that have not ended, whoever began them, until cancelled.

        Not needed where there is one partition.
        """
        if len(self._router.partitions) == 1:
            return
        while True:
            self._bell.clear()
            found = 0
            for partition in self._router.partitions:
                found += await self._tend_all(partition)
            await self._router.pause(_TEND_MS if found else _LOOK_MS, self._bell)

    async def _tend_all(self, home: PartitionId) -> int:
        """Tend the jobs of the queues whose home a partition is, and return how many there are."""
        try:
            reply = (await self._router.call(home, ListOpenJobs())).reply
            assert isinstance(reply, OpenJobs)
            for entity, job in reply.jobs:
                await self._tend(entity, job, is_exact=False)
        except LockstepError as error:  # its owner is away, or the queue was deleted meanwhile
            log.info("jobs.not_tended", extra={"partition": home, "reason": error.reason})
            return 0
        return len(reply.jobs)


def _goes_one_by_one(job: Job) -> bool:
    """Whether a part begins when the one before has ended: its number or its rate cannot be shared out."""
    if job.is_cancelled:
        return False
    return bool(job.selector.max_count) or 0 < job.options.rate < len(job.parts)


def _is_done(part: Job | LockstepError) -> bool:
    return isinstance(part, Job) and part.status is JobStatus.DONE


def _shared_out(job: Job) -> Sequence[tuple[int, Job]]:
    """Return the parts of a job, each with its share of the rate."""
    rate, rest = divmod(job.options.rate, len(job.parts))
    return [
        (partition, replace(job, options=replace(job.options, rate=rate + (place < rest))))
        for place, partition in enumerate(job.parts)
    ]


def _job_of(reply: object) -> Job:
    assert isinstance(reply, JobIs)
    return reply.job
