"""The broker with one guard taken out at a time: jobs on dead letters.

`mutations` says why our own code may be patched here.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lockstep.core import job_book, job_steps, resubmitting, snapshot
from lockstep.core.amendments import Amendment
from lockstep.core.commands import AdvanceJob, CancelJob, ListJobs
from lockstep.core.ids import RequestId, SessionId
from lockstep.core.jobs import Job, JobKind, JobStatus, Running, Selector
from lockstep.core.partition import _HANDLERS, Partition
from lockstep.core.queue import Queue, Step
from lockstep.core.replies import JobIs, JobsAre
from lockstep.storage import memory
from tests.sim.mutations import Mutation, Patch

# --- what is selected --------------------------------------------------------------------------------


def jobs_take_what_comes_later(patch: Patch) -> None:
    """A job takes what became a dead letter after it had begun (RSB-1)."""
    todo, is_selected = job_steps._todo, job_steps._is_selected

    def for_ever(queue: Queue, running: Running) -> array[int]:
        if running.job.kind is JobKind.DEAD_LETTER:
            return todo(queue, running)
        return array("q", sorted(s for s in queue.dead_order if s > running.job.cursor))

    def whenever(queue: Queue, job: Job, sequence: int) -> bool:
        return is_selected(queue, replace(job, end=queue.last_dead_letter), sequence)

    patch.setattr(job_steps, "_todo", for_ever)
    patch.setattr(job_steps, "_is_selected", whenever)


def jobs_take_any_reason(patch: Patch) -> None:
    """A job takes dead letters whatever the reason is that was asked for (RSB-1, RSB-10)."""
    takes = Selector.takes

    def loose(
        self: Selector, sequence: int, reason: str, at_ms: int, session_id: str | None
    ) -> bool:
        return takes(replace(self, reason=None), sequence, reason, at_ms, session_id)

    patch.setattr(Selector, "takes", loose)


def jobs_take_more_than_was_asked_for(patch: Patch) -> None:
    """The most that a job may take means nothing (RSB-1)."""
    patch.setattr(Job, "left", property(lambda _self: None))


def jobs_take_what_was_resubmitted_too_often(patch: Patch) -> None:
    """The guard against loops means nothing (RSB-9)."""
    available = resubmitting.available

    def any_of_them(queue: Queue, job: Job, sequences: Sequence[int]) -> list[int]:
        options = replace(job.options, max_resubmits=0)
        return available(queue, replace(job, options=options), sequences)

    patch.setattr(job_steps, "available", any_of_them)


def purges_take_what_somebody_has(patch: Patch) -> None:
    """A purge takes dead letters that a receiver has in hand (RSB-2)."""
    available = resubmitting.available

    def all_of_them(queue: Queue, job: Job, sequences: Sequence[int]) -> list[int]:
        if job.kind is not JobKind.PURGE:
            return available(queue, job, sequences)
        for grant, held in list(queue.dead.grants.items()):
            for sequence in [s for s in held if s in sequences]:
                queue.dead.unlock(grant, sequence)
                queue.dead.give_back(sequence)
        return available(queue, job, sequences)

    patch.setattr(job_steps, "available", all_of_them)


def sessions_are_dead_lettered_from_the_hand(patch: Patch) -> None:
    """Dead-lettering a session takes what its holder has in hand (ADD-11)."""

    def grasping(queue: Queue, job: Job, sequences: Sequence[int]) -> list[int]:
        session = queue.sessions.get(SessionId(job.selector.session_id or ""))
        free = set(session.active()) if session is not None else set()
        return [sequence for sequence in sequences if sequence in free]

    patch.setattr(resubmitting, "_left_of_session", grasping)


# --- what is done ------------------------------------------------------------------------------------


def resubmitted_messages_keep_their_counts(patch: Patch) -> None:
    """A resubmitted message is as near to its end as before (RSB-3)."""

    def counted(queue: Queue, taken: Sequence[int], step: Step) -> None:
        resubmitting.take(queue, taken, step)
        queue.forget_dead(taken, step)

    patch.setattr(resubmitting, "_forget_as_dead", counted)


def resubmitted_messages_in_any_order(patch: Patch) -> None:
    """Resubmitted messages come back in the wrong order (RSB-7)."""
    resubmit = resubmitting._resubmit

    def backwards(
        partition: Partition, queue: Queue, job: Job, taken: Sequence[int], *rest: Any
    ) -> None:
        resubmit(partition, queue, job, list(reversed(taken)), *rest)

    patch.setattr(resubmitting, "_resubmit", backwards)


def resubmitted_messages_without_a_trail(patch: Patch) -> None:
    """Nobody can tell that a message was resubmitted (RSB-4)."""
    amended = resubmitting.amended

    def untold(queue: Queue, job: Job, sequence: int) -> Amendment:
        return amended(queue, job, sequence)._replace(trail=None)

    patch.setattr(resubmitting, "amended", untold)


def resubmitted_ids_are_not_known_anew(patch: Patch) -> None:
    """A copy of a message that was resubmitted comes through as soon as its first window is over (RSB-5)."""
    patch.setattr(resubmitting, "_register", lambda *_: None)


def moved_messages_stay_too(patch: Patch) -> None:
    """A message that was moved is in both queues (RSB-2)."""
    move = resubmitting._move

    def copied(*what: Any) -> int:
        with patch.context() as inner:
            inner.setattr(resubmitting, "take", lambda *_: None)
            inner.setattr(Queue, "drop_dead_letters", lambda *_: None)
            return move(*what)

    patch.setattr(resubmitting, "_move", copied)


def dry_runs_are_real(patch: Patch) -> None:
    """A dry run does what it should only count (RSB-9)."""
    advance = _HANDLERS[AdvanceJob]

    def done(partition: Partition, command: AdvanceJob, step: Step) -> Any:
        queue = partition.queue(command.entity)
        running = queue.running.get(command.number)
        if running is not None and running.job.options.dry_run:
            taken = resubmitting.available(queue, running.job, command.sequences)
            wet = replace(running.job, options=replace(running.job.options, dry_run=False))
            if taken:
                resubmitting.do_to(partition, queue, wet, taken, command, step)
        return advance(partition, command, step)

    patch.setitem(_HANDLERS, AdvanceJob, done)


# --- how jobs go on ----------------------------------------------------------------------------------


def no_memory_of_jobs(patch: Patch) -> None:
    """A repeated call begins another job (ADD-3)."""
    repeated = Partition.repeated

    def forgetful(
        self: Partition, request: RequestId | None, fingerprint: int, kind: str
    ) -> tuple[Any, ...] | None:
        return None if kind == "job" else repeated(self, request, fingerprint, kind)

    patch.setattr(Partition, "repeated", forgetful)


def jobs_are_forgotten_at_a_restart(patch: Patch) -> None:
    """A job ends with its owner (ADD-11)."""
    rows = memory._snapshot

    def jobless(tables: Any) -> snapshot.Snapshot:
        return replace(rows(tables), jobs=[])

    patch.setattr(memory, "_snapshot", jobless)


def jobs_begin_anew_at_a_restart(patch: Patch) -> None:
    """How far a job is gets lost with its owner (ADD-11)."""
    restore_job = Queue.restore_job

    def anew(self: Queue, job: Job) -> None:
        restore_job(self, replace(job, cursor=0, matched=0, skipped=0) if job.is_running else job)

    patch.setattr(Queue, "restore_job", anew)


def cancelled_jobs_go_on(patch: Patch) -> None:
    """Who cancels a job is told that it has ended, and it goes on (ADD-11)."""
    cancel = _HANDLERS[CancelJob]

    def lazy(partition: Partition, command: CancelJob, step: Step) -> JobIs:
        with patch.context() as inner:
            inner.setattr(job_steps, "keep_job", lambda *_: None)
            reply: JobIs = cancel(partition, command, step)
        return reply

    patch.setitem(_HANDLERS, CancelJob, lazy)


def jobs_that_ended_are_cancelled(patch: Patch) -> None:
    """A job that is done counts as cancelled when somebody cancels it afterwards (ADD-11)."""

    def late(partition: Partition, command: CancelJob, step: Step) -> JobIs:
        queue = partition.queue(command.entity)
        job = job_book.job_of(queue, command.number).ended(JobStatus.CANCELLED, step.now_ms)
        job_book.keep_job(queue, job, step)
        return JobIs(job)

    patch.setitem(_HANDLERS, CancelJob, late)


def jobs_that_ended_are_not_shown(patch: Patch) -> None:
    """A listing shows only the jobs that run (ADD-11)."""
    show = _HANDLERS[ListJobs]

    def fewer(partition: Partition, command: ListJobs, step: Step) -> JobsAre:
        jobs: JobsAre = show(partition, command, step)
        return JobsAre(tuple(job for job in jobs.jobs if job.is_running))

    patch.setitem(_HANDLERS, ListJobs, fewer)


def jobs_are_shown_as_they_began(patch: Patch) -> None:
    """A listing does not tell how far a job is (ADD-11)."""
    show = _HANDLERS[ListJobs]

    def stale(partition: Partition, command: ListJobs, step: Step) -> JobsAre:
        jobs: JobsAre = show(partition, command, step)
        return JobsAre(tuple(replace(job, matched=0, skipped=0) for job in jobs.jobs))

    patch.setitem(_HANDLERS, ListJobs, stale)


MUTATIONS: tuple[Mutation, ...] = (
    jobs_take_what_comes_later,
    jobs_take_any_reason,
    jobs_take_more_than_was_asked_for,
    jobs_take_what_was_resubmitted_too_often,
    purges_take_what_somebody_has,
    sessions_are_dead_lettered_from_the_hand,
    resubmitted_messages_keep_their_counts,
    resubmitted_messages_in_any_order,
    resubmitted_messages_without_a_trail,
    resubmitted_ids_are_not_known_anew,
    moved_messages_stay_too,
    dry_runs_are_real,
    no_memory_of_jobs,
    jobs_are_forgotten_at_a_restart,
    jobs_begin_anew_at_a_restart,
    cancelled_jobs_go_on,
    jobs_that_ended_are_cancelled,
    jobs_that_ended_are_not_shown,
    jobs_are_shown_as_they_began,
)
