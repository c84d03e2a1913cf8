"""How jobs on dead letters look, and how a command waits for one.

Here belong the words for a job, its progress and its end. Never here: options. The law: who stops waiting stops nothing
else, and learns how to go on.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from lockstep import (
    AdministrationClient,
    DeadLetterJob,
    DeadLetterJobKind,
    DeadLetterJobStatus,
    DeadLetterSelector,
)
from lockstep.cli import outages
from lockstep.cli.context import CommandLine
from lockstep.cli.exits import CommandFailed, ExitCode, Failure
from lockstep.cli.output import Column
from lockstep.cli.values import (
    described,
    format_duration,
    format_numbers,
    format_time,
    property_to_json,
)
from lockstep.core.wording import counted

COLUMNS = (
    Column("JOB", is_number=True),
    Column("WHAT"),
    Column("STATUS"),
    Column("TAKEN", is_number=True),
    Column("SKIPPED", is_number=True),
    Column("STARTED"),
    Column("TOOK", is_number=True),
    Column("BY"),
    Column("WHICH"),
)
# So many dead letters are worth a progress bar; without it a pace is worth one.
_LONG_MESSAGES = 5_000
_SHOWN_NUMBERS_MAX = 20

_DOING = {
    DeadLetterJobKind.RESUBMIT: "Resubmitting to",
    DeadLetterJobKind.PURGE: "Purging",
    DeadLetterJobKind.MOVE: "Moving from",
    DeadLetterJobKind.DEAD_LETTER_SESSION: "Dead-lettering in",
}
_DONE = {
    DeadLetterJobKind.RESUBMIT: ("Resubmitted", "Would resubmit"),
    DeadLetterJobKind.PURGE: ("Removed", "Would remove"),
    DeadLetterJobKind.MOVE: ("Moved", "Would move"),
    DeadLetterJobKind.DEAD_LETTER_SESSION: ("Dead-lettered", "Would dead-letter"),
}


# --- how one looks -----------------------------------------------------------------------------------


def job_json(job: DeadLetterJob) -> dict[str, Any]:
    """Return a job for programs: the names of the client."""
    facts = described(job)
    facts["application_properties"] = _properties_json(job.application_properties)
    selector = described(job.selector)
    selector["application_properties"] = _properties_json(job.selector.application_properties)
    numbers = job.selector.sequence_numbers
    selector["sequence_numbers"] = None if numbers is None else list(numbers)
    facts["selector"] = selector
    return facts


def row(job: DeadLetterJob, now: datetime) -> tuple[str, ...]:
    """Return a job as a row under `COLUMNS`."""
    what = job.kind.value.replace("_", "-") + (f" to {job.target}" if job.target else "")
    return (
        str(job.number),
        what + (" (dry run)" if job.dry_run else ""),
        job.status.value,
        f"{job.matched_message_count:,}",
        f"{job.skipped_message_count:,}",
        format_time(job.started_at_utc),
        format_duration(max((job.ended_at_utc or now) - job.started_at_utc, timedelta(0))),
        job.requested_by or "-",
        which(job.selector) or "all",
    )


def which(selector: DeadLetterSelector) -> str:
    """Say what a selector selects by; empty = it selects everything."""
    parts = []
    if selector.session_id is not None:
        parts.append(f"session {selector.session_id!r}")
    if selector.reason is not None:
        parts.append(f"reason {selector.reason!r}")
    if selector.dead_lettered_since_utc is not None:
        parts.append(f"since {format_time(selector.dead_lettered_since_utc)}")
    if selector.dead_lettered_until_utc is not None:
        parts.append(f"until {format_time(selector.dead_lettered_until_utc)}")
    if selector.sequence_numbers:
        shown = format_numbers(selector.sequence_numbers[:_SHOWN_NUMBERS_MAX])
        is_cut = len(selector.sequence_numbers) > _SHOWN_NUMBERS_MAX
        parts.append(f"numbers {shown}{', …' if is_cut else ''}")
    properties = _properties_json(selector.application_properties)
    parts += [f"{name}={value}" for name, value in properties.items()]
    if selector.max_count:
        parts.append(f"at most {selector.max_count:,}")
    return ", ".join(parts)


def conclusion(job: DeadLetterJob) -> str:
    """Say what a job that has ended did, how fast, and what it left."""
    verb = _DONE[job.kind][job.dry_run]
    of_session = job.kind is DeadLetterJobKind.DEAD_LETTER_SESSION
    what = counted(job.matched_message_count, "message" if of_session else "dead letter")
    where = f" from {job.queue} to {job.target}" if job.target else f" of {job.queue}"
    sentence = f"{verb} {what}{where}"
    if job.ended_at_utc is not None:
        took = job.ended_at_utc - job.started_at_utc
        sentence += f" in {format_duration(took)}"
        if job.matched_message_count and took and not job.dry_run:
            sentence += f", {job.matched_message_count / took.total_seconds():,.0f}/s"
    if job.skipped_message_count:
        sentence += f"; {counted(job.skipped_message_count, 'message')} left where they were"
    return sentence + "."


def _properties_json(properties: Any) -> dict[str, object]:
    return {name: property_to_json(value) for name, value in properties.items()}


# --- waiting -----------------------------------------------------------------------------------------


def follow(
    line: CommandLine, administration: AdministrationClient, job: DeadLetterJob, total: int | None
) -> None:
    """Show how a job goes on until it has ended, and then what it did.

    Args:
        line: Where to.
        administration: Looks at the job.
        job: The job.
        total: How many messages there are to take; None = not known.

    Raises:
        CommandFailed: The job was cancelled, or could not go on.
        KeyboardInterrupt: Somebody stopped waiting; the job goes on.
    """
    seen = job
    is_long = total is None or total >= _LONG_MESSAGES or job.messages_per_second > 0
    label = f"{_DOING[job.kind]} {job.queue}"
    try:
        with (
            outages.told(line.output),
            line.output.progress(label, total=total, is_long=is_long) as advance,
        ):

            def note(look: DeadLetterJob) -> None:
                nonlocal seen
                advance(_looked_at(look) - _looked_at(seen))
                seen = look

            advance(_looked_at(job))
            job = administration.wait_for_dead_letter_job(job, on_progress=note)
    except KeyboardInterrupt:
        tell_interrupted(line, seen)
        raise
    tell_end(line, job)


def tell_interrupted(line: CommandLine, job: DeadLetterJob) -> None:
    """Say that a job goes on for which nobody waits any more."""
    if line.output.is_json:
        line.output.data(job_json(job))
    taken = counted(job.matched_message_count, "message")
    line.output.note(f"Stopped waiting after {taken}; {how_to_go_on(job)}")


def how_to_go_on(job: DeadLetterJob) -> str:
    """Say how to look at a job that runs, and how to end it."""
    return (
        f"job {job.number} goes on. Wait for it: lockstep dlq wait {job.queue} {job.number}."
        f" End it: lockstep dlq cancel {job.queue} {job.number}."
    )


def tell_end(line: CommandLine, job: DeadLetterJob) -> None:
    """Say what a job that has ended did.

    Raises:
        CommandFailed: It was cancelled, or could not go on.
    """
    if line.output.is_json:
        line.output.data(job_json(job))
    line.output.say(conclusion(job))
    if job.skipped_message_count:
        line.output.note(
            "Left are messages that a receiver has locked, that were resubmitted too often already (--max-resubmits),"
            " or that do not fit the target."
        )
    if job.matched_message_count and job.order_note and not job.dry_run:
        line.output.note(job.order_note)
    details = {"queue": job.queue, "job": str(job.number)}
    if job.status is DeadLetterJobStatus.CANCELLED:
        message = f"Job {job.number} of {job.queue} was cancelled; what it did stays done."
        raise CommandFailed(Failure("JOB_CANCELLED", message, ExitCode.FAILED, details))
    if job.status is DeadLetterJobStatus.FAILED:
        message = f"Job {job.number} of {job.queue} could not go on: {job.error}"
        raise CommandFailed(Failure("JOB_FAILED", message, ExitCode.FAILED, details))


def _looked_at(job: DeadLetterJob) -> int:
    return job.matched_message_count + job.skipped_message_count
