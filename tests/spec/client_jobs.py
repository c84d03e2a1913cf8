"""Jobs on dead letters through the public client, for `client_driver`.

Here belongs the translation between what tests ask and the names of the client. Never here: rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, assert_never

from lockstep.aio import (
    AdministrationClient,
    DeadLetterJob,
    DeadLetterJobKind,
    DeadLetterSelector,
    PropertyValue,
)
from lockstep.client.values import read_properties
from lockstep.core.jobs import Job, JobKind, JobOptions, JobStatus, Selector
from lockstep.v1 import message_pb2

_KINDS: Final = {
    DeadLetterJobKind.RESUBMIT: JobKind.RESUBMIT,
    DeadLetterJobKind.PURGE: JobKind.PURGE,
    DeadLetterJobKind.MOVE: JobKind.MOVE,
    DeadLetterJobKind.DEAD_LETTER_SESSION: JobKind.DEAD_LETTER,
}
_JOB_S: Final = 60


async def start_job(
    admin: AdministrationClient,
    queue: str,
    kind: JobKind,
    selector: Selector,
    options: JobOptions,
    by: str,
) -> Job:
    """Begin a job and return it."""
    selected = _selector(selector)
    edits: Any = {
        "to_session_id": options.session_id,
        "application_properties": _properties(options.properties),
        "new_message_id": options.new_message_id,
        "max_resubmits": options.max_resubmits,
    }
    ways: Any = {
        "messages_per_second": options.rate,
        "dry_run": options.dry_run,
        "requested_by": by,
    }
    match kind:
        case JobKind.RESUBMIT:
            ways["at_head"] = options.at_head
            job = await admin.resubmit_dead_letters(queue, selected, **edits, **ways)
        case JobKind.PURGE:
            job = await admin.purge_dead_letters(queue, selected, **ways)
        case JobKind.MOVE:
            target = options.target.name if options.target is not None else ""
            job = await admin.move_dead_letters(queue, target, selected, **edits, **ways)
        case JobKind.DEAD_LETTER:
            job = await admin.dead_letter_session(
                queue, selector.session_id or "", reason=options.reason, requested_by=by
            )
        case _:
            assert_never(kind)
    return _job(job, selector, options)


async def finish_job(admin: AdministrationClient, queue: str, number: int) -> Job:
    """Wait for the end of a job, and return it without what it was asked to do."""
    started = await admin.get_dead_letter_job(queue, number)
    ended = await admin.wait_for_dead_letter_job(started, timeout=_JOB_S)
    return _job(ended, Selector(), JobOptions())


def _selector(given: Selector) -> DeadLetterSelector:
    return DeadLetterSelector(
        sequence_numbers=[n for first, last in given.ranges for n in range(first, last + 1)]
        or None,
        session_id=given.session_id,
        reason=given.reason,
        dead_lettered_since_utc=_moment(given.since_ms),
        dead_lettered_until_utc=_moment(given.until_ms),
        application_properties=_properties(given.properties),
        max_count=given.max_count or None,
    )


def _properties(encoded: Mapping[str, bytes]) -> dict[str, PropertyValue]:
    return read_properties(message_pb2.Message.FromString(b"".join(encoded.values())))


def _moment(ms: int) -> datetime | None:
    return datetime.fromtimestamp(ms / 1000, UTC) if ms else None


def _job(shown: DeadLetterJob, selector: Selector, options: JobOptions) -> Job:
    """Return a job as the core would; what the client does not show of it is left empty."""
    ended = shown.ended_at_utc
    return Job(
        number=shown.number,
        uid="",
        kind=_KINDS[shown.kind],
        selector=selector,
        options=options,
        by=shown.requested_by,
        started_ms=_to_ms(shown.started_at_utc),
        end=0,
        status=JobStatus(shown.status.value),
        matched=shown.matched_message_count,
        skipped=shown.skipped_message_count,
        finished_ms=0 if ended is None else _to_ms(ended),
        error=shown.error,
    )


def _to_ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
