"""The jobs of a queue, as it keeps them (section 10.4 of the contract, ADD-11).

Here belongs how a job is added, found, kept and forgotten. Never here: what a job does (`job_steps`, `transfers`). The
law: how a job stands is written whenever it changes, and the last jobs are kept.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lockstep.core.changes import Drop, JobRow
from lockstep.core.errors import JobNotFound
from lockstep.core.jobs import Job, JobStatus

if TYPE_CHECKING:
    from lockstep.core.queue import Queue, Step

_JOBS_KEPT = 100


def add_job(queue: Queue, job: Job, step: Step) -> None:
    """Keep a new job, and forget those that ended long ago."""
    queue.restore_job(job)
    step.changes.append(JobRow(queue.number, job.number, job.to_text()))
    first_kept = abs(job.number) - _JOBS_KEPT + 1
    for old in [n for n, j in queue.jobs.items() if abs(n) < first_kept and not j.is_running]:
        del queue.jobs[old]
        step.changes.append(Drop(JobRow, (queue.number, old)))


def job_of(queue: Queue, number: int) -> Job:
    """Return a job.

    Raises:
        JobNotFound: There is none of that number, or not any more.
    """
    job = queue.jobs.get(number)
    if job is None:
        raise JobNotFound(
            f"{queue.path} has no job {number}, or has forgotten it; the last {_JOBS_KEPT} are kept.",
            details={"entity": queue.path, "job": str(number)},
        )
    return job


def keep_job(queue: Queue, job: Job, step: Step) -> None:
    """Keep how a job stands now."""
    queue.jobs[job.number] = job
    if not job.is_running:
        queue.running.pop(job.number, None)
    elif not job.parts:
        queue.running[job.number].job = job
    step.changes.append(JobRow(queue.number, job.number, job.to_text()))


def cancelled(job: Job, now_ms: int) -> Job:
    """Return a running job that is to end where it is: at once, or when what it has on the way has arrived."""
    if job.transfers:
        return replace(job, is_cancelled=True)
    return job.ended(JobStatus.CANCELLED, now_ms)
