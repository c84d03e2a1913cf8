"""What a partition does about jobs (section 10.4 of the contract, ADD-11).

Here belongs how a job begins, goes on and ends. Never here: what it does to messages (`resubmitting`), or who drives it
(`owner.job_runner`). The laws: how far a job is becomes durable with what it did; a batch that comes twice is taken
once.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

from lockstep.core.commands import AdvanceJob, CancelJob, ListJobs, LookForJob, StartJob
from lockstep.core.errors import InvalidOperation, InvalidRequest, QuotaExceeded
from lockstep.core.ids import SessionId
from lockstep.core.job_book import add_job, cancelled, job_of, keep_job
from lockstep.core.jobs import Job, JobKind, JobStatus, Running
from lockstep.core.limits import ID_CHARS_MAX, REASON_CHARS_MAX, check_at_most
from lockstep.core.replies import Delivered, JobIs, JobLook, JobsAre, Short
from lockstep.core.resubmitting import available, count_there, do_to
from lockstep.core.transfers import crosses, divided, send_off

if TYPE_CHECKING:
    from lockstep.core.partition import Partition
    from lockstep.core.queue import Queue, Step

_LOOKED_AT_MAX = 4096  # in one step
_LOADED_BYTES_MAX = 8 * 1024 * 1024
_RUNNING_MAX = 16


# --- jobs --------------------------------------------------------------------------------------------


def on_start_job(partition: Partition, command: StartJob, step: Step) -> JobIs:
    """Begin a job; it goes on by itself (RSB-1)."""
    queue = partition.queue(command.entity)
    found = partition.repeated(command.request, command.fingerprint, "job")
    if found is not None:
        return JobIs(job_of(queue, found[1]))
    _check(partition, queue, command)
    number = max([0, *queue.jobs]) + 1
    job = Job(
        number=number,
        uid=command.uid,
        kind=command.kind,
        selector=command.selector,
        options=command.options,
        by=command.by,
        started_ms=step.now_ms,
        end=last_to_take(queue, command.kind),
        parts=command.parts,
        queue=queue.number if command.parts else 0,
    )
    add_job(queue, job, step)
    partition.remember(command.request, command.fingerprint, ("job", number), step)
    return JobIs(job)


def on_cancel_job(partition: Partition, command: CancelJob, step: Step) -> JobIs:
    """Let a job end where it is; what it did stays done."""
    queue = partition.queue(command.entity)
    job = _shown(queue, command.number)
    if job.is_running and job.parts:
        job = replace(job, is_cancelled=True)  # and ended when its parts are
        keep_job(queue, job, step)
    elif job.is_running:
        job = cancelled(job, step.now_ms)
        keep_job(queue, job, step)
    return JobIs(job)


def on_list_jobs(partition: Partition, command: ListJobs, _step: Step) -> JobsAre:
    """Show jobs, the newest first."""
    queue = partition.queue(command.entity)
    if command.number:
        return JobsAre((_shown(queue, command.number),))
    shown = (number for number in sorted(queue.jobs, reverse=True) if number > 0)
    return JobsAre(tuple(queue.jobs[number] for number in shown))


def last_to_take(queue: Queue, kind: JobKind) -> int:
    """Return what `Job.end` is of a job that begins now."""
    return queue.log.last_sequence if kind is JobKind.DEAD_LETTER else queue.last_dead_letter


def _shown(queue: Queue, number: int) -> Job:
    """Return a job by the number that people know; parts have none."""
    return job_of(queue, max(number, 0))


def _check(partition: Partition, queue: Queue, command: StartJob) -> None:
    kind, selector, options = command.kind, command.selector, command.options
    running = sum(1 for job in queue.jobs.values() if job.is_running and not job.is_part)
    check_at_most(running + 1, _RUNNING_MAX, "running jobs of one queue", "Wait.")
    check_at_most(len(command.by), ID_CHARS_MAX, "characters of who asks", "Use a shorter name.")
    check_at_most(len(options.reason), REASON_CHARS_MAX, "reason characters", "Shorten it.")
    check_at_most(
        len(options.session_id or ""), ID_CHARS_MAX, "session id characters", "Shorten it."
    )
    check_at_most(
        sum(last - first + 1 for first, last in selector.ranges),
        partition.limits.settle_messages_max,
        "sequence numbers",
        "Start several jobs, or select by time.",
    )
    if (options.target is not None) != (kind is JobKind.MOVE):
        raise InvalidRequest("A move needs a target, and nothing else has one.")
    if options.at_head and (kind is not JobKind.RESUBMIT or options.session_id is not None):
        raise InvalidRequest(
            "Only a resubmission to the same session can put messages back to their old places (RSB-7)."
        )
    if kind is JobKind.DEAD_LETTER:
        _check_dead_lettering(queue, command)
    elif selector.session_id is not None and not queue.definition.settings.requires_session:
        raise InvalidOperation(
            f"{queue.path} has no sessions to select by. Select by reason, time, number or property.",
            details={"entity": queue.path},
        )
    elif options.target is not None and partition.queue(options.target) is queue:
        raise InvalidRequest(f"{queue.path} is where the dead letters are; resubmit them instead.")
    elif kind is JobKind.PURGE and options != replace(
        options, session_id=None, properties={}, new_message_id=False, max_resubmits=0
    ):
        raise InvalidRequest("A purge changes nothing of the messages; leave these options out.")


def _check_dead_lettering(queue: Queue, command: StartJob) -> None:
    selector = command.selector
    if not queue.definition.settings.requires_session:
        raise InvalidOperation(
            f"{queue.path} has no sessions to dead-letter.", details={"entity": queue.path}
        )
    if selector.session_id is None:
        raise InvalidRequest("Name the session to dead-letter.")
    if selector != replace(selector, ranges=(), reason=None, since_ms=0, until_ms=0, properties={}):
        raise InvalidRequest("A session is dead-lettered whole; select by nothing else.")
    options = command.options
    if options.session_id is not None or options.properties or options.new_message_id:
        raise InvalidRequest("Dead-lettering a session edits nothing; leave these options out.")
    if options.max_resubmits:
        raise InvalidRequest("A session is dead-lettered whole; leave max_resubmits out.")


# --- looking -----------------------------------------------------------------------------------------


def on_look_for_job(partition: Partition, command: LookForJob, _step: Step) -> JobLook:
    """Find the next messages that a job takes, as far as the core can see."""
    queue = partition.queue(command.entity)
    running = queue.running.get(command.number)
    if running is None:
        return JobLook(job_of(queue, command.number), None, array("q"))
    job, todo = running.job, _todo(queue, running)
    if job.transfers:
        return JobLook(job, job.cursor, array("q"))
    most = command.maximum if job.left is None else min(command.maximum, job.left)
    at = bisect_right(todo, job.cursor)
    stop = min(len(todo), at + _LOOKED_AT_MAX)
    chosen = array("q")
    while at < stop and len(chosen) < most:
        if _is_selected(queue, job, todo[at]):
            chosen.append(todo[at])
        at += 1
    delivered = None
    if chosen and (_needs_bodies(queue, job) or crosses(partition, queue, job)):
        delivered = _described(queue, chosen)
        if len(delivered.sequences) < len(chosen):
            chosen = delivered.sequences
            at = bisect_right(todo, chosen[-1])
    is_last = at == len(todo) or not most
    return JobLook(job, None if is_last else todo[at - 1], chosen, delivered)


def _needs_bodies(queue: Queue, job: Job) -> bool:
    registers = (
        job.kind is JobKind.RESUBMIT
        and queue.definition.settings.requires_duplicate_detection
        and not job.options.new_message_id
    )
    return job.needs_bodies or registers


def _described(queue: Queue, chosen: array[int]) -> Delivered:
    described = queue.log.describe(chosen)
    most = max(1, bisect_right(list(accumulate(described.sizes)), _LOADED_BYTES_MAX))
    fitting = min(most, queue.log.loadable(described, 8 * _LOADED_BYTES_MAX))
    return queue.delivered(
        chosen[:fitting], grant=0, locked_until_ms=0, short=Short.NO, dead_letter=False
    )


def _todo(queue: Queue, running: Running) -> array[int]:
    """Return the messages that were there when a job began and are still, rising."""
    if running.todo is None:
        job = running.job
        if job.kind is JobKind.DEAD_LETTER:
            session_id = job.selector.session_id
            session = queue.sessions.get(SessionId(session_id or ""))
            found = set(session.active()) if session is not None else set()
            found |= {s for s, d in queue.deferred.items() if d.session_id == session_id}
            running.todo = array("q", sorted(s for s in found if job.cursor < s <= job.end))
        else:
            order = queue.dead_order
            running.todo = array(
                "q", sorted(s for s, place in order.items() if place <= job.end and s > job.cursor)
            )
    return running.todo


def _is_selected(queue: Queue, job: Job, sequence: int) -> bool:
    if job.kind is JobKind.DEAD_LETTER:
        return True  # `resubmitting.available` finds those that are left of the session
    if queue.dead_order.get(sequence, job.end + 1) > job.end:
        return False
    info = queue.dead_info[sequence]
    session_id = queue.dead_sessions.get(sequence)
    return job.selector.takes(sequence, info.reason, info.at_ms, session_id)


# --- going on ----------------------------------------------------------------------------------------


def on_advance_job(partition: Partition, command: AdvanceJob, step: Step) -> JobIs:
    """Take a batch of messages, all in one commit, and note how far the job is (RSB-2)."""
    queue = partition.queue(command.entity)
    running = queue.running.get(command.number)
    if (
        running is None
        or running.job.cursor != command.since
        or running.job.uid != command.uid  # of a queue of this name that was deleted since (ADD-12)
        or running.job.transfers
    ):
        return JobIs(job_of(queue, command.number))
    job = running.job
    if command.error:
        job = job.ended(JobStatus.FAILED, step.now_ms, command.error)
        keep_job(queue, job, step)
        return JobIs(job)
    wanted = list(command.sequences)[: job.left]
    taken = available(queue, job, wanted)
    there = count_there(queue, job, wanted)
    staying, going = divided(partition, queue, job, taken, command)
    done = len(staying)
    try:
        if staying and not job.options.dry_run:
            done = do_to(partition, queue, job, staying, command, step)
    except QuotaExceeded as error:
        job = job.ended(JobStatus.FAILED, step.now_ms, error.message)
        keep_job(queue, job, step)
        return JobIs(job)
    transfers = send_off(partition, queue, job, going, step)
    cursor = command.cursor
    if cursor is None and transfers:  # what is given back meanwhile is not looked at again
        cursor = max(_todo(queue, running), default=job.cursor)
    job = replace(
        job,
        cursor=job.cursor if cursor is None else cursor,
        matched=job.matched + done,
        skipped=job.skipped + there - done - sum(map(len, going.values())),
        transfers=transfers,
    )
    if not transfers and (cursor is None or job.left == 0):
        job = job.ended(JobStatus.DONE, step.now_ms)
    keep_job(queue, job, step)
    return JobIs(job)
