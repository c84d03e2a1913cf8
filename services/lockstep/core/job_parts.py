"""What a partition does about jobs of queues that are spread over several (ADD-11).

Here belong a partition's part of a job, and the end of a job whose parts have ended. Never here: what a part does
(`job_steps`, where it is a job like others), or who asks the partitions (`frontend.spread_jobs`). The law: a part is
made of the job as the queue's home has it, as often as need be, and is carried out once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lockstep.core.commands import ApplyJobPart, EndJob, ListOpenJobs
from lockstep.core.errors import JobNotFound
from lockstep.core.job_book import add_job, cancelled, keep_job
from lockstep.core.job_steps import last_to_take
from lockstep.core.jobs import JobStatus
from lockstep.core.replies import JobIs, OpenJobs

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.queue import Queue, Step


def on_apply_job_part(partition: Partition, command: ApplyJobPart, step: Step) -> JobIs:
    """Begin this partition's part of a job, or end it where the job is cancelled, and show how it stands."""
    queue, job = partition.queue(command.entity), command.job
    if job.queue != queue.number:
        raise _gone(queue, job.number)
    part = queue.jobs.get(-job.number)
    if part is None or part.uid != job.uid:
        part = replace(
            job,
            number=-job.number,
            started_ms=step.now_ms,
            end=last_to_take(queue, job.kind),
            parts=(),
        )
        if job.is_cancelled:  # kept all the same: an older copy of the job must not begin it
            part = part.ended(JobStatus.CANCELLED, step.now_ms)
        add_job(queue, part, step)
    elif job.is_cancelled and part.is_running:
        part = cancelled(part, step.now_ms)
        keep_job(queue, part, step)
    return JobIs(part)


def on_end_job(partition: Partition, command: EndJob, step: Step) -> JobIs:
    """Let a job end whose parts have ended."""
    queue = partition.queue(command.entity)
    job = queue.jobs.get(command.number)
    if job is None or job.uid != command.uid:
        raise _gone(queue, command.number)
    if job.is_running:
        job = replace(job, matched=command.matched, skipped=command.skipped)
        job = job.ended(command.status, step.now_ms, command.error)
        keep_job(queue, job, step)
    return JobIs(job)


def on_list_open_jobs(partition: Partition, _command: ListOpenJobs, _step: Step) -> OpenJobs:
    """Show the jobs with parts that have not ended."""
    return OpenJobs(
        tuple(
            (entity, job)
            for entity, queue in partition.queues.items()
            for job in queue.jobs.values()
            if job.parts and job.is_running and not queue.is_going
        )
    )


def _gone(queue: Queue, number: int) -> JobNotFound:
    return JobNotFound(
        f"{queue.path} was created again since job {number} began, which went with the queue before it.",
        details={"entity": queue.path, "job": str(number)},
    )
